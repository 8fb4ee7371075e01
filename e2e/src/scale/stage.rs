//! Control plane, pairs, agents and operator together, and the waits for their states.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::FutureExt as _;
use kube::api::ListParams;
use kube::{Api, Client};
use pgpair_api::PgReplicaPair;
use tokio::time::sleep;

use crate::scale::agents::Agents;
use crate::scale::audit::Counts;
use crate::scale::door::Door;
use crate::scale::kubelet;
use crate::scale::operator::Operator;
use crate::scale::pairs;
use crate::scale::plane::{Addresses, Plane};

/// Nothing was written for so long: calm.
const QUIET: Duration = Duration::from_secs(15);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Between two lines about how far it is.
const TELL: Duration = Duration::from_secs(15);
/// Pairs in one answer of the API server.
const PAGE: u32 = 500;

/// Everything for one number of pairs.
#[derive(Debug)]
pub struct Stage {
    /// etcd and API server.
    pub plane: Plane,
    /// Its agents.
    pub agents: Arc<Agents>,
    /// The operator that leads.
    pub operator: Operator,
    /// How many pairs there are.
    pub pairs: usize,
    progress: Arc<kubelet::Progress>,
}

impl Stage {
    /// Creates so many pairs, and starts the operator then. The client is an administrator's.
    ///
    /// # Errors
    /// When something cannot be started.
    pub async fn set_up(
        folder: &Path,
        bin: &Path,
        program: &Path,
        pairs: usize,
        addresses: Addresses,
    ) -> anyhow::Result<(Stage, Client)> {
        let (plane, client) = Plane::start(folder, bin, addresses).await?;
        let agents = Arc::new(Agents::of(pairs));
        let began = Instant::now();
        pairs::create(&client, pairs).await?;
        println!("  {pairs} pairs are created after {:.0} s", began.elapsed().as_secs_f64());
        let door = Door::to(agents.clone()).serve(client.clone());
        tokio::spawn(door.map(|ended| {
            if let Err(error) = ended {
                eprintln!("the agents end: {error:#}")
            }
        }));
        let progress = Arc::new(kubelet::Progress::default());
        tokio::spawn(kubelet::run(client.clone(), progress.clone()));
        let operator = Operator::start(program, &plane, 1)?;
        Ok((Stage { plane, agents, operator, pairs, progress }, client))
    }

    /// Waits until all agents have been heard by the process that leads, and nothing was written for a while; tells how far it is.
    ///
    /// # Errors
    /// When that does not come within `limit`, or a process has ended.
    pub async fn await_calm(&mut self, limit: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        let (mut told, mut since) = (Instant::now(), Instant::now());
        let mut before = self.counts();
        loop {
            sleep(LOOK).await;
            self.operator.footprint()?;
            self.plane.check()?;
            let now = self.counts();
            let (heard, _) = self.agents.heard();
            if now.writes != before.writes {
                since = Instant::now();
            }
            if heard == 2 * self.pairs && since.elapsed() >= QUIET {
                return Ok(());
            }
            if told.elapsed() >= TELL {
                told = Instant::now();
                println!("  {:4.0} s: {}", began.elapsed().as_secs_f64(), self.words(heard, &now));
            }
            if began.elapsed() >= limit {
                let lately = self.counts() - &before;
                bail!(
                    "not calm within {} s: {}; written last: {:?}",
                    limit.as_secs(),
                    self.words(heard, &now),
                    lately.by_kind
                );
            }
            before = now;
        }
    }

    fn words(&self, heard: usize, counts: &Counts) -> String {
        let (pods, failed) = (&self.progress.pods, &self.progress.failed);
        format!(
            "{} pods, {heard} of {} agents heard, {} writes of the operator, {} failed requests of the simulation",
            pods.load(Ordering::Relaxed),
            2 * self.pairs,
            counts.writes,
            failed.load(Ordering::Relaxed),
        )
    }

    /// What the API server answered to the operator so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.plane.audit.counts()
    }

    /// Whether the status of every pair says that it is ready.
    ///
    /// # Errors
    /// When one does not.
    pub async fn check_ready(&self, client: &Client) -> anyhow::Result<()> {
        let all = Api::<PgReplicaPair>::all(client.clone());
        let (mut ready, mut params) = (0, ListParams::default().limit(PAGE));
        loop {
            let page = all.list(&params).await.context("listing pairs")?;
            ready += page.items.iter().filter(|pair| is_ready(pair)).count();
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        ensure!(
            ready == self.pairs,
            "the status of {ready} pairs of {} says that they are ready",
            self.pairs
        );
        Ok(())
    }
}

fn is_ready(pair: &PgReplicaPair) -> bool {
    let conditions = pair.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}
