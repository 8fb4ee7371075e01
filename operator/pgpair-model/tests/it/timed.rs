//! Minutes of a pair in a world whose time runs: storms of faults, and what single ones cost. The claims are held against the world
//! after every step; at the end the faults stop and the pair must find together again.

use pgpair_core::authority::messages::EvidenceKind;
use pgpair_core::authority::{Durability, FailoverCause, FailoverSignal, Note, SoloReason};
use pgpair_core::ids::InstanceId;
use pgpair_core::order::{OrderKind, OrderRefusal, OrderReply};
use pgpair_core::record::Mode;
use pgpair_model::timed::{Fault, Timed};

/// Time without faults after a storm.
const CALM_MS: u64 = 90_000;

fn check(seeds: std::ops::Range<u64>, durability: Durability, flips: bool) {
    let mut failovers = 0;
    for seed in seeds {
        let mut world = Timed::storm(seed, durability, flips);
        let settled =
            world.try_run_until(|w| w.mode() == Some(Mode::Paired) && w.writable().len() == 1, CALM_MS);
        assert!(settled, "seed {seed}: no pair again after the faults\n{}", world.tail());
        failovers += world.term() - 1;
    }
    assert!(failovers > 20, "the storm is to cause changes of primary; it caused {failovers}");
}

#[test]
fn at_most_one_writes_and_no_acknowledged_commit_is_lost_in_sync() {
    check(0..150, Durability::Sync, false);
}

#[test]
fn at_most_one_writes_in_async() {
    check(1000..1080, Durability::Async, false);
}

#[test]
fn what_was_acknowledged_is_kept_by_what_the_record_says_however_often_durability_changes() {
    check(2000..2080, Durability::Sync, true);
}

#[test]
fn an_api_outage_leaves_a_healthy_pair_alone() {
    let mut w = Timed::new(7, Durability::Sync);
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
    let mut w = Timed::new(8, Durability::Sync);
    w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
    w.run_for(10_000);
    let before = w.api_requests();
    w.run_for(600_000);
    assert_eq!(w.api_requests(), before, "{}", w.tail());
}

#[test]
fn a_lost_node_costs_the_ttl_and_little_more() {
    for seed in 0..20 {
        let mut w = Timed::new(seed, Durability::Sync);
        w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
        let acked = w.acked();
        w.inject(Fault::Isolate(InstanceId::A));
        w.run_until(|w| w.term() == 2 && w.writable() == [InstanceId::B], 10_000);
        w.run_for(500);
        let gap = w.longest_gap_since(acked);
        assert!((2_000..6_500).contains(&gap), "seed {seed}: {gap} ms\n{}", w.tail());
        let (cause, evidence, signals) = taking_over(&w);
        assert_eq!((cause, evidence), (FailoverCause::PromiseLapsed, None), "seed {seed}\n{}", w.tail());
        assert_eq!(signals[0], Some(FailoverSignal::Silent), "seed {seed}\n{}", w.tail());
    }
}

#[test]
fn a_dead_postmaster_is_handed_over_at_once() {
    for seed in 0..20 {
        let mut w = Timed::new(seed, Durability::Sync);
        w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
        w.run_for(10_000);
        let acked = w.acked();
        w.inject(Fault::PostgresCrash(InstanceId::A));
        w.run_until(|w| w.term() == 2 && w.writable() == [InstanceId::B], 5_000);
        w.run_for(200);
        assert!(w.longest_gap_since(acked) < 1_000, "seed {seed}\n{}", w.tail());
        let (cause, _, signals) = taking_over(&w);
        assert_eq!(cause, FailoverCause::Resigned, "seed {seed}\n{}", w.tail());
        assert_eq!(signals[2..], [Some(FailoverSignal::Resigned), None], "seed {seed}\n{}", w.tail());
    }
}

