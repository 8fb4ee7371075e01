//! Volumes of a pod.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ConfigMapVolumeSource, DownwardAPIProjection, DownwardAPIVolumeFile,
    EmptyDirVolumeSource, KeyToPath, ObjectFieldSelector, PersistentVolumeClaimVolumeSource,
    ProjectedVolumeSource, SecretProjection, SecretVolumeSource, ServiceAccountTokenProjection, Volume,
    VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;

/// All volumes of a pod.
pub(super) fn volumes(pair: &ValidatedPair, i: InstanceId) -> Vec<Volume> {
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
        empty("run", "256Mi"),
        empty("bin", "256Mi"),
        empty("tmp", "1Gi"),
        Volume { empty_dir: Some(memory), ..volume("shm") },
        secret("tls", pair.name.tls_secret(i)),
        Volume { projected: Some(passwords(pair)), ..volume("app") },
        Volume {
            config_map: Some(ConfigMapVolumeSource {
                name: pair.name.config(),
                ..ConfigMapVolumeSource::default()
            }),
            ..volume("config")
        },
        Volume { projected: Some(token()), ..volume("token") },
    ]
}

/// What the first start needs to know of the two roles with a password; not the addresses and strings for clients.
fn passwords(pair: &ValidatedPair) -> ProjectedVolumeSource {
    let item = |key: &str, path: &str| KeyToPath { key: key.into(), path: path.into(), mode: None };
    let secret = |name: String, items: Vec<KeyToPath>| VolumeProjection {
        secret: Some(SecretProjection { name, items: Some(items), optional: None }),
        ..VolumeProjection::default()
    };
    let app = ["username", "password", "dbname"].map(|key| item(key, key));
    ProjectedVolumeSource {
        default_mode: Some(0o640),
        sources: Some(vec![
            secret(pair.name.app_secret(), app.into()),
            secret(pair.name.superuser_secret(), vec![item("password", "superuser-password")]),
        ]),
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
