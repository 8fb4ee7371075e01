//! What is made at first start.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::adopt::AdoptSpec;
use super::schemas;

/// The database made at first start. Used once; its password is in Secret `NAME-app`.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")] // KubeSchema knows no default of a whole struct: each field names its own
#[x_kube(validation = Rule::new("!(self.owner in ['postgres', 'pgpair_replication', 'pgpair_agent', 'public', 'none']) && !self.owner.startsWith('pg_')").message("spec.bootstrap.owner is a reserved name: use another one, such as app"))]
#[x_kube(validation = Rule::new("!(self.database in ['postgres', 'template0', 'template1'])").message("spec.bootstrap.database exists in every new cluster: use another name, such as app"))]
#[x_kube(validation = Rule::new("!self.locale.matches('(?i)[.]utf-?8$') || self.encoding in ['UTF8', 'SQL_ASCII']").message("spec.bootstrap.locale is for UTF-8, but spec.bootstrap.encoding is not UTF8: use encoding UTF8, or a locale of the other encoding such as C"))]
pub struct BootstrapSpec {
    /// Name of the database.
    #[serde(default = "default_name")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z_][a-z0-9_]*$"))]
    pub database: String,
    /// Role that owns it. Not `postgres` and not `pg_…`: those exist already or are reserved.
    #[serde(default = "default_name")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z_][a-z0-9_]*$"))]
    pub owner: String,
    /// Existing Secret of the namespace whose key `password` is the owner's password. Default: one is generated. It is
    /// read when Secret `NAME-app` is made; later, change key `password` of `NAME-app`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schemas::OBJECT_NAME))]
    pub owner_secret: Option<String>,
    /// Whether the superuser `postgres` may log in over the network, by the password in Secret `NAME-superuser`. May be changed.
    /// Default: only if `superuserSecret` is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superuser_access: Option<bool>,
    /// The same as `ownerSecret` for the superuser, for Secret `NAME-superuser`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schemas::OBJECT_NAME))]
    pub superuser_secret: Option<String>,
    /// Checksums on data pages: damage by the disk is noticed instead of returned.
    #[serde(default = "default_checksums")]
    pub checksums: bool,
    /// Locale of the databases; the image must have it.
    #[serde(default = "default_locale")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9_.@-]*$"))]
    pub locale: String,
    /// Encoding of the databases.
    #[serde(default = "default_encoding")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[A-Za-z0-9_]+$"))]
    pub encoding: String,
    /// Statements that the superuser runs once in the new database, such as `CREATE EXTENSION pg_trgm`. No secrets: they
    /// can be read in ConfigMap `NAME-config`.
    #[serde(default, rename = "postInitSQL", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::statements")]
    pub post_init_sql: Vec<String>,
    /// Takes up the volumes of an earlier pair of this name, instead of making new data. May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<AdoptSpec>,
}

impl Default for BootstrapSpec {
    fn default() -> Self {
        BootstrapSpec {
            database: default_name(),
            owner: default_name(),
            owner_secret: None,
            superuser_access: None,
            superuser_secret: None,
            checksums: default_checksums(),
            locale: default_locale(),
            encoding: default_encoding(),
            post_init_sql: Vec::new(),
            adopt: None,
        }
    }
}

impl BootstrapSpec {
    /// Whether `postgres` may log in over the network.
    #[must_use]
    pub fn superuser_access(&self) -> bool {
        self.superuser_access.unwrap_or(self.superuser_secret.is_some())
    }
}

/// The rule by which all of it is used once, but who may log in, and what is taken up.
pub(super) fn used_once() -> String {
    let required = ["database", "owner", "checksums", "locale", "encoding"];
    let optional = ["ownerSecret", "superuserSecret", "postInitSQL"];
    let same = required.map(|f| format!("self.{f} == oldSelf.{f}"));
    let same_or_absent = optional
        .map(|f| format!("has(self.{f}) == has(oldSelf.{f}) && (!has(self.{f}) || self.{f} == oldSelf.{f})"));
    same.into_iter().chain(same_or_absent).collect::<Vec<_>>().join(" && ")
}

fn default_name() -> String {
    "app".into()
}

fn default_checksums() -> bool {
    true
}

fn default_locale() -> String {
    "C.UTF-8".into()
}

fn default_encoding() -> String {
    "UTF8".into()
}
