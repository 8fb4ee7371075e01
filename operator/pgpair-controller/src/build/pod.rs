//! The pod of an instance and the pod of its seeding Job: one shape, so that what the Job writes is what the instance
//! reads.

mod resources;
mod scheduling;
mod volumes;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector,
    PodDNSConfig, PodDNSConfigOption, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SeccompProfile,
    SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pgpair_api::names::{COMPONENT_INSTANCE, COMPONENT_SEED, LABEL_COMPONENT, POSTGRES_PORT};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;
use pgpair_wire::paths::{PEER_PORT, PROBE_PORT};

const BINARY: &str = "/pgpair/bin/pgpair";
const CONFIG_DIR: &str = "/pgpair/config";
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
    let mut container = container(pair, i, vec!["agent".into()]);
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
    let mut container = container(pair, i, vec!["basebackup".into()]);
    // It copies, and neither writes the record nor makes roles.
    let is_needed = |mount: &VolumeMount| !["app", "token"].contains(&mount.name.as_str());
    container.volume_mounts = container.volume_mounts.map(|all| all.into_iter().filter(is_needed).collect());
    template(pair, i, Purpose::Seed, vec![container])
}

/// Template of the pod that does something with the volumes of instance `i` at rest: it needs nothing but these.
#[must_use]
pub fn build_adopt_pod(pair: &ValidatedPair, i: InstanceId, command: Vec<String>) -> PodTemplateSpec {
    let is_needed = |name: &str| ["data", "archive", "run", "bin", "tmp"].contains(&name);
    let mut container = container(pair, i, command);
    container.ports = None;
    if let Some(mounts) = &mut container.volume_mounts {
        mounts.retain(|mount| is_needed(&mount.name));
    }
    let mut template = template(pair, i, Purpose::Seed, vec![container]);
    if let Some(volumes) = template.spec.as_mut().and_then(|spec| spec.volumes.as_mut()) {
        volumes.retain(|volume| is_needed(&volume.name));
    }
    template
}

/// A primary that is told to stop makes a checkpoint, for at most 15 s, and waits for two `ttl` at most until its standby has taken over; it
/// needs some time before and after that. A minute is enough up to a `ttl` of 7 s.
fn grace_seconds(pair: &ValidatedPair) -> i64 {
    (2 * i64::from(pair.config().ttl_ms) / 1000 + 45).max(60)
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
    let rules = &pair.scheduling;
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
        spec: Some(PodSpec {
            service_account_name: Some(pair.name.agent()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            restart_policy: (purpose == Purpose::Seed).then(|| "Never".into()),
            termination_grace_period_seconds: Some(grace_seconds(pair)),
            node_selector: (!rules.node_selector.is_empty()).then(|| rules.node_selector.clone()),
            tolerations: (!rules.tolerations.is_empty()).then(|| rules.tolerations.clone()),
            priority_class_name: rules.priority_class_name.clone(),
            affinity: scheduling::affinity(pair, i, purpose),
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
            volumes: Some(volumes::volumes(pair, i, purpose)),
            ..PodSpec::default()
        }),
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

/// A container that ends without having written its last words has the end of its output for them: the status tells them.
fn last_words() -> Option<String> {
    Some("FallbackToLogsOnError".into())
}

/// Waits for the agent's death, to tell the peer at once. Not part of the agent's container: it must outlive it.
fn witness(pair: &ValidatedPair, postgres: &Container) -> Container {
    let needed = |m: &&VolumeMount| ["data", "tls", "config"].contains(&m.name.as_str());
    let mut mounts: Vec<VolumeMount> =
        postgres.volume_mounts.iter().flatten().filter(needed).cloned().collect();
    // Where the agent leaves the peer's address.
    mounts.push(mount("run", "/pgpair/run", true));
    Container {
        name: "witness".into(),
        image: Some(pair.agent_image.clone()),
        image_pull_policy: Some(pair.image_pull_policy.clone()),
        command: Some(vec!["pgpair".into(), "witness".into()]),
        env: postgres.env.clone(),
        resources: Some(resources::of_helper(pair)),
        termination_message_policy: last_words(),
        security_context: Some(container_security()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn install(pair: &ValidatedPair) -> Container {
    Container {
        name: "install".into(),
        image: Some(pair.agent_image.clone()),
        image_pull_policy: Some(pair.image_pull_policy.clone()),
        command: Some(vec!["pgpair".into(), "install".into(), "/pgpair/bin".into()]),
        resources: Some(resources::of_helper(pair)),
        termination_message_policy: last_words(),
        security_context: Some(container_security()),
        volume_mounts: Some(vec![mount("bin", "/pgpair/bin", false)]),
        ..Container::default()
    }
}

fn container(pair: &ValidatedPair, i: InstanceId, command: Vec<String>) -> Container {
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
        command: Some([vec![BINARY.into()], command].concat()),
        env: Some(environment(pair, i)),
        termination_message_policy: last_words(),
        ports: Some(vec![
            port("postgres", POSTGRES_PORT),
            port("peer", i32::from(PEER_PORT)),
            port("probe", i32::from(PROBE_PORT)),
        ]),
        resources: resources::of_postgres(pair),
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
            mount("config", CONFIG_DIR, true),
            mount("token", TOKEN_DIR, true),
        ]),
        ..Container::default()
    }
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
        value("PGPAIR_GRACE_SECONDS", grace_seconds(pair).to_string()),
        value("PGPAIR_CONFIG", CONFIG_DIR.into()),
        value("PGPAIR_DATA_ROOT", "/pgpair/data".into()),
        value("PGPAIR_ARCHIVE_ROOT", "/pgpair/archive".into()),
        value("PGPAIR_RUN", "/pgpair/run".into()),
        value("PGPAIR_TLS", "/pgpair/tls".into()),
        value("PGPAIR_APP", "/pgpair/app".into()),
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