#[test]
fn a_lost_standby_costs_half_the_ttl_at_most() {
    for seed in 0..20 {
        let mut w = Timed::new(seed, Durability::Sync);
        w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
        let acked = w.acked();
        w.inject(Fault::Isolate(InstanceId::B));
        w.run_until(|w| w.mode() == Some(Mode::Solo), 10_000);
        w.run_for(1_000);
        let gap = w.longest_gap_since(acked);
        assert!(gap < 3_000 && w.term() == 1, "seed {seed}: {gap} ms\n{}", w.tail());
    }
}

/// Why the standby took over that did so last.
fn taking_over(w: &Timed) -> (FailoverCause, Option<EvidenceKind>, [Option<FailoverSignal>; 4]) {
    let told = w.notes().iter().rev().find_map(|note| match note {
        Note::TakingOver { cause, evidence, signals, .. } => Some((*cause, *evidence, *signals)),
        _ => None,
    });
    assert!(told.is_some(), "nobody took over\n{}", w.tail());
    told.expect("it was asserted")
}

/// Why a primary went on alone, each time.
fn going_solo(w: &Timed) -> Vec<SoloReason> {
    let reason = |note: &Note| if let Note::GoingSolo(reason) = note { Some(*reason) } else { None };
    w.notes().iter().filter_map(reason).collect()
}

fn paired(seed: u64, durability: Durability) -> Timed {
    calm(Timed::new(seed, durability))
}

fn calm(mut w: Timed) -> Timed {
    w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
    w.run_for(10_000);
    w
}

#[test]
fn a_switchover_by_order_costs_less_than_a_second() {
    for seed in 0..20 {
        let mut w = paired(seed, Durability::Sync);
        let acked = w.acked();
        w.inject(Fault::Order(InstanceId::A, OrderKind::Switchover));
        w.run_until(|w| w.term() == 2 && w.writable() == [InstanceId::B], 5_000);
        w.run_until(|w| w.orders().last() == Some(&(InstanceId::A, OrderReply::Done)), 5_000);
        assert!(w.longest_gap_since(acked) < 1_000, "seed {seed}\n{}", w.tail());
        w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
    }
}

#[test]
fn a_switchover_is_refused_while_the_standby_may_not_take_over() {
    let mut w = paired(3, Durability::Sync);
    w.inject(Fault::Isolate(InstanceId::B));
    w.run_until(|w| w.mode() == Some(Mode::Solo), 10_000);
    w.inject(Fault::Order(InstanceId::A, OrderKind::Switchover));
    w.run_for(2_000);
    let refused = OrderReply::Refused(OrderRefusal::NotPaired);
    assert_eq!(
        (w.orders(), w.writable()),
        (&[(InstanceId::A, refused)][..], vec![InstanceId::A]),
        "{}",
        w.tail()
    );
}

#[test]
fn a_restart_of_the_standby_waits_until_the_primary_goes_on_alone() {
    let mut w = paired(4, Durability::Sync);
    let acked = w.acked();
    w.inject(Fault::Order(InstanceId::B, OrderKind::Restart));
    w.run_until(|w| w.orders().last() == Some(&(InstanceId::B, OrderReply::Done)), 10_000);
    assert_eq!(w.mode(), Some(Mode::Solo), "{}", w.tail());
    w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
    assert!(w.term() == 1 && w.longest_gap_since(acked) < 300, "{}", w.tail());
}

#[test]
fn a_restart_of_the_primary_is_no_reason_for_a_failover() {
    let mut w = calm(Timed::new(5, Durability::Sync).with_sure_messages());
    w.inject(Fault::Order(InstanceId::A, OrderKind::Restart));
    w.run_until(|w| w.orders().last() == Some(&(InstanceId::A, OrderReply::Done)), 10_000);
    w.run_for(20_000);
    assert_eq!(
        (w.term(), w.mode(), w.writable()),
        (1, Some(Mode::Paired), vec![InstanceId::A]),
        "{}",
        w.tail()
    );
}

