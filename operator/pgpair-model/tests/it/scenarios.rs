//! The traces that shaped the rules, and those found since, on the shipped code: what it does at the dangerous step. That
//! without the rule the claim breaks is in `tests/mutations.rs`.

use pgpair_core::authority::{Directory, Durability, Refusal, Want};
use pgpair_core::ids::InstanceId::{A, B};
use pgpair_core::ids::Term;
use pgpair_core::instance::{PostgresState, Role};
use pgpair_core::lsn::Lsn;
use pgpair_core::record::Mode;
use pgpair_model::action::Action::{
    Answers, Arrives, ArrivesLate, Clock, Commit, Crash, Delayed, Deleted, GivenUp, Landed, Leave, Log,
    MadeAnew, NoReply, NotSent, PostgresCrash, Promotes, Proof, ReadDone, Ready, Replace, Replays, Seeded,
    Start, Sticks, Unsticks, Wipe, Works, Written,
};
use pgpair_model::action::{Action, Anew};
use pgpair_model::bounds::Bounds;
use pgpair_model::world::{Kind, NOW, Promotion};

use crate::scene::{ALONE, PAIRED, Scene};

/// Time until every promise has lapsed, at both.
const TTL: [Action; 4] = [Clock(A), Clock(A), Clock(B), Clock(B)];
/// The way of b to the record, and to a writable postgres.
const B_TAKES_OVER: [Action; 3] = [ReadDone(B), Written(B, 0), Works(B)];

#[test]
fn v1_a_pairing_of_unknown_outcome_counts_as_paired_though_a_read_still_says_solo() {
    let s = Scene::new(ALONE).then(&[GivenUp(A, 0), ReadDone(A), Clock(A), Clock(A)]);
    assert_eq!((s.record().1, s.refused(A)), (Mode::Solo, Some(Refusal::NoPromise)));
    let s = s.then(&[Landed(A, 0), Clock(B), Clock(B)]).then(&B_TAKES_OVER);
    assert_eq!(s.writers(), [B]);
    s.ends_well();
}

#[test]
fn v2_a_resignation_that_arrives_after_it_was_taken_back_is_of_an_earlier_term() {
    let resigned = [PostgresCrash(A), Arrives(B, Kind::CanTake), ReadDone(B), Arrives(A, Kind::CanTakeReply)];
    let s = Scene::new(PAIRED).then(&resigned);
    assert_eq!(s.refused(A), Some(Refusal::Resigned));
    let s = s.then(&[Delayed(B, Kind::Resign), Clock(A), Clock(A), ReadDone(A), Written(A, 0), Works(A)]);
    assert_eq!((s.record(), s.writers()), ((Term(2), Mode::Solo, A), vec![A]));
    // What b asks for by the late message was decided on the record of term 1.
    let s = s.then(&[ArrivesLate(0), Written(B, 0), ReadDone(B)]);
    assert_eq!((s.record(), s.writers()), ((Term(2), Mode::Solo, A), vec![A]));
    let s = s.then(&[ArrivesLate(0)]);
    assert!(!s.asks_for_the_record(B));
    s.ends_well();
}

#[test]
fn v3_evidence_on_the_named_primary_does_not_shorten_the_quarantine_of_a_restarted_standby() {
    // a's next process starts on a promise of b, without the API server; then b restarts and does not know of it.
    let promise =
        [Crash(A), Start(A), Clock(A), Answers(B, Kind::Heartbeat), Answers(B, Kind::Heartbeat), Works(A)];
    let s = Scene::new(PAIRED).then(&promise);
    assert_eq!(s.writers(), [A]);
    let s = s.then(&[Crash(B), Start(B), ReadDone(B), Proof(B)]);
    assert!(!s.asks_for_the_record(B) && !s.agent(B).may_promote(NOW));
    s.ends_well();
}

