//! Rounds: one fault, many times, on one pair or on several. A fault of one pair is made on the pairs in turn, so that one comes to
//! rest while another is struck; a fault of the cluster strikes them all at once.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::future::{join_all, try_join_all};
use pgpair_api::status::{FailoverStatus, FailoverStepStatus};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::bench::gaps::{Gaps, Row};
use crate::harness::failover::{Failover, Judgement};
use crate::harness::faults::{Fault, inject};
use crate::harness::pair::Pair;

/// For a pair to be whole again after a fault.
const WHOLE: Duration = Duration::from_secs(240);
/// Rounds of a pair that may fail before its fault is given up.
const FAILURES: usize = 3;
/// How long something is away that the primary does not need: three promises of the default length.
const OUTAGE: Duration = Duration::from_secs(15);

/// A pair that is measured.
#[derive(Debug)]
pub struct Subject {
    /// The pair.
    pub pair: Pair,
    /// Major version of its PostgreSQL.
    pub postgres: u32,
    /// Length of a promise in seconds.
    pub ttl_s: u32,
    /// What a commit waits for.
    pub durability: String,
}

/// One fault of one pair, so far.
#[derive(Debug, Default)]
struct Sum {
    gaps_ms: Vec<f64>,
    rows_lost: usize,
    late_acks: usize,
    failures: usize,
}

impl Sum {
    fn is_over(&self, times: usize) -> bool {
        self.gaps_ms.len() >= times || self.failures >= FAILURES
    }

    fn take(&mut self, subject: &Subject, outcome: anyhow::Result<Round>) {
        let name = &subject.pair.names.name;
        match outcome {
            Ok(Round { gap_ms, judgement, told }) => {
                self.gaps_ms.push(gap_ms);
                self.rows_lost += judgement.verdict.missing.len();
                self.late_acks += judgement.verdict.late.len();
                let n = self.gaps_ms.len();
                println!("  {name} {n:2}: gap {gap_ms:5.0} ms; {told}; {}", short(&judgement));
            }
            Err(error) => {
                self.failures += 1;
                println!("  {name} failed: {error:#}");
            }
        }
    }

    /// `None` when not a single round came to its end.
    fn row(&self, subject: &Subject, fault: Fault) -> Option<Row> {
        Gaps::of(&self.gaps_ms).map(|gap_ms| Row {
            fault: fault.name().into(),
            postgres: subject.postgres,
            durability: subject.durability.clone(),
            ttl_s: f64::from(subject.ttl_s),
            n: self.gaps_ms.len(),
            gap_ms,
            rows_lost: self.rows_lost,
            late_acks: self.late_acks,
        })
    }
}

struct Round {
    gap_ms: f64,
    judgement: Judgement,
    /// What the status says of it.
    told: String,
}

/// Makes `fault` so many times on each; the rows, and how many rounds did not come to their end.
pub async fn measure(subjects: &[&Subject], fault: Fault, times: usize) -> (Vec<Row>, usize) {
    println!("\n{}: {times} times", fault.describe());
    let sums = if fault.is_of_the_cluster() {
        at_once(subjects, fault, times).await
    } else {
        in_turn(subjects, fault, times).await
    };
    let rows = subjects.iter().zip(&sums).filter_map(|(subject, sum)| sum.row(subject, fault)).collect();
    (rows, sums.iter().map(|sum| sum.failures).sum())
}

async fn in_turn(subjects: &[&Subject], fault: Fault, times: usize) -> Vec<Sum> {
    // Who holds it is struck, until it serves again.
    let floor = Mutex::new(());
    let one = async |subject: &Subject| {
        let mut sum = Sum::default();
        while !sum.is_over(times) {
            let outcome = alone(subject, fault, sum.gaps_ms.len() + sum.failures, &floor).await;
            sum.take(subject, outcome);
        }
        sum
    };
    join_all(subjects.iter().map(|subject| one(subject))).await
}

async fn alone(subject: &Subject, fault: Fault, round: usize, floor: &Mutex<()>) -> anyhow::Result<Round> {
    let mut failover = Failover::begin(&subject.pair, &table(subject, fault, round)).await?;
    let turn = floor.lock().await;
    let served = match failover.strike(fault).await {
        Ok(()) => failover.await_service().await,
        Err(error) => Err(error),
    };
    drop(turn);
    failover.heal().await?;
    served?;
    end(failover).await
}

