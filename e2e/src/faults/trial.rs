//! One case from beginning to end: writers, fault, its end, a whole pair, verdict.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use pgpair_core::record::{Mode, Record};
use tokio::time::{Instant, sleep};

use crate::faults::act::Act;
use crate::faults::compare::compare;
use crate::faults::dice::Dice;
use crate::faults::kind::Kind;
use crate::faults::lives::Lives;
use crate::faults::row::{ApiWrites, Case, Found};
use crate::faults::stage::Stage;
use crate::faults::stand::Stand;
use crate::harness::audit::AuditLog;
use crate::harness::failover::Failover;
use crate::harness::record::{self, RecordLog};
use crate::harness::wait::await_condition;
use crate::oracle::event::{Ack, Event, Log};
use crate::oracle::verdict::longest_silence_ms;
use crate::oracle::writer::now_us;

/// For a pair to be whole again after the end of a fault. A base backup is made well within it, and the longest pause before a
/// pairing (60 s, after many that did not last) too.
const WHOLE: Duration = Duration::from_secs(180);
/// Nothing has changed for so long: then it is over. Longer than anything that is still to come of a fault may be silent.
const STILL: Duration = Duration::from_secs(6);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// The fault comes at some moment of so long.
const SOME_MOMENT_MS: u64 = 1000;

/// A case under way.
#[derive(Debug)]
pub struct Trial {
    failover: Failover,
    stage: Stage,
    /// Who must live through the fault, as they were before it; `None`: it may end some.
    lives: Option<Lives>,
    record: RecordLog,
    audit: Option<(AuditLog, u64)>,
    /// When all of the fault was on; 0 when it comes and goes.
    made_us: i64,
    /// End of the fault: its last act, or when the last broken thing was mended.
    pub ended_us: i64,
}

/// The oracle's table, after which its pods are named. Never twice the same within a run: a kubelet that has missed the end of a pod while the API
/// server was away takes the next one of that name for it, and kube-scheduler ends itself over two on different nodes.
fn table(case: &Case) -> String {
    let fault = case.entry.name.replace('-', "_");
    format!("{fault}_{}_{}_{:08x}", case.durability.as_str().to_lowercase(), case.primary, case.seed >> 32)
}

impl Trial {
    /// Sets the roles, and starts writers and logs.
    ///
    /// # Errors
    /// When the pair is not as the case wants it, or nobody can write.
    pub async fn begin(stand: &Stand, case: &Case) -> anyhow::Result<Trial> {
        let pair = &stand.pair;
        let mut stage = Stage::set(stand, case.primary).await?;
        let record = RecordLog::start(pair);
        let failover = Failover::begin(pair, &table(case)).await?;
        ensure!(failover.old == case.primary, "{} is primary", failover.old);
        stage.writers = failover.oracle.places().to_vec();
        let lives = match case.entry.expected.undisturbed {
            true => Some(Lives::of(pair, case.primary).await?),
            false => None,
        };
        Ok(Trial { failover, stage, lives, record, audit: None, made_us: 0, ended_us: 0 })
    }

    /// Makes the fault and ends it, whatever happened.
    ///
    /// # Errors
    /// When something cannot be broken, or mended.
    pub async fn fault(&mut self, case: &Case) -> anyhow::Result<()> {
        let played = self.play(case).await;
        if self.stage.is_whole() {
            return played;
        }
        let mended = self.stage.mend_all().await;
        self.ended_us = now_us();
        played.and(mended)
    }

    async fn play(&mut self, case: &Case) -> anyhow::Result<()> {
        sleep(Duration::from_millis(Dice::new(case.seed).below(SOME_MOMENT_MS))).await;
        if let Some(audit) = AuditLog::of(&self.failover.pair.cluster) {
            let position = audit.position()?;
            self.audit = Some((audit, position));
        }
        self.failover.struck_us = now_us();
        let mut making = true;
        for act in case.entry.script {
            making &= !act.waits();
            match act {
                // What does not come is seen in the figures.
                Act::Served(seconds) => self.until(*seconds, Trial::is_served).await,
                Act::Solo(seconds) => self.until(*seconds, async |t| t.is_solo()).await,
                act => {
                    self.stage.act(*act).await.with_context(|| format!("{act:?}"))?;
                    self.ended_us = now_us();
                    if making {
                        self.made_us = self.ended_us;
                    }
                }
            }
        }
        Ok(())
    }

