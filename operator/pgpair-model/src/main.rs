//! Explores the protocol: the runs of `ci` or `deep`, or one within bounds given as `name=value`.

use std::process::ExitCode;
use std::time::Instant;

use pgpair_core::authority::Durability;
use pgpair_model::bounds::{Bounds, Start};
use pgpair_model::mutations::{MUTATIONS, Mutation};
use pgpair_model::page::render;
use pgpair_model::pair::Pair;
use pgpair_model::replay::{event, tale};
use pgpair_model::runs::{CI, DEEP, Run, story};
use pgpair_model::storm::{cut_down, storms};

/// Where the search for a way ends.
#[cfg(feature = "mutations")]
const MUTATION_STATES: usize = 6_000_000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("ci") => all(&CI, args.get(1)),
        Some("deep") => all(&DEEP, args.get(1)),
        Some("replay") => replay(args.get(1)),
        Some("page") => page(args.get(1)),
        Some("walk") => walk(&args[1..]),
        #[cfg(feature = "mutations")]
        Some("mutations") => mutations(&args[1..]),
        _ => match own(&args) {
            Ok((run, states, threads)) => make(&run, states, threads),
            Err(unknown) => {
                eprintln!("unknown: {unknown}");
                ExitCode::FAILURE
            }
        },
    }
}

