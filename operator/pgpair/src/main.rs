//! `pgpair`: one binary for operator and agent, so that their versions cannot differ.

mod explain;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use pgpair_core::ids::VolumeId;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// PostgreSQL primary/standby pairs on Kubernetes.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch PgReplicaPairs and build what they ask for
    Operator(pgpair_controller::run::OperatorFlags),
    /// Own the postgres of one instance: PID 1 of its container
    Agent,
    /// archive_command: publish a WAL file in the archive, never overwriting
    WalArchive {
        /// Path of the file (%p)
        path: PathBuf,
        /// Its name (%f)
        name: String,
    },
    /// restore_command: fetch a WAL file from our archive or the peer's
    WalRestore {
        /// Name of the file (%f)
        name: String,
        /// Where to put it (%p)
        path: PathBuf,
    },
    /// Prove the death of the agent of this pod to the peer: run by a second container
    Witness,
    /// Seed this instance's volume from the primary: run by a Job
    Basebackup,
    /// Say what the volumes of an instance hold whose pair is gone: run by a Job
    AdoptLook,
    /// Let a volume forget the record of the pair that is gone: run by a Job
    AdoptRelease {
        /// Its id, as a look tells it; without: a volume that has no complete data directory
        #[arg(long)]
        volume: Option<VolumeId>,
    },
    /// Copy this program into a directory: run by an init container
    Install {
        /// The directory
        dir: PathBuf,
    },
    /// Tell from the journals of agents what they decided, and why
    Explain {
        /// Journals, or directories with them: in a pod /pgpair/run/journal; - is the standard input. Those of both instances are
        /// told as one story
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Every heartbeat, and whatever else changed nothing
        #[arg(long)]
        all: bool,
    },
    /// Print the CustomResourceDefinition of the pairs
    Crd {
        /// That of the orders instead
        #[arg(long)]
        orders: bool,
    },
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let only = words.next().filter(|_| words.next().is_none());
    let is = |command: &str| only.as_ref().is_some_and(|word| word == command);
    // Init process and witness only wait, for as long as the pod lives: they touch no memory that they can spare, not even
    // that in which their arguments would be understood.
    if is("agent")
        && let Some(code) = pgpair_agent::fence::init::main()
    {
        return code;
    }
    // Two TLS providers may be compiled in; rustls asks for a choice before its first use. Only fails if already chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if is("witness") {
        start_log(false);
        return pgpair_agent::fence::witness::main();
    }
    let command = Args::parse().command;
    start_log(matches!(command, Command::Operator(_)));
    match command {
        // However it was asked for: without an init process nobody would be the deadman.
        Command::Agent => pgpair_agent::fence::init::main().unwrap_or_else(pgpair_agent::run::main),
        Command::WalArchive { path, name } => pgpair_agent::wal::archive::run(&path, &name),
        Command::WalRestore { name, path } => pgpair_agent::wal::restore::run(&name, &path),
        Command::Witness => pgpair_agent::fence::witness::main(),
        Command::Basebackup => pgpair_agent::standby::base_backup::run(),
        Command::AdoptLook => pgpair_agent::standby::adopt::look(),
        Command::AdoptRelease { volume } => pgpair_agent::standby::adopt::release(volume),
        Command::Operator(settings) => exit(operator(settings)),
        Command::Install { dir } => exit(install(&dir)),
        Command::Explain { paths, all } => exit(explain::run(&paths, all)),
        Command::Crd { orders } => exit(crd(orders)),
    }
}

fn exit(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("pgpair: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// JSON lines for the operator, whose log is collected; plain lines for the agent, between those of postgres.
fn start_log(json: bool) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let (filter, unusable) = match wanted.parse::<Targets>() {
        Ok(targets) if !wanted.is_empty() => (targets, None),
        parsed => (Targets::new().with_default(LevelFilter::INFO), parsed.err()),
    };
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if json { lines.json().boxed() } else { lines.with_ansi(false).boxed() };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    if let Some(error) = unusable {
        tracing::warn!(%error, RUST_LOG = wanted, "RUST_LOG is not understood (module=level, with commas); info is used");
    }
}

fn operator(flags: pgpair_controller::run::OperatorFlags) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(runtime.block_on(pgpair_controller::run::run(flags))?)
}

fn crd(orders: bool) -> anyhow::Result<()> {
    use pgpair_api::crd;
    let definition = if orders { crd::definition_of_orders() } else { crd::definition() };
    let yaml = crd::yaml(&definition)?;
    std::io::stdout().write_all(yaml.as_bytes()).context("write the definition")
}

/// Complete under its name or not there: a container that starts meanwhile never runs half a program.
fn install(dir: &Path) -> anyhow::Result<()> {
    let target = dir.join("pgpair");
    let temporary = dir.join(".pgpair.new");
    std::fs::copy("/proc/self/exe", &temporary)
        .with_context(|| format!("copy to {}", temporary.display()))?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", temporary.display()))?;
    std::fs::rename(&temporary, &target).with_context(|| format!("rename to {}", target.display()))
}
