//! The pod of an instance and the pod of its seeding Job: one shape, so that what the Job writes is what the instance
//! reads.

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapProjection, Container, ContainerPort, DownwardAPIProjection,
    DownwardAPIVolumeFile, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, KeyToPath,
    ObjectFieldSelector, PersistentVolumeClaimVolumeSource, PodAffinityTerm, PodAntiAffinity, PodDNSConfig,
    PodDNSConfigOption, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource,
    ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, ServiceAccountTokenProjection,
    Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pgpair_api::names::{
    COMPONENT_INSTANCE, COMPONENT_SEED, LABEL_COMPONENT, LABEL_INSTANCE, LABEL_PAIR, POSTGRES_PORT,
};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;
use pgpair_core::report::wire::{PEER_PORT, PROBE_PORT};

const BINARY: &str = "/pgpair/bin/pgpair";
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What a pod is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Instance,
    Seed,
}

/// Template of the pod that runs instance `i`.
#[must_use]
pub fn build_instance_pod(pair: &ValidatedPair, i: InstanceId) -> PodTemplateSpec {
    let mut container = container(pair, i, "agent");
    let probe = |path: &str, period: i32, failures: i32| Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::Int(i32::from(PROBE_PORT)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Probe::default()
    };
    // The probes ask for the agent, never for postgres: the agent decides what postgres is to do, and a restart by the
    // kubelet would only take time from it.
    container.startup_probe = Some(probe("/livez", 1, 60));
    container.liveness_probe = Some(probe("/livez", 10, 6));
    container.readiness_probe = Some(probe("/readyz", 2, 2));
    let witness = witness(pair, &container);
    template(pair, i, Purpose::Instance, vec![container, witness])
}

/// Template of the pod that seeds instance `i`.
#[must_use]
pub fn build_seed_pod(pair: &ValidatedPair, i: InstanceId) -> PodTemplateSpec {
    template(pair, i, Purpose::Seed, vec![container(pair, i, "basebackup")])
}

