use insta::assert_yaml_snapshot;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PodSpec;
use pgpair_core::ids::InstanceId::{A, B};
use pgpair_core::ids::VolumeId;
use pgpair_core::record::Record;
use pgpair_wire::config::{CONFIG_KEY, PairConfig};
use serde_json::json;

use super::*;
use crate::fixtures::valid;
use crate::plan::{AdoptJob, EndpointTarget, InstancePlan};

mod restricted;

fn full() -> ValidatedPair {
    valid(json!({
        "postgres": {"version": 16, "uid": 26, "parameters": {"work_mem": "8MB", "application_name": "$(HOME)"}, "hba": ["hostssl all all all scram-sha-256"]},
        "storage": {"data": {"size": "20Gi", "storageClassName": "fast"}, "archive": {"size": "50Gi"}},
        "durability": "Async",
        "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "2Gi"}},
        "service": {"labels": {"team": "shop"}, "annotations": {"a/b": "c"}, "type": "LoadBalancer"},
        "scheduling": {
            "nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "db", "operator": "Exists"}],
            "priorityClassName": "high", "antiAffinity": "Preferred", "topologyKey": "topology.kubernetes.io/zone",
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {"matchExpressions": [{"key": "cpu", "operator": "Exists"}]}}]},
        },
        "standbyProfile": "Reporting",
    }))
}

#[test]
fn stateful_set_of_a_minimal_pair() {
    let plan = InstancePlan { replicas: 1, seed: 0, seed_failures: 0 };
    assert_yaml_snapshot!(stateful_set::build_stateful_set(&valid(json!({})), A, &plan));
}

#[test]
fn the_pods_of_a_long_promise_have_the_time_to_hand_over() {
    for (ttl, grace) in [(5, 60), (15, 75), (60, 165)] {
        let pair = valid(json!({"failover": {"ttlSeconds": ttl, "hangTimeoutSeconds": 60}}));
        let plan = InstancePlan { replicas: 1, seed: 0, seed_failures: 0 };
        let set = stateful_set::build_stateful_set(&pair, A, &plan);
        let pod = set.spec.unwrap().template.spec.unwrap();
        assert_eq!(pod.termination_grace_period_seconds, Some(grace), "ttl {ttl}");
    }
}

#[test]
fn seed_job_of_a_full_pair() {
    assert_yaml_snapshot!(seed_job::build_seed_job(&full(), B, 2));
}

#[test]
fn the_job_of_an_adoption_has_the_volumes_and_nothing_else_of_the_pair() {
    let job = adopt_job::build_adopt_job(&full(), AdoptJob::Release(B, Some(VolumeId(0x2a))));
    let pod = job.spec.as_ref().unwrap().template.spec.clone().unwrap();
    let names: Vec<String> = pod.volumes.unwrap().into_iter().map(|volume| volume.name).collect();
    assert_eq!(names, ["data", "archive", "run", "bin", "tmp"]);
    let of_seed = pod::build_seed_pod(&full(), B).spec.unwrap();
    assert_eq!(pod.containers[0].security_context, of_seed.containers[0].security_context);
    let command = |job: &Job| job.spec.clone().unwrap().template.spec.unwrap().containers[0].command.clone();
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let expected = ["/pgpair/bin/pgpair", "adopt-release", "--volume=000000000000002a"];
    assert_eq!(command(&job), words(&expected));
    let look = adopt_job::build_adopt_job(&full(), AdoptJob::Look(A));
    assert_eq!(look.metadata.name.as_deref(), Some("orders-a-adopt-look"));
    assert_eq!(command(&look), words(&["/pgpair/bin/pgpair", "adopt-look"]));
}

#[test]
fn services_of_a_full_pair() {
    assert_yaml_snapshot!(services::build_services(&full()));
}

