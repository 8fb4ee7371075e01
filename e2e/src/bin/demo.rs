//! `pgpair-demo`: a pair comes up, its primary dies, its standby takes over, and the old primary comes back as a standby;
//! with times. Exit status 0 only if all of it held.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use jiff::Timestamp;
use pgpair_api::status::{FailoverStatus, PgReplicaPairStatus};
use pgpair_api::word::Word;
use pgpair_core::authority::FailoverCause;
use pgpair_e2e::harness::cluster::{Cluster, ensure_namespace};
use pgpair_e2e::harness::describe::describe;
use pgpair_e2e::harness::failover::{Failover, Judgement};
use pgpair_e2e::harness::faults::Fault;
use pgpair_e2e::harness::pair::Pair;
use pgpair_e2e::oracle::event::Ack;
use pgpair_e2e::oracle::verdict::Verdict;
use pgpair_e2e::repository;
use pgpair_wire::report::FailoverStep;
use tokio::time::sleep;

const NAMESPACE: &str = "pgpair-demo";
const NAME: &str = "orders";
const BRING_UP: Duration = Duration::from_secs(300);
const REJOIN: Duration = Duration::from_secs(240);

#[tokio::main]
async fn main() -> ExitCode {
    let demo = Demo { begin: Instant::now() };
    match demo.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            demo.say(&format!("FAILED: {error:#}"));
            if let Ok(cluster) = Cluster::connect().await {
                println!("in namespace {NAMESPACE}:\n{}", describe(&cluster, NAMESPACE).await);
            }
            ExitCode::FAILURE
        }
    }
}

struct Demo {
    begin: Instant,
}

impl Demo {
    /// One line with the time since the beginning.
    fn say(&self, text: &str) {
        println!("[{:6.1} s] {text}", self.begin.elapsed().as_secs_f64());
    }

    fn title(&self, text: &str) {
        println!("\n=== {text}");
    }

    async fn run(&self) -> anyhow::Result<()> {
        let cluster = Cluster::connect().await?;
        let pair = self.bring_up(&cluster).await?;

        self.title("A client writes: one number every 20 ms, each as a transaction of its own");
        let mut failover = Failover::begin(&pair, &format!("demo_{}", Timestamp::now().as_second())).await?;
        let old = pair.names.instance(failover.old);
        self.say(&format!(
            "two clients write: one through Service {}, one beside {old} directly to both instances",
            pair.names.rw()
        ));
        let walked = self.fail_over(&mut failover).await;
        failover.heal().await?;
        walked?;
        self.come_back(&failover).await?;
        self.verdict(&mut failover).await?;
        self.how_to_go_on(&cluster);
        Ok(())
    }

    async fn bring_up(&self, cluster: &Cluster) -> anyhow::Result<Pair> {
        self.title("A pair comes up");
        ensure_namespace(cluster, NAMESPACE).await?;
        let sample = repository::root().join("docs/samples/pair.yaml");
        self.say(&format!("kubectl apply -n {NAMESPACE} -f docs/samples/pair.yaml"));
        cluster.kubectl(&["apply", "-n", NAMESPACE, "-f", &sample.to_string_lossy()]).await?;
        let pair = Pair::new(cluster, NAMESPACE, NAME);
        let status = self.watch(&pair, 1, BRING_UP).await?;
        println!();
        for what in [["get", "pgreplicapairs"].as_slice(), &["get", "pods", "-o", "wide"]] {
            println!("$ kubectl -n {NAMESPACE} {}", what.join(" "));
            print!("{}", cluster.kubectl(&[&["-n", NAMESPACE], what].concat()).await?);
        }
        println!();
        self.say(&lag_line(&status));
        for archive in &status.archive {
            let last = archive.last_segment.as_deref().unwrap_or("nothing yet");
            self.say(&format!("archive of {}: last segment {last}", archive.instance));
        }
        Ok(pair)
    }

