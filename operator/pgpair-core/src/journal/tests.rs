use super::replay::{Diverged, Part, PlayError, Replay};
use super::shorthand::{Shorthand, Unreferenced};
use super::{FORMAT, FirstLine, Line, Snapshot, VERSION};
use crate::authority::OnPostgresCrash;
use crate::authority::messages::{CanTake, Heartbeat};
use crate::authority::promises::Given;
use crate::authority::timing::{Ms, Timing};
use crate::authority::view::ReadOutcome;
use crate::authority::{Authority, Durability, Durable, Event, NodeId, PgFacts, ReplyId, Settings};
use crate::ids::{Incarnation, InstanceId, Term};
use crate::instance::PostgresState;
use crate::lsn::Lsn;
use crate::record::Holder;

fn begin() -> Snapshot {
    let settings = Settings {
        timing: Timing::new(5_000).unwrap(),
        durability: Durability::Sync,
        max_lag: 1_000,
        automatic: true,
        on_crash: OnPostgresCrash::Failover,
    };
    let me = Holder { instance: InstanceId::B, incarnation: Incarnation(2) };
    let durable = Durable { term: Term(1), longest_ttl_ms: 5_000, ..Durable::default() };
    Snapshot {
        journal: FORMAT,
        pgpair: VERSION.to_owned(),
        at: Ms(1_000),
        unix_ms: 1_700_000_000_000,
        number: 0,
        lost: 0,
        authority: Authority::new(me, NodeId(1), settings, durable, Ms(1_000)),
    }
}

/// The second one repeats the number of the first answer, and so on.
fn heartbeat(seq: u64) -> Event {
    let echo = (seq > 1).then(|| Given::numbers_of(Incarnation(2)) + seq - 1);
    let from = Holder { instance: InstanceId::A, incarnation: Incarnation(1) };
    let hb = Heartbeat { term: Term(1), from, seq, ttl_ms: 5_000, echo, version: None };
    Event::Heartbeat(ReplyId(seq), hb)
}

/// The agent's own state after the same events.
fn after(events: &[(u64, Event)]) -> Snapshot {
    let mut s = begin();
    for (at, event) in events {
        s.authority.handle(Ms(*at), event.clone());
        (s.number, s.at) = (s.number + 1, Ms(*at));
    }
    s
}

#[test]
fn what_repeats_itself_is_told_once() {
    let mut replay = Replay::new(begin());
    let told: Vec<bool> = [heartbeat(1), heartbeat(2), heartbeat(3), Event::Tick]
        .into_iter()
        .enumerate()
        .map(|(n, e)| replay.event(Ms(1_100 + n as u64), 0, e).matters())
        .collect();
    assert_eq!(told, [true, true, false, false], "challenge, promise, promise, nothing");
    let failed = || Event::Read { asked: Ms(1_100), outcome: ReadOutcome::Failed };
    assert!(replay.event(Ms(1_200), 0, failed()).matters());
    assert!(!replay.event(Ms(1_210), 0, failed()).matters());
}

#[test]
fn what_came_in_and_what_came_of_it_is_one_sentence() {
    let mut replay = Replay::new(begin());
    let from = Holder { instance: InstanceId::A, incarnation: Incarnation(1) };
    let question = CanTake { term: Term(1), from, ordered: false, down: true };
    let asked = replay.event(Ms(1_100), 0, Event::CanTake(ReplyId(1), question));
    assert_eq!(
        asked.text(false),
        "a/0000000000000001 asks whether this standby can take over in term 1; its postgres is down"
    );
    assert!(asked.text(true).ends_with("-> reads the record"), "{}", asked.text(true));
    let late = replay.event(Ms(3_000), 0, Event::Tick);
    assert_eq!(late.text(false), "time has passed -> answers: it cannot (RecordUnreadable)");
}

#[test]
fn a_snapshot_of_the_same_moment_must_be_the_same() {
    let events = [(1_100, heartbeat(1)), (1_200, heartbeat(2))];
    let mut replay = Replay::new(begin());
    for (at, event) in &events {
        replay.event(Ms(*at), 0, event.clone());
    }
    assert!(!replay.go_on(after(&events)).unwrap().matters());
    let mut other = after(&events);
    other.authority.handle(Ms(1_300), heartbeat(3));
    assert_eq!(replay.go_on(other), Err(Diverged));
}

