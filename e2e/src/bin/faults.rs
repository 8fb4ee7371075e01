//! `pgpair-faults`: every fault under the write oracle, in each durability and both directions. Each row is in
//! `target/e2e/faults.json` as soon as it is known, so that a run which is cut keeps them; SIGINT or SIGTERM ends a run
//! after the row under way.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};
use pgpair_core::authority::Durability;
use pgpair_core::ids::InstanceId;
use pgpair_e2e::faults::calm::calm;
use pgpair_e2e::faults::kind::{Entry, Kind};
use pgpair_e2e::faults::matrix::{self, cases};
use pgpair_e2e::faults::page::{NOT_RUN, Results, render};
use pgpair_e2e::faults::row::Rows;
use pgpair_e2e::faults::soak::{soak, verdict};
use pgpair_e2e::harness::cluster::Cluster;
use pgpair_e2e::repository;
use pgpair_e2e::results::{fetch, keep, write_json};
use tokio::signal::unix::{SignalKind, signal};

/// What it writes.
const FILES: [&str; 3] = ["faults.json", "soak.json", "calm.json"];
/// From the top of the repository.
const OUT: &str = "target/e2e";
const PAGE: &str = "docs/fault-matrix.md";

#[derive(Parser)]
#[command(
    version,
    about = "makes faults and judges what comes of them",
    args_conflicts_with_subcommands = true
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    matrix: MatrixArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Writes docs/fault-matrix.md from the rows that are there.
    Page {
        /// Why kinds without a row have none.
        #[arg(long, default_value = NOT_RUN)]
        not_run: String,
    },
    /// Prints every kind with what it does.
    List,
    /// Draws faults at random, under pgbench, for some minutes.
    Soak {
        #[arg(long)]
        minutes: u64,
        /// Brings the same faults back; 0: another one each time.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Keeps what earlier soaks have found.
        #[arg(long)]
        add: bool,
    },
    /// Keeps every core busy and makes no fault: nobody may take over.
    Calm {
        #[arg(long)]
        minutes: u64,
        /// Length of a promise in seconds; several with commas between: a pair for each, all at the same time.
        #[arg(long, value_delimiter = ',', default_value = "5")]
        ttl: Vec<u32>,
    },
}

#[derive(clap::Args)]
struct MatrixArgs {
    /// Which faults, with commas between; all without it.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    /// Under which durabilities, with commas between.
    #[arg(long, value_delimiter = ',', default_value = "Sync,SyncStrict,Async", value_parser = parse_durability)]
    durability: Vec<Durability>,
    /// Who is primary: a, b.
    #[arg(long, value_delimiter = ',', default_value = "a,b", value_parser = parse_instance)]
    direction: Vec<InstanceId>,
    /// From which everything random is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leaves out what has a row already.
    #[arg(long)]
    resume: bool,
}

fn parse_durability(name: &str) -> Result<Durability, String> {
    let all = [Durability::Sync, Durability::SyncStrict, Durability::Async];
    all.into_iter().find(|d| d.as_str() == name).ok_or_else(|| "it is Sync, SyncStrict or Async".into())
}

fn parse_instance(name: &str) -> Result<InstanceId, String> {
    name.parse().map_err(|error| format!("{error}"))
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error:#}");
            println!("FAILED: {}", format!("{error:#}").lines().next().unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let out = repository::root().join(OUT);
    FILES.iter().try_for_each(|name| fetch(&out, name))?;
    let done = match args.command {
        None => matrix(&args.matrix, &out).await,
        Some(Command::Page { not_run }) => return write_page(&out, &not_run),
        Some(Command::List) => {
            Kind::all().for_each(|e| println!("{:26} {}; {}", e.name, e.what, e.undone));
            return Ok(());
        }
        Some(Command::Soak { minutes, seed, add }) => run_soak(minutes, seed, add, &out).await,
        Some(Command::Calm { minutes, ttl }) => run_calm(minutes, &ttl, &out).await,
    };
    // Also of what did not end well.
    write_page(&out, NOT_RUN)?;
    done
}

async fn run_soak(minutes: u64, seed: u64, add: bool, out: &Path) -> anyhow::Result<()> {
    let seed = if seed == 0 { jiff::Timestamp::now().as_second().unsigned_abs() } else { seed };
    let (cluster, stop) = (Cluster::connect().await?, on_signal()?);
    let earlier = if add { Rows::load(&out.join("soak.json"))? } else { Rows::default() };
    let length = Duration::from_secs(60 * minutes);
    let rows = soak(&cluster, length, seed, earlier, out, || is_set(&stop)).await?;
    println!("seed {seed}: {}", verdict(&rows.0));
    ensure!(rows.0.iter().all(|row| row.holds()), "not every fault ended as it should");
    Ok(())
}

async fn run_calm(minutes: u64, ttls: &[u32], out: &Path) -> anyhow::Result<()> {
    let (cluster, stop) = (Cluster::connect().await?, on_signal()?);
    let all = calm(&cluster, Duration::from_secs(60 * minutes), ttls, || is_set(&stop)).await?;
    println!("{}", serde_json::to_string_pretty(&all)?);
    write_json(&out.join("calm.json"), &all)?;
    ensure!(
        all.iter().all(|found| found.failovers == 0 && found.excursions == 0),
        "there were failovers or excursions to Solo without a fault"
    );
    Ok(())
}

fn write_page(out: &Path, not_run: &str) -> anyhow::Result<()> {
    FILES.iter().try_for_each(|name| keep(out, name))?;
    let page = repository::root().join(PAGE);
    fs::write(&page, render(&Results::load(out)?, not_run)).with_context(|| format!("writing {PAGE}"))
}

/// Set by SIGINT or SIGTERM.
fn on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let (mut signals, stop) = (signal(kind)?, Arc::clone(&stop));
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                println!("stopping after what is under way");
                stop.store(true, Ordering::Relaxed);
            }
        });
    }
    Ok(stop)
}

fn is_set(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}

fn chosen(args: &MatrixArgs) -> anyhow::Result<Vec<&'static Entry>> {
    if args.faults.is_empty() {
        return Ok(Kind::all().collect());
    }
    let known = || Kind::all().map(|e| e.name).collect::<Vec<_>>().join(", ");
    let one = |name: &String| {
        Kind::named(name).with_context(|| format!("no fault {name:?}: there are {}", known()))
    };
    args.faults.iter().map(one).collect()
}

async fn matrix(args: &MatrixArgs, out: &Path) -> anyhow::Result<()> {
    let mut left = cases(&chosen(args)?, &args.durability, &args.direction, args.seed);
    if args.resume {
        let rows = Rows::load(&out.join("faults.json"))?;
        left.retain(|case| !rows.has(case));
    }
    println!("{} cases", left.len());
    if left.is_empty() {
        return Ok(());
    }
    let (cluster, stop) = (Cluster::connect().await?, on_signal()?);
    matrix::matrix(&cluster, left, out, || is_set(&stop)).await
}