#[test]
fn slices() {
    let pair = valid(json!({}));
    let target = EndpointTarget {
        pod: "orders-b-0".into(),
        uid: "u".into(),
        ip: "10.0.0.2".into(),
        node: Some("n2".into()),
    };
    let other =
        EndpointTarget { pod: "orders-a-0".into(), ip: "10.0.0.1".into(), node: None, ..target.clone() };
    assert_yaml_snapshot!([
        services::build_slice(&pair, "orders-rw", None),
        services::build_slice(&pair, "orders-ro", Some(&target)),
        services::build_slice(&pair, "orders-r", &[other, target])
    ]);
}

#[test]
fn rights_of_the_agents() {
    let pair = valid(json!({}));
    assert_yaml_snapshot!((
        rbac::build_service_account(&pair),
        rbac::build_role(&pair),
        rbac::build_role_binding(&pair)
    ));
}

#[test]
fn record_and_claims() {
    let pair = full();
    let record = Record { durability: pair.config().durability, ..Record::initial() };
    assert_yaml_snapshot!((record::build_lease(&pair, &record), claims::build_claims(&pair, B)));
}

#[test]
fn claims_outlive_the_pair_and_everything_else_goes_with_it() {
    let pair = full();
    assert!(claims::build_claims(&pair, A).iter().all(|c| c.metadata.owner_references.is_none()));
    assert!(record::build_lease(&pair, &Record::initial()).metadata.owner_references.is_some());
    assert!(seed_job::build_seed_job(&pair, A, 1).metadata.owner_references.is_some());
}

#[test]
fn the_job_has_the_volumes_of_the_instance_but_no_token_no_password_and_no_key_of_the_agent() {
    let (mut instance, seed) =
        (pod::build_instance_pod(&full(), B).spec.unwrap(), pod::build_seed_pod(&full(), B).spec.unwrap());
    assert_eq!(instance.security_context, seed.security_context);
    assert_eq!(instance.containers[0].env, seed.containers[0].env);
    let is_only_the_instances = |name: &str| ["app", "token"].contains(&name);
    let mounts = instance.containers[0].volume_mounts.as_mut().unwrap();
    mounts.retain(|mount| !is_only_the_instances(&mount.name));
    assert_eq!(instance.containers[0].volume_mounts, seed.containers[0].volume_mounts);
    let volumes = instance.volumes.as_mut().unwrap();
    volumes.retain(|volume| !is_only_the_instances(&volume.name));
    let tls = seed.volumes.as_ref().unwrap().iter().find(|volume| volume.name == "tls").cloned().unwrap();
    let keys: Vec<String> = tls.secret.clone().unwrap().items.unwrap().into_iter().map(|i| i.key).collect();
    assert_eq!(keys, ["ca.crt", "replication.crt", "replication.key"]);
    *volumes.iter_mut().find(|volume| volume.name == "tls").unwrap() = tls;
    assert_eq!(instance.volumes, seed.volumes);
}

/// What the agents follow while they run is no part of the template, so that changing it needs no new pod.
#[test]
fn settings_of_the_agents_do_not_change_the_template() {
    let with = |spec| pod::build_instance_pod(&valid(spec), A);
    let other = with(json!({
        "postgres": {"parameters": {"work_mem": "9MB"}, "hba": ["hostssl all all all scram-sha-256"]},
        "durability": "Async", "failover": {"ttlSeconds": 3, "automatic": false}, "readLag": "1Gi", "standbyProfile": "Reporting",
        "archiveTimeoutSeconds": 20, "seeding": {"maxRateMiB": 1}, "tls": {"clients": "Optional"},
    }));
    assert_eq!(with(json!({})), other);
}

#[test]
fn config_and_budget() {
    assert_yaml_snapshot!((config::build_config(&full()).unwrap(), budget::build_budget(&full())));
}

#[test]
fn the_config_map_holds_what_an_agent_reads() {
    let map = config::build_config(&full()).unwrap().data.unwrap();
    let read: PairConfig = serde_json::from_str(&map[CONFIG_KEY]).unwrap();
    assert_eq!(&read, full().config());
    assert_eq!(read.generation, 3);
}

