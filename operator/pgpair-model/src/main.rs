//! Explores the protocol: the runs of `ci` or `deep`, or one within bounds given as `name=value`.

use std::process::ExitCode;
use std::time::Instant;

use pgpair_core::authority::Durability;
use pgpair_model::bounds::{Bounds, Start};
use pgpair_model::runs::{CI, DEEP, Run, story};
use pgpair_model::storm::{cut_down, storms, tale};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("ci") => all(&CI),
        Some("deep") => all(&DEEP),
        Some("troubles") => troubles(),
        Some("walk") => walk(&args[1..]),
        #[cfg(feature = "mutations")]
        Some("mutations") => mutations(args.get(1)),
        _ => match own(&args) {
            Ok((run, states, threads)) => make(&run, states, threads),
            Err(unknown) => {
                eprintln!("unknown: {unknown}");
                ExitCode::FAILURE
            }
        },
    }
}

#[cfg(feature = "mutations")]
fn mutations(only: Option<&String>) -> ExitCode {
    let mut failed = 0;
    for m in &pgpair_model::mutations::MUTATIONS {
        let name = format!("{:?} {:?}", m.clauses, m.bounds.without);
        if only.is_some_and(|o| !name.contains(o.as_str())) {
            continue;
        }
        let found = m.explore(6_000_000);
        let broken = found.broken.into_iter().find(|(claim, _)| claim.starts_with(m.breaks));
        println!("== without {name}: {} states", found.unique);
        match broken {
            Some((claim, path)) => {
                let before = m.before.iter().map(ToString::to_string);
                let path = path.into_vec();
                let steps = before.chain(path.iter().filter_map(|(_, a)| a.map(|a| a.to_string())));
                println!("   {claim}\n   {}", steps.collect::<Vec<_>>().join("; "));
            }
            None => {
                println!("   NOTHING BREAKS");
                failed += 1;
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
            println!("{}", tale(&storm.bounds, &events));
            println!("{events:?}");
            ExitCode::FAILURE
        }
    }
}

fn troubles() -> ExitCode {
    use pgpair_model::trouble::{SINGLE, WITHOUT_API, endure, excuse, on_its_way};
    for grain in [2, 4, 20] {
        let bounds = Bounds { grain, ..Bounds::CALM };
        let rest = pgpair_model::pair::Pair::new(bounds, &[]).first;
        println!("grain {grain}");
        for t in SINGLE.iter().chain(&WITHOUT_API) {
            println!("  {}: {:?}", t.name, endure(&rest, &bounds, t).0);
        }
    }
    for grain in [2, 4, 20] {
        let bounds = Bounds { grain, ..Bounds::CALM };
        for t in SINGLE.iter() {
            let (mut n, mut worst, mut stuck, mut excused) = (0, 0, 0, 0);
            let mut shown = false;
            for seed in 0..200 {
                let at = on_its_way(&bounds, seed, seed % 147);
                n += 1;
                match endure(&at, &bounds, t) {
                    (Some(steps), _) => worst = worst.max(steps),
                    (None, _) if excuse(&at, t).is_some() => excused += 1,
                    (None, end) => {
                        stuck += 1;
                        if !shown {
                            shown = true;
                            for (w, what) in [(&at, "from"), (&end, "to")] {
                                println!(
                                    "   seed {seed} {what} {} {} {}",
                                    w.record.term, w.record.mode, w.record.primary.instance
                                );
                                for i in [pgpair_core::ids::InstanceId::A, pgpair_core::ids::InstanceId::B] {
                                    println!("      {}", pgpair_model::pair::tell(w, i));
                                }
                            }
                        }
                    }
                }
            }
            println!("  grain {grain} {}: {n} worst {worst} stuck {stuck} excused {excused}", t.name);
        }
    }
    ExitCode::SUCCESS
}

fn all(runs: &[Run]) -> ExitCode {
    let failed = runs.iter().filter(|run| make(run, usize::MAX, 1) != ExitCode::SUCCESS).count();
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
        println!("BROKEN {claim}\n{}", story(path));
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
            bounds.durability = if value == "async" { Durability::Async } else { Durability::Sync };
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
        "stale" => bounds.stale_reads = n > 0,
        "stalls" => bounds.stalls = n > 0,
        "progress" => bounds.progress_of = value.parse().ok()?,
        "refusals" => bounds.refusals = n > 0,
        "fine" => bounds.fine = n > 0,
        "slow" => bounds.slow_node = n > 0,
        _ => return None,
    }
    Some(())
}