#[test]
fn a_gap_is_told_and_the_replay_goes_on_from_the_snapshot() {
    let events = [(1_100, heartbeat(1)), (1_200, heartbeat(2)), (1_300, heartbeat(3))];
    let mut replay = Replay::new(begin());
    replay.event(Ms(1_100), 0, heartbeat(1));
    let gap = replay.go_on(Snapshot { lost: 2, ..after(&events) }).unwrap();
    assert!(gap.matters() && gap.came.text.starts_with("2 events are missing here"), "{}", gap.came.text);
    assert_eq!(replay.authority(), &after(&events).authority);
}

#[test]
fn the_first_line_of_another_version_tells_which_one() {
    let line = r#"{"snapshot":{"journal":9,"pgpair":"7.0.0","brand":"new"}}"#;
    let FirstLine::Snapshot(origin) = serde_json::from_str(line).unwrap();
    assert!(!origin.is_ours() && origin.pgpair == "7.0.0");
}

#[test]
fn what_is_like_the_one_before_is_written_short_and_read_the_same() {
    let mut shorthand = Shorthand::default();
    let lines: Vec<Line> = [heartbeat(1), Event::Tick, heartbeat(2), heartbeat(3)]
        .map(|e| shorthand.line(Ms(1_100), 0, e))
        .into();
    let short: Vec<bool> = lines.iter().map(|l| matches!(l, Line::Short(..))).collect();
    assert_eq!(short, [false, false, true, true]);
    let other = Event::Heartbeat(
        ReplyId(4),
        Heartbeat {
            term: Term(2),
            from: Holder { instance: InstanceId::A, incarnation: Incarnation(1) },
            seq: 4,
            ttl_ms: 5_000,
            echo: None,
            version: None,
        },
    );
    assert_eq!(shorthand.line(Ms(1_100), 0, other.clone()), Line::Event(Ms(1_100), 0, other));
    let mut replay = Replay::new(begin());
    for line in lines {
        replay.take(line).unwrap();
    }
    let events = [heartbeat(1), Event::Tick, heartbeat(2), heartbeat(3)];
    assert_eq!(replay.authority(), &after(&events.map(|e| (1_100, e))).authority);
}

#[test]
fn a_short_line_counts_from_the_last_snapshot_only() {
    let mut shorthand = Shorthand::default();
    let first = shorthand.line(Ms(1_100), 0, heartbeat(1));
    let short = shorthand.line(Ms(1_200), 0, heartbeat(2));
    let mut replay = Replay::new(begin());
    replay.take(first).unwrap();
    replay.take(Line::Snapshot(Box::new(after(&[(1_100, heartbeat(1))])))).unwrap();
    assert_eq!(replay.take(short), Err(PlayError::Unreferenced(Unreferenced)));
}

#[test]
fn a_look_at_a_primary_is_written_short_while_it_and_its_standby_move() {
    let look = |flush, standby| {
        let (flush, standby_write) = (Some(Lsn(flush)), Some(Lsn(standby)));
        Event::Postgres(PgFacts { state: PostgresState::Primary, flush, standby_write, ..PgFacts::default() })
    };
    let (mut writer, mut reader) = (Shorthand::default(), Shorthand::default());
    for hand in [&mut writer, &mut reader] {
        hand.remember(&look(10, 9));
    }
    for event in [look(20, 9), look(20, 18)] {
        let Line::Short(_, _, short) = writer.line(Ms(1_200), 0, event.clone()) else { panic!("{event:?}") };
        assert_eq!(reader.read(short), Ok(event));
    }
}

/// Recorded in the simulated world by the rules of format 3: both instances were primary and standby, by resignation, lapse,
/// hang and order. A journal of an earlier build is read by this one, and played to the very same states.
#[test]
fn recorded_journals_are_played_to_the_states_that_they_were_recorded_in() {
    let recorded = [(include_str!("recorded/a.jsonl"), 10), (include_str!("recorded/b.jsonl"), 9)];
    for (recorded, snapshots) in recorded {
        let mut lines = recorded.lines().map(|line| serde_json::from_str::<Line>(line).unwrap());
        let Some(Line::Snapshot(first)) = lines.next() else { panic!("a journal begins with a snapshot") };
        let mut replay = Replay::new(*first);
        let told = lines.map(|line| replay.take(line).unwrap().came);
        let same = told.filter(|came| *came == Part::minor("a snapshot, as replayed")).count();
        assert_eq!(same, snapshots, "snapshots in the midst of a process");
    }
}
