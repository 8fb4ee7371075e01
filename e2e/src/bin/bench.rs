//! `pgpair-bench`: each fault many times, with the gap that a client saw; and what the pair costs at rest.
//! The results so far are in `target/bench` after each fault, so that a run which is cut keeps them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use pgpair_core::ids::InstanceId;
use pgpair_e2e::bench::environment::{self, Environment};
use pgpair_e2e::bench::footprint::{self, Footprint};
use pgpair_e2e::bench::gaps::{Row, Table};
use pgpair_e2e::bench::page;
use pgpair_e2e::bench::rounds::{self, Subject};
use pgpair_e2e::faults::load;
use pgpair_e2e::harness::archive::{settle, wake};
use pgpair_e2e::harness::audit::{AuditLog, Write};
use pgpair_e2e::harness::cluster::{Cluster, TempNamespace};
use pgpair_e2e::harness::faults::Fault;
use pgpair_e2e::harness::operator;
use pgpair_e2e::harness::pair::{Pair, apply, manifest};
use pgpair_e2e::harness::status::changes;
use pgpair_e2e::repository;
use pgpair_e2e::results::{fetch, keep, read_json, write_json};
use serde::Serialize;
use serde_json::Value;
use tokio::time::sleep;

/// For a pair from nothing to `Paired`.
const BRING_UP: Duration = Duration::from_secs(300);
/// For a pair to be whole again after a fault.
const WHOLE: Duration = Duration::from_secs(240);
/// What happened before has been told when nothing was written for so long.
const QUIET: Duration = Duration::from_secs(40);

/// What it writes.
const FILES: [&str; 2] = ["failover.json", "environment.json"];

#[derive(Parser)]
#[command(version, about = "measures failovers; see ARCHITECTURE.md for what happens in one")]
struct Args {
    /// Times for each fault that kills something.
    #[arg(long, default_value_t = 50)]
    n: usize,
    /// Times for each fault that takes a node, the API server or the operator away.
    #[arg(long, default_value_t = 20)]
    nodes: usize,
    /// Which faults, with commas between; names as in the table.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "postmaster-kill,container-kill,pod-kill,pod-delete,node-loss,isolation,standby-loss,api-outage,operator-outage"
    )]
    faults: Vec<String>,
    /// The pairs, with commas between: major version of PostgreSQL, and after a slash the length of a promise in seconds. The first
    /// one is also measured at rest. What kills something of one pair does not depend on the promise, and strikes one pair of each
    /// version.
    #[arg(long, value_delimiter = ',', default_value = "17/5,15/5,17/2", value_parser = parse_pair)]
    pairs: Vec<(u32, u32)>,
    /// What a commit waits for: Sync, SyncStrict or Async.
    #[arg(long, default_value = "Sync")]
    durability: String,
    /// Keep pgbench running on each pair while faults are made: four clients, each in its next transaction at once.
    #[arg(long)]
    load: bool,
    /// Pairs that are brought up and timed, the measured one included.
    #[arg(long, default_value_t = 3)]
    bring_ups: usize,
    /// Minutes for which the writes of an idle pair are counted; 0: not.
    #[arg(long, default_value_t = 10)]
    idle_minutes: u64,
    /// Keep rows of other faults and settings that an earlier run left, and what this one does not measure of a pair at rest.
    #[arg(long)]
    add: bool,
    /// Where the results go, from the top of the repository.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// The page that is written from them, from there too.
    #[arg(long, default_value = "docs/failover-numbers.md")]
    page: PathBuf,
    /// Only write the page anew from the results so far.
    #[arg(long)]
    only_page: bool,
}

/// Content of `environment.json`. What was not measured is absent.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    environment: Environment,
    /// From `kubectl apply` until both instances were ready and the standby could take over, seconds, images present.
    apply_to_ready_s: Vec<f64>,
    /// All processes of the operator.
    operator_memory: Option<Footprint>,
    /// All processes in the pod of the primary that are not postgres.
    primary_agent_memory: Option<Footprint>,
    /// The same of the standby.
    standby_agent_memory: Option<Footprint>,
    /// Writes to the API server while nothing happened.
    idle: Option<Idle>,
}

