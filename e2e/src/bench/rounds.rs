//! Rounds: one fault, many times, on one pair or on several. A fault of one pair is made on the pairs in turn, and the next one when
//! that pair is whole again; a fault of the cluster strikes them all at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::future::{join_all, try_join_all};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use pgpair_api::status::{FailoverStatus, FailoverStepStatus, PgReplicaPairStatus};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::bench::environment;
use crate::bench::gaps::{Gaps, Row};
use crate::bench::parts;
use crate::faults::load::{BESIDE_FAULTS, Load};
use crate::harness::failover::{Failover, Judgement};
use crate::harness::faults::Fault;
use crate::harness::pair::Pair;

/// For a pair to be whole again after a fault.
const WHOLE: Duration = Duration::from_secs(240);
/// Rounds of a pair that may fail before its fault is given up.
const FAILURES: usize = 3;
/// How long something is away that the primary does not need: three promises of the default length.
const OUTAGE: Duration = Duration::from_secs(15);
/// No Service has changed for so long before a fault: longer than kube-proxy's least time between two of its rounds.
const AT_REST: Duration = Duration::from_millis(1500);
const AT_REST_BY: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(250);

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
    /// Whether pgbench runs on it meanwhile; its tables are there then.
    pub load: bool,
}

/// One fault of one pair, so far.
#[derive(Debug, Default)]
struct Sum {
    gaps_ms: Vec<f64>,
    parts_ms: Vec<Vec<f64>>,
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
            Ok(Round { gap_ms, parts_ms, judgement, told }) => {
                self.gaps_ms.push(gap_ms);
                self.parts_ms.extend(parts_ms);
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

    /// `None` when there was not a single round.
    fn row(&self, subject: &Subject, fault: Fault) -> Option<Row> {
        (self.gaps_ms.len() + self.failures > 0).then(|| Row {
            fault: fault.name().into(),
            postgres: subject.postgres,
            durability: subject.durability.clone(),
            ttl_s: f64::from(subject.ttl_s),
            load: subject.load,
            n: self.gaps_ms.len(),
            failed: self.failures,
            gap_ms: Gaps::of(&self.gaps_ms),
            rows_lost: self.rows_lost,
            late_acks: self.late_acks,
            parts: parts::of_rounds(&self.parts_ms),
            commit: environment::commit(),
        })
    }
}

struct Round {
    gap_ms: f64,
    /// Where it went; `None` if that is not told.
    parts_ms: Option<Vec<f64>>,
    judgement: Judgement,
    /// What the status says of it.
    told: String,
}

/// Makes `fault` so many times on each; the rows, and how many rounds did not come to their end.
pub async fn measure(subjects: &[&Subject], fault: Fault, times: usize) -> (Vec<Row>, usize) {
    println!("\n{}: {times} times", fault.describe());
    let loaded = subjects.iter().filter(|subject| subject.load);
    let loads: Vec<Load> = loaded.map(|subject| Load::start(&subject.pair, BESIDE_FAULTS)).collect();
    let sums = if fault.is_of_the_cluster() {
        at_once(subjects, fault, times).await
    } else {
        in_turn(subjects, fault, times).await
    };
    let transactions: u64 = join_all(loads.into_iter().map(Load::stop)).await.into_iter().sum();
    if transactions > 0 {
        println!("  {transactions} transactions of pgbench meanwhile");
    }
    let rows = subjects.iter().zip(&sums).filter_map(|(subject, sum)| sum.row(subject, fault)).collect();
    (rows, sums.iter().map(|sum| sum.failures).sum())
}

async fn in_turn(subjects: &[&Subject], fault: Fault, times: usize) -> Vec<Sum> {
    // Who holds it is struck, until the pair is whole again; what writers and verdict need is done beside it.
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
    at_rest(&[&subject.pair]).await?;
    let served = match failover.strike(fault).await {
        Ok(()) => failover.await_service().await,
        Err(error) => Err(error),
    };
    failover.heal().await?;
    served?;
    let status = failover.await_told(WHOLE).await?;
    drop(turn);
    end(failover, &status).await
}

/// Nothing of what came before is under way, and every standby may take over: a pair that had gone on alone for a moment would wait
/// for its node (seen once in 21 losses of a node).
async fn at_rest(pairs: &[&Pair]) -> anyhow::Result<()> {
    let first = pairs.first().context("no pairs")?;
    services_at_rest(first).await?;
    try_join_all(pairs.iter().map(|pair| pair.await_paired(1, WHOLE))).await.map(|_| ())
}

/// kube-proxy collects changes of Services and carries them out a second apart at least. A fault within the second after another
/// change waits for the rest of it; what the rounds before it have changed is not to be measured.
async fn services_at_rest(pair: &Pair) -> anyhow::Result<()> {
    let api: Api<EndpointSlice> = Api::namespaced(pair.cluster.client.clone(), &pair.names.namespace);
    let (end, mut seen, mut since) = (Instant::now() + AT_REST_BY, String::new(), Instant::now());
    while since.elapsed() < AT_REST {
        let slices = api.list(&ListParams::default()).await.context("listing EndpointSlices")?;
        let mut now: Vec<String> = slices.iter().filter_map(ResourceExt::resource_version).collect();
        now.sort_unstable();
        let now = now.join(" ");
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        ensure!(Instant::now() < end, "the Services did not come to rest within {AT_REST_BY:?}");
        sleep(LOOK).await;
    }
    Ok(())
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
    at_rest(&subjects.iter().map(|subject| &subject.pair).collect::<Vec<_>>()).await?;
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
    let told = async |failover: Failover| {
        let status = failover.await_told(WHOLE).await?;
        end(failover, &status).await
    };
    Ok(join_all(failovers.into_iter().map(told)).await)
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
            pair.switch_over(&status, WHOLE).await?;
        }
    }
    Ok(())
}

/// Also the name of its writers' pods.
fn table(subject: &Subject, fault: Fault, round: usize) -> String {
    format!("{}_{}_{round}", fault.name(), subject.pair.names.name).replace('-', "_")
}

async fn end(mut failover: Failover, status: &PgReplicaPairStatus) -> anyhow::Result<Round> {
    let judgement = failover.judge().await?;
    let (pair, table) = (&failover.pair, &failover.oracle.table);
    pair.psql(pair.primary_of(status)?, &format!("DROP TABLE {table}")).await?;
    let change = status.last_failover.as_ref().filter(|f| f.term > failover.term);
    let parts_ms =
        change.zip(judgement.service_away_us).and_then(|(f, (from, to))| parts::of_round(f, from, to));
    let told = match change {
        Some(f) => told(f, failover.struck_us),
        None => "no failover: the primary came back".into(),
    };
    // Without a change of server, the time without an acknowledgement is the gap.
    let gap_ms = judgement.service_gap_ms.unwrap_or(judgement.service_silence_ms);
    Ok(Round { gap_ms, parts_ms, judgement, told })
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