#[test]
fn a_fenced_primary_hands_over_and_stays_down() {
    let mut w = calm(Timed::new(6, Durability::Sync).with_sure_messages());
    w.inject(Fault::Order(InstanceId::A, OrderKind::Fence));
    w.run_until(|w| w.writable() == [InstanceId::B], 5_000);
    w.inject(Fault::AgentCrash(InstanceId::A));
    w.run_for(60_000);
    assert_eq!((w.mode(), w.writable()), (Some(Mode::Solo), vec![InstanceId::B]), "{}", w.tail());
    w.inject(Fault::Order(InstanceId::A, OrderKind::Unfence));
    w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
}

#[test]
fn without_automatic_failover_only_an_order_opens_the_way() {
    let mut w = paired(7, Durability::Sync);
    w.configure(Durability::Sync, false);
    w.run_for(1_000);
    w.inject(Fault::Isolate(InstanceId::A));
    w.run_for(30_000);
    assert_eq!((w.term(), w.writable()), (1, vec![]), "{}", w.tail());
    let dead = w.incarnation(InstanceId::A).unwrap();
    w.inject(Fault::Order(InstanceId::B, OrderKind::Promote { dead }));
    w.run_until(|w| w.writable() == [InstanceId::B], 5_000);
}

#[test]
fn an_order_to_take_over_waits_for_the_rules() {
    let mut w = paired(11, Durability::Sync);
    w.configure(Durability::Sync, false);
    w.run_for(1_000);
    w.inject(Fault::Order(InstanceId::B, OrderKind::TakeOver));
    w.run_for(30_000);
    assert_eq!((w.term(), w.writable()), (1, vec![InstanceId::A]), "{}", w.tail());
    w.inject(Fault::Isolate(InstanceId::A));
    w.run_until(|w| w.writable() == [InstanceId::B], 10_000);
}

#[test]
fn a_living_primary_is_not_declared_dead() {
    let mut w = paired(8, Durability::Sync);
    let dead = w.incarnation(InstanceId::A).unwrap();
    w.inject(Fault::Order(InstanceId::B, OrderKind::Promote { dead }));
    w.run_for(10_000);
    let refused = OrderReply::Refused(OrderRefusal::PrimaryIsAlive);
    assert_eq!((w.term(), w.orders()), (1, &[(InstanceId::B, refused)][..]), "{}", w.tail());
}

#[test]
fn a_forced_promotion_ends_a_solo_that_nobody_can_end() {
    let mut w = paired(9, Durability::Sync);
    w.inject(Fault::Isolate(InstanceId::B));
    w.run_until(|w| w.mode() == Some(Mode::Solo), 10_000);
    let dead = w.incarnation(InstanceId::A).unwrap();
    w.heal();
    w.lose(InstanceId::A);
    w.run_for(20_000);
    assert_eq!(w.writable(), vec![], "{}", w.tail());
    w.inject(Fault::Order(InstanceId::B, OrderKind::Promote { dead }));
    w.run_until(|w| w.writable() == [InstanceId::B] && w.term() == 2, 10_000);
}

#[test]
fn a_change_of_durability_goes_through_solo() {
    let mut w = paired(10, Durability::Async);
    w.configure(Durability::Sync, true);
    w.run_until(|w| w.mode() == Some(Mode::Solo), 5_000);
    w.run_until(|w| w.mode() == Some(Mode::Paired) && w.durability() == Durability::Sync, 60_000);
    w.run_for(1_000);
    w.inject(Fault::Isolate(InstanceId::A));
    w.run_until(|w| w.writable() == [InstanceId::B], 10_000);
}

#[test]
fn a_hung_primary_is_killed_and_handed_over() {
    for seed in 0..10 {
        let mut w = paired(seed, Durability::Sync);
        w.inject(Fault::Hang(InstanceId::A));
        w.run_until(|w| w.term() == 2 && w.writable() == [InstanceId::B], 8_000);
        w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
    }
}