#[derive(Serialize)]
struct Idle {
    minutes: u64,
    /// For the pair, by operator and agents.
    writes: usize,
    /// By the operator for its own lease, whether there are pairs or not.
    leader_lease_writes: usize,
    /// Processor time of each agent with its helpers meanwhile, in percent of one core; a first, then b.
    agent_cpu_percent: Vec<f64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error:#}");
            println!("FAILED: {}", format!("{error:#}").lines().next().unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    if args.only_page {
        let [path, told] = results(args)?;
        return write_page(args, &Table::load(&path)?, &read_json(&told, "is no description of a run")?);
    }
    let faults = args.faults.iter().map(|name| parse_fault(name)).collect::<anyhow::Result<Vec<Fault>>>()?;
    let cluster = Cluster::connect().await?;
    operator::await_available(&cluster).await?;
    let namespace = TempNamespace::create(&cluster, "pgpair-bench").await?;
    let measured = measure(args, &faults, &cluster, &namespace.name).await;
    namespace.delete().await?;
    measured
}

fn parse_pair(text: &str) -> Result<(u32, u32), String> {
    let (version, ttl) = text.split_once('/').ok_or("it is VERSION/SECONDS, such as 17/5")?;
    let number = |what: &str| what.parse().map_err(|e| format!("{what:?}: {e}"));
    Ok((number(version)?, number(ttl)?))
}

fn parse_fault(name: &str) -> anyhow::Result<Fault> {
    let known = Fault::ALL.map(Fault::name).join(", ");
    let found = Fault::ALL.into_iter().find(|fault| fault.name() == name);
    found.with_context(|| format!("no fault {name:?}: there are {known}"))
}

async fn measure(args: &Args, faults: &[Fault], cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    let mut report = Report {
        environment: environment::observe(cluster).await,
        apply_to_ready_s: Vec::new(),
        operator_memory: None,
        primary_agent_memory: None,
        standby_agent_memory: None,
        idle: None,
    };
    let subjects = bring_up(args, cluster, namespace, &mut report).await?;
    let pair = &subjects.first().context("no pairs")?.pair;
    memory(pair, &mut report).await?;
    prepare_load(&subjects).await?;
    let [path, told] = results(args)?;
    let earlier: Value = if args.add { read_json(&told, "is no description of a run")? } else { Value::Null };
    let whole = |report: &Report| anyhow::Ok(merged(serde_json::to_value(report)?, &earlier));
    write_json(&told, &whole(&report)?)?;

    let mut table = if args.add { Table::load(&path)? } else { Table::default() };
    let mut failed = 0;
    for fault in faults {
        if let Some(reason) = fault.impossible_on(cluster) {
            println!("{}: left out: {reason}", fault.name());
            continue;
        }
        let (all, times) = if fault.is_of_the_cluster() {
            (subjects.iter().collect(), args.nodes)
        } else {
            (one_of_each_version(&subjects), args.n)
        };
        let (rows, failures) = rounds::measure(&all, *fault, times).await;
        failed += failures;
        rows.into_iter().for_each(|row| table.put(row));
        table.store(&path)?;
        println!("\n{table}");
    }
    if args.idle_minutes > 0 {
        report.idle = idle(pair, args.idle_minutes).await?;
        write_json(&told, &whole(&report)?)?;
    }
    println!("{}\n\n{table}", serde_json::to_string_pretty(&report)?);
    write_page(args, &table, &whole(&report)?)?;
    let out = repository::root().join(&args.out);
    FILES.iter().try_for_each(|name| keep(&out, name))?;
    println!("in {} and {}", args.out.display(), args.page.display());
    ensure!(
        table.0.iter().all(Row::is_sound),
        "acknowledged writes were lost, or two servers acknowledged at once"
    );
    ensure!(failed == 0, "{failed} rounds did not come to their end");
    Ok(())
}

/// Its files, with what earlier runs have left.
fn results(args: &Args) -> anyhow::Result<[PathBuf; 2]> {
    let out = repository::root().join(&args.out);
    FILES.iter().try_for_each(|name| fetch(&out, name))?;
    Ok(FILES.map(|name| out.join(name)))
}

fn write_page(args: &Args, table: &Table, report: &Value) -> anyhow::Result<()> {
    std::fs::write(repository::root().join(&args.page), page::page(table, report)).context("writing the page")
}

async fn prepare_load(subjects: &[Subject]) -> anyhow::Result<()> {
    for Subject { pair, .. } in subjects.iter().filter(|subject| subject.load) {
        load::prepare(pair, pair.primary_of(&pair.status().await?)?).await?;
    }
    Ok(())
}

/// What this run has not measured, as an earlier one did.
fn merged(mut report: Value, earlier: &Value) -> Value {
    for (key, value) in report.as_object_mut().into_iter().flatten() {
        if value.is_null() {
            *value = earlier.get(key).cloned().unwrap_or_default();
        }
    }
    report
}

fn one_of_each_version(subjects: &[Subject]) -> Vec<&Subject> {
    let is_first =
        |(at, subject): &(usize, &Subject)| !subjects[..*at].iter().any(|s| s.postgres == subject.postgres);
    subjects.iter().enumerate().filter(is_first).map(|(_, subject)| subject).collect()
}

/// The pairs, all on the same two nodes; and some more like the first, which are there for their times only.
async fn bring_up(
    args: &Args,
    cluster: &Cluster,
    namespace: &str,
    report: &mut Report,
) -> anyhow::Result<Vec<Subject>> {
    let nodes = cluster.ready_nodes().await?;
    let nodes = nodes.get(..2).context("two nodes are needed")?.join(", ");
    let mut subjects = Vec::new();
    let extra = std::iter::repeat_n(args.pairs.first(), args.bring_ups.saturating_sub(args.pairs.len()));
    for (index, &(postgres, ttl_s)) in args.pairs.iter().chain(extra.flatten()).enumerate() {
        let (begin, name) = (Instant::now(), format!("bench{index}"));
        let settings = format!(
            "  durability: {}\n  failover:\n    ttlSeconds: {ttl_s}\n  scheduling:\n    nodeAffinity:\n      \
             requiredDuringSchedulingIgnoredDuringExecution:\n        nodeSelectorTerms:\n          - matchExpressions:\n              \
             - {{key: kubernetes.io/hostname, operator: In, values: [{nodes}]}}\n",
            args.durability
        );
        apply(cluster, namespace, &(manifest(&name, postgres) + &settings))
            .await
            .context("applying a pair")?;
        let pair = Pair::new(cluster, namespace, &name);
        pair.await_paired(1, BRING_UP).await?;
        let seconds = begin.elapsed().as_secs_f64();
        println!("{name} (PostgreSQL {postgres}, ttl {ttl_s} s), apply to ready: {seconds:.1} s");
        report.apply_to_ready_s.push((seconds * 10.0).round() / 10.0);
        if index < args.pairs.len() {
            let (durability, load) = (args.durability.clone(), args.load);
            subjects.push(Subject { pair, postgres, ttl_s, durability, load });
            continue;
        }
        cluster.kubectl(&["-n", namespace, "delete", "pgreplicapair", &name]).await?;
        // Its end costs processor time that the next measurement is to have.
        let pods = format!("-l=pgpair.dev/pair={name}");
        cluster.kubectl(&["-n", namespace, "wait", "--for=delete", "pod", &pods, "--timeout=50s"]).await?;
    }
    Ok(subjects)
}

async fn memory(pair: &Pair, report: &mut Report) -> anyhow::Result<()> {
    let Some(local) = pair.cluster.local.as_ref() else { return Ok(()) };
    let mib = |m: &Footprint| {
        format!(
            "{:.1} MiB PSS, {:.1} MiB RSS in {} processes",
            in_mib(m.pss_bytes),
            in_mib(m.rss_bytes),
            m.processes
        )
    };
    for pod in operator::pods(&pair.cluster).await? {
        let meta = &pod.metadata;
        let (namespace, name) =
            (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let spec = pod.spec.unwrap_or_default();
        let (node, container) = (spec.node_name.unwrap_or_default(), &spec.containers[0].name);
        let found = footprint::of_container(local, &node, &namespace, &name, container).await?;
        println!("operator: {}", mib(&found));
        report.operator_memory = Some(found);
    }
    let primary = pair.primary_of(&pair.status().await?)?;
    for instance in InstanceId::ALL {
        let sum = footprint::of_agent(pair, local, instance).await?;
        println!("agent of {} with its helpers: {}", pair.names.pod(instance), mib(&sum));
        let told = if instance == primary {
            &mut report.primary_agent_memory
        } else {
            &mut report.standby_agent_memory
        };
        *told = Some(sum);
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn in_mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Counts what is written for a pair that nobody uses.
async fn idle(pair: &Pair, minutes: u64) -> anyhow::Result<Option<Idle>> {
    let Some(audit) = AuditLog::of(&pair.cluster) else { return Ok(None) };
    let status = pair.await_paired(1, WHOLE).await?;
    let primary = pair.primary_of(&status)?;
    settle(pair, primary).await?;
    let counted = count_idle(pair, &audit, minutes).await;
    wake(pair, primary).await?;
    counted.map(Some)
}

async fn count_idle(pair: &Pair, audit: &AuditLog, minutes: u64) -> anyhow::Result<Idle> {
    println!("\nan idle pair for {minutes} minutes");
    let of_pair = |writes: &[Write]| writes.iter().filter(|w| w.is_for(&pair.names)).count();
    let begin = audit.await_quiet(&pair.names, QUIET, Duration::from_secs(300)).await?;
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let (mut told, mut seen) = (pair.status().await?, 0);
    let (before, since) = (cpu_ms(pair).await?, Instant::now());
    while Instant::now() < end {
        sleep(Duration::from_secs(1)).await;
        let writes = of_pair(&audit.since(begin)?);
        if writes > seen {
            let now = pair.status().await?;
            println!("  write {writes}: {}", changes(&told, &now)?.join("; "));
            (told, seen) = (now, writes);
        }
    }
    let (after, passed) = (cpu_ms(pair).await?, since.elapsed());
    let all = audit.since(begin)?;
    ensure!(!all.is_empty(), "the audit log did not grow: not even the operator's own lease is in it");
    let writes = of_pair(&all);
    all.iter().filter(|w| w.is_for(&pair.names)).for_each(|w| println!("  {w}"));
    let lease = |w: &&Write| w.resource == "leases" && !w.is_for(&pair.names);
    let percent = |(after, before): (u64, u64)| {
        let part = Duration::from_millis(after.saturating_sub(before)).as_secs_f64() / passed.as_secs_f64();
        (part * 10_000.0).round() / 100.0
    };
    let agent_cpu_percent = after.into_iter().zip(before).map(percent).collect();
    Ok(Idle { minutes, writes, leader_lease_writes: all.iter().filter(lease).count(), agent_cpu_percent })
}

/// Of both agents with their helpers; empty without the machine under the cluster.
async fn cpu_ms(pair: &Pair) -> anyhow::Result<Vec<u64>> {
    let Some(local) = pair.cluster.local.as_ref() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for instance in InstanceId::ALL {
        found.push(footprint::of_agent(pair, local, instance).await?.cpu_ms);
    }
    Ok(found)
}
