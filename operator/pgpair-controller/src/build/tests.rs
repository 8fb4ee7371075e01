use insta::assert_yaml_snapshot;
use pgpair_core::ids::InstanceId::{A, B};
use serde_json::json;

use super::*;
use crate::decide::InstancePlan;
use crate::fixtures::valid;
use services::Target;

fn full() -> ValidatedPair {
    valid(json!({
        "postgres": {"version": 16, "uid": 26, "parameters": {"work_mem": "8MB", "application_name": "$(HOME)"}, "hba": ["hostssl all all all scram-sha-256"]},
        "storage": {"data": {"size": "20Gi", "storageClassName": "fast"}, "archive": {"size": "50Gi"}},
        "durability": "Async",
        "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "2Gi"}},
        "service": {"labels": {"team": "shop"}, "annotations": {"a/b": "c"}},
        "standbyProfile": "Reporting",
    }))
}

#[test]
fn stateful_set_of_a_minimal_pair() {
    let plan = InstancePlan { replicas: 1, seed: 0, seed_failures: 0 };
    assert_yaml_snapshot!(stateful_set::build_stateful_set(&valid(json!({})), A, &plan));
}

#[test]
fn seed_job_of_a_full_pair() {
    assert_yaml_snapshot!(seed_job::build_seed_job(&full(), B, 2));
}

#[test]
fn services_of_a_full_pair() {
    assert_yaml_snapshot!(services::build_services(&full()));
}

#[test]
fn slices() {
    let pair = valid(json!({}));
    let target =
        Target { pod: "orders-b-0".into(), uid: "u".into(), ip: "10.0.0.2".into(), node: Some("n2".into()) };
    assert_yaml_snapshot!([
        services::build_slice(&pair, "orders-rw", None),
        services::build_slice(&pair, "orders-ro", Some(&target))
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
    assert_yaml_snapshot!((record::build_lease(&full()), claims::build_claims(&full(), B)));
}

#[test]
fn claims_outlive_the_pair_and_everything_else_goes_with_it() {
    let pair = full();
    assert!(claims::build_claims(&pair, A).iter().all(|c| c.metadata.owner_references.is_none()));
    assert!(record::build_lease(&pair).metadata.owner_references.is_some());
    assert!(seed_job::build_seed_job(&pair, A, 1).metadata.owner_references.is_some());
}

#[test]
fn the_job_reads_and_writes_through_the_same_volumes_as_the_instance() {
    let (instance, seed) =
        (pod::build_instance_pod(&full(), B).spec.unwrap(), pod::build_seed_pod(&full(), B).spec.unwrap());
    assert_eq!(instance.volumes, seed.volumes);
    assert_eq!(instance.security_context, seed.security_context);
    assert_eq!(instance.containers[0].env, seed.containers[0].env);
    assert_eq!(instance.containers[0].volume_mounts, seed.containers[0].volume_mounts);
}

#[test]
fn the_kubelet_does_not_replace_variables_in_the_users_settings() {
    let pod = pod::build_instance_pod(&full(), A).spec.unwrap();
    let env = pod.containers[0].env.clone().unwrap();
    let parameters = env.iter().find(|e| e.name == "PGPAIR_PARAMETERS").unwrap().value.clone().unwrap();
    assert!(parameters.contains("$$(HOME)"), "{parameters}");
}
