//! The raw spec becomes a [`ValidatedPair`] once; nothing after this looks at the raw spec. The CRD's own rules refuse
//! most of what is refused here; this is the wall behind them, for objects that were stored under older rules.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use crate::names::PairName;
use crate::settings;
use crate::spec::{Durability, PgReplicaPair, ResourcesSpec, ServiceSpec, StandbyProfile, VolumeSpec};

/// What the operator gives where the spec is silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Image of PostgreSQL; `{version}` stands for the major version.
    pub postgres_image_template: String,
    /// Image with the `pgpair` binary: the operator's own.
    pub agent_image: String,
    /// `imagePullPolicy` of both.
    pub image_pull_policy: String,
}

/// A pair as it is to be: complete and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidatedPair {
    /// Name and namespace.
    pub name: PairName,
    /// The controlling owner of the children.
    pub owner: OwnerReference,
    /// Image of PostgreSQL.
    pub postgres_image: String,
    /// Image with the agent.
    pub agent_image: String,
    /// `imagePullPolicy` of both.
    pub image_pull_policy: String,
    /// User and group of postgres.
    pub uid: i64,
    /// The user's settings.
    pub parameters: BTreeMap<String, String>,
    /// The user's lines for `pg_hba.conf`.
    pub hba: Vec<String>,
    /// Data volume.
    pub data: VolumeSpec,
    /// Archive volume.
    pub archive: VolumeSpec,
    /// What a commit waits for.
    pub durability: Durability,
    /// Length of a promise in milliseconds.
    pub ttl_ms: u32,
    /// `archive_timeout` in seconds.
    pub archive_timeout_seconds: u32,
    /// What the standby is for.
    pub standby_profile: StandbyProfile,
    /// CPU and memory.
    pub resources: Option<ResourcesSpec>,
    /// Labels and annotations of the Services.
    pub service: ServiceSpec,
    /// Database made at first start.
    pub database: String,
    /// Its owner.
    pub database_owner: String,
    /// Change nothing but the status.
    pub paused: bool,
}

/// A spec that cannot be carried out. Waiting does not help: the user has to change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpec {
    /// The object came without identity, which the API server never does.
    #[error("the object has no {0}")]
    NoIdentity(&'static str),
    /// See the text.
    #[error(
        "metadata.name {0:?} cannot name Services and pods: use at most 40 characters of a-z, 0-9 and '-', beginning with a letter"
    )]
    Name(String),
    /// See the text.
    #[error("spec.postgres.version {0} is not supported: use 14, 15, 16, 17 or 18")]
    Version(i32),
    /// See the text.
    #[error("spec.postgres.parameters.{0} belongs to the operator: remove it")]
    OwnedParameter(String),
    /// See the text.
    #[error("{0:?} is not the name of a setting: write it in lower case, such as work_mem")]
    ParameterName(String),
    /// See the text.
    #[error("spec.postgres.parameters.{0} has a line break or a NUL in its value: remove it")]
    ParameterValue(String),
    /// See the text.
    #[error("spec.bootstrap.owner {0:?} is reserved: use another name, such as app")]
    ReservedOwner(String),
    /// See the text.
    #[error("{field} is {value}, outside {min} to {max}")]
    Range {
        /// Path of the field.
        field: &'static str,
        /// What it says.
        value: i64,
        /// Lowest value that works.
        min: i64,
        /// Highest value that works.
        max: i64,
    },
}

/// Checks `pair` and fills in every default.
///
/// # Errors
/// The first thing that is wrong, with what to do about it.
pub fn validate(pair: &PgReplicaPair, defaults: &Defaults) -> Result<ValidatedPair, InvalidSpec> {
    let spec = &pair.spec;
    let name = identity(pair)?;
    let owner = pair.controller_owner_ref(&()).ok_or(InvalidSpec::NoIdentity("metadata.uid"))?;
    range("spec.failover.ttlSeconds", spec.failover.ttl_seconds.into(), 2, 60)?;
    range("spec.archiveTimeoutSeconds", spec.archive_timeout_seconds.into(), 10, 3600)?;
    range("spec.postgres.uid", spec.postgres.uid, 1, 65535)?;
    if !(14..=18).contains(&spec.postgres.version) {
        return Err(InvalidSpec::Version(spec.postgres.version));
    }
    parameters(&spec.postgres.parameters)?;
    let database_owner = &spec.bootstrap.owner;
    if database_owner == "postgres"
        || database_owner == "pgpair_replication"
        || database_owner.starts_with("pg_")
    {
        return Err(InvalidSpec::ReservedOwner(database_owner.clone()));
    }
    let default_image =
        || defaults.postgres_image_template.replace("{version}", &spec.postgres.version.to_string());
    Ok(ValidatedPair {
        name,
        owner,
        postgres_image: spec.postgres.image.clone().unwrap_or_else(default_image),
        agent_image: defaults.agent_image.clone(),
        image_pull_policy: defaults.image_pull_policy.clone(),
        uid: spec.postgres.uid,
        parameters: spec.postgres.parameters.clone(),
        hba: spec.postgres.hba.clone(),
        data: spec.storage.data.clone(),
        archive: spec.storage.archive.clone(),
        durability: spec.durability,
        ttl_ms: spec.failover.ttl_seconds.unsigned_abs() * 1000,
        archive_timeout_seconds: spec.archive_timeout_seconds.unsigned_abs(),
        standby_profile: spec.standby_profile,
        resources: spec.resources.clone(),
        service: spec.service.clone().unwrap_or_default(),
        database: spec.bootstrap.database.clone(),
        database_owner: database_owner.clone(),
        paused: spec.paused,
    })
}

