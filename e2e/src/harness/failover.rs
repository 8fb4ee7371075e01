//! One failover under the oracle, step by step; the tests and the demo walk the same steps.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use pgpair_api::status::{FailoverStatus, PgReplicaPairStatus};
use pgpair_core::authority::Durability;
use pgpair_core::ids::InstanceId;
use pgpair_wire::report::FailoverStep;

use crate::harness::faults::{Broken, Fault, inject};
use crate::harness::oracle_pod::{Oracle, Target};
use crate::harness::pair::Pair;
use crate::harness::record;
use crate::harness::wait::await_condition;
use crate::oracle::event::{Ack, Event};
use crate::oracle::verdict::{Verdict, judge, longest_silence_ms};
use crate::oracle::writer::now_us;

/// Clocks of nodes that are machines of their own may lie this far apart; nodes of the local cluster share one.
const FOREIGN_CLOCK_ERROR_US: i64 = 500_000;
/// For a writer to have its first acknowledgements: after an outage of the API server a kubelet hears of a new pod after a minute
/// or so.
const START: Duration = Duration::from_secs(180);
/// For the standby to be primary in the record, after the fault.
const TAKEOVER: Duration = Duration::from_secs(60);
/// For the old primary to be back as a standby.
const REJOIN: Duration = Duration::from_secs(240);

/// What the writers' records say.
#[derive(Debug)]
pub struct Judgement {
    /// Over all writers: nothing lost, never two servers.
    pub verdict: Verdict,
    /// Longest time for which the writer through the Service had no acknowledgement across a change of server, in
    /// milliseconds: what an application sees. The direct writers do not wait for the Service to follow. `None` when one
    /// server acknowledged everything.
    pub service_gap_ms: Option<f64>,
    /// When that writer had its last acknowledgement of the first server, and its first one of the next, in microseconds since 1970.
    pub service_away_us: Option<(i64, i64)>,
    /// Longest time for which that writer had no acknowledgement, whoever answered, in milliseconds.
    pub service_silence_ms: f64,
}

/// A failover under way.
#[derive(Debug)]
pub struct Failover {
    /// The pair.
    pub pair: Pair,
    /// Primary at the beginning.
    pub old: InstanceId,
    /// Term at the beginning.
    pub term: i64,
    /// Timeline at the beginning.
    pub timeline: u32,
    /// The writers: number 0 goes through the Service, number 1 (on the old primary's node) to both instances directly.
    pub oracle: Oracle,
    /// When the fault was made, microseconds since 1970; 0 before.
    pub struck_us: i64,
    broken: Option<Broken>,
}

impl Failover {
    /// Takes a pair that is `Paired` and starts the writers; returns when both have acknowledgements.
    ///
    /// # Errors
    /// When the pair is not `Paired`, or nobody can write.
    pub async fn begin(pair: &Pair, table: &str) -> anyhow::Result<Failover> {
        let status = pair.await_paired(1, Duration::from_secs(120)).await?;
        let old = pair.primary_of(&status)?;
        let mut failover = Failover {
            pair: pair.clone(),
            old,
            term: status.term.context("status has no term")?,
            timeline: 0,
            oracle: Oracle::new(pair, table),
            struck_us: 0,
            broken: None,
        };
        let started = failover.start_writers().await;
        pair.explain(started).await?;
        Ok(failover)
    }

    async fn start_writers(&mut self) -> anyhow::Result<()> {
        let (old, new) = (self.pair.node(self.old).await?, self.pair.node(self.old.peer()).await?);
        let nodes = self.pair.cluster.ready_nodes().await?;
        // A client is best on a node of its own; beside the standby it survives the primary's node too.
        let client = nodes.iter().find(|n| **n != old && **n != new).unwrap_or(&new);
        self.oracle.start(client, &Target::Service).await?;
        let addresses = vec![self.pair.address(self.old).await?, self.pair.address(self.old.peer()).await?];
        self.oracle.start(&old, &Target::Direct(addresses)).await?;
        let first = self.oracle.await_acks(0, 25, |_| true, START).await?;
        // As the server itself tells it: the status may be some seconds behind.
        self.timeline = first.reign.timeline;
        self.oracle.await_acks(1, 25, |_| true, START).await?;
        Ok(())
    }

    /// The instance that is to take over.
    #[must_use]
    pub fn new_primary(&self) -> InstanceId {
        self.old.peer()
    }

