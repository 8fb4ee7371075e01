//! What a person has set for a pair, as the operator gives it to the agents. It changes while they run.
//!
//! Way: ConfigMap `NAME-config`, key [`CONFIG_KEY`], mounted in the pod; and, so that a change does not wait for the
//! kubelet, `PUT` [`crate::paths::CONFIG`]. The higher `generation` wins.

use std::collections::BTreeMap;

use pgpair_core::authority::{Durability, OnPostgresCrash};
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

/// Key of the ConfigMap, and name of the file that it becomes.
pub const CONFIG_KEY: &str = "pair.json";

/// Settings of a pair that an agent follows while it runs. What is missing has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PairConfig {
    /// `metadata.generation` of the `PgReplicaPair` that this was made of. 0: the defaults.
    pub generation: i64,
    /// What a commit waits for.
    pub durability: Durability,
    /// Length of a promise in milliseconds, 1000 to 60000.
    pub ttl_ms: u32,
    /// Bytes of WAL that a standby may lack and still be `Paired`.
    pub max_lag_bytes: u64,
    /// Whether the standby takes over by itself.
    pub automatic: bool,
    /// What follows the death of a postmaster whose agent lives.
    pub on_postgres_crash: OnPostgresCrash,
    /// A primary's postgres that neither answers nor writes for so long (milliseconds) counts as hung. 1000 to 600000.
    pub hang_timeout_ms: u32,
    /// `archive_timeout` in seconds.
    pub archive_timeout_s: u32,
    /// What the standby is for besides taking over.
    pub standby_profile: StandbyProfile,
    /// The user's configuration parameters.
    pub parameters: BTreeMap<String, String>,
    /// The user's lines of `pg_hba.conf`.
    pub hba: Vec<String>,
    /// Bytes of WAL that a standby may lack and still be offered by the read-only Service.
    pub read_lag_bytes: u64,
    /// Limit of a base backup in KiB per second; `None`: as fast as it goes.
    pub seed_rate_kib: Option<u32>,
    /// Whether a client must use TLS.
    pub client_tls: ClientTls,
    /// Whether `postgres` may log in over the network.
    pub superuser_access: bool,
    /// Roles that there are to be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RoleConfig>,
    /// Databases that there are to be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<DatabaseConfig>,
    /// Used once, when the data directory is made.
    pub bootstrap: Bootstrap,
}

impl Default for PairConfig {
    fn default() -> Self {
        PairConfig {
            generation: 0,
            durability: Durability::Sync,
            ttl_ms: pgpair_core::authority::timing::DEFAULT_TTL_MS,
            max_lag_bytes: 16 << 20,
            automatic: true,
            on_postgres_crash: OnPostgresCrash::Failover,
            hang_timeout_ms: 10_000,
            archive_timeout_s: 60,
            standby_profile: StandbyProfile::Failover,
            parameters: BTreeMap::new(),
            hba: Vec::new(),
            read_lag_bytes: 64 << 20,
            seed_rate_kib: None,
            client_tls: ClientTls::Optional,
            superuser_access: false,
            roles: Vec::new(),
            databases: Vec::new(),
            bootstrap: Bootstrap::default(),
        }
    }
}

/// A role that there is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleConfig {
    /// Its name.
    pub name: String,
    /// Whether it may log in.
    pub login: bool,
    /// Roles whose member it is.
    #[serde(default)]
    pub member_of: Vec<String>,
    /// Connections at the same time; -1: any number.
    pub connection_limit: i32,
    /// Whether it logs in by a certificate of the pair's authority, and by nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub certificate: bool,
}

/// A database that there is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseConfig {
    /// Its name.
    pub name: String,
    /// The role that owns it.
    pub owner: String,
    /// Its extensions.
    #[serde(default)]
    pub extensions: Vec<String>,
}

/// What the standby is for besides taking over.
#[derive(
    Debug,
    Default,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    IntoStaticStr,
    EnumString,
    VariantNames,
)]
pub enum StandbyProfile {
    /// Ready for failover: queries give way soon.
    #[default]
    Failover,
    /// Long reports: replay gives way.
    Reporting,
}

/// Whether a client must use TLS.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
pub enum ClientTls {
    /// A connection without TLS is refused, whatever `hba` says.
    Required,
    /// The client chooses, as far as `hba` lets it.
    Optional,
}

/// How the first data directory is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bootstrap {
    /// `initdb --data-checksums`.
    pub checksums: bool,
    /// `initdb --locale`.
    pub locale: String,
    /// `initdb --encoding`.
    pub encoding: String,
    /// Major version of PostgreSQL that the spec names; an older operator does not say.
    pub version: Option<u32>,
    /// Statements that are run once, as superuser, in the application's database.
    pub post_init_sql: Vec<String>,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Bootstrap {
            checksums: true,
            locale: "C.UTF-8".into(),
            encoding: "UTF8".into(),
            version: None,
            post_init_sql: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_has_its_default() {
        let c: PairConfig = serde_json::from_str(r#"{"generation":3,"ttlMs":2000}"#).unwrap();
        assert_eq!(c, PairConfig { generation: 3, ttl_ms: 2000, ..PairConfig::default() });
    }
}
