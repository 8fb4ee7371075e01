//! What a user writes. Defaults live here, in one place; ranges and relations are rules of the CRD, so that a wrong
//! object is refused by the API server with a sentence that says what to do.

mod adopt;
mod bootstrap;
mod failover;
mod network;
mod passwords;
mod roles;
mod scheduling;
pub(crate) mod schemas;
mod service;
mod tls;

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use pgpair_core::authority::Durability;
use pgpair_wire::config::StandbyProfile;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use adopt::{AdoptChoice, AdoptSpec};
pub use bootstrap::BootstrapSpec;
pub use failover::FailoverSpec;
pub use network::NetworkPolicySpec;
pub use passwords::PasswordsSpec;
pub use roles::{DatabaseSpec, MOST, RoleSpec};
pub use scheduling::{AntiAffinity, SchedulingSpec};
pub use service::{ServiceSpec, ServiceType};
pub use tls::{IssuerRef, TlsSpec};

/// A PostgreSQL primary and its hot standby.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "pgpair.dev",
    version = "v1alpha1",
    kind = "PgReplicaPair",
    plural = "pgreplicapairs",
    shortname = "pgpair",
    category = "all",
    namespaced,
    status = "crate::status::PgReplicaPairStatus",
    derive = "PartialEq",
    doc = "A PostgreSQL primary with a streaming hot standby that takes over when the primary fails.",
    printcolumn(name = "Primary", type_ = "string", json_path = ".status.primary"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".status.mode"),
    printcolumn(name = "Term", type_ = "integer", json_path = ".status.term"),
    printcolumn(name = "Lag", type_ = "string", json_path = ".status.lag.summary"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "FailoverReady", type_ = "string", json_path = r#".status.conditions[?(@.type=="FailoverReady")].status"#),
    printcolumn(name = "Archived", type_ = "date", json_path = ".status.archive[0].lastArchivedTime", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be at most 40 characters of a-z, 0-9 and '-', and begin with a letter: the names of Services and pods are derived from it"),
    validation = Rule::new("self.spec.postgres.version != 14 || has(self.status)")
        .message("spec.postgres.version 14 is for pairs that exist: PostgreSQL 14 has been out of support since November 2026. Use 15, 16, 17, 18 or 19"),
    validation = Rule::new("[self.metadata.name + '-app', self.metadata.name + '-superuser'].all(made, (!has(self.spec.bootstrap.ownerSecret) || self.spec.bootstrap.ownerSecret != made) && (!has(self.spec.bootstrap.superuserSecret) || self.spec.bootstrap.superuserSecret != made))")
        .message("spec.bootstrap.ownerSecret and superuserSecret must name Secrets of yours: NAME-app and NAME-superuser are made by the operator; use another name, or leave the field out"),
    validation = Rule::new("!has(self.spec.roles) || [self.metadata.name + '-app', self.metadata.name + '-superuser'].all(made, self.spec.roles.all(role, !has(role.passwordSecret) || role.passwordSecret != made))")
        .message("spec.roles[].passwordSecret must name a Secret of yours: NAME-app and NAME-superuser are made by the operator for other roles; use another name"),
    validation = Rule::new("!has(self.spec.tls.serverSecret) || !(self.spec.tls.serverSecret in ['-ca', '-a-tls', '-b-tls', '-operator-tls', '-server-tls', '-app', '-superuser', '-verifiers'].map(end, self.metadata.name + end))")
        .message("spec.tls.serverSecret must name a Secret of yours: this one is made by the operator; use another name")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.tls.clients != 'Required' || !has(self.postgres.hba) || self.postgres.hba.all(line, !line.startsWith('hostnossl'))").message("spec.postgres.hba has a line hostnossl, but spec.tls.clients is Required: remove the line or set spec.tls.clients to Optional"))]
#[x_kube(validation = Rule::new("!has(self.roles) || self.roles.all(role, role.name != self.bootstrap.owner)").message("spec.roles names the owner of spec.bootstrap, which the operator makes and whose password is in Secret NAME-app: remove it"))]
pub struct PgReplicaPairSpec {
    /// The server: version, image, settings.
    #[serde(default)]
    pub postgres: PostgresSpec,
    /// Volumes of each instance.
    #[serde(default)]
    pub storage: StorageSpec,
    /// What a commit waits for.
    #[serde(default)]
    #[schemars(schema_with = "schemas::words::<Durability>")]
    pub durability: Durability,
    /// When the standby takes over.
    #[serde(default)]
    pub failover: FailoverSpec,
    /// The database made at first start.
    #[serde(default)]
    #[x_kube(validation = Rule::new(bootstrap::used_once()).message("spec.bootstrap is used once, when the data directory is made, but superuserAccess and adopt may be changed: create databases and roles with SQL"))]
    pub bootstrap: BootstrapSpec,
    /// Roles beside the owner of the database of the first start. One that is removed here stays in the database. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub roles: Vec<RoleSpec>,
    /// Databases beside that of the first start, or what it has in addition. One that is removed here stays. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub databases: Vec<DatabaseSpec>,
    /// Passwords that the operator makes.
    #[serde(default)]
    pub passwords: PasswordsSpec,
    /// A WAL segment is archived at the latest after this many seconds, if anything was written. 10 to 3600.
    #[serde(default = "PgReplicaPairSpec::default_archive_timeout_seconds")]
    #[schemars(range(min = 10, max = 3600))]
    pub archive_timeout_seconds: i32,
    /// What the standby is for besides taking over.
    #[serde(default)]
    #[schemars(schema_with = "schemas::words::<StandbyProfile>")]
    pub standby_profile: StandbyProfile,
    /// A standby that has not replayed more than this, as a quantity of bytes, leaves the Service `NAME-ro`; the primary
    /// takes its place. 1Mi to 1Ti.
    #[serde(default = "default_read_lag")]
    #[schemars(length(min = 1, max = 32), regex(pattern = schemas::BYTES))]
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).compareTo(quantity('1Mi')) >= 0 && quantity(self).compareTo(quantity('1Ti')) <= 0").message("readLag must be a quantity of 1Mi to 1Ti, such as 64Mi"))]
    pub read_lag: String,
    /// Base backups that make or renew an instance.
    #[serde(default)]
    pub seeding: SeedingSpec,
    /// Where the pods run.
    #[serde(default)]
    pub scheduling: SchedulingSpec,
    /// Certificates, and whether clients must use them.
    #[serde(default)]
    pub tls: TlsSpec,
    /// CPU and memory of each instance. Without it the container has neither requests nor limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    /// Labels, annotations and type of the Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceSpec>,
    /// A NetworkPolicy for the pods: agents are reached by the pair and the operator only, PostgreSQL by whom it names. Without it there is
    /// none. It needs a network that enforces NetworkPolicies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicySpec>,
    /// Class of the operator that looks after the pair: the installation with that `--class`. Default: the one without a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub operator_class_name: Option<String>,
    /// While true, nothing of the spec comes into effect and no order is taken: the operator tells the status, renews certificates
    /// and keeps the Services right. The agents still fail over.
    #[serde(default)]
    pub paused: bool,
}

impl PgReplicaPairSpec {
    fn default_archive_timeout_seconds() -> i32 {
        60
    }
}

/// The server.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")] // KubeSchema knows no default of a whole struct: each field names its own
#[x_kube(validation = Rule::new("self.version == oldSelf.version").message("spec.postgres.version cannot change: a data directory belongs to one major version; create a new pair with the other version and move the data with pg_dump or logical replication"))]
#[x_kube(validation = Rule::new("self.uid == oldSelf.uid").message("spec.postgres.uid cannot change: the files on the volumes belong to it; create a new pair"))]
#[x_kube(validation = Rule::new(r"!has(self.image) || self.image.matches('^[A-Za-z0-9\\[][A-Za-z0-9._:/@\\[\\]-]*$')").message("spec.postgres.image is no reference of an image: write registry/name:tag or name@digest, with the version in place of {version} and without blanks"))]
pub struct PostgresSpec {
    /// Major version, 15 to 19. Pairs of version 14 that exist go on; no new one is made.
    #[serde(default = "default_version")]
    #[schemars(range(min = 14, max = 19))]
    pub version: i32,
    /// Image with that version of PostgreSQL. Default: the operator's `--postgres-image-template`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// User and group id of `postgres` in the image.
    #[serde(default = "default_uid")]
    #[schemars(range(min = 1, max = 65535))]
    pub uid: i64,
    /// Settings for `postgresql.conf`. Those that keep the pair safe belong to the operator and are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::parameters")]
    pub parameters: BTreeMap<String, String>,
    /// Lines for `pg_hba.conf`, tried after the operator's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::hba")]
    pub hba: Vec<String>,
}

impl Default for PostgresSpec {
    fn default() -> Self {
        PostgresSpec {
            version: default_version(),
            image: None,
            uid: default_uid(),
            parameters: BTreeMap::new(),
            hba: Vec::new(),
        }
    }
}

/// Volumes of each instance.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageSpec {
    /// The data directory.
    pub data: VolumeSpec,
    /// The WAL archive of this instance.
    pub archive: VolumeSpec,
}