#[test]
fn a_restarted_standby_takes_over_at_once_from_who_resigns_to_it() {
    let resigned = [PostgresCrash(A), Arrives(B, Kind::CanTake), Arrives(A, Kind::CanTakeReply)];
    let s = Scene::new(PAIRED).then(&[Crash(B), Start(B), ReadDone(B), Works(B)]);
    assert!(!s.agent(B).may_promote(NOW));
    let s = s.then(&resigned).then(&[Arrives(B, Kind::Resign)]).then(&[Written(B, 0), Works(B)]);
    assert_eq!((s.record(), s.writers()), ((Term(2), Mode::Solo, B), vec![B]));
    s.ends_well();
}

#[test]
fn v4_a_late_heartbeat_of_a_dead_primary_does_not_take_the_place_of_the_promise_to_its_successor() {
    let s = Scene::new(PAIRED).then(&[
        Clock(A),
        Delayed(B, Kind::Heartbeat),
        Crash(A),
        Start(A),
        Clock(A),
        Answers(B, Kind::Heartbeat),
        Answers(B, Kind::Heartbeat),
        Works(A),
        ArrivesLate(0),
        ReadDone(B),
        Proof(B),
    ]);
    assert_eq!(s.writers(), [A]);
    assert!(!s.asks_for_the_record(B), "the promise to the second process is open");
}

#[test]
fn v5_who_is_named_by_a_write_of_its_earlier_process_keeps_its_own_promise_first() {
    let heard = Answers(B, Kind::Heartbeat);
    let promise = [NoReply(A), Clock(A), heard, Clock(A), heard, Works(A)];
    let s = Scene::new(PAIRED)
        .then(&TTL)
        .then(&[ReadDone(B), Crash(B), Start(B), Clock(B), Clock(B)])
        .then(&promise)
        .then(&[Landed(B, 0), ReadDone(B)]);
    assert_eq!((s.record().2, s.agent(B).role(), s.writers()), (B, Role::Primary, vec![A]));
    assert_eq!(s.refused(B), Some(Refusal::OwnPromise), "{}", s.tell());
    s.ends_well();
}

#[test]
fn v6_in_solo_the_next_process_writes_its_own_name_first_so_that_a_late_pairing_is_refused() {
    let s = Scene::new(ALONE).then(&[Crash(A), Start(A), ReadDone(A)]);
    assert_eq!(s.refused(A), Some(Refusal::NoPromise), "named is the process that died");
    let s = s.then(&[Written(A, 1), Works(A)]);
    assert_eq!((s.record().1, s.writers()), (Mode::Solo, vec![A]));
    assert!(s.world.node(A).writes.iter().all(|w| w.awaited), "the pairing of the first can land no more");
}

#[test]
fn v7_evidence_opens_solo_in_async_only() {
    let lost = [Clock(A), Commit(A), Crash(A), Clock(B), Proof(B), ReadDone(B)];
    let alone = [NotSent(A, 0)];
    let sync = Scene::new(ALONE).then(&alone).then(&lost);
    assert_eq!((sync.record().1, sync.asks_for_the_record(B)), (Mode::Solo, false));
    // In `Async` nobody waits for such commits.
    let s = Scene::new(Bounds { durability: Durability::Async, ..PAIRED });
    let solo = [Crash(B), Clock(A), Clock(B), ReadDone(A), Written(A, 0), Start(B), ReadDone(B), Works(B)];
    let s = s.then(&solo).then(&[
        Clock(A),
        Clock(B),
        Clock(A),
        Clock(B),
        Commit(A),
        Crash(A),
        Proof(B),
        ReadDone(B),
    ]);
    assert_eq!((s.record().1, s.asks_for_the_record(B)), (Mode::Solo, true), "{}", s.tell());
}

#[test]
fn v8_a_standby_on_another_volume_than_the_record_names_does_not_take_over() {
    let s =
        Scene::new(PAIRED).then(&[Crash(B), Wipe(B), Start(B), ReadDone(B), Seeded(B), Works(B), Crash(A)]);
    assert_eq!((s.record().1, s.server(B).state), (Mode::Paired, PostgresState::Standby));
    let s = s.then(&TTL).then(&[ReadDone(B)]);
    assert!(!s.asks_for_the_record(B) && s.agent(B).role() == Role::Standby);
    s.then(&[Start(A)]).ends_well();
}

