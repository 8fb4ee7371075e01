//! `pgpair-specs`: thousands of specs drawn at random against a real API server and the operator. It makes a network of its own, and
//! leaves nothing of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use pgpair_e2e::bench::environment::commit;
use pgpair_e2e::repository;
use pgpair_e2e::results::{fetch, keep};
use pgpair_e2e::scale::plane::Addresses;
use pgpair_e2e::scale::sandbox;
use pgpair_e2e::scale::stage::Stage;
use pgpair_e2e::specs::draw::Generator;
use pgpair_e2e::specs::row::{Row, Rows};
use pgpair_e2e::specs::run::{Extent, run};

/// Where the rows are, below the results.
const FILE: &str = "fuzz-specs.json";

#[derive(Parser)]
#[command(version, about = "sends specs drawn at random to an API server with the operator behind it")]
struct Args {
    /// How many.
    #[arg(long, default_value_t = 10_000)]
    specs: usize,
    /// Which ones.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// After so many minutes no further batch begins.
    #[arg(long, default_value_t = 120)]
    minutes: u64,
    /// Commit that the operator's program was built from; that of this work tree if absent.
    #[arg(long)]
    commit: Option<String>,
    /// The operator's program.
    #[arg(long)]
    operator: PathBuf,
    /// Folder with etcd and kube-apiserver.
    #[arg(long)]
    bin: PathBuf,
    /// Where the results go, from the top of the repository.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Do not keep the row.
    #[arg(long)]
    only_try: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let out = repository::root().join(&args.out);
    let result = match sandbox::inside() {
        Some((folder, _)) => run_inside(&args, &folder, &out),
        None => sandbox::run_inside(&out.join("specs"), 1),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgpair-specs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_inside(args: &Args, folder: &Path, out: &Path) -> anyhow::Result<()> {
    // An error means that another provider was installed before, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    sandbox::prepare(folder)?;
    let mut row = Row {
        commit: args.commit.clone().or_else(commit),
        machine: sandbox::machine("the operator, etcd and the API server"),
        seed: args.seed,
        ..Row::default()
    };
    let ended = tokio::runtime::Runtime::new()?.block_on(run_one(args, folder, &mut row));
    save(folder, out)?;
    ended?;
    note_panics(folder, &mut row);
    println!("{}", serde_json::to_string_pretty(&row)?);
    let broken = row.broken.clone();
    if !args.only_try {
        fetch(out, FILE)?;
        let mut rows = Rows::load(&out.join(FILE))?;
        rows.put(row);
        rows.store(&out.join(FILE))?;
        keep(out, FILE)?;
    }
    ensure!(broken.is_empty(), "claims that were broken: {broken:#?}");
    Ok(())
}

async fn run_one(args: &Args, folder: &Path, row: &mut Row) -> anyhow::Result<()> {
    let read = |path: &str| {
        let path = repository::root().join(path);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let (definition, sample) = (read("crds/pgreplicapair.yaml")?, read("docs/samples/full.yaml")?);
    let mut generator = Generator::of(&definition, &sample, args.seed)?;
    let (mut stage, client) = Stage::set_up(folder, &args.bin, &args.operator, 1, Addresses::Given).await?;
    let extent = Extent { specs: args.specs, time: Duration::from_secs(60 * args.minutes) };
    run(&mut stage, &client, &mut generator, extent, folder, row).await
}

/// What the operator said, and the specs that broke a claim: the folder is gone at the end.
fn save(folder: &Path, out: &Path) -> anyhow::Result<()> {
    let files = fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path());
    for path in files.filter(|path| path.is_file()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("broken-") || name == "operator-1.log" {
            fs::copy(&path, out.join(format!("specs-{name}"))).with_context(|| format!("saving {name}"))?;
        }
    }
    Ok(())
}

/// It would have ended by that; so this only tells why.
fn note_panics(folder: &Path, row: &mut Row) {
    let log = fs::read_to_string(folder.join("operator-1.log")).unwrap_or_default();
    row.broken.extend(log.lines().filter(|line| line.contains("panicked at")).take(5).map(str::to_owned));
}