fn template(
    pair: &ValidatedPair,
    i: InstanceId,
    purpose: Purpose,
    containers: Vec<Container>,
) -> PodTemplateSpec {
    let component = match purpose {
        Purpose::Instance => COMPONENT_INSTANCE,
        Purpose::Seed => COMPONENT_SEED,
    };
    let mut labels = pair.name.instance_labels(i);
    labels.insert(LABEL_COMPONENT.into(), component.into());
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
        spec: Some(PodSpec {
            service_account_name: Some(pair.name.agent()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            restart_policy: (purpose == Purpose::Seed).then(|| "Never".into()),
            termination_grace_period_seconds: Some(60),
            affinity: Some(apart(pair, i, purpose)),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(pair.uid),
                run_as_group: Some(pair.uid),
                fs_group: Some(pair.uid),
                // A recursive chown of a large volume at each start would cost minutes of failover time.
                fs_group_change_policy: Some("OnRootMismatch".into()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            dns_config: Some(impatient_dns()),
            init_containers: Some(vec![install(pair)]),
            containers,
            volumes: Some(volumes(pair, i)),
            ..PodSpec::default()
        }),
    }
}

/// The two instances never share a node. A seeding pod keeps away from the other instance only: its own may still be
/// terminating on the node that holds the volume.
fn apart(pair: &ValidatedPair, i: InstanceId, purpose: Purpose) -> Affinity {
    let mut labels = vec![
        (LABEL_PAIR.to_owned(), pair.name.name.clone()),
        (LABEL_COMPONENT.to_owned(), COMPONENT_INSTANCE.to_owned()),
    ];
    if purpose == Purpose::Seed {
        labels.push((LABEL_INSTANCE.to_owned(), i.peer().to_string()));
    }
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![PodAffinityTerm {
                label_selector: Some(LabelSelector {
                    match_labels: Some(labels.into_iter().collect()),
                    ..LabelSelector::default()
                }),
                topology_key: "kubernetes.io/hostname".into(),
                ..PodAffinityTerm::default()
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// A query that is lost because a DNS server went with a node is given up after a second, twice; by default five. A walreceiver
/// that looks its primary up waits for it, and promotion waits for the walreceiver.
fn impatient_dns() -> PodDNSConfig {
    let option =
        |name: &str, value: &str| PodDNSConfigOption { name: Some(name.into()), value: Some(value.into()) };
    PodDNSConfig {
        options: Some(vec![option("timeout", "1"), option("attempts", "2")]),
        ..PodDNSConfig::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        ..SecurityContext::default()
    }
}

/// Waits for the agent's death, to tell the peer at once. Not part of the agent's container: it must outlive it.
fn witness(pair: &ValidatedPair, postgres: &Container) -> Container {
    let mounts = postgres.volume_mounts.iter().flatten();
    Container {
        name: "witness".into(),
        image: Some(pair.agent_image.clone()),
        image_pull_policy: Some(pair.image_pull_policy.clone()),
        command: Some(vec!["pgpair".into(), "witness".into()]),
        env: postgres.env.clone(),
        security_context: Some(container_security()),
        volume_mounts: Some(mounts.filter(|m| m.name == "data" || m.name == "tls").cloned().collect()),
        ..Container::default()
    }
}

fn install(pair: &ValidatedPair) -> Container {
    Container {
        name: "install".into(),
        image: Some(pair.agent_image.clone()),
        image_pull_policy: Some(pair.image_pull_policy.clone()),
        command: Some(vec!["pgpair".into(), "install".into(), "/pgpair/bin".into()]),
        security_context: Some(container_security()),
        volume_mounts: Some(vec![mount("bin", "/pgpair/bin", false)]),
        ..Container::default()
    }
}

fn container(pair: &ValidatedPair, i: InstanceId, subcommand: &str) -> Container {
    let port = |name: &str, number: i32| ContainerPort {
        name: Some(name.into()),
        container_port: number,
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    Container {
        name: "postgres".into(),
        image: Some(pair.postgres_image.clone()),
        image_pull_policy: Some(pair.image_pull_policy.clone()),
        command: Some(vec![BINARY.into(), subcommand.into()]),
        env: Some(environment(pair, i)),
        ports: Some(vec![
            port("postgres", POSTGRES_PORT),
            port("peer", i32::from(PEER_PORT)),
            port("probe", i32::from(PROBE_PORT)),
        ]),
        resources: resources(pair),
        security_context: Some(container_security()),
        volume_mounts: Some(vec![
            mount("data", "/pgpair/data", false),
            mount("archive", "/pgpair/archive", false),
            mount("run", "/pgpair/run", false),
            mount("bin", "/pgpair/bin", true),
            mount("tmp", "/tmp", false),
            mount("shm", "/dev/shm", false),
            mount("tls", "/pgpair/tls", true),
            mount("app", "/pgpair/app", true),
            mount("token", TOKEN_DIR, true),
        ]),
        ..Container::default()
    }
}

fn resources(pair: &ValidatedPair) -> Option<ResourceRequirements> {
    let quantities = |map: &std::collections::BTreeMap<String, String>| {
        (!map.is_empty()).then(|| map.iter().map(|(k, v)| (k.clone(), Quantity(v.clone()))).collect())
    };
    pair.resources.as_ref().map(|r| ResourceRequirements {
        requests: quantities(&r.requests),
        limits: quantities(&r.limits),
        ..ResourceRequirements::default()
    })
}

fn environment(pair: &ValidatedPair, i: InstanceId) -> Vec<EnvVar> {
    let field = |name: &str, path: &str| EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path.into(), api_version: Some("v1".into()) }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let value =
        |name: &str, value: String| EnvVar { name: name.into(), value: Some(value), ..EnvVar::default() };
    vec![
        value("PGPAIR_PAIR", pair.name.name.clone()),
        field("PGPAIR_NAMESPACE", "metadata.namespace"),
        value("PGPAIR_INSTANCE", i.to_string()),
        field("PGPAIR_POD_NAME", "metadata.name"),
        field("PGPAIR_POD_IP", "status.podIP"),
        field("PGPAIR_POD_UID", "metadata.uid"),
        field("PGPAIR_NODE", "spec.nodeName"),
        value("PGPAIR_PEER_HOST", pair.name.pod_short_dns(i.peer())),
        value("PGPAIR_DURABILITY", pair.durability.as_str().into()),
        value("PGPAIR_TTL_MS", pair.ttl_ms.to_string()),
        value("PGPAIR_ARCHIVE_TIMEOUT_S", pair.archive_timeout_seconds.to_string()),
        value("PGPAIR_PARAMETERS", literal(&serde_json::json!(pair.parameters))),
        value("PGPAIR_HBA", literal(&serde_json::json!(pair.hba))),
        value("PGPAIR_DATA_ROOT", "/pgpair/data".into()),
        value("PGPAIR_ARCHIVE_ROOT", "/pgpair/archive".into()),
        value("PGPAIR_RUN", "/pgpair/run".into()),
        value("PGPAIR_TLS", "/pgpair/tls".into()),
        value("PGPAIR_APP", "/pgpair/app".into()),
        value("PGPAIR_STANDBY_PROFILE", pair.standby_profile.as_str().into()),
    ]
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn volumes(pair: &ValidatedPair, i: InstanceId) -> Vec<Volume> {
    let volume = |name: &str| Volume { name: name.into(), ..Volume::default() };
    let claim = |name: &str, claim_name: String| Volume {
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None }),
        ..volume(name)
    };
    let empty = |name: &str, medium: Option<&str>| Volume {
        empty_dir: Some(EmptyDirVolumeSource { medium: medium.map(Into::into), size_limit: None }),
        ..volume(name)
    };
    let secret = |name: &str, secret_name: String| Volume {
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret_name),
            default_mode: Some(0o640),
            ..SecretVolumeSource::default()
        }),
        ..volume(name)
    };
    vec![
        claim("data", pair.name.data_claim(i)),
        claim("archive", pair.name.archive_claim(i)),
        empty("run", None),
        empty("bin", None),
        empty("tmp", None),
        empty("shm", Some("Memory")),
        secret("tls", pair.name.tls_secret(i)),
        secret("app", pair.name.app_secret()),
        Volume { projected: Some(token()), ..volume("token") },
    ]
}

/// The token by which the agent writes the record, as the service account admission would mount it.
fn token() -> ProjectedVolumeSource {
    let root = ConfigMapProjection {
        name: "kube-root-ca.crt".into(),
        items: Some(vec![KeyToPath { key: "ca.crt".into(), path: "ca.crt".into(), mode: None }]),
        ..ConfigMapProjection::default()
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".into(),
        field_ref: Some(ObjectFieldSelector {
            field_path: "metadata.namespace".into(),
            api_version: Some("v1".into()),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    ProjectedVolumeSource {
        default_mode: Some(0o640),
        sources: Some(vec![
            VolumeProjection {
                service_account_token: Some(ServiceAccountTokenProjection {
                    path: "token".into(),
                    expiration_seconds: Some(3607),
                    audience: None,
                }),
                ..VolumeProjection::default()
            },
            VolumeProjection { config_map: Some(root), ..VolumeProjection::default() },
            VolumeProjection {
                downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
                ..VolumeProjection::default()
            },
        ]),
    }
}

/// JSON as the value of a variable: the kubelet would replace `$(NAME)` unless its dollar is doubled.
fn literal(json: &serde_json::Value) -> String {
    json.to_string().replace("$(", "$$(")
}
