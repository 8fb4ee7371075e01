//! The raw spec becomes a [`ValidatedPair`] once; nothing after this looks at the raw spec. The CRD's own rules refuse
//! most of what is refused here; this is the wall behind them, for objects that were stored under older rules.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use pgpair_wire::config::{Bootstrap, ClientTls, PairConfig};
use pgpair_wire::parameters::{Reason, WAL_LEVELS, refusal};

use crate::names::{OUR_ROLES, PairName};
use crate::spec::{
    AdoptSpec, BootstrapSpec, DatabaseSpec, FailoverSpec, MOST, NetworkPolicySpec, PgReplicaPair,
    PgReplicaPairSpec, ResourcesSpec, RoleSpec, SchedulingSpec, ServiceSpec, TlsSpec, VolumeSpec,
};
use crate::{quantity, settings};

#[cfg(test)]
mod tests;

/// What the operator gives where the spec is silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Image of PostgreSQL; `{version}` stands for the major version.
    pub postgres_image_template: String,
    /// Image with the `pgpair` binary: the operator's own.
    pub agent_image: String,
    /// `imagePullPolicy` of both.
    pub image_pull_policy: String,
    /// The operator's own namespace.
    pub operator_namespace: String,
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
    /// Data volume.
    pub data: VolumeSpec,
    /// Archive volume.
    pub archive: VolumeSpec,
    /// CPU and memory.
    pub resources: Option<ResourcesSpec>,
    /// Where the pods run.
    pub scheduling: SchedulingSpec,
    /// Labels, annotations and type of the Services.
    pub service: ServiceSpec,
    /// Who reaches the pods over the network; `None`: the network decides.
    pub network: Option<NetworkPolicySpec>,
    /// Where the operator runs.
    pub operator_namespace: String,
    /// Certificates.
    pub tls: TlsSpec,
    /// Database made at first start.
    pub database: String,
    /// Its owner.
    pub database_owner: String,
    /// Secret of the user with the owner's password; `None`: it is generated.
    pub owner_secret: Option<String>,
    /// Secret of the user with the superuser's password; `None`: it is generated.
    pub superuser_secret: Option<String>,
    /// The volumes of an earlier pair are taken up.
    pub adopt: Option<AdoptSpec>,
    /// Roles beside the owner.
    pub roles: Vec<RoleSpec>,
    /// Days after which a password that the operator has made is made anew; `None`: never.
    pub password_max_age_days: Option<i32>,
    /// Bytes that a standby may lack and still be offered by `NAME-ro`.
    pub read_lag_bytes: u64,
    /// Bring nothing of the spec into effect.
    pub paused: bool,
    config: PairConfig,
}

impl ValidatedPair {
    /// What the agents follow while they run.
    #[must_use]
    pub fn config(&self) -> &PairConfig {
        &self.config
    }

    /// The Secret with the certificate that postgres shows; `None`: it shows the pair's own.
    #[must_use]
    pub fn server_secret(&self) -> Option<String> {
        let issued = self.tls.issuer_ref.is_some().then(|| self.name.server_tls_secret());
        self.tls.server_secret.clone().or(issued)
    }