#[test]
fn without_anti_affinity_a_pod_goes_anywhere() {
    let pair = valid(json!({"scheduling": {"antiAffinity": "None"}}));
    assert_eq!(pod::build_instance_pod(&pair, A).spec.unwrap().affinity, None);
}

/// What a ResourceQuota on CPU and memory asks of each container.
#[test]
fn every_container_of_every_pod_names_its_cpu_and_memory_if_the_spec_does() {
    let named =
        json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}});
    let pair = valid(json!({"resources": named}));
    for template in [pod::build_instance_pod(&pair, A), pod::build_seed_pod(&pair, B)] {
        let spec = template.spec.unwrap();
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            let resources = container.resources.clone().unwrap_or_default();
            for map in [resources.requests, resources.limits] {
                let map = map.unwrap_or_default();
                assert!(map.contains_key("cpu") && map.contains_key("memory"), "{}: {map:?}", container.name);
            }
        }
        let on_disk =
            spec.volumes.iter().flatten().filter_map(|v| v.empty_dir.as_ref()).filter(|e| e.medium.is_none());
        assert!(on_disk.into_iter().all(|e| e.size_limit.is_some()));
    }
}

#[test]
fn a_pod_is_of_class_guaranteed_when_postgres_asks_for_it() {
    let guaranteed = |resources: serde_json::Value| {
        let spec = pod::build_instance_pod(&valid(json!({"resources": resources})), A).spec.unwrap();
        let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
        all.all(|c| {
            c.resources
                .as_ref()
                .is_some_and(|r| r.limits.is_some() && (r.requests.is_none() || r.requests == r.limits))
        })
    };
    let both = || json!({"cpu": "1", "memory": "1Gi"});
    assert!(guaranteed(json!({"requests": both(), "limits": both()})));
    assert!(guaranteed(json!({"limits": both()})), "a request that is not named is the limit");
    assert!(!guaranteed(json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": both()})));
}

/// Pod Security Standards, profile `restricted`, each rule by its name there (those that need a field at all; the
/// others forbid fields, and are checked by their absence).
#[test]
fn the_pods_pass_the_restricted_profile() {
    for template in [
        pod::build_instance_pod(&full(), A),
        pod::build_seed_pod(&full(), B),
        pod::build_instance_pod(&valid(json!({})), B),
    ] {
        assert!(restricted::violations(&template).is_empty(), "{:?}", restricted::violations(&template));
    }
}

#[test]
fn the_check_of_the_restricted_profile_sees_what_it_forbids() {
    let good = pod::build_instance_pod(&valid(json!({})), A);
    let break_one = |change: fn(&mut PodSpec)| {
        let mut template = good.clone();
        change(template.spec.as_mut().unwrap());
        restricted::violations(&template)
    };
    assert_eq!(break_one(|s| s.host_pid = Some(true)), ["Host Namespaces"]);
    assert_eq!(
        break_one(|s| s.security_context.as_mut().unwrap().run_as_non_root = None),
        ["Running as Non-root"]
    );
    assert_eq!(break_one(|s| s.security_context.as_mut().unwrap().seccomp_profile = None), ["Seccomp"]);
    assert_eq!(
        break_one(|s| s.security_context.as_mut().unwrap().run_as_user = Some(0)),
        ["Running as Non-root user"]
    );
    assert_eq!(
        break_one(|s| s.volumes.as_mut().unwrap()[0].host_path = Some(Default::default())),
        ["Volume Types"]
    );
    assert_eq!(break_one(|s| s.containers[0].ports.as_mut().unwrap()[0].host_port = Some(1)), ["Host Ports"]);
    assert_eq!(
        break_one(|s| s.containers[1].security_context = None),
        ["Privilege Escalation", "Capabilities"]
    );
}
