//! What a person has set for the pair, as this agent finds it on its volumes: mounted as a file, or kept for a restart.
//!
//! Guarantee: nothing of a configuration that is refused is ever used.

use std::path::PathBuf;

use pgpair_core::authority::timing::{Timing, TtlError};
use pgpair_wire::config::PairConfig;

use crate::instance::env::InstanceEnv;
use crate::instance::fsx::{self, FileError};
use crate::instance::layout::Layout;
use crate::postgres::objection::{Objection, TryError};
use crate::postgres::postmaster;
use crate::postgres::render::hba::{self, ClientAccess};
use crate::postgres::render::{self, Floors, RenderError};
use crate::postgres::tool::PgBin;

/// `pg_basebackup --max-rate` takes 32 kB to 1024 MB per second.
const SEED_RATE: std::ops::RangeInclusive<u32> = 32..=1024 * 1024;
const HANG_TIMEOUT_MS: std::ops::RangeInclusive<u32> = 1_000..=600_000;
/// `archive_timeout` of PostgreSQL, in seconds.
const ARCHIVE_TIMEOUT_S: std::ops::RangeInclusive<u32> = 0..=i32::MAX as u32 / 2;

/// A configuration that is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Nothing was given.
    #[error(
        "no configuration: neither {mounted} (mounted by the operator, key pair.json of ConfigMap NAME-config) nor {stored} exists", mounted = mounted.display(), stored = stored.display()
    )]
    Missing {
        /// Where the ConfigMap is mounted.
        mounted: PathBuf,
        /// Where a pushed one is kept.
        stored: PathBuf,
    },
    /// The length of a promise.
    #[error(transparent)]
    Ttl(#[from] TtlError),
    /// A parameter or a line of `pg_hba.conf`.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// A number outside of its range.
    #[error("{field} is {value}, outside of {from} to {to}")]
    Range {
        /// Which one.
        field: &'static str,
        /// What it is.
        value: u64,
        /// Smallest.
        from: u64,
        /// Largest.
        to: u64,
    },
    /// Older than what is in use.
    #[error("generation {given} is older than {current}, which is in use")]
    Stale {
        /// Of the refused one.
        given: i64,
        /// Of the one in use.
        current: i64,
    },
    /// PostgreSQL itself does not accept it, or does not say.
    #[error(transparent)]
    Postgres(#[from] TryError),
    /// The agent ends.
    #[error("the agent is about to end")]
    Ending,
}

impl From<Objection> for ConfigError {
    fn from(objection: Objection) -> ConfigError {
        ConfigError::Postgres(objection.into())
    }
}

/// Whether a configuration can be used, by what is known without PostgreSQL.
///
/// # Errors
/// Says what is wrong with it.
pub fn check(settings: &InstanceEnv, config: &PairConfig) -> Result<(), ConfigError> {
    Timing::new(config.ttl_ms)?;
    within("hangTimeoutMs", config.hang_timeout_ms, &HANG_TIMEOUT_MS)?;
    within("archiveTimeoutS", config.archive_timeout_s, &ARCHIVE_TIMEOUT_S)?;
    if let Some(rate) = config.seed_rate_kib {
        within("seedRateKib", rate, &SEED_RATE)?;
    }
    render::main_conf(settings, config, Floors::default(), 1)?;
    hba::hba_conf(config, ClientAccess::Open)?;
    Ok(())
}

fn within(field: &'static str, value: u32, range: &std::ops::RangeInclusive<u32>) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (from, to) = (u64::from(*range.start()), u64::from(*range.end()));
    Err(ConfigError::Range { field, value: u64::from(value), from, to })
}

/// The configuration to start with: the mounted one or the stored one, whichever is newer; one that cannot be used does not
/// count.
///
/// # Errors
/// There is none that can be used.
pub fn load(settings: &InstanceEnv) -> Result<PairConfig, ConfigError> {
    let layout = &settings.layout;
    let read = |path: PathBuf| {
        let config: Option<PairConfig> = fsx::read_json(&path)?;
        config.map(|c| check(settings, &c).map(|()| c)).transpose()
    };
    let (mounted, stored) = (read(layout.mounted_config()), read(layout.stored_config()));
    match (mounted, stored) {
        // On a tie the mounted one: it is the operator's last word of that generation.
        (Ok(Some(m)), Ok(Some(s))) => Ok(if s.generation > m.generation { s } else { m }),
        (Ok(Some(one)), other) | (other, Ok(Some(one))) => {
            if let Err(e) = other {
                tracing::error!(error = %e, generation = one.generation, "a configuration is not used; another one is");
            }
            Ok(one)
        }
        (Err(e), _) | (_, Err(e)) => Err(e),
        (Ok(None), Ok(None)) => {
            Err(ConfigError::Missing { mounted: layout.mounted_config(), stored: layout.stored_config() })
        }
    }
}

/// The configuration to start postgres with: that of [`load`], unless PostgreSQL itself does not accept it. Then the one that it
/// accepted last, so that a mistake in the spec, which a running postgres never saw, does not end it at the next restart.
///
/// # Errors
/// There is none that can be used.
pub async fn load_tried(settings: &InstanceEnv, bin: &PgBin) -> Result<PairConfig, ConfigError> {
    let config = load(settings)?;
    let Err(why) = postmaster::try_parameters(settings, bin, &config).await else {
        prove(&settings.layout, &config);
        return Ok(config);
    };
    let proven: Option<PairConfig> = fsx::read_json(&settings.layout.proven_config()).ok().flatten();
    let Some(proven) = proven.filter(|p| *p != config && check(settings, p).is_ok()) else {
        tracing::error!(
            error = %why,
            generation = config.generation,
            "postgres does not accept the configuration, and there is no earlier one"
        );
        return Ok(config);
    };
    // Of an earlier pair on this volume it could be the newer one by its number, and then the correction would not be taken.
    let generation = proven.generation.min(config.generation - 1);
    tracing::error!(
        error = %why,
        generation = config.generation,
        used = generation,
        "postgres does not accept the configuration; the last one that it accepted is used"
    );
    Ok(PairConfig { generation, ..proven })
}

/// Remembers what postgres accepts. Only a fallback: without it everything is as if there had never been one.
pub fn prove(layout: &Layout, config: &PairConfig) {
    if let Err(e) = fsx::write_json(&layout.proven_config(), config) {
        tracing::warn!(error = %e, "the accepted configuration cannot be kept for a later start");
    }
}

/// Keeps a configuration for the next start, durable when this returns.
///
/// # Errors
/// The file cannot be written.
pub fn store(layout: &Layout, config: &PairConfig) -> Result<(), FileError> {
    fsx::write_json(&layout.stored_config(), config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    fn settings(root: &Path) -> InstanceEnv {
        let at = |n: &str| root.join(n).display().to_string();
        for dir in ["config", "run"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        let vars: BTreeMap<&str, String> = [
            ("PGPAIR_PAIR", "shop".into()),
            ("PGPAIR_NAMESPACE", "x".into()),
            ("PGPAIR_PEER_HOST", "x".into()),
            ("PGPAIR_INSTANCE", "a".into()),
            ("PGPAIR_CONFIG", at("config")),
            ("PGPAIR_RUN", at("run")),
        ]
        .into();
        InstanceEnv::from_lookup(|n| vars.get(n).cloned()).unwrap()
    }

    fn generation(generation: i64) -> PairConfig {
        PairConfig { generation, ..PairConfig::default() }
    }

    #[test]
    fn the_newer_of_mounted_and_stored_wins_and_without_any_nothing_starts() {
        let dir = tempfile::tempdir().unwrap();
        let s = settings(dir.path());
        let e = load(&s).unwrap_err();
        assert!(matches!(e, ConfigError::Missing { .. }) && e.to_string().contains("ConfigMap"), "{e}");
        store(&s.layout, &generation(3)).unwrap();
        assert_eq!(load(&s).unwrap().generation, 3);
        fsx::write_json(&s.layout.mounted_config(), &generation(2)).unwrap();
        assert_eq!(load(&s).unwrap().generation, 3);
        fsx::write_json(&s.layout.mounted_config(), &generation(4)).unwrap();
        assert_eq!(load(&s).unwrap().generation, 4);
    }

    #[test]
    fn one_that_cannot_be_used_does_not_hide_one_that_can() {
        let dir = tempfile::tempdir().unwrap();
        let s = settings(dir.path());
        store(&s.layout, &generation(3)).unwrap();
        let bad = PairConfig { ttl_ms: 10, ..generation(4) };
        fsx::write_json(&s.layout.mounted_config(), &bad).unwrap();
        assert_eq!(load(&s).unwrap().generation, 3);
        std::fs::write(s.layout.mounted_config(), b"{").unwrap();
        assert_eq!(load(&s).unwrap().generation, 3);
        std::fs::remove_file(s.layout.stored_config()).unwrap();
        assert!(matches!(load(&s), Err(ConfigError::File(_))));
    }

    #[test]
    fn what_is_out_of_range_or_the_operators_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let s = settings(dir.path());
        let refused = |c: PairConfig| check(&s, &c).unwrap_err().to_string();
        let parameter = |name: &str| PairConfig {
            parameters: [(name.to_owned(), "1".to_owned())].into(),
            ..PairConfig::default()
        };
        assert!(refused(PairConfig { ttl_ms: 999, ..PairConfig::default() }).contains("999"));
        assert!(
            refused(PairConfig { hang_timeout_ms: 1, ..PairConfig::default() }).contains("hangTimeoutMs")
        );
        assert!(
            refused(PairConfig { seed_rate_kib: Some(1), ..PairConfig::default() }).contains("seedRateKib")
        );
        assert!(refused(parameter("fsync")).contains("fsync"));
        assert!(refused(parameter("a b")).contains("not the name"));
        assert!(
            refused(PairConfig { hba: vec!["a\nb".into()], ..PairConfig::default() }).contains("line break")
        );
        check(&s, &parameter("work_mem")).unwrap();
    }
}