#[test]
fn a_primary_that_not_even_a_kill_ends_is_silent_until_its_standby_takes_over() {
    for seed in 0..10 {
        let mut w = paired(seed, Durability::Sync);
        w.inject(Fault::DiskHang(InstanceId::A));
        w.run_until(|w| w.term() == 2 && w.writable() == [InstanceId::B], 8_000);
        w.run_for(20_000);
        w.inject(Fault::DiskThaw(InstanceId::A));
        w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
    }
}

#[test]
fn commits_wait_for_as_long_as_the_record_says_so_whatever_is_set() {
    let mut w = paired(12, Durability::Sync);
    w.inject(Fault::ApiAway(InstanceId::A));
    w.configure(Durability::Async, true);
    w.run_for(1_000);
    w.inject(Fault::Isolate(InstanceId::A));
    w.run_until(|w| w.writable() == [InstanceId::B], 10_000);
}

#[test]
fn a_standby_that_stalls_holds_up_commits_for_half_the_ttl() {
    for seed in 0..10 {
        let mut w = paired(seed, Durability::Sync);
        let acked = w.acked();
        w.inject(Fault::StopReceiver(InstanceId::B));
        w.run_until(|w| w.mode() == Some(Mode::Solo), 5_000);
        w.run_for(1_000);
        assert!(w.term() == 1 && w.longest_gap_since(acked) < 3_500, "seed {seed}\n{}", w.tail());
    }
}

#[test]
fn a_load_of_any_speed_leaves_a_standby_paired_that_keeps_up_with_it() {
    for seed in 0..10 {
        for durability in [Durability::Sync, Durability::SyncStrict] {
            let mut w = Timed::new(seed, durability).with_max_lag(2);
            w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
            w.run_for(60_000);
            assert_eq!((w.mode(), w.term()), (Some(Mode::Paired), 1), "seed {seed}\n{}", w.tail());
            assert_eq!(going_solo(&w), [], "seed {seed}\n{}", w.tail());
        }
    }
}

#[test]
fn in_async_the_bytes_count_that_the_standby_lacks_and_not_those_of_since_it_last_told() {
    for seed in 0..10 {
        let mut w = Timed::new(seed, Durability::Async).with_max_lag(20);
        w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
        w.run_for(60_000);
        assert_eq!((w.mode(), going_solo(&w)), (Some(Mode::Paired), vec![]), "seed {seed}\n{}", w.tail());
        w.inject(Fault::SlowReceiver(InstanceId::B));
        w.run_until(|w| w.mode() == Some(Mode::Solo), 2_000);
        assert_eq!(going_solo(&w), [SoloReason::StandbyLags], "seed {seed}\n{}", w.tail());
    }
}

#[test]
fn a_standby_that_falls_behind_is_not_waited_for_although_it_gets_further() {
    for seed in 0..10 {
        let mut w = Timed::new(seed, Durability::Sync).with_max_lag(100);
        w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
        w.run_for(10_000);
        w.inject(Fault::SlowReceiver(InstanceId::B));
        w.run_until(|w| w.mode() == Some(Mode::Solo), 20_000);
        assert_eq!(going_solo(&w), [SoloReason::StandbyLags], "seed {seed}\n{}", w.tail());
        w.run_for(30_000);
        assert_eq!(w.mode(), Some(Mode::Solo), "nor paired with\n{}", w.tail());
    }
}

#[test]
fn a_wait_that_a_slow_standby_ended_does_not_begin_again_at_once() {
    for seed in 0..10 {
        let sure = Timed::new(seed, Durability::Sync).with_sure_messages();
        let mut w = sure.with_checkpoints_of(3_000).with_max_lag(120);
        w.run_until(|w| w.mode() == Some(Mode::Solo) && !w.wishes_sync(InstanceId::A), 60_000);
        w.run_until(|w| w.wishes_sync(InstanceId::A), 60_000);
        w.inject(Fault::SlowReceiver(InstanceId::B));
        w.run_until(|w| !w.wishes_sync(InstanceId::A), 20_000);
        assert_eq!(w.mode(), Some(Mode::Solo), "given up, not paired\n{}", w.tail());
        let since = w.now();
        w.heal();
        w.run_until(|w| w.wishes_sync(InstanceId::A), 60_000);
        assert!(w.now() - since > 900, "seed {seed}: after {} ms\n{}", w.now() - since, w.tail());
    }
}

