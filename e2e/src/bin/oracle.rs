//! `pgpair-oracle`: `write` in a pod, `verdict` over what it wrote.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use futures::future::try_join_all;
use pgpair_e2e::oracle::event::Log;
use pgpair_e2e::oracle::flood::{Extent, flood};
use pgpair_e2e::oracle::verdict::judge;
use pgpair_e2e::oracle::writer::{Timing, Writer, emit};
use tokio_postgres::Config;

/// Numbers that one writer may use before it would meet the next writer's.
const RANGE: i64 = 1_000_000_000;

#[derive(Parser)]
#[command(version, about = "a client that remembers every acknowledged write")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write until killed; one JSON object a line on standard output.
    Write(WriteArgs),
    /// Begin requests and never end them, and make handshakes without a certificate; what was done, as JSON on standard output.
    Flood(FloodArgs),
    /// Judge logs by the numbers found in the table at the end. Exit status 1 when something is missing or late.
    Verdict {
        /// Numbers found, one a line.
        #[arg(long)]
        rows: PathBuf,
        /// Error of the clocks between the machines of the logs, in milliseconds.
        #[arg(long, default_value_t = 0)]
        clock_error_ms: i64,
        /// Logs of `write`.
        #[arg(required = true)]
        logs: Vec<PathBuf>,
    },
}

/// A stranger who comes in numbers.
#[derive(clap::Args)]
struct FloodArgs {
    /// Addresses, with ports, where TLS is spoken.
    #[arg(long)]
    tls: Vec<SocketAddr>,
    /// Addresses, with ports, where HTTP is spoken.
    #[arg(long)]
    plain: Vec<SocketAddr>,
    /// Requests that are begun and never ended, on each address.
    #[arg(long)]
    half_open: usize,
    /// Handshakes without a certificate, with each address.
    #[arg(long)]
    handshakes: u64,
    /// It ends after so many seconds.
    #[arg(long)]
    seconds: u64,
}

#[derive(clap::Args)]
struct WriteArgs {
    /// Addresses to write to through which any instance may answer: the ClusterIP of the rw Service.
    #[arg(long, env = "PGHOST")]
    host: Option<String>,
    /// Further addresses, each with a writer of its own that never goes elsewhere: an instance's own address.
    #[arg(long)]
    direct: Vec<String>,
    #[arg(long, env = "PGPORT", default_value_t = 5432)]
    port: u16,
    #[arg(long, env = "PGUSER")]
    user: String,
    #[arg(long, env = "PGPASSWORD", default_value = "", hide_env_values = true)]
    password: String,
    #[arg(long, env = "PGDATABASE")]
    dbname: String,
    #[arg(long, default_value = "oracle")]
    table: String,
    /// First number; every writer has a range of a thousand million of its own.
    #[arg(long, default_value_t = 1)]
    first: i64,
    /// Writers through --host.
    #[arg(long, default_value_t = 1)]
    writers: usize,
    /// Milliseconds between two numbers.
    #[arg(long, default_value_t = 20)]
    interval_ms: u64,
    /// Stop after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Write(args) => write(&args).await,
        Command::Flood(FloodArgs { tls, plain, half_open, handshakes, seconds }) => {
            let extent = Extent { half_open, handshakes, limit: Duration::from_secs(seconds) };
            let done = flood(&tls, &plain, extent).await?;
            println!("{}", serde_json::to_string(&done)?);
            Ok(())
        }
        Command::Verdict { rows, clock_error_ms, logs } => verdict(&rows, clock_error_ms, &logs),
    }
}

fn writers(args: &WriteArgs) -> Vec<Writer> {
    let shared =
        args.host.iter().flat_map(|host| (0..args.writers).map(move |i| (format!("rw{i}"), host, true)));
    let direct = args.direct.iter().enumerate().map(|(i, host)| (format!("direct{i}"), host, false));
    let timing = Timing { interval: Duration::from_millis(args.interval_ms), ..Timing::default() };
    let mut first = args.first;
    let mut out = Vec::new();
    for (name, host, create) in shared.chain(direct) {
        let mut config = Config::new();
        config.host(host).port(args.port).user(&args.user).password(&args.password).dbname(&args.dbname);
        config.application_name(format!("oracle-{name}"));
        out.push(Writer { name, config, table: args.table.clone(), first, create, timing: timing.clone() });
        first += RANGE;
    }
    out
}

async fn write(args: &WriteArgs) -> anyhow::Result<()> {
    let writers = writers(args);
    anyhow::ensure!(!writers.is_empty(), "nothing to write to: give --host or --direct");
    let all = try_join_all(writers.into_iter().map(|writer| writer.run(emit)));
    match args.seconds {
        Some(seconds) => match tokio::time::timeout(Duration::from_secs(seconds), all).await {
            Ok(ended) => ended.map(|_| ()),
            Err(_) => Ok(()),
        },
        None => all.await.map(|_| ()),
    }
}

fn verdict(rows: &PathBuf, clock_error_ms: i64, logs: &[PathBuf]) -> anyhow::Result<()> {
    let read =
        |path: &PathBuf| fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let rows = read(rows)?
        .split_whitespace()
        .map(|n| n.parse().with_context(|| format!("{n:?} among the rows is no number")))
        .collect::<anyhow::Result<Vec<i64>>>()?;
    let mut acks = Vec::new();
    for path in logs {
        let log: Log = read(path)?.parse().with_context(|| path.display().to_string())?;
        acks.extend(log.acks().cloned());
    }
    let verdict = judge(&acks, rows, clock_error_ms * 1000);
    println!("{}", serde_json::to_string_pretty(&verdict)?);
    eprintln!("{verdict}");
    if !verdict.holds() {
        std::process::exit(1);
    }
    Ok(())
}
