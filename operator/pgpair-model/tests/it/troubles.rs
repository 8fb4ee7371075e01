//! One fault, and commits are acknowledged again.

use pgpair_model::bounds::Bounds;
use pgpair_model::pair::Pair;
use pgpair_model::storm::{self, storms};
use pgpair_model::trouble::{IN_SOLO, SINGLE, Trouble, WITHIN_TTLS, WITHOUT_API, endure, excuse, on_its_way};

fn serves_again(name: &str) {
    for grain in [2, 4, 20] {
        let bounds = Bounds { grain, ..Bounds::CALM };
        let calm = Pair::new(bounds, &[]).first;
        let trouble =
            SINGLE.iter().chain(&WITHOUT_API).find(|t| t.name == name).expect("a fault of that name");
        let (since, end) = endure(&calm, &bounds, trouble);
        assert!(since.is_some_and(|s| s <= WITHIN_TTLS * grain), "{name}: {since:?} {end:?}");
    }
}

#[test]
fn l1_a_primary_that_hears_nothing_is_not_promised_anything_for_ever() {
    serves_again("nothing comes in at a");
}

#[test]
fn l2_a_primary_that_hears_nothing_does_not_write_solo_either() {
    let bounds = Bounds { grain: 4, ..Bounds::CALM };
    let deaf = SINGLE.iter().find(|t| t.name == "nothing comes in at a").unwrap();
    let (_, end) = endure(&Pair::new(bounds, &[]).first, &bounds, deaf);
    assert_eq!(end.record.primary.instance, pgpair_core::ids::InstanceId::B, "the standby has won");
}

#[test]
fn l3_a_postgres_that_does_not_start_is_handed_over_and_not_taken_back() {
    serves_again("postgres of a dies and does not start");
}

#[test]
fn l4_in_solo_too_a_postgres_that_does_not_start_is_handed_over() {
    let bounds = Bounds { grain: 4, start: pgpair_model::bounds::Start::Alone, ..Bounds::CALM };
    let (since, end) = endure(&Pair::new(bounds, &[]).first, &bounds, &IN_SOLO);
    assert!(since.is_some() && end.record.primary.instance == pgpair_core::ids::InstanceId::B, "{end:?}");
}

#[test]
fn l5_without_api_server_a_dead_postmaster_is_started_again_and_not_resigned() {
    serves_again("the API server is away; the postmaster of a dies");
}

#[test]
fn l6_without_api_server_restarted_agents_go_by_their_disks() {
    for name in ["a restarts", "b restarts", "both restart"] {
        serves_again(&format!("the API server is away; {name}"));
    }
}

#[test]
fn after_any_single_fault_commits_are_acknowledged_again() {
    SINGLE.iter().for_each(|t| serves_again(t.name));
}

/// Not only from rest: from whatever state a pair without faults is in, in any order of what it does.
#[test]
fn after_any_single_fault_at_any_moment_commits_are_acknowledged_again() {
    for (seed, trouble) in (0..).zip(SINGLE.iter().cycle().take(8 * SINGLE.len())) {
        for grain in [4, 20] {
            let bounds = Bounds { grain, ..Bounds::CALM };
            let at = on_its_way(&bounds, seed, 20 + seed % 97);
            check(&at, &bounds, trouble, seed);
        }
    }
}

fn check(at: &pgpair_model::world::World, bounds: &Bounds, trouble: &Trouble, seed: u64) {
    let (since, end) = endure(at, bounds, trouble);
    let excuse = excuse(at, trouble);
    assert!(since.is_some() || excuse.is_some(), "seed {seed}, {}: from {at:?}\nto {end:?}", trouble.name);
}

#[test]
fn long_random_runs_break_nothing() {
    for seed in 1..=3 {
        match storms(seed, 4 * storm::EVENTS, &[]) {
            Ok(tally) => assert!(tally.events > 3 * storm::EVENTS && tally.commits > 0, "{tally:?}"),
            Err(failed) => {
                panic!("pgpair-model walk seed={seed}: {:?} in storm {}", failed.1.broken, failed.0)
            }
        }
    }
}
