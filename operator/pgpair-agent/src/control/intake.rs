//! The way of a new configuration into a running agent: pushed by the operator, or mounted by the kubelet.
//!
//! Guarantees: what is accepted is on disk before it is used; a generation that is older than the one in use never comes back.

use std::sync::Arc;
use std::time::Duration;

use pgpair_wire::config::PairConfig;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::control::inbox::Input;
use crate::instance::env::InstanceEnv;
use crate::instance::fsx;
use crate::postgres::libraries;
use crate::postgres::pair_config::{ConfigError, check, prove, store};
use crate::postgres::postmaster;
use crate::postgres::sql::Sql;
use crate::postgres::tool::PgBin;

/// How often the mounted file is looked at: it is the way of a change when this agent could not be reached.
const LOOK: Duration = Duration::from_secs(10);

/// The way of a new configuration into a running agent.
#[derive(Debug, Clone)]
pub struct Intake {
    settings: Arc<InstanceEnv>,
    bin: PgBin,
    sql: Sql,
    current: watch::Receiver<Arc<PairConfig>>,
    inbox: mpsc::Sender<Input>,
    /// One at a time: a later one must see what an earlier one has made current.
    turn: Arc<Mutex<()>>,
}

impl Intake {
    /// `inbox` is the way to the driver, `current` what the driver has made of it.
    #[must_use]
    pub fn new(
        settings: Arc<InstanceEnv>,
        bin: PgBin,
        sql: Sql,
        current: watch::Receiver<Arc<PairConfig>>,
        inbox: mpsc::Sender<Input>,
    ) -> Intake {
        Intake { settings, bin, sql, current, inbox, turn: Arc::default() }
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
            postmaster::try_parameters(&self.settings, &self.bin, &config)
                .await
                .map_err(ConfigError::Postgres)?;
            if let Some(why) = libraries::find_missing(&self.sql, &config.parameters).await {
                return Err(ConfigError::Postgres(why));
            }
        }
        let (layout, config) = (self.settings.layout.clone(), Arc::new(config));
        let kept = config.clone();
        let keep = move || store(&layout, &kept).map(|()| prove(&layout, &kept));
        tokio::task::spawn_blocking(keep).await.map_err(|_| ConfigError::Ending)??;
        let (tx, rx) = oneshot::channel();
        self.inbox.send(Input::Configure(config, tx)).await.map_err(|_| ConfigError::Ending)?;
        rx.await.map_err(|_| ConfigError::Ending)
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