#[test]
fn v9_the_named_instance_does_not_start_on_another_volume() {
    let s = Scene::new(ALONE).then(&[
        NotSent(A, 0),
        Commit(A),
        Crash(A),
        Replace(A),
        Start(A),
        ReadDone(A),
        Works(A),
    ]);
    assert_eq!((s.refused(A), s.writers()), (Some(Refusal::VolumeReplaced), vec![]));
    assert!(!s.asks_for_the_record(A));
}

#[test]
fn v10_a_former_primary_follows_only_who_has_confirmed_its_promotion() {
    // One commit that b never got; a learns of the new term before b is promoted.
    let s = Scene::new(PAIRED).then(&[
        Clock(A),
        Commit(A),
        Clock(A),
        Clock(B),
        Clock(B),
        ReadDone(B),
        Written(B, 0),
    ]);
    let s = s.then(&[ReadDone(A), Works(A)]);
    assert_eq!(s.agent(A).desired(NOW).postgres, Want::Following(Term(2)));
    assert_eq!((s.server(A).state, s.server(A).directory), (PostgresState::Down, Directory::Primary));
    let s = s.then(&[Works(B), Works(A)]);
    assert_eq!((s.writers(), s.server(A).log.len()), (vec![B], 0), "cut back to what both have");
    s.then(&[Commit(B), Log(A)]).ends_well();
}

/// a has a commit that b never got, on the timeline that b would go on writing.
#[test]
fn a_promotion_that_is_cut_off_is_made_once_more_and_the_old_timeline_is_left_alone() {
    // A new process besides waits until no promise of the earlier one can be open.
    let restarted = [Crash(B), Start(B), ReadDone(B), Written(B, 0)];
    let waits = [Works(B), Clock(B), Clock(B), Works(B)];
    let cut_off: [(&[Action], &[Action]); 2] = [(&[PostgresCrash(B)], &[Works(B)]), (&restarted, &waits)];
    for (killed, then) in cut_off {
        let s = Scene::new(PAIRED).then(&[Clock(A), Commit(A), Clock(A), Clock(B), Clock(B)]);
        let s = s.then(&[ReadDone(B), Written(B, 0), Promotes(B)]);
        assert_eq!((s.server(B).state, s.writers()), (PostgresState::Promoting, vec![]));
        let s = s.then(killed);
        let left = s.server(B);
        assert_eq!(
            (left.directory, left.promotion, left.timeline),
            (Directory::Primary, Promotion::SignalGone, 1),
            "it looks like a primary's"
        );
        let s = s.then(then).then(&[Commit(B)]);
        assert_eq!((s.writers(), s.server(B).timeline), (vec![B], 2));
        s.ends_well();
    }
}

#[test]
fn a_standby_of_which_its_agent_has_lost_sight_takes_over_when_it_is_seen_again() {
    let s = Scene::new(PAIRED).then(&[Sticks(B), Crash(A), Clock(A), Clock(B)]);
    let known = s.agent(B).postgres();
    assert_eq!((known.state, known.directory), (PostgresState::Starting, Directory::Unknown));
    let s = s.then(&[Clock(A), Clock(B), ReadDone(B), Clock(A), Clock(B)]);
    assert!(!s.asks_for_the_record(B), "{}", s.tell());
    let s = s.then(&[Unsticks(B), Written(B, 0), Works(B)]);
    assert_eq!((s.record().0, s.writers()), (Term(2), vec![B]));
    s.ends_well();
}

#[test]
fn a_standby_of_which_its_agent_has_lost_sight_says_no_to_a_primary_that_would_resign() {
    let s = Scene::new(PAIRED).then(&[Sticks(B), Clock(A), Answers(B, Kind::Heartbeat), Clock(B)]);
    let s = s.then(&[PostgresCrash(A), Arrives(B, Kind::CanTake)]);
    let s = s.then(&[ReadDone(B), Arrives(A, Kind::CanTakeReply), Works(A)]);
    assert_eq!((s.record().0, s.writers()), (Term(1), vec![A]), "{}", s.tell());
    s.ends_well();
}

