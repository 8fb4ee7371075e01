//! `pgpair-scale`: the operator with many pairs. It makes a network of its own, and leaves nothing of it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Parser;
use pgpair_e2e::bench::environment::commit;
use pgpair_e2e::repository;
use pgpair_e2e::results::{fetch, keep};
use pgpair_e2e::scale::measure::{Extent, measure};
use pgpair_e2e::scale::page;
use pgpair_e2e::scale::plane::Addresses;
use pgpair_e2e::scale::row::{Row, Rows};
use pgpair_e2e::scale::sandbox;
use pgpair_e2e::scale::stage::Stage;

/// Where the rows are, below the results.
const FILE: &str = "scale.json";

#[derive(Parser)]
#[command(version, about = "measures the operator with many pairs, whose pods and agents are simulated")]
struct Args {
    /// Numbers of pairs, with commas or spaces between.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000", value_parser = parse_sizes)]
    pairs: Vec<Sizes>,
    /// Seconds for which nothing happens.
    #[arg(long, default_value_t = 600)]
    idle: u64,
    /// Changes, and orders.
    #[arg(long, default_value_t = 200)]
    times: usize,
    /// What is particular about these rows; they get curves of their own.
    #[arg(long)]
    note: Option<String>,
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
    /// Neither keep the rows nor write the page.
    #[arg(long)]
    only_try: bool,
    /// Only write the page anew from the rows that are kept.
    #[arg(long)]
    only_page: bool,
}

/// Some numbers of pairs: what is between two commas.
#[derive(Clone)]
struct Sizes(Vec<usize>);

fn parse_sizes(text: &str) -> Result<Sizes, std::num::ParseIntError> {
    text.split_whitespace().map(str::parse).collect::<Result<_, _>>().map(Sizes)
}

fn main() -> ExitCode {
    let args = Args::parse();
    let out = repository::root().join(&args.out);
    let result = match sandbox::inside() {
        _ if args.only_page => write_page(),
        Some((folder, pairs)) => run_inside(&args, &folder, &out, pairs),
        None => run_each(&args, &out),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgpair-scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Each number of pairs in a sandbox of its own; one that fails does not keep the others from being measured.
fn run_each(args: &Args, out: &Path) -> anyhow::Result<()> {
    let (mut runs, mut failed) = (0, 0);
    for pairs in args.pairs.iter().flat_map(|sizes| sizes.0.iter().copied()) {
        runs += 1;
        if let Err(error) = sandbox::run_inside(&out.join("scale"), pairs) {
            eprintln!("{error:#}");
            failed += 1;
        }
    }
    ensure!(failed == 0, "{failed} of {runs} runs did not come to their end");
    Ok(())
}

fn run_inside(args: &Args, folder: &Path, out: &Path, pairs: usize) -> anyhow::Result<()> {
    // An error means that another provider was installed before, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    sandbox::prepare(folder)?;
    let row = tokio::runtime::Runtime::new()?.block_on(run_one(args, folder, pairs));
    save_logs(folder, out, pairs);
    let row = row?;
    println!("{}", serde_json::to_string_pretty(&row)?);
    let failed = row.failed.clone();
    if !args.only_try {
        fetch(out, FILE)?;
        let mut rows = Rows::load(&out.join(FILE))?;
        rows.put(row);
        rows.store(&out.join(FILE))?;
        keep(out, FILE)?;
        write_page()?;
    }
    ensure!(failed.is_empty(), "some measures did not come to their end: {failed:#?}");
    Ok(())
}

async fn run_one(args: &Args, folder: &Path, wanted: usize) -> anyhow::Result<Row> {
    let pairs = wanted.min(sandbox::most_pairs()?);
    println!("{pairs} pairs");
    if pairs < wanted {
        println!(
            "  and not {wanted}: a process may not open more files here than connections to their agents"
        );
    }
    let (mut stage, client) =
        Stage::set_up(folder, &args.bin, &args.operator, pairs, Addresses::None).await?;
    let mut row = Row {
        pairs,
        note: args.note.clone(),
        commit: args.commit.clone().or_else(commit),
        machine: sandbox::machine("the operator, etcd, the API server and all simulated agents"),
        ..Row::default()
    };
    let extent = Extent { idle: std::time::Duration::from_secs(args.idle), times: args.times };
    measure(&mut stage, &client, &args.operator, extent, &mut row).await?;
    Ok(row)
}

/// What the programs said is kept: the last run of each number of pairs.
fn save_logs(folder: &Path, out: &Path, pairs: usize) {
    for name in ["operator-1", "operator-2", "etcd", "kube-apiserver"] {
        let log = folder.join(format!("{name}.log"));
        let _ = std::fs::copy(log, out.join(format!("scale-{pairs}-{name}.log"))); // there may be none
    }
}

fn write_page() -> anyhow::Result<()> {
    let rows = Rows::load(&pgpair_e2e::results::kept(FILE))?;
    for (path, text) in page::files(&rows) {
        let path = repository::root().join(path);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