    async fn until(&self, seconds: u64, come: impl AsyncFn(&Trial) -> bool) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end && !come(self).await {
            sleep(LOOK).await;
        }
    }

    async fn is_served(&self) -> bool {
        let log = self.failover.oracle.log(0).await;
        log.is_ok_and(|log| first_served_us(&log, self.failover.struck_us).is_some())
    }

    fn is_solo(&self) -> bool {
        self.record.last().is_some_and(|seen| seen.record.mode == Mode::Solo)
    }

    /// Record and status say `Paired` in the same term, a client is served, and that has not changed for some seconds.
    ///
    /// # Errors
    /// When that does not come within three minutes.
    pub async fn await_whole(&self) -> anyhow::Result<()> {
        let pair = &self.failover.pair;
        let since = Mutex::new((None, Instant::now()));
        let whole = await_condition("the whole pair", WHOLE, || async {
            let found = self.goes_on().await?;
            let status = pair.paired_now(i64::from(found.term.0)).await?;
            ensure!(
                pair.primary_of(&status)? == found.primary.instance,
                "the status tells of another primary"
            );
            let mut since = since.lock().unwrap_or_else(PoisonError::into_inner);
            if since.0 != Some(found) {
                *since = (Some(found), Instant::now());
            }
            ensure!(since.1.elapsed() >= STILL, "it is whole for a moment only so far");
            Ok(())
        });
        let whole = whole.await;
        pair.explain(whole).await
    }

    /// Whether the record says `Paired` and a client is served, whatever the status tells.
    ///
    /// # Errors
    /// When not.
    pub async fn goes_on(&self) -> anyhow::Result<Record> {
        let found = record::read(&self.failover.pair).await?;
        ensure!(found.mode == Mode::Paired, "the record says {} in term {}", found.mode, found.term.0);
        let log = self.failover.oracle.log(0).await?;
        let served = log.acks().any(|ack| ack.sent_us > self.ended_us);
        ensure!(served, "the client is not served; its last record: {}", log.last_line());
        Ok(found)
    }

    /// Ends the writers and tells what came of it.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub async fn judge(&mut self, case: &Case) -> anyhow::Result<Found> {
        let pair = self.failover.pair.clone();
        let (record, api_writes) = (self.record.all(), self.api_writes()?);
        let acks: Vec<Ack> = self.failover.oracle.log(0).await?.acks().cloned().collect();
        let all = self.failover.oracle.all_acks().await?;
        let old_acked_ms = old_acked_ms(&all, self.failover.timeline, self.failover.struck_us);
        let judgement = self.failover.judge().await?;
        let status = pair.status().await?;
        let primary = pair.primary_of(&status)?;
        let ended = match &self.lives {
            Some(before) => before.ended(&Lives::of(&pair, case.primary).await?),
            None => Vec::new(),
        };
        let compared = compare(&pair, primary).await;
        pair.psql(primary, &format!("DROP TABLE {}", self.failover.oracle.table)).await?;
        if case.entry.kind == Kind::DataLoss {
            self.stage.sweep().await?;
        }
        let paired_us = record::paired_again_us(&record).map_or(0, |us| (us - self.ended_us).max(0));
        Ok(Found {
            gap_ms: gap_ms(&acks, self.failover.struck_us),
            old_acked_ms,
            made_ms: after_ms(self.made_us, self.failover.struck_us),
            note: self.stage.note.clone(),
            acknowledged: judgement.verdict.acknowledged,
            rows_lost: judgement.verdict.missing.len(),
            late_acks: judgement.verdict.late.len(),
            paired_s: seconds(paired_us),
            api_writes,
            record: record::tell(&record),
            ended,
            expected: case.entry.expected.successor.fits(primary != case.primary),
            cause: status.last_failover.filter(|f| f.term > self.failover.term).map(|f| f.cause.to_string()),
            equal: compared.is_ok(),
            compared: compared.unwrap_or_else(|error| first_line("not equal", &error)),
        })
    }

    fn api_writes(&self) -> anyhow::Result<Option<ApiWrites>> {
        let Some((audit, position)) = &self.audit else { return Ok(None) };
        // A log that was rotated meanwhile tells no number.
        let Ok(writes) = audit.since(*position) else { return Ok(None) };
        let names = &self.failover.pair.names;
        let of_pair: Vec<_> = writes.iter().filter(|w| w.is_for(names)).collect();
        let agents = of_pair.iter().filter(|w| w.is_by_agent(names)).count();
        let operator = of_pair.iter().filter(|w| w.user.ends_with(OPERATOR)).count();
        Ok(Some(ApiWrites { agents, operator }))
    }
}