    /// The names without which that certificate is not taken.
    #[must_use]
    pub fn server_names(&self) -> Vec<String> {
        self.name.server_names().into_iter().chain(self.tls.dns_names.iter().cloned()).collect()
    }
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
    #[error("spec.postgres.version {0} is not supported: use 15, 16, 17, 18 or 19")]
    Version(i32),
    /// See the text.
    #[error("spec.postgres.parameters.{name} {}: remove it", reason.words())]
    RefusedParameter {
        /// The parameter.
        name: String,
        /// Why.
        reason: Reason,
    },
    /// See the text.
    #[error(
        "spec.postgres.parameters.wal_level is {0:?}: write replica, or logical for logical replication, or leave it out"
    )]
    WalLevel(String),
    /// See the text.
    #[error("{0:?} is not the name of a setting: write it in lower case, such as work_mem")]
    ParameterName(String),
    /// See the text.
    #[error("spec.postgres.parameters.{0} has a line break or a NUL in its value: remove it")]
    ParameterValue(String),
    /// See the text.
    #[error(
        "spec.postgres.hba has the line {0:?} for a role that comes in as the operator says: remove it; spec.bootstrap.superuserAccess lets postgres in by its password"
    )]
    OwnHbaLine(String),
    /// See the text.
    #[error(
        "spec.postgres.image {0:?} is no reference of an image: write registry/name:tag or name@digest, with the version in place of {{version}} and without blanks"
    )]
    Image(String),
    /// See the text.
    #[error("spec.bootstrap.owner {0:?} is reserved: use another name, such as app")]
    ReservedOwner(String),
    /// See the text.
    #[error("spec.bootstrap.database {0:?} exists in every new cluster: use another name, such as app")]
    ReservedDatabase(String),
    /// See the text.
    #[error(
        "spec.roles has {0:?}, which is reserved, is the owner of spec.bootstrap, or is to be a member of itself, postgres or a role of the operator: use another name or remove the membership"
    )]
    ReservedRole(String),
    /// See the text.
    #[error("spec.databases has {0:?}, which is reserved or has a reserved owner: use another name")]
    ReservedDatabaseOf(String),
    /// See the text.
    #[error(
        "spec.roles has {0:?} with a passwordSecret that the operator makes for another role: name a Secret of yours"
    )]
    OwnPasswordSecret(String),
    /// See the text.
    #[error(
        "spec.roles has {0:?} with a certificate, which is for a role that may log in, and takes the place of its password: set login to true, and remove passwordSecret"
    )]
    CertificateBesidePassword(String),
    /// See the text.
    #[error(
        "spec.bootstrap.{0} names a Secret that the operator makes itself: name a Secret of yours, or leave the field out"
    )]
    OwnSecret(&'static str),
    /// See the text.
    #[error("spec.tls.serverSecret names a Secret that the operator makes itself: name a Secret of yours")]
    OwnServerSecret,
    /// See the text.
    #[error("{field} {value:?} is no quantity of 1Mi to 1Ti: write it like 16Mi")]
    Quantity {
        /// Path of the field.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// Two fields that exclude each other; the text names both and says what to do.
    #[error("{0}")]
    Contradiction(&'static str),
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
    range("spec.archiveTimeoutSeconds", spec.archive_timeout_seconds.into(), 10, 3600)?;
    range("spec.postgres.uid", spec.postgres.uid, 1, 65535)?;
    if !(14..=19).contains(&spec.postgres.version) {
        return Err(InvalidSpec::Version(spec.postgres.version));
    }
    parameters(&spec.postgres.parameters)?;
    bootstrap(&spec.bootstrap, &name)?;
    roles(spec, &name)?;
    hba(&spec.postgres.hba)?;
    tls(&spec.tls, &name, &spec.postgres.hba)?;
    if let Some(days) = spec.passwords.max_age_days {
        range("spec.passwords.maxAgeDays", days.into(), 1, 3650)?;
    }
    let config = config(spec, pair.metadata.generation.unwrap_or(0))?;
    if let Some(image) = spec.postgres.image.as_ref().filter(|image| !is_image(image)) {
        return Err(InvalidSpec::Image(image.clone()));
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
        data: spec.storage.data.clone(),
        archive: spec.storage.archive.clone(),
        resources: spec.resources.clone(),
        scheduling: spec.scheduling.clone(),
        service: spec.service.clone().unwrap_or_default(),
        network: spec.network_policy.clone(),
        operator_namespace: defaults.operator_namespace.clone(),
        tls: spec.tls.clone(),
        database: spec.bootstrap.database.clone(),
        database_owner: spec.bootstrap.owner.clone(),
        owner_secret: spec.bootstrap.owner_secret.clone(),
        superuser_secret: spec.bootstrap.superuser_secret.clone(),
        adopt: spec.bootstrap.adopt.clone(),
        roles: spec.roles.clone(),
        password_max_age_days: spec.passwords.max_age_days,
        read_lag_bytes: config.read_lag_bytes,
        paused: spec.paused,
        config,
    })
}

fn config(spec: &PgReplicaPairSpec, generation: i64) -> Result<PairConfig, InvalidSpec> {
    let FailoverSpec { automatic, ttl_seconds, max_lag, on_postgres_crash, hang_timeout_seconds } =
        &spec.failover;
    range("spec.failover.ttlSeconds", (*ttl_seconds).into(), 2, 60)?;
    range("spec.failover.hangTimeoutSeconds", (*hang_timeout_seconds).into(), 2, 600)?;
    if hang_timeout_seconds < ttl_seconds {
        return Err(InvalidSpec::Contradiction(
            "spec.failover.hangTimeoutSeconds is below spec.failover.ttlSeconds: raise the one or lower the other",
        ));
    }
    let seed_rate_kib = match spec.seeding.max_rate_mib {
        None => None,
        Some(mib) => {
            range("spec.seeding.maxRateMiB", mib.into(), 1, 1024)?;
            Some(mib.unsigned_abs() * 1024)
        }
    };
    let bootstrap = &spec.bootstrap;
    Ok(PairConfig {
        generation,
        durability: spec.durability,
        ttl_ms: ttl_seconds.unsigned_abs() * 1000,
        max_lag_bytes: lag("spec.failover.maxLag", max_lag)?,
        automatic: *automatic,
        on_postgres_crash: *on_postgres_crash,
        hang_timeout_ms: hang_timeout_seconds.unsigned_abs() * 1000,
        archive_timeout_s: spec.archive_timeout_seconds.unsigned_abs(),
        standby_profile: spec.standby_profile,
        parameters: spec.postgres.parameters.clone(),
        hba: spec.postgres.hba.clone(),
        read_lag_bytes: lag("spec.readLag", &spec.read_lag)?,
        seed_rate_kib,
        client_tls: spec.tls.clients,
        superuser_access: bootstrap.superuser_access(),
        roles: spec.roles.iter().map(RoleSpec::config).collect(),
        databases: spec.databases.iter().map(|database| database.config(&bootstrap.owner)).collect(),
        bootstrap: Bootstrap {
            checksums: bootstrap.checksums,
            locale: bootstrap.locale.clone(),
            encoding: bootstrap.encoding.clone(),
            version: u32::try_from(spec.postgres.version).ok(),
            post_init_sql: bootstrap.post_init_sql.clone(),
        },
    })
}

fn lag(field: &'static str, text: &str) -> Result<u64, InvalidSpec> {
    let invalid = || InvalidSpec::Quantity { field, value: text.to_owned() };
    quantity::bytes(text).filter(|bytes| (1 << 20..=1 << 40).contains(bytes)).ok_or_else(invalid)
}

fn bootstrap(bootstrap: &BootstrapSpec, name: &PairName) -> Result<(), InvalidSpec> {
    let owner = bootstrap.owner.as_str();
    if OUR_ROLES.contains(&owner) || ["public", "none"].contains(&owner) || owner.starts_with("pg_") {
        return Err(InvalidSpec::ReservedOwner(owner.to_owned()));
    }
    if ["postgres", "template0", "template1"].contains(&bootstrap.database.as_str()) {
        return Err(InvalidSpec::ReservedDatabase(bootstrap.database.clone()));
    }
    let made = [name.app_secret(), name.superuser_secret()];
    for (field, secret) in
        [("ownerSecret", &bootstrap.owner_secret), ("superuserSecret", &bootstrap.superuser_secret)]
    {
        if secret.as_ref().is_some_and(|s| made.contains(s)) {
            return Err(InvalidSpec::OwnSecret(field));
        }
    }
    Ok(())
}

/// By its characters: the kubelet judges the rest, and what it says is told.
fn is_image(text: &str) -> bool {
    let is_ok = |c: char| c.is_ascii_alphanumeric() || "._:/@[]-".contains(c);
    text.chars().all(is_ok) && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
}

/// Roles and databases. What PostgreSQL alone can judge, it judges one by one.
fn roles(spec: &PgReplicaPairSpec, name: &PairName) -> Result<(), InvalidSpec> {
    for (field, number) in [("spec.roles", spec.roles.len()), ("spec.databases", spec.databases.len())] {
        range(field, i64::try_from(number).unwrap_or(i64::MAX), 0, MOST)?;
    }
    let is_reserved = |role: &str| {
        ["postgres", "public", "none"].contains(&role)
            || role.starts_with("pg_")
            || role.starts_with("pgpair_")
    };
    let made = [name.app_secret(), name.superuser_secret()];
    for RoleSpec { name: role, login, member_of, connection_limit, password_secret, certificate } in
        &spec.roles
    {
        range("spec.roles[].connectionLimit", (*connection_limit).into(), -1, 10_000)?;
        let is_ours = |of: &String| of == "postgres" || of.starts_with("pgpair_") || of == role;
        if is_reserved(role) || *role == spec.bootstrap.owner || member_of.iter().any(is_ours) {
            return Err(InvalidSpec::ReservedRole(role.clone()));
        }
        if password_secret.as_ref().is_some_and(|secret| made.contains(secret)) {
            return Err(InvalidSpec::OwnPasswordSecret(role.clone()));
        }
        if *certificate && (!login || password_secret.is_some()) {
            return Err(InvalidSpec::CertificateBesidePassword(role.clone()));
        }
    }
    for DatabaseSpec { name: database, owner, .. } in &spec.databases {
        let is_made = ["postgres", "template0", "template1"].contains(&database.as_str());
        if is_made || database.starts_with("pgpair_") || owner.as_deref().is_some_and(is_reserved) {
            return Err(InvalidSpec::ReservedDatabaseOf(database.clone()));
        }
    }
    Ok(())
}

fn hba(lines: &[String]) -> Result<(), InvalidSpec> {
    let names_ours = |line: &&String| {
        let roles = line.split_whitespace().nth(2).unwrap_or_default();
        roles.split(',').any(|role| OUR_ROLES.contains(&role.trim_matches('"')))
    };
    lines.iter().find(names_ours).map_or(Ok(()), |line| Err(InvalidSpec::OwnHbaLine(line.clone())))
}

fn tls(tls: &TlsSpec, name: &PairName, hba: &[String]) -> Result<(), InvalidSpec> {
    range("spec.tls.validityDays", tls.validity_days.into(), 2, 3650)?;
    range("spec.tls.renewBeforeDays", tls.renew_before_days.into(), 1, 3649)?;
    if tls.renew_before_days >= tls.validity_days {
        return Err(InvalidSpec::Contradiction(
            "spec.tls.renewBeforeDays is not less than spec.tls.validityDays: lower the one or raise the other",
        ));
    }
    if tls.server_secret.as_ref().is_some_and(|secret| name.secrets().contains(secret)) {
        return Err(InvalidSpec::OwnServerSecret);
    }
    if tls.server_secret.is_some() && tls.issuer_ref.is_some() {
        return Err(InvalidSpec::Contradiction(
            "spec.tls has serverSecret and issuerRef, but PostgreSQL shows one certificate: remove one of the two",
        ));
    }
    if tls.clients == ClientTls::Required && hba.iter().any(|line| line.starts_with("hostnossl")) {
        return Err(InvalidSpec::Contradiction(
            "spec.postgres.hba has a line hostnossl, but spec.tls.clients is Required: remove the line or set it to Optional",
        ));
    }
    Ok(())
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
        if let Some(reason) = refusal(name) {
            return Err(InvalidSpec::RefusedParameter { name: name.clone(), reason });
        }
        if !settings::is_well_formed(name) {
            return Err(InvalidSpec::ParameterName(name.clone()));
        }
        if value.contains(['\n', '\r', '\0']) {
            return Err(InvalidSpec::ParameterValue(name.clone()));
        }
        if name == "wal_level" && !WAL_LEVELS.contains(&value.as_str()) {
            return Err(InvalidSpec::WalLevel(value.clone()));
        }
    }
    Ok(())
}