/// A node is lost for all that run there, and the API server for everybody.
async fn at_once(subjects: &[&Subject], fault: Fault, times: usize) -> Vec<Sum> {
    let mut sums: Vec<Sum> = subjects.iter().map(|_| Sum::default()).collect();
    let mut round = 0;
    while sums.iter().any(|sum| !sum.is_over(times)) {
        let outcomes = match together(subjects, fault, round).await {
            Ok(outcomes) => outcomes,
            Err(error) => subjects.iter().map(|_| Err(anyhow::anyhow!("{error:#}"))).collect(),
        };
        for ((subject, sum), outcome) in subjects.iter().zip(&mut sums).zip(outcomes) {
            sum.take(subject, outcome);
        }
        if sums.iter().any(|sum| sum.failures >= FAILURES) {
            break;
        }
        round += 1;
    }
    sums
}

async fn together(
    subjects: &[&Subject],
    fault: Fault,
    round: usize,
) -> anyhow::Result<Vec<anyhow::Result<Round>>> {
    gather(subjects).await?;
    let begin = async |s: &Subject| Failover::begin(&s.pair, &table(s, fault, round)).await;
    let mut failovers = try_join_all(subjects.iter().map(|s| begin(s))).await?;
    let (first, others) = failovers.split_first_mut().context("no pairs")?;
    let struck = first.strike(fault).await;
    others.iter_mut().for_each(|failover| failover.shares(first));
    let served = match struck {
        Ok(()) if fault.spares_the_primary() => {
            // The length of the fault, not a wait for something.
            sleep(OUTAGE).await;
            Ok(())
        }
        Ok(()) => try_join_all(failovers.iter().map(Failover::await_service)).await.map(|_| ()),
        Err(error) => Err(error),
    };
    try_join_all(failovers.iter_mut().map(Failover::heal)).await?;
    served?;
    Ok(join_all(failovers.into_iter().map(end)).await)
}

/// All primaries on the node of the first one's.
async fn gather(subjects: &[&Subject]) -> anyhow::Result<()> {
    let mut wanted = None;
    for Subject { pair, .. } in subjects {
        let status = pair.await_paired(1, WHOLE).await?;
        let primary = pair.primary_of(&status)?;
        let node = pair.node(primary).await?;
        let wanted = wanted.get_or_insert_with(|| node.clone());
        if node != *wanted {
            let there = pair.node(primary.peer()).await?;
            ensure!(there == *wanted, "{} has no instance on {wanted}", pair.names.name);
            inject(pair, primary, Fault::Switchover).await?.heal(&pair.cluster).await?;
            pair.await_paired(status.term.context("status has no term")? + 1, WHOLE).await?;
        }
    }
    Ok(())
}

/// Also the name of its writers' pods.
fn table(subject: &Subject, fault: Fault, round: usize) -> String {
    format!("{}_{}_{round}", fault.name(), subject.pair.names.name).replace('-', "_")
}

async fn end(mut failover: Failover) -> anyhow::Result<Round> {
    let status = failover.await_told(WHOLE).await?;
    let judgement = failover.judge().await?;
    let (pair, table) = (&failover.pair, &failover.oracle.table);
    pair.psql(pair.primary_of(&status)?, &format!("DROP TABLE {table}")).await?;
    let told = match status.last_failover.filter(|f| f.term > failover.term) {
        Some(f) => told(&f, failover.struck_us),
        None => "no failover: the primary came back".into(),
    };
    // Without a change of server, the time without an acknowledgement is the gap.
    let gap_ms = judgement.service_gap_ms.unwrap_or(judgement.service_silence_ms);
    Ok(Round { gap_ms, judgement, told })
}

/// Cause and steps, each in milliseconds after the fault: shows where the time went.
fn told(failover: &FailoverStatus, struck_us: i64) -> String {
    let after = |step: &FailoverStepStatus| (step.at.0.as_microsecond() - struck_us) / 1000;
    let steps = failover.steps.iter().map(|step| format!("{} {:+}", step.step, after(step)));
    format!("{} ({})", failover.cause, steps.collect::<Vec<_>>().join(", "))
}

fn short(judgement: &Judgement) -> String {
    let verdict = &judgement.verdict;
    format!(
        "{} acknowledged, {} missing, {} late",
        verdict.acknowledged,
        verdict.missing.len(),
        verdict.late.len()
    )
}