/// End of the name of the operator's service account.
const OPERATOR: &str = ":pgreplicapair-operator";

/// The first line: what follows it is a description, which is saved elsewhere.
pub(super) fn first_line(when: &str, error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    format!("{when}: {}", text.lines().next().unwrap_or_default())
}

/// The first acknowledgement on a connection made after `struck_us`.
fn first_served_us(log: &Log, struck_us: i64) -> Option<i64> {
    let connected = |event: &&Event| matches!(event, Event::Connected { at_us, .. } if *at_us > struck_us);
    let after = log.0.iter().skip_while(|event| !connected(event));
    after.filter_map(|event| if let Event::Ack(ack) = event { Some(ack.acked_us) } else { None }).next()
}

/// The longest silence from the last acknowledgement before the fault on.
fn gap_ms(acks: &[Ack], struck_us: i64) -> f64 {
    let before = acks.iter().map(|ack| ack.acked_us).filter(|us| *us <= struck_us).max().unwrap_or(0);
    let gap = longest_silence_ms(acks.iter().filter(|ack| ack.acked_us >= before));
    (gap * 10.0).round() / 10.0
}

/// How long after the fault the primary of `timeline` acknowledged anything, if it has a successor.
fn old_acked_ms(acks: &[Ack], timeline: u32, struck_us: i64) -> Option<f64> {
    acks.iter().find(|ack| ack.reign.timeline > timeline)?;
    let last = acks.iter().filter(|ack| ack.reign.timeline == timeline).map(|ack| ack.acked_us).max()?;
    Some(after_ms(last, struck_us))
}

/// Milliseconds from `since_us` to `at_us`; 0 for what was before.
#[expect(clippy::cast_precision_loss, reason = "some seconds")]
fn after_ms(at_us: i64, since_us: i64) -> f64 {
    ((at_us - since_us).max(0) as f64 / 100.0).round() / 10.0
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds(us: i64) -> f64 {
    (us as f64 / 100_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use pgpair_core::authority::Durability;
    use pgpair_core::ids::InstanceId;
    use pgpair_core::lsn::Lsn;

    use super::*;
    use crate::oracle::event::Reign;

    fn ack(ms: i64) -> Ack {
        let reign = Reign { timeline: 1, server: "10.0.0.1:5432".into() };
        Ack { n: ms, sent_us: ms * 1000, acked_us: ms * 1000, reign, lsn: Lsn(1) }
    }

    #[test]
    fn no_two_rounds_share_a_table_and_each_has_a_name_for_a_host() {
        for entry in Kind::all() {
            let case = |seed| {
                let (durability, primary) = (Durability::SyncStrict, InstanceId::B);
                table(&Case { entry, durability, primary, seed })
            };
            let (one, other) = (case(1 << 40), case(2 << 40));
            assert_ne!(one, other);
            assert!(format!("oracle-{one}-0").len() <= 63, "{one}");
        }
    }

    #[test]
    fn the_gap_begins_with_the_last_acknowledgement_before_the_fault() {
        let acks = [ack(0), ack(900), ack(1000), ack(1500), ack(1520)];
        assert_eq!(gap_ms(&acks, 1_010_000), 500.0, "the 900 ms before the fault do not count");
        assert_eq!(gap_ms(&acks, 500_000), 900.0);
    }

    #[test]
    fn the_old_primary_acknowledges_until_its_last_number_on_the_old_timeline() {
        let after = |ms, timeline| Ack { reign: Reign { timeline, ..ack(0).reign }, ..ack(ms) };
        let mut acks = vec![after(900, 1), after(4_600, 1), after(1_000, 1)];
        assert_eq!(old_acked_ms(&acks, 1, 1_000_000), None, "nobody took over");
        acks.push(after(5_200, 2));
        assert_eq!(old_acked_ms(&acks, 1, 1_000_000), Some(3_600.0));
        assert_eq!(old_acked_ms(&acks, 1, 9_000_000), Some(0.0));
    }

    #[test]
    fn one_is_served_on_a_connection_made_after_the_fault() {
        let reign = Reign { timeline: 1, server: "10.0.0.1:5432".into() };
        let connected = |at_us| Event::Connected { writer: "rw0".into(), reign: reign.clone(), at_us };
        let mut log = Log(vec![connected(1), Event::Ack(ack(1)), Event::Ack(ack(20))]);
        assert_eq!(first_served_us(&log, 10_000), None);
        log.0.extend([connected(30_000), Event::Ack(ack(40))]);
        assert_eq!(first_served_us(&log, 10_000), Some(40_000));
    }
}
