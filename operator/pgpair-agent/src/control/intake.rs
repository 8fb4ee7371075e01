//! The way of a new configuration into a running agent: pushed by the operator, or mounted by the kubelet.
//!
//! Guarantees: what is accepted is on disk before it is used; a generation that is older than the one in use never comes back.

use std::sync::Arc;
use std::time::Duration;

use pgpair_wire::config::PairConfig;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::control::inbox::{HbaTrial, Input};
use crate::instance::env::InstanceEnv;
use crate::instance::fsx;
use crate::postgres::libraries;
use crate::postgres::objection::Objection;
use crate::postgres::pair_config::{ConfigError, check, prove, store};
use crate::postgres::postmaster;
use crate::postgres::render::decoding::WalLevel;
use crate::postgres::slots;
use crate::postgres::sql::Sql;
use crate::postgres::tool::PgBin;

/// How often the mounted file is looked at: it is the way of a change when this agent could not be reached.
const LOOK: Duration = Duration::from_secs(10);

/// The worker looks twice a second for what is to be tried. One that has more urgent work does not hold up a correction.
const TRIAL: Duration = Duration::from_secs(5);

/// The way of a new configuration into a running agent.
#[derive(Debug, Clone)]
pub struct Intake {
    settings: Arc<InstanceEnv>,
    bin: PgBin,
    sql: Sql,
    current: watch::Receiver<Arc<PairConfig>>,
    inbox: mpsc::Sender<Input>,
    hba_trials: mpsc::Sender<HbaTrial>,
    /// One at a time: a later one must see what an earlier one has made current.
    turn: Arc<Mutex<()>>,
}

impl Intake {
    /// `inbox` is the way to the driver, `current` what the driver has made of it, `hba_trials` the way to the worker.
    #[must_use]
    pub fn new(
        settings: Arc<InstanceEnv>,
        bin: PgBin,
        sql: Sql,
        current: watch::Receiver<Arc<PairConfig>>,
        inbox: mpsc::Sender<Input>,
        hba_trials: mpsc::Sender<HbaTrial>,
    ) -> Intake {
        Intake { settings, bin, sql, current, inbox, hba_trials, turn: Arc::default() }
    }

    /// Checks, stores and hands over. The one in use, given again, is a success and changes nothing.
    ///
    /// # Errors
    /// Nothing has changed, except that it may be used after a restart if the agent was about to end.
    pub async fn accept(&self, config: PairConfig) -> Result<(), ConfigError> {
        let _turn = self.turn.lock().await;
        let current = self.current.borrow().clone();
        if *current == config {
            return Ok(());
        }
        if config.generation < current.generation {
            return Err(ConfigError::Stale { given: config.generation, current: current.generation });
        }
        check(&self.settings, &config)?;
        if (&config.parameters, &config.hba) != (&current.parameters, &current.hba) {
            postmaster::try_parameters(&self.settings, &self.bin, &config).await?;
            if let Some(why) = keeps_level(&self.sql, &current, &config).await {
                return Err(why.into());
            }
            if let Some(why) = libraries::find_missing(&self.sql, &config.parameters).await {
                return Err(why.into());
            }
        }
        let (layout, config) = (self.settings.layout.clone(), Arc::new(config));
        if config.hba != current.hba
            && let Some(why) = self.try_hba(config.clone()).await
        {
            return Err(why.into());
        }
        let kept = config.clone();
        let keep = move || store(&layout, &kept).map(|()| prove(&layout, &kept));
        tokio::task::spawn_blocking(keep).await.map_err(|_| ConfigError::Ending)??;
        let (tx, rx) = oneshot::channel();
        self.inbox.send(Input::Configure(config, tx)).await.map_err(|_| ConfigError::Ending)?;
        rx.await.map_err(|_| ConfigError::Ending)
    }

    /// What PostgreSQL itself objects to in the access rules: it keeps the old ones when it reads bad ones, and does not start with them.
    /// The worker asks it, for nobody else writes that file.
    async fn try_hba(&self, config: Arc<PairConfig>) -> Option<Objection> {
        let (objection, answer) = oneshot::channel();
        self.hba_trials.try_send(HbaTrial { config, objection }).ok()?;
        tokio::time::timeout(TRIAL, answer).await.ok()?.ok()?
    }

    /// Takes over what the kubelet mounts, for ever. One that is refused is told of once.
    pub async fn watch_mounted(self) {
        let mut refused = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let path = self.settings.layout.mounted_config();
            let read = tokio::task::spawn_blocking(move || fsx::read_json::<PairConfig>(&path)).await;
            let Ok(Ok(Some(mounted))) = read else { continue };
            let generation = mounted.generation;
            if generation <= self.current.borrow().generation || refused == Some(generation) {
                continue;
            }
            match self.accept(mounted).await {
                Ok(()) => tracing::info!(generation, "the mounted configuration is newer: it is used"),
                Err(e) => {
                    tracing::error!(error = %e, generation, "the mounted configuration is refused");
                    refused = Some(generation);
                }
            }
        }
    }
}

/// Why `wal_level` cannot be lowered. PostgreSQL would take it and not start again; the next start keeps the level for such slots, also
/// for those that are made later, but nobody would be told that the new value never comes into effect.
async fn keeps_level(sql: &Sql, current: &PairConfig, new: &PairConfig) -> Option<Objection> {
    if (WalLevel::configured(current), WalLevel::configured(new)) != (WalLevel::Logical, WalLevel::Replica) {
        return None;
    }
    // One that cannot be asked now is asked by the directory at its next start.
    let found = slots::fetch_logical(sql).await.ok().filter(|found| !found.is_empty())?;
    Some(Objection::NeedsLogical { slots: found })
}