fn identity(pair: &PgReplicaPair) -> Result<PairName, InvalidSpec> {
    let name = pair.name_any();
    let namespace = pair.namespace().ok_or(InvalidSpec::NoIdentity("metadata.namespace"))?;
    let letters = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let ends = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase()) && !name.ends_with('-');
    if name.len() > 40 || !letters || !ends {
        return Err(InvalidSpec::Name(name));
    }
    Ok(PairName { namespace, name })
}

fn range(field: &'static str, value: i64, min: i64, max: i64) -> Result<(), InvalidSpec> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(InvalidSpec::Range { field, value, min, max }) }
}

fn parameters(parameters: &BTreeMap<String, String>) -> Result<(), InvalidSpec> {
    for (name, value) in parameters {
        if settings::is_owned(name) {
            return Err(InvalidSpec::OwnedParameter(name.clone()));
        }
        if !settings::is_well_formed(name) {
            return Err(InvalidSpec::ParameterName(name.clone()));
        }
        if value.contains(['\n', '\r', '\0']) {
            return Err(InvalidSpec::ParameterValue(name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn defaults() -> Defaults {
        Defaults {
            postgres_image_template: "registry.test/pg:{version}".into(),
            agent_image: "registry.test/pgpair:1".into(),
            image_pull_policy: "IfNotPresent".into(),
        }
    }

    fn check(name: &str, spec: serde_json::Value) -> Result<ValidatedPair, InvalidSpec> {
        let pair = json!({
            "apiVersion": "pgpair.dev/v1alpha1", "kind": "PgReplicaPair",
            "metadata": {"name": name, "namespace": "shop", "uid": "u-1"}, "spec": spec,
        });
        validate(&serde_json::from_value(pair).unwrap(), &defaults())
    }

    #[test]
    fn an_empty_spec_gets_every_default() {
        let pair = check("orders", json!({})).unwrap();
        assert_eq!(pair.postgres_image, "registry.test/pg:17");
        assert_eq!((pair.ttl_ms, pair.archive_timeout_seconds, pair.uid), (5000, 60, 999));
        assert_eq!((pair.data.size.as_str(), pair.archive.size.as_str()), ("10Gi", "10Gi"));
        assert_eq!((pair.database.as_str(), pair.database_owner.as_str()), ("app", "app"));
        assert_eq!(pair.durability, Durability::Sync);
        assert!(!pair.paused);
    }

    #[test]
    fn an_image_of_the_spec_wins_over_the_template() {
        assert_eq!(check("orders", json!({"postgres": {"image": "x:1"}})).unwrap().postgres_image, "x:1");
    }

    #[test]
    fn settings_of_the_operator_are_refused_by_name_in_any_case() {
        let refused =
            |name: &str| check("orders", json!({"postgres": {"parameters": {name: "x"}}})).unwrap_err();
        assert_eq!(refused("FSYNC"), InvalidSpec::OwnedParameter("FSYNC".into()));
        assert_eq!(refused("primary_conninfo"), InvalidSpec::OwnedParameter("primary_conninfo".into()));
        assert_eq!(refused("a b"), InvalidSpec::ParameterName("a b".into()));
    }

    #[test]
    fn a_value_with_a_line_break_is_refused() {
        let spec = json!({"postgres": {"parameters": {"work_mem": "1MB\nfsync = off"}}});
        assert_eq!(check("orders", spec).unwrap_err(), InvalidSpec::ParameterValue("work_mem".into()));
    }

    #[test]
    fn names_that_services_cannot_have_are_refused() {
        for name in ["1a", "a.b", "a-", &"a".repeat(41)] {
            assert_eq!(check(name, json!({})).unwrap_err(), InvalidSpec::Name(name.into()));
        }
    }

    #[test]
    fn reserved_owners_and_wrong_ranges_are_refused() {
        for owner in ["postgres", "pg_monitor", "pgpair_replication"] {
            let spec = json!({"bootstrap": {"owner": owner}});
            assert_eq!(check("orders", spec).unwrap_err(), InvalidSpec::ReservedOwner(owner.into()));
        }
        assert!(matches!(
            check("orders", json!({"failover": {"ttlSeconds": 1}})),
            Err(InvalidSpec::Range { .. })
        ));
        assert_eq!(
            check("orders", json!({"postgres": {"version": 13}})).unwrap_err(),
            InvalidSpec::Version(13)
        );
    }
}