    /// Waits until the pair is `Paired`, telling every change on the way.
    async fn watch(&self, pair: &Pair, term: i64, limit: Duration) -> anyhow::Result<PgReplicaPairStatus> {
        let told = async {
            let mut last = String::new();
            loop {
                // Not there yet, or a request that failed: the wait beside this one says what did not come.
                if let Ok(status) = pair.status().await {
                    let now = progress_line(&status);
                    if now != last {
                        self.say(&now);
                        last = now;
                    }
                }
                sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::select! {
            paired = pair.await_paired(term, limit) => {
                let status = paired?;
                self.say(&progress_line(&status));
                Ok(status)
            }
            () = told => bail!("watching ended"),
        }
    }

    async fn fail_over(&self, failover: &mut Failover) -> anyhow::Result<()> {
        let local = failover.pair.cluster.local.is_some();
        let fault = if local { Fault::ContainerKill } else { Fault::PodDeleteForce };
        self.title(&format!("The primary dies: {}", fault.describe()));
        failover.strike(fault).await?;
        self.say(&format!("{} is dead", failover.pair.names.instance(failover.old)));
        let first = failover.await_first_ack().await?;
        self.say(&format!("{} takes writes", failover.pair.names.instance(failover.new_primary())));
        let (status, told) = failover.await_takeover().await?;
        self.say(&progress_line(&status));
        let acks = failover.oracle.log(0).await?;
        let last = acks.acks().filter(|a| a.reign.timeline <= failover.timeline).max_by_key(|a| a.acked_us);
        print_timeline(failover, &told, last, &first);
        Ok(())
    }

    async fn come_back(&self, failover: &Failover) -> anyhow::Result<()> {
        self.title("The old primary comes back as a standby");
        let status = self.watch(&failover.pair, failover.term + 1, REJOIN).await?;
        let primary = failover.pair.primary_of(&status)?;
        ensure!(primary == failover.new_primary(), "{primary} is primary again");
        let recovering = failover.pair.psql(failover.old, "SELECT pg_is_in_recovery()").await?;
        let name = failover.pair.names.instance(failover.old);
        ensure!(recovering == "t", "{name} is not in recovery");
        self.say(&format!("{name} streams from {}", failover.pair.names.instance(primary)));
        Ok(())
    }

    async fn verdict(&self, failover: &mut Failover) -> anyhow::Result<()> {
        self.title("What the clients were told, and what is there");
        let Judgement { verdict, service_gap_ms, .. } = failover.judge().await?;
        print_verdict(&verdict, service_gap_ms);
        ensure!(verdict.reigns.len() >= 2, "no server but the first acknowledged anything");
        ensure!(verdict.holds(), "acknowledged writes were lost, or two servers acknowledged at once");
        self.say("all of it held");
        Ok(())
    }

    fn how_to_go_on(&self, cluster: &Cluster) {
        self.title("How to go on");
        if cluster.local.is_some() {
            println!("  export KUBECONFIG=${{PGPAIR_RUN:-/run/pgreplicapair}}/kubeconfig");
        }
        println!("  kubectl -n {NAMESPACE} get pgreplicapair {NAME} -o yaml     the whole status");
        println!(
            "  kubectl -n {NAMESPACE} exec -it {NAME}-a-0 -c postgres -- psql -h /pgpair/run/pg -U postgres app"
        );
        println!(
            "  kubectl pgpair status {NAME} -n {NAMESPACE}                 the same as a page (`make plugin` installs it)"
        );
        println!("  make demo                                             once more: the roles change back");
        println!("clean up:");
        println!("  kubectl delete namespace {NAMESPACE}                     the pair and its volumes");
        if cluster.local.is_some() {
            println!(
                "  make cluster-down                                     everything but the build cache"
            );
        }
    }
}

fn progress_line(status: &PgReplicaPairStatus) -> String {
    let mut parts: Vec<String> = Vec::new();
    for instance in &status.instances {
        parts.push(format!("{} {}", instance.name, instance.state));
    }
    if let Some(seeding) = &status.seeding {
        let mib = |bytes: Option<i64>| bytes.map_or_else(|| "?".to_owned(), |b| format!("{}", b >> 20));
        let percent = seeding.percent.map(|p| format!(" {p} %")).unwrap_or_default();
        let (done, total) = (mib(seeding.done_bytes), mib(seeding.total_bytes));
        parts.push(format!("seeding {}{percent} ({done} of {total} MiB)", seeding.instance));
    }
    if let (Some(primary), Some(term)) = (&status.primary, status.term) {
        let mode = status.mode.as_ref().map(ToString::to_string).unwrap_or_default();
        parts.push(format!("primary {primary}, term {term}, {mode}"));
    }
    let is = |name: &str| status.conditions.iter().any(|c| c.type_ == name && c.status == "True");
    for condition in ["Ready", "FailoverReady", "Degraded"] {
        if is(condition) {
            parts.push(condition.to_owned());
        }
    }
    if parts.is_empty() { "the operator has seen it".into() } else { parts.join("; ") }
}

fn lag_line(status: &PgReplicaPairStatus) -> String {
    let Some(lag) = &status.lag else { return "lag: not told yet".into() };
    let value = |name: &str, lag: Option<pgpair_api::status::LagValue>| match lag {
        Some(lag) => format!("{name} {} bytes / {:.3} s", lag.bytes, lag.seconds),
        None => format!("{name} unknown"),
    };
    format!(
        "lag: {}, {}, {}",
        value("receive", lag.receive),
        value("replay", lag.replay),
        value("total", lag.total)
    )
}

fn print_timeline(failover: &Failover, told: &FailoverStatus, last: Option<&Ack>, first: &Ack) {
    let mut lines: Vec<(i64, String)> = vec![(failover.struck_us, "the primary is killed".into())];
    if let Some(last) = last {
        lines.push((last.acked_us, format!("client: last acknowledgement by {}", last.reign)));
    }
    for step in &told.steps {
        lines.push((step.at.0.as_microsecond(), format!("{}: {}", told.to, explain(&step.step, told))));
    }
    lines.push((first.acked_us, format!("client: first acknowledgement by {}", first.reign)));
    lines.sort_by_key(|(at, _)| *at);
    println!("\n  {} -> {}, term {}, cause {}", told.from, told.to, told.term, told.cause);
    for (at, text) in lines {
        println!("  {:>+8.0} ms  {text}", milliseconds(at - failover.struck_us));
    }
    if let Some(last) = last {
        println!(
            "  measured gap, last acknowledgement to first: {:.0} ms\n",
            milliseconds(first.acked_us - last.acked_us)
        );
    }
}

fn explain(step: &Word<FailoverStep>, told: &FailoverStatus) -> String {
    let words = match step {
        Word::Known(FailoverStep::LastHeartbeat) => "last promise given to the old primary",
        Word::Known(FailoverStep::Noticed) => match told.cause.known() {
            Some(FailoverCause::Resigned) => "the old primary's agent resigned: its postgres is dead",
            Some(FailoverCause::Evidence) => "evidence: the old primary's agent is dead",
            _ => "every promise to the old primary has lapsed",
        },
        Word::Known(FailoverStep::CasSent) => "compare-and-set of the record sent",
        Word::Known(FailoverStep::CasWon) => "the record names this instance",
        Word::Known(FailoverStep::TriggerFile) => "trigger file created",
        Word::Known(FailoverStep::Promoted) => "promoted: out of recovery, a write is on disk",
        Word::Known(FailoverStep::Endpoint) => "the read-write Service leads here",
        Word::Other(other) => return other.clone(),
    };
    format!("{step}: {words}")
}

fn print_verdict(verdict: &Verdict, service_gap_ms: Option<f64>) {
    for reign in &verdict.reigns {
        println!("  {:40} acknowledged {:6} numbers", reign.reign.to_string(), reign.acks);
    }
    println!("  acknowledged and missing:                {:6}", verdict.missing.len());
    println!("  acknowledged by two servers at once:     {:6}", verdict.late.len());
    if let Some(gap) = service_gap_ms {
        println!("  gap through the Service:                 {gap:6.0} ms");
    }
    if let Some(gap) = verdict.longest_gap_ms() {
        println!("  gap between the two servers:             {gap:6.0} ms");
    }
    println!("  both instances hold the same rows");
}

#[expect(clippy::cast_precision_loss, reason = "for people; a difference of a few minutes")]
fn milliseconds(us: i64) -> f64 {
    us as f64 / 1000.0
}