#[test]
fn a_standby_that_starts_again_is_paired_with_soon_however_long_the_pair_has_lived() {
    let mut w = paired(16, Durability::Sync);
    w.run_for(600_000);
    w.inject(Fault::AgentCrash(InstanceId::B));
    w.run_until(|w| w.mode() == Some(Mode::Solo), 10_000);
    w.run_until(|w| w.mode() == Some(Mode::Paired), 20_000);
}

#[test]
fn an_idle_pair_is_paired_again_when_its_standby_starts_and_has_received_nothing() {
    for durability in [Durability::Async, Durability::Sync, Durability::SyncStrict] {
        let mut w = paired(17, durability);
        w.run_for(2_000);
        w.idle = true;
        w.run_for(2_000);
        w.inject(Fault::AgentCrash(InstanceId::B));
        w.run_until(|w| w.mode() == Some(Mode::Solo), 10_000);
        w.run_until(|w| w.mode() == Some(Mode::Paired), 20_000);
        w.run_for(20_000);
        assert_eq!(w.mode(), Some(Mode::Paired), "{durability:?}\n{}", w.tail());
    }
}

#[test]
fn a_hang_that_nobody_can_take_over_from_is_given_more_time() {
    let mut w = paired(13, Durability::Sync);
    w.inject(Fault::Isolate(InstanceId::B));
    w.run_until(|w| w.mode() == Some(Mode::Solo), 10_000);
    w.inject(Fault::Hang(InstanceId::A));
    let acked = w.acked();
    w.run_for(20_000);
    assert_eq!((w.writable(), w.acked()), (vec![InstanceId::A], acked), "{}", w.tail());
    w.run_until(|w| w.acked() > acked, 60_000);
}

#[test]
fn commits_are_not_made_to_wait_for_a_pairing_while_the_api_is_away() {
    let mut w = paired(14, Durability::Sync);
    w.inject(Fault::Isolate(InstanceId::B));
    w.run_until(|w| w.mode() == Some(Mode::Solo), 10_000);
    w.inject(Fault::ApiAway(InstanceId::A));
    w.run_for(6_000);
    // The standby is back, and what the API server said is too old.
    w.heal();
    w.inject(Fault::ApiAway(InstanceId::A));
    w.run_for(60_000);
    assert!(w.mode() == Some(Mode::Solo) && !w.waits(InstanceId::A), "{}", w.tail());
    w.heal();
    w.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
}

#[test]
fn a_standby_that_comes_and_goes_is_paired_with_more_and_more_slowly() {
    let mut w = paired(12, Durability::Async);
    let mut took = Vec::new();
    for _ in 0..7 {
        w.inject(Fault::Isolate(InstanceId::B));
        w.run_until(|w| w.mode() == Some(Mode::Solo), 10_000);
        w.heal();
        let back = w.now();
        w.run_until(|w| w.mode() == Some(Mode::Paired), 90_000);
        took.push(w.now() - back);
    }
    assert!(took[0] < 10_000 && took[6] > 30_000, "{took:?}\n{}", w.tail());
    // Not for ever: what lasts is no flapping.
    w.run_for(61_000);
    w.inject(Fault::Isolate(InstanceId::B));
    w.run_until(|w| w.mode() == Some(Mode::Solo), 10_000);
    w.heal();
    let back = w.now();
    w.run_until(|w| w.mode() == Some(Mode::Paired), 90_000);
    assert!(w.now() - back < 10_000 && w.term() == 1, "{}", w.tail());
}