/// `mutations [keep] [NAME]`: the shortest way to a broken claim without each clause; `keep`: into the files of `ways/`.
#[cfg(feature = "mutations")]
fn mutations(args: &[String]) -> ExitCode {
    let keep = args.first().is_some_and(|a| a == "keep");
    let only = args.get(usize::from(keep));
    let mut failed = 0;
    for m in MUTATIONS.iter().filter(|m| only.is_none_or(|o| m.name().contains(o.as_str()))) {
        let began = Instant::now();
        let (found, way) = m.explore(MUTATION_STATES);
        let (name, seconds) = (m.name(), began.elapsed().as_secs_f64());
        let kept = m.way().unwrap_or_default();
        let as_kept = match &way {
            Some(way) if keep => std::fs::write(m.file(), way).is_ok(),
            Some(way) => way.lines().count() == kept.lines().count(),
            None => false,
        };
        let events =
            way.as_ref().map_or("NOTHING BREAKS".into(), |w| format!("{} events", w.lines().count()));
        println!("without {name}: {} breaks: {events}, {} states, {seconds:.1} s", m.breaks, found.unique);
        if !as_kept {
            println!("  not as kept: {}", m.file().display());
            failed += 1;
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `replay NAME`: a way of `ways/` with what each event leads to, and again with all rules kept.
fn replay(name: Option<&String>) -> ExitCode {
    let Some(m) = MUTATIONS.iter().find(|m| Some(&m.name()) == name) else {
        eprintln!("one of: {}", MUTATIONS.iter().map(Mutation::name).collect::<Vec<_>>().join(" "));
        return ExitCode::FAILURE;
    };
    let Ok(way) = m.way() else { return ExitCode::FAILURE };
    for bounds in [m.bounds(), Bounds { taken: &[], without: None, ..m.bounds }] {
        let first = Pair::new(bounds, &[]).first;
        let mut world = first.clone();
        let mut events = Vec::new();
        for action in way.lines() {
            if let Some(action) = event(&world, &bounds, action) {
                world.take(action, &bounds);
                events.push(action);
            }
        }
        println!("{}", tale(&first, &bounds, &events));
    }
    ExitCode::SUCCESS
}

/// `page FILE`: its tables made anew.
fn page(file: Option<&String>) -> ExitCode {
    let Some(file) = file else { return ExitCode::FAILURE };
    let made = std::fs::read_to_string(file).map_err(|e| e.to_string()).and_then(|text| render(&text));
    match made.and_then(|text| std::fs::write(file, text).map_err(|e| e.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{file}: {why}");
            ExitCode::FAILURE
        }
    }
}

/// `walk seed=N steps=M`: long random runs.
fn walk(args: &[String]) -> ExitCode {
    let number = |name: &str, otherwise| {
        let given = args.iter().find_map(|a| a.strip_prefix(name)?.strip_prefix('='));
        given.and_then(|n| n.parse().ok()).unwrap_or(otherwise)
    };
    let (seed, steps, began) = (number("seed", 1), number("steps", 1_000_000), Instant::now());
    match storms(seed, steps, &[]) {
        Ok(tally) => {
            println!("walk seed={seed} steps={steps}: {tally:?}, {:.1} s", began.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(failed) => {
            let (n, storm) = *failed;
            let events = cut_down(&storm);
            println!("BROKEN {} in storm {n} of seed {seed}", storm.broken.unwrap_or_default());
            println!("{}", tale(&Pair::new(storm.bounds, &[]).first, &storm.bounds, &events));
            println!("{events:?}");
            ExitCode::FAILURE
        }
    }
}

/// With a part of their names: some of them.
fn all(runs: &[Run], part: Option<&String>) -> ExitCode {
    let chosen = |run: &&Run| part.is_none_or(|part| run.name.contains(part.as_str()));
    let runs: Vec<&Run> = runs.iter().filter(chosen).collect();
    let failed = runs.iter().filter(|run| make(run, usize::MAX, 1) != ExitCode::SUCCESS).count();
    // As the test runner says it: whoever counts tests counts these.
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {} passed; {failed} failed", runs.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn make(run: &Run, states: usize, threads: usize) -> ExitCode {
    let began = Instant::now();
    let found = run.explore(states, threads);
    println!(
        "{}: {} states, {} ways, depth {}{}, {:.1} s",
        run.name,
        found.unique,
        found.generated,
        found.depth,
        if found.complete { " (complete)" } else { "" },
        began.elapsed().as_secs_f64(),
    );
    let as_pinned = run.unique.is_none_or(|n| n == found.unique);
    if !as_pinned {
        println!("  not as pinned: {:?}", run.unique);
    }
    let holds = found.broken.is_empty();
    for (claim, path) in found.broken {
        println!("BROKEN {claim}\n{}", story(&run.bounds, path));
    }
    if holds && as_pinned { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn own(args: &[String]) -> Result<(Run, usize, usize), String> {
    let mut run =
        Run { name: "own", bounds: Bounds::default(), before: &[], depth: usize::MAX, unique: None };
    let (mut states, mut threads) = (4_000_000, 1);
    for arg in args {
        let (name, value) = arg.split_once('=').ok_or(arg.clone())?;
        let n: usize = value.parse().unwrap_or(0);
        match name {
            "depth" => run.depth = n,
            "states" => states = n,
            "threads" => threads = n,
            _ => set(&mut run.bounds, name, value).ok_or(arg.clone())?,
        }
    }
    Ok((run, states, threads))
}

fn set(bounds: &mut Bounds, name: &str, value: &str) -> Option<()> {
    let n: u8 = value.parse().unwrap_or(0);
    match name {
        "start" => {
            bounds.start = match value {
                "solo" => Start::Solo,
                "alone" => Start::Alone,
                _ => Start::Paired,
            }
        }
        "durability" => {
            bounds.durability = match value {
                "async" => Durability::Async,
                "strict" => Durability::SyncStrict,
                _ => Durability::Sync,
            };
        }
        "grain" => bounds.grain = u64::from(n),
        "terms" => bounds.terms = u32::from(n),
        "crashes" => bounds.crashes = n,
        "postgres" => bounds.postgres_crashes = n,
        "commits" => bounds.commits = n,
        "proofs" => bounds.proofs = n,
        "wipes" => bounds.wipes = n,
        "unknown" => bounds.unknown = n,
        "late" => bounds.late = n,
        "leaves" => bounds.leaves = n,
        "switchovers" => bounds.switchovers = n,
        "orders" => bounds.orders = n,
        "foreign" => bounds.foreign = n,
        "unstartable" => bounds.unstartable = n,
        "hangs" => bounds.hangs = n,
        "stuck" => bounds.stuck = n,
        "promotions" => bounds.promotions = n,
        "stale" => bounds.stale_reads = n > 0,
        "stalls" => bounds.stalls = n > 0,
        "progress" => bounds.progress_of = value.parse().ok()?,
        "refusals" => bounds.refusals = n > 0,
        "fine" => bounds.fine = n > 0,
        "replay" => bounds.slow_replay = n > 0,
        "slow" => bounds.slow_node = n > 0,
        "lag" => bounds.lag = n > 0,
        _ => return None,
    }
    Some(())
}
