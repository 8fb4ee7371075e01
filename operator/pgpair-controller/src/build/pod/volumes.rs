//! Volumes of a pod.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ConfigMapVolumeSource, DownwardAPIProjection, DownwardAPIVolumeFile,
    EmptyDirVolumeSource, KeyToPath, ObjectFieldSelector, PersistentVolumeClaimVolumeSource,
    ProjectedVolumeSource, SecretVolumeSource, ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;
use pgpair_wire::certificates::SERVER_AUTHORITIES;

use super::Purpose;

/// All volumes of a pod.
pub(super) fn volumes(pair: &ValidatedPair, i: InstanceId, purpose: Purpose) -> Vec<Volume> {
    let volume = |name: &str| Volume { name: name.into(), ..Volume::default() };
    let claim = |name: &str, claim_name: String| Volume {
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None }),
        ..volume(name)
    };
    // Far above what is ever used: a pod that comes above it is evicted, and its primary with it.
    let empty = |name: &str, size: &str| Volume {
        empty_dir: Some(EmptyDirVolumeSource { medium: None, size_limit: Some(Quantity(size.into())) }),
        ..volume(name)
    };
    // Without a limit of its own the kubelet takes the memory limit of the pod; what is in it counts as memory of `postgres`.
    let memory = EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit: None };
    let mut copying = ["ca.crt", "replication.crt", "replication.key"].map(|key| item(key, key)).to_vec();
    // Not there before the first certificate of a person was read.
    let theirs = purpose == Purpose::Seed && pair.server_secret().is_some();
    copying.extend(theirs.then(|| item(SERVER_AUTHORITIES, SERVER_AUTHORITIES)));
    let tls = Volume {
        secret: Some(SecretVolumeSource {
            secret_name: Some(pair.name.tls_secret(i)),
            default_mode: Some(0o640),
            items: (purpose == Purpose::Seed).then_some(copying),
            optional: theirs.then_some(true),
        }),
        ..volume("tls")
    };
    let of_an_instance = |volume: Volume| (purpose == Purpose::Instance).then_some(volume);
    let app = of_an_instance(Volume { secret: Some(verifiers(pair)), ..volume("app") });
    let token = of_an_instance(Volume { projected: Some(token()), ..volume("token") });
    let mut all = vec![
        claim("data", pair.name.data_claim(i)),
        claim("archive", pair.name.archive_claim(i)),
        empty("run", "256Mi"),
        empty("bin", "256Mi"),
        empty("tmp", "1Gi"),
        Volume { empty_dir: Some(memory), ..volume("shm") },
        tls,
    ];
    all.extend(app);
    all.push(Volume {
        config_map: Some(ConfigMapVolumeSource {
            name: pair.name.config(),
            ..ConfigMapVolumeSource::default()
        }),
        ..volume("config")
    });
    all.extend(token);
    all
}

fn item(key: &str, path: &str) -> KeyToPath {
    KeyToPath { key: key.into(), path: path.into(), mode: None }
}

/// What the agents need to know of the roles with a password when they make them. The passwords themselves stay outside of the pod.
fn verifiers(pair: &ValidatedPair) -> SecretVolumeSource {
    SecretVolumeSource {
        secret_name: Some(pair.name.verifiers_secret()),
        default_mode: Some(0o640),
        ..SecretVolumeSource::default()
    }
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
