//! Roles and databases beside those of the first start.

use kube::KubeSchema;
use pgpair_wire::config::{DatabaseConfig, RoleConfig};
use serde::{Deserialize, Serialize};

use super::schemas;

/// A role of the database. What is not named here is left as it is.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")] // KubeSchema knows no default of a whole struct: each field names its own
#[x_kube(validation = Rule::new("!(self.name in ['postgres', 'public', 'none']) && !self.name.startsWith('pg_') && !self.name.startsWith('pgpair_')").message("spec.roles has a name that is reserved: use another one, such as report"))]
#[x_kube(validation = Rule::new("!has(self.memberOf) || self.memberOf.all(role, !(role in ['postgres', self.name]) && !role.startsWith('pgpair_'))").message("spec.roles[].memberOf names the role itself, postgres or a role of the operator: remove it"))]
#[x_kube(validation = Rule::new("self.login || !has(self.passwordSecret)").message("spec.roles[].passwordSecret is for a role that may log in: set login to true or remove it"))]
#[x_kube(validation = Rule::new("!has(self.certificate) || !self.certificate || self.login && !has(self.passwordSecret)").message("spec.roles[].certificate is for a role that may log in, and takes the place of its password: set login to true, and remove passwordSecret"))]
pub struct RoleSpec {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z_][a-z0-9_]*$"))]
    pub name: String,
    /// Whether it may log in.
    #[serde(default = "default_login")]
    pub login: bool,
    /// Roles whose member it is, such as `pg_read_all_data`. Membership in others stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::role_names")]
    pub member_of: Vec<String>,
    /// Connections that it may have at the same time; -1: any number. -1 to 10000.
    #[serde(default = "default_connection_limit")]
    #[schemars(range(min = -1, max = 10000))]
    pub connection_limit: i32,
    /// Secret of the namespace whose key `password` is its password. It is yours: the operator reads it, within a minute of a change. Without it
    /// the password is left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schemas::OBJECT_NAME))]
    pub password_secret: Option<String>,
    /// Whether it logs in over the network by a client certificate, and by nothing else, whatever `postgres.hba` says. The operator makes one
    /// (Secret `NAME.role-ROLE-tls`, with `-` for each `_` of the role: `tls.crt`, `tls.key`, `ca.crt`) and renews it.
    #[serde(default)]
    pub certificate: bool,
}

impl RoleSpec {
    /// What the agents are given: all but the password.
    #[must_use]
    pub fn config(&self) -> RoleConfig {
        let RoleSpec { name, login, member_of, connection_limit, password_secret: _, certificate } =
            self.clone();
        RoleConfig { name, login, member_of, connection_limit, certificate }
    }
}

/// A database. What is not named here is left as it is.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(self.name in ['postgres', 'template0', 'template1']) && !self.name.startsWith('pgpair_')").message("spec.databases has a name that is reserved: use another one, such as report"))]
#[x_kube(validation = Rule::new("!has(self.owner) || !(self.owner in ['postgres', 'public', 'none']) && !self.owner.startsWith('pg_') && !self.owner.startsWith('pgpair_')").message("spec.databases[].owner is a reserved name: use a role of spec.roles, or leave it out for the owner of spec.bootstrap"))]
pub struct DatabaseSpec {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z_][a-z0-9_]*$"))]
    pub name: String,
    /// The role that owns it. Default: `bootstrap.owner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z_][a-z0-9_]*$"))]
    pub owner: Option<String>,
    /// Extensions that it has, in schema `public` unless they have one of their own. The image must have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::extensions")]
    pub extensions: Vec<String>,
}

impl DatabaseSpec {
    /// What the agents are given; `owner` owns what has no owner of its own.
    #[must_use]
    pub fn config(&self, owner: &str) -> DatabaseConfig {
        DatabaseConfig {
            name: self.name.clone(),
            owner: self.owner.clone().unwrap_or_else(|| owner.to_owned()),
            extensions: self.extensions.clone(),
        }
    }
}

/// Most of each: what a pair costs must stay small.
pub const MOST: i64 = 16;

fn default_login() -> bool {
    true
}

fn default_connection_limit() -> i32 {
    -1
}
