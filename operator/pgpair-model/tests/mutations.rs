//! What is taken away breaks what it is said to break. The ways were found by `make model`, which finds them again; here
//! they are played.

use pgpair_core::authority::Durability;
use pgpair_core::authority::clause::{Clause, take_away};
use pgpair_model::bounds::Bounds;
use pgpair_model::mutations::{MUTATIONS, STUCK};
use pgpair_model::replay::play;
use pgpair_model::storm::{EVENTS, again, cut_down, storms};
use pgpair_model::timed::Timed;

#[test]
fn without_each_clause_the_way_that_is_kept_breaks_the_claim_that_is_named() {
    for m in &MUTATIONS {
        let played = play(&m.bounds(), &m.way().unwrap());
        assert_eq!(played.skipped, Vec::<String>::new(), "{}", m.name());
        assert!(played.broken.iter().any(|c| c.starts_with(m.breaks)), "{}: {:?}", m.name(), played.broken);
    }
}

#[test]
fn there_is_no_clause_without_which_nothing_breaks() {
    let taken: Vec<Clause> = MUTATIONS
        .iter()
        .flat_map(|m| m.clauses)
        .chain(STUCK.iter().flat_map(|s| s.clauses))
        .copied()
        .collect();
    let untried: Vec<_> = Clause::ALL.iter().filter(|clause| !taken.contains(clause)).collect();
    assert!(
        untried.is_empty(),
        "a clause needs a mutation, or a fault that stops a pair without it: {untried:?}"
    );
}

#[test]
fn with_all_clauses_the_same_ways_break_nothing() {
    for m in &MUTATIONS {
        let played = play(&Bounds { taken: &[], without: None, ..m.bounds }, &m.way().unwrap());
        assert_eq!(played.broken, Vec::<&str>::new(), "{}", m.name());
    }
}

#[test]
fn without_a_clause_that_keeps_a_pair_serving_one_fault_stops_it() {
    for s in &STUCK {
        let (with, without) = s.outcomes();
        assert!(with.is_some() && without.is_none(), "{:?}: {}: {with:?} {without:?}", s.clauses, s.trouble);
    }
}

#[test]
fn a_storm_finds_what_is_missing_and_is_cut_down_to_what_matters() {
    let taken: &[Clause] = &[Clause::Quarantine];
    let (_, storm) = *storms(1, 1_000 * EVENTS, taken).unwrap_err();
    let few = cut_down(&storm);
    let (_, broken) = again(&storm.bounds, &few);
    assert!(broken == storm.broken && few.len() < 40, "{broken:?} {few:?}");
    let whole = Bounds { taken: &[], ..storm.bounds };
    assert_eq!(again(&whole, &storm.events).1, None, "with the clause the same events break nothing");
}

/// A run in time ends with the first step that breaks a claim.
#[test]
fn a_storm_in_time_finds_what_is_missing() {
    for (taken, claim) in [(Clause::Quarantine, "S1"), (Clause::SyncProven, "S2")] {
        take_away(&[taken]);
        let broken = (0..150).find_map(|seed| {
            let run = || Timed::storm(seed, Durability::Sync, false).run_for(90_000);
            let storm = std::panic::catch_unwind(run);
            storm.err()?.downcast_ref::<String>().filter(|broken| broken.starts_with(claim)).cloned()
        });
        take_away(&[]);
        assert!(broken.is_some(), "{taken:?}: no run breaks {claim}");
    }
}