#[test]
fn a_promotion_ends_when_everything_that_was_received_is_replayed() {
    let lost = [Commit(A), Log(B), Crash(A), Clock(A), Clock(A), Clock(B), Clock(B)];
    let s = Scene::new(Bounds { slow_replay: true, ..PAIRED }).then(&lost).then(&B_TAKES_OVER);
    assert_eq!((s.server(B).state, s.writers()), (PostgresState::Promoting, vec![]), "nobody serves");
    let s = s.then(&[PostgresCrash(B), Works(B)]);
    assert_eq!((s.server(B).state, s.server(B).directory), (PostgresState::Promoting, Directory::Standby));
    let s = s.then(&[Replays(B), Ready(B), Ready(B)]);
    assert_eq!((s.writers(), s.server(B).log.len()), (vec![B], 1));
    s.ends_well();
}

/// It has received nothing since its start, and is as far as it has replayed.
#[test]
fn a_restarted_standby_takes_over_from_who_resigns_to_it_when_it_has_replayed_the_end() {
    let slow = Scene::new(Bounds { slow_replay: true, ..PAIRED });
    let s = slow.then(&[Commit(A), Log(B), Crash(B), Start(B), ReadDone(B), Works(B)]);
    assert_eq!(s.agent(B).postgres().position(), Some(Lsn(0)));
    let resigned = [PostgresCrash(A), Arrives(B, Kind::CanTake), Arrives(A, Kind::CanTakeReply)];
    let s = s.then(&resigned).then(&[Arrives(B, Kind::Resign)]);
    assert!(!s.asks_for_the_record(B), "{}", s.tell());
    let s = s.then(&[Replays(B), Written(B, 0), Works(B)]);
    assert_eq!((s.record(), s.writers()), ((Term(2), Mode::Solo, B), vec![B]));
    s.ends_well();
}

#[test]
fn who_resigned_and_is_lost_with_the_end_of_its_log_does_not_hold_up_its_standby_for_ever() {
    let resigned = [Arrives(B, Kind::CanTake), ReadDone(B), Arrives(A, Kind::CanTakeReply)];
    let s = Scene::new(PAIRED).then(&[Clock(A), Commit(A), PostgresCrash(A)]).then(&resigned);
    let s = s.then(&[Answers(B, Kind::Resign), Crash(A), Clock(A), Clock(B)]);
    assert!(!s.asks_for_the_record(B), "it has yet to give the log the time to come");
    let s = s.then(&[Clock(A), Clock(B)]).then(&B_TAKES_OVER);
    assert_eq!((s.record().0, s.writers()), (Term(2), vec![B]));
    s.then(&[Start(A)]).ends_well();
}

#[test]
fn a_record_that_was_deleted_and_made_anew_moves_nobody() {
    for anew in [Anew::Copy, Anew::OfTheOther] {
        let s = Scene::new(PAIRED).then(&[
            Deleted,
            MadeAnew(anew),
            Clock(A),
            Clock(B),
            Answers(B, Kind::Heartbeat),
        ]);
        let s = s.then(&[
            Clock(A),
            Answers(B, Kind::Heartbeat),
            Clock(B),
            Clock(A),
            Crash(B),
            Start(B),
            ReadDone(B),
        ]);
        assert_eq!(s.agent(B).role(), Role::Standby, "{}", s.tell());
        let s = s.then(&[Clock(A), Clock(A), Clock(B), Clock(B), Works(B), Works(A)]);
        assert!(
            !s.asks_for_the_record(A)
                && !s.asks_for_the_record(B)
                && s.server(B).directory == Directory::Standby
        );
    }
}

#[test]
fn a_primary_that_leaves_while_its_standby_says_nothing_stops_without_a_successor() {
    let s = Scene::new(PAIRED).then(&[Leave(A), NoReply(A), Works(A)]);
    assert_eq!((s.writers(), s.record()), (vec![], (Term(1), Mode::Paired, A)));
    s.then(&TTL).ends_well();
}
