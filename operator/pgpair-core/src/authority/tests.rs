//! Two agents, the shipped state machine in each, in a world that loses, delays and doubles everything.
//! The claims are checked after every step; at the end the faults stop and the pair must find together again.

mod rng;
mod world;

use crate::authority::Durability;
use crate::ids::InstanceId;
use crate::record::Mode;
use rng::Rng;
use world::{Fault, World};

/// Simulated time with faults, and without them afterwards.
const STORM_MS: u64 = 60_000;
const CALM_MS: u64 = 90_000;

fn run(seed: u64, durability: Durability) -> World {
    let mut rng = Rng::new(seed);
    let mut world = World::new(rng.next_u64(), durability).with_slow_parts();
    world.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
    let mut next = world.now();
    let end = world.now() + STORM_MS;
    while world.now() < end {
        if world.now() >= next {
            world.inject(Fault::any(&mut rng));
            next = world.now() + rng.below(8_000);
        }
        world.step();
    }
    world.heal();
    world
}

fn check(seeds: std::ops::Range<u64>, durability: Durability) {
    let mut failovers = 0;
    for seed in seeds {
        let mut world = run(seed, durability);
        let settled =
            world.try_run_until(|w| w.mode() == Some(Mode::Paired) && w.writable().len() == 1, CALM_MS);
        assert!(settled, "seed {seed}: no pair again after the faults\n{}", world.tail());
        failovers += world.term() - 1;
    }
    assert!(failovers > 20, "the storm is to cause changes of primary; it caused {failovers}");
}

#[test]
fn at_most_one_writes_and_no_acknowledged_commit_is_lost_in_sync() {
    check(0..150, Durability::Sync);
}

#[test]
fn at_most_one_writes_in_async() {
    check(1000..1080, Durability::Async);
}

#[test]
fn an_api_outage_leaves_a_healthy_pair_alone() {
    let mut w = World::new(7, Durability::Sync);
    w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
    let (term, acked) = (w.term(), w.acked());
    w.inject(Fault::ApiAway(InstanceId::A));
    w.inject(Fault::ApiAway(InstanceId::B));
    w.run_for(120_000);
    assert_eq!(
        (w.term(), w.mode(), w.longest_gap_since(acked) < 200),
        (term, Some(Mode::Paired), true),
        "{}",
        w.tail()
    );
}

#[test]
fn a_healthy_pair_asks_the_api_for_nothing() {
    let mut w = World::new(8, Durability::Sync);
    w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
    w.run_for(10_000);
    let before = w.api_requests();
    w.run_for(600_000);
    assert_eq!(w.api_requests(), before, "{}", w.tail());
}

#[test]
fn a_lost_node_costs_the_ttl_and_little_more() {
    for seed in 0..20 {
        let mut w = World::new(seed, Durability::Sync);
        w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
        let acked = w.acked();
        w.inject(Fault::Isolate(InstanceId::A));
        w.run_until(|w| w.term() == 2 && w.writable() == [InstanceId::B], 10_000);
        w.run_for(500);
        let gap = w.longest_gap_since(acked);
        assert!((2_000..6_500).contains(&gap), "seed {seed}: {gap} ms\n{}", w.tail());
    }
}

#[test]
fn a_dead_postmaster_is_handed_over_at_once() {
    for seed in 0..20 {
        let mut w = World::new(seed, Durability::Sync);
        w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
        w.run_for(10_000);
        let acked = w.acked();
        w.inject(Fault::PostgresCrash(InstanceId::A));
        w.run_until(|w| w.term() == 2 && w.writable() == [InstanceId::B], 5_000);
        w.run_for(200);
        assert!(w.longest_gap_since(acked) < 1_000, "seed {seed}\n{}", w.tail());
    }
}

#[test]
fn a_lost_standby_costs_half_the_ttl_at_most() {
    for seed in 0..20 {
        let mut w = World::new(seed, Durability::Sync);
        w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
        let acked = w.acked();
        w.inject(Fault::Isolate(InstanceId::B));
        w.run_until(|w| w.mode() == Some(Mode::Solo), 10_000);
        w.run_for(1_000);
        let gap = w.longest_gap_since(acked);
        assert!(gap < 3_000 && w.term() == 1, "seed {seed}: {gap} ms\n{}", w.tail());
    }
}