/// One volume.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")] // KubeSchema knows no default of a whole struct: each field names its own
#[x_kube(validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)").message("storageClassName cannot change on an existing volume: create a new pair"))]
pub struct VolumeSpec {
    /// Size, such as `10Gi`; at least 256Mi. A volume grows to it if its StorageClass allows that, and never shrinks: a smaller size
    /// leaves a larger volume as it is.
    #[serde(default = "default_size")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).compareTo(quantity('256Mi')) >= 0").message("size must be a quantity of at least 256Mi, such as 10Gi"))]
    pub size: String,
    /// Storage class. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schemas::OBJECT_NAME))]
    pub storage_class_name: Option<String>,
}

impl Default for VolumeSpec {
    fn default() -> Self {
        VolumeSpec { size: default_size(), storage_class_name: None }
    }
}

/// Base backups that make or renew an instance.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct SeedingSpec {
    /// Limit in MiB per second, 1 to 1024, so that a copy leaves disk and network to the primary. Default: none.
    #[serde(rename = "maxRateMiB", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_rate_mib: Option<i32>,
}

/// CPU and memory, as quantities in quotes, such as `"500m"` or `2Gi`.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || !quantity(self.requests[k]).isGreaterThan(quantity(self.limits[k])))").message("spec.resources.requests must not be above spec.resources.limits: lower the request or raise the limit"))]
pub struct ResourcesSpec {
    /// What the scheduler reserves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::quantities")]
    pub requests: BTreeMap<String, String>,
    /// What the container may not exceed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::quantities")]
    pub limits: BTreeMap<String, String>,
}

fn default_version() -> i32 {
    17
}

fn default_uid() -> i64 {
    999
}

fn default_size() -> String {
    "10Gi".into()
}

fn default_read_lag() -> String {
    "64Mi".into()
}