    /// Makes the fault.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn strike(&mut self, fault: Fault) -> anyhow::Result<()> {
        self.struck_us = now_us();
        self.broken = Some(inject(&self.pair, self.old, fault).await?);
        Ok(())
    }

    /// What struck the pair of `other` strikes this one too, and is healed there.
    pub fn shares(&mut self, other: &Failover) {
        self.struck_us = other.struck_us;
    }

    /// Waits for the other instance to write in a higher term and on a higher timeline, as the client sees it.
    ///
    /// # Errors
    /// When it does not within 60 s.
    pub async fn await_first_ack(&self) -> anyhow::Result<Ack> {
        let newer = |ack: &Ack| ack.reign.timeline > self.timeline;
        let first = self.oracle.await_acks(0, 1, newer, TAKEOVER).await;
        let first = self.pair.explain(first).await?;
        let wanted = self.pair.address(self.new_primary()).await?;
        ensure!(
            first.reign.server.starts_with(&format!("{wanted}:")),
            "the new primary is {}, not {wanted}",
            first.reign.server
        );
        Ok(first)
    }

    /// Waits until the writer through the Service has an acknowledgement on a connection made after the fault, by whichever
    /// instance, and returns it.
    ///
    /// # Errors
    /// When none comes within 60 s.
    pub async fn await_service(&self) -> anyhow::Result<Ack> {
        let back = await_condition("an acknowledgement on a new connection", TAKEOVER, || async {
            let log = self.oracle.log(0).await?;
            let mut after = log.0.iter().skip_while(
                |event| !matches!(event, Event::Connected { at_us, .. } if *at_us > self.struck_us),
            );
            let ack =
                after.find_map(|event| if let Event::Ack(ack) = event { Some(ack.clone()) } else { None });
            ack.with_context(|| format!("its last record: {}", log.last_line()))
        });
        let back = back.await;
        self.pair.explain(back).await
    }

    /// Waits until the status tells of the take-over, its steps included, and the read-write Service leads to it.
    ///
    /// # Errors
    /// When that does not come within 60 s.
    pub async fn await_takeover(&self) -> anyhow::Result<(PgReplicaPairStatus, FailoverStatus)> {
        let told = await_condition("the take-over in the status", TAKEOVER, || async {
            let status = self.pair.status().await?;
            let term = status.term.context("no term")?;
            ensure!(term > self.term, "term is still {term}");
            let primary = self.pair.primary_of(&status)?;
            ensure!(primary == self.new_primary(), "status.primary is {primary} in term {term}");
            let last = status.last_failover.clone().context("status has no lastFailover")?;
            ensure!(last.term > self.term, "lastFailover is of term {}", last.term);
            ensure!(
                last.steps.iter().any(|s| s.step.is(FailoverStep::Endpoint)),
                "lastFailover has no step Endpoint yet"
            );
            self.pair.rw_leads_to(self.new_primary()).await?;
            Ok((status, last))
        });
        let told = told.await;
        self.pair.explain(told).await
    }

    /// Heals what does not heal by itself. To be called whatever happened.
    ///
    /// # Errors
    /// When the cluster's command fails.
    pub async fn heal(&mut self) -> anyhow::Result<()> {
        match self.broken.take() {
            Some(broken) => broken.heal(&self.pair.cluster).await,
            None => Ok(()),
        }
    }

    /// Waits until the old primary is a standby that may take over, and the new one still primary.
    ///
    /// # Errors
    /// When that does not come within four minutes.
    pub async fn await_rejoined(&self) -> anyhow::Result<PgReplicaPairStatus> {
        let status = self.pair.await_paired(self.term + 1, REJOIN).await?;
        ensure!(self.pair.primary_of(&status)? == self.new_primary(), "the old primary is primary again");
        Ok(status)
    }

    /// Waits until the pair is whole again, whoever is primary, and the status knows of the fault: it tells of a later term,
    /// or, when the old primary went on in its term, is as it was.
    ///
    /// # Errors
    /// When that does not come within `limit`.
    pub async fn await_told(&self, limit: Duration) -> anyhow::Result<PgReplicaPairStatus> {
        let changed = self.oracle.log(0).await?.acks().any(|ack| ack.reign.timeline > self.timeline);
        self.pair.await_paired(self.term + i64::from(changed), limit).await
    }

    /// Ends the writers, judges their records by the rows on the primary of now, and compares both instances.
    ///
    /// # Errors
    /// When records or rows cannot be read, or the instances do not become equal. A bad verdict is no error.
    pub async fn judge(&mut self) -> anyhow::Result<Judgement> {
        // Records first, rows afterwards: every number recorded as acknowledged by then must be among the rows.
        let acks = self.oracle.all_acks().await?;
        let service = self.oracle.log(0).await?;
        let of_service = judge(service.acks(), [], 0);
        let service_gap_ms = of_service.longest_gap_ms();
        let service_away_us = match &of_service.reigns[..] {
            [old, new, ..] => Some((old.last_us, new.first_us)),
            _ => None,
        };
        let service_silence_ms = longest_silence_ms(service.acks());
        let primary = self.pair.primary_of(&self.pair.status().await?)?;
        let rows = self.pair.psql(primary, &format!("SELECT n FROM {}", self.oracle.table)).await?;
        let rows = rows.lines().map(|n| n.parse().with_context(|| format!("row {n:?}")));
        let rows = rows.collect::<anyhow::Result<Vec<i64>>>()?;
        let clock_error = if self.pair.cluster.local.is_some() { 0 } else { FOREIGN_CLOCK_ERROR_US };
        let mut verdict = judge(&acks, rows, clock_error);
        if record::read(&self.pair).await?.durability == Durability::Async {
            verdict = verdict.without_positions();
        }
        self.oracle.stop().await?;
        let sum = format!(
            "SELECT count(*) || ' ' || coalesce(md5(string_agg(n || writer || server, ',' ORDER BY n)), '') FROM {}",
            self.oracle.table
        );
        self.pair.await_equal(&sum, Duration::from_secs(60)).await?;
        Ok(Judgement { verdict, service_gap_ms, service_away_us, service_silence_ms })
    }
}
