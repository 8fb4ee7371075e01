//! One agent, told by hand what happens.

use crate::authority::OnPostgresCrash;
use crate::authority::messages::{
    Answer, CanTake, CanTakeReply, Evidence, EvidenceKind, Heartbeat, NoPromise, Resignation, StandbyInfo,
    Verdict,
};
use crate::authority::promises::Given;
use crate::authority::timing::{Ms, Timing};
use crate::authority::view::{CasId, CasOutcome, ReadOutcome};
use crate::authority::{
    Authority, Command, Directory, Durability, Durable, Event, Gate, NodeId, PgFacts, Refusal, ReplyId,
    Settings,
};
use crate::ids::{Incarnation, InstanceId, SystemIdentifier, Term, VolumeId};
use crate::instance::{PostgresState, Role};
use crate::lsn::Lsn;
use crate::order::{OrderKind, OrderReply};
use crate::record::{Holder, Mode, Record, RecordUid, Version, Versioned};
use crate::timeline::TimelineId;

const PRIMARY: Holder = Holder { instance: InstanceId::A, incarnation: Incarnation(1) };
const TTL: u64 = 5_000;

fn record() -> Record {
    Record {
        term: Term(1),
        primary: PRIMARY,
        mode: Mode::Paired,
        primary_volume: Some(VolumeId(1)),
        standby_volume: Some(VolumeId(2)),
        system_identifier: Some(SystemIdentifier(1)),
        durability: Durability::Sync,
    }
}

const STANDBY: Holder = Holder { instance: InstanceId::B, incarnation: Incarnation(2) };

fn standby_facts() -> PgFacts {
    PgFacts {
        state: PostgresState::Standby,
        directory: Directory::Standby,
        volume: Some(VolumeId(2)),
        timeline: Some(TimelineId(1)),
        flush: Some(Lsn(10)),
        ..PgFacts::default()
    }
}

/// A standby that has flushed the log up to 10 and has just given a promise, long after its start.
fn standby(mode: Mode) -> (Authority, Ms) {
    standby_at(mode, Ms(100_000))
}

/// The same, started at 0.
fn standby_at(mode: Mode, now: Ms) -> (Authority, Ms) {
    let me = STANDBY;
    let timing = Timing::new(5_000).unwrap();
    let settings = Settings {
        timing,
        durability: Durability::Sync,
        max_lag: 1_000,
        automatic: true,
        on_crash: OnPostgresCrash::Failover,
    };
    let disk = Durable {
        record_uid: Some(RecordUid(1)),
        term: Term(1),
        longest_ttl_ms: 5_000,
        ..Durable::default()
    };
    let mut b = Authority::new(me, NodeId(2), settings, disk, Ms(0));
    let facts = standby_facts();
    let first_answer = Given::numbers_of(me.incarnation) + 1;
    for (seq, echo) in [(1, None), (2, Some(first_answer))] {
        let heartbeat = Heartbeat { term: Term(1), from: PRIMARY, seq, ttl_ms: 5_000, echo, version: None };
        answer_reads(&mut b, now, mode, Event::Heartbeat(ReplyId(1), heartbeat));
    }
    assert_eq!(answer_reads(&mut b, now, mode, Event::Postgres(facts)), [], "it has promised");
    (b, now)
}

/// Tells it, and answers each read that it asks for; the writes that it wants.
fn answer_reads(b: &mut Authority, now: Ms, mode: Mode, event: Event) -> Vec<Record> {
    let wanted = commands(b, now, mode, event).into_iter();
    wanted.filter_map(|c| if let Command::Cas { record, .. } = c { Some(record) } else { None }).collect()
}

/// Tells it, and answers each read that it asks for; what else it commands.
fn commands(b: &mut Authority, now: Ms, mode: Mode, event: Event) -> Vec<Command> {
    let standby_volume = record().standby_volume.filter(|_| mode == Mode::Paired);
    let record = Record { mode, standby_volume, ..record() };
    let mut commands = b.handle(now, event);
    let mut others = Vec::new();
    while let Some(command) = commands.pop() {
        match command {
            Command::Read { asked } => {
                let outcome = ReadOutcome::Got(Versioned { uid: RecordUid(1), version: Version(7), record });
                commands.extend(b.handle(now, Event::Read { asked, outcome }));
            }
            other => others.push(other),
        }
    }
    others
}

fn resigned_at(end: u64) -> Event {
    resigned_to(Incarnation(0), end)
}

fn resigned_to(to: Incarnation, end: u64) -> Event {
    let resignation = Resignation {
        term: Term(1),
        from: PRIMARY,
        predecessor: None,
        timeline: TimelineId(1),
        end: Lsn(end),
        ordered: false,
        to,
    };
    Event::Resignation(ReplyId(1), resignation)
}

#[test]
fn a_standby_that_has_the_log_to_its_end_takes_over_at_once() {
    let (mut b, now) = standby(Mode::Paired);
    assert_eq!(answer_reads(&mut b, now, Mode::Paired, resigned_at(10)).len(), 1);
}

#[test]
fn who_resigned_and_is_lost_with_the_end_of_its_log_is_followed_when_its_promise_would_have_lapsed() {
    let (mut b, now) = standby(Mode::Paired);
    assert_eq!(answer_reads(&mut b, now, Mode::Paired, resigned_at(20)), []);
    assert_eq!(answer_reads(&mut b, now + TTL, Mode::Paired, Event::Tick), []);
    let wanted = answer_reads(&mut b, now + TTL + 1_000, Mode::Paired, Event::Tick);
    assert_eq!(wanted.iter().map(|r| r.term).collect::<Vec<_>>(), [Term(2)]);
}

/// The primary is away for a moment only, say; a term that nobody serves would keep it down.
#[test]
fn a_standby_whose_postgres_does_not_start_takes_the_term_when_it_runs_and_not_before() {
    let (mut b, now) = standby(Mode::Paired);
    let crashed = PgFacts { state: PostgresState::Down, failed_starts: 2, ..standby_facts() };
    let later = now + 2 * TTL;
    assert_eq!(answer_reads(&mut b, now, Mode::Paired, Event::Postgres(crashed)), []);
    assert_eq!(answer_reads(&mut b, later, Mode::Paired, Event::Tick), []);
    let starting = PgFacts { state: PostgresState::Starting, ..crashed };
    assert_eq!(answer_reads(&mut b, later, Mode::Paired, Event::Postgres(starting)), []);
    assert_eq!(answer_reads(&mut b, later, Mode::Paired, Event::Postgres(standby_facts())).len(), 1);
}

#[test]
fn a_standby_that_has_not_tried_to_start_yet_takes_the_term() {
    let (mut b, now) = standby(Mode::Paired);
    let down = PgFacts { state: PostgresState::Down, ..standby_facts() };
    assert_eq!(answer_reads(&mut b, now, Mode::Paired, Event::Postgres(down)), []);
    assert_eq!(answer_reads(&mut b, now + 2 * TTL, Mode::Paired, Event::Tick).len(), 1);
}

#[test]
fn in_solo_nobody_follows_without_the_end_of_the_log() {
    let (mut b, now) = standby(Mode::Solo);
    assert_eq!(answer_reads(&mut b, now, Mode::Solo, resigned_at(20)), []);
    assert_eq!(answer_reads(&mut b, now + 10 * TTL, Mode::Solo, Event::Tick), []);
}

#[test]
fn in_solo_it_can_take_what_streams_to_it_or_can_be_fetched_from_a_postgres_that_is_down() {
    for (down, can) in [(true, true), (false, false)] {
        let (mut b, now) = standby(Mode::Solo);
        let question = CanTake { term: Term(1), from: PRIMARY, ordered: false, down };
        let told = commands(&mut b, now, Mode::Solo, Event::CanTake(ReplyId(1), question));
        let yes = told.contains(&Command::AnswerCanTake(ReplyId(1), CanTakeReply::Yes(STANDBY.incarnation)));
        assert_eq!(yes, can, "{told:?}");
    }
}

#[test]
fn a_young_standby_says_yes_and_takes_over_at_once_from_who_resigns_to_this_very_process() {
    for (to, taken) in [(STANDBY.incarnation, true), (Incarnation(9), false)] {
        let (mut b, now) = standby_at(Mode::Paired, Ms(1_000));
        let question = CanTake { term: Term(1), from: PRIMARY, ordered: false, down: true };
        let told = commands(&mut b, now, Mode::Paired, Event::CanTake(ReplyId(1), question));
        assert!(told.contains(&Command::AnswerCanTake(ReplyId(1), CanTakeReply::Yes(STANDBY.incarnation))));
        assert_eq!(answer_reads(&mut b, now, Mode::Paired, resigned_to(to, 10)).len(), usize::from(taken));
        // At the latest when no earlier process can have promised anything any more.
        let later = answer_reads(&mut b, Ms(2 * TTL), Mode::Paired, Event::Tick);
        assert_eq!(later.len(), usize::from(!taken));
    }
}

#[test]
fn a_take_over_is_urgent_while_it_is_open_and_not_for_as_long_as_its_primary_is_away() {
    let dead =
        || Event::Evidence(Evidence { incarnation: PRIMARY.incarnation, kind: EvidenceKind::VolumeLock });
    let (mut b, now) = standby(Mode::Paired);
    assert!(!b.is_urgent(now));
    commands(&mut b, now, Mode::Paired, dead());
    assert!(b.is_urgent(now));
    let (mut b, now) = standby(Mode::Solo);
    commands(&mut b, now, Mode::Solo, dead());
    assert!(!b.is_urgent(now), "in Solo a proof opens nothing");
    assert!(!b.awaits_log(now));
    commands(&mut b, now, Mode::Solo, resigned_at(20));
    assert!(b.is_urgent(now) && b.awaits_log(now));
    let later = now + 10 * TTL;
    assert!(!b.is_urgent(later) && !b.awaits_log(later), "the end of the log does not come");
}

#[test]
fn a_late_answer_does_not_tell_how_the_standby_is_now() {
    let settings = standby(Mode::Paired).0.common.settings;
    let disk = Durable {
        record_uid: Some(RecordUid(1)),
        term: Term(1),
        longest_ttl_ms: 5_000,
        ..Durable::default()
    };
    let mut a = Authority::new(PRIMARY, NodeId(1), settings, disk, Ms(0));
    let facts = PgFacts {
        state: PostgresState::Primary,
        directory: Directory::Primary,
        volume: Some(VolumeId(1)),
        flush: Some(Lsn(10)),
        ..PgFacts::default()
    };
    commands(&mut a, Ms(0), Mode::Solo, Event::Postgres(facts));
    let mut sent = Vec::new();
    for now in [Ms(TTL), Ms(2 * TTL)] {
        let told = commands(&mut a, now, Mode::Solo, Event::Tick);
        sent.extend(told.into_iter().filter_map(|c| match c {
            Command::Heartbeat(heartbeat) => Some(heartbeat.seq),
            _ => None,
        }));
    }
    let mut answer = |seq, volume| {
        let verdict = Verdict::Refused(NoPromise::RecordUnknown);
        let standby = StandbyInfo { volume, ..StandbyInfo::default() };
        let answer = Answer { to: PRIMARY.incarnation, term: Term(1), seq, number: seq, verdict, standby };
        commands(&mut a, Ms(2 * TTL), Mode::Solo, Event::Answer(answer));
        a.peer().unwrap().1.volume
    };
    assert_eq!(answer(sent[1], Some(VolumeId(2))), Some(VolumeId(2)));
    assert_eq!(answer(sent[0], None), Some(VolumeId(2)), "of before it was seeded");
}

fn disk_of_primary() -> Durable {
    Durable {
        record_uid: Some(RecordUid(1)),
        term: Term(1),
        primary: true,
        volume: Some(VolumeId(1)),
        longest_ttl_ms: 5_000,
        ..Durable::default()
    }
}

/// A hung primary that asked its standby, was told yes, and stops.
fn stopping() -> (Authority, Ms) {
    let settings = standby(Mode::Paired).0.common.settings;
    let mut a = Authority::new(PRIMARY, NodeId(1), settings, disk_of_primary(), Ms(0));
    let now = Ms(TTL);
    let hangs = PgFacts {
        state: PostgresState::Primary,
        directory: Directory::Primary,
        volume: Some(VolumeId(1)),
        hung: true,
        ..PgFacts::default()
    };
    let told = commands(&mut a, now, Mode::Paired, Event::Postgres(hangs));
    assert!(told.iter().any(|c| matches!(c, Command::AskCanTake(_))), "{told:?}");
    let yes = Event::CanTakeReply(Some(CanTakeReply::Yes(STANDBY.incarnation)));
    commands(&mut a, now, Mode::Paired, yes);
    // It holds no promise, and tried to go `Solo`.
    a.handle(now, Event::Cas { id: CasId(1), outcome: CasOutcome::NotSent });
    assert!(a.is_urgent(now));
    (a, now)
}

fn read(now: Ms, version: u64, record: Record) -> Event {
    let found = Versioned { uid: RecordUid(1), version: Version(version), record };
    Event::Read { asked: now, outcome: ReadOutcome::Got(found) }
}

/// Its disk hung, and its standby took over because its promise had lapsed.
#[test]
fn a_primary_that_lost_its_term_while_it_was_stopping_is_a_standby_as_any_other() {
    let (mut a, now) = stopping();
    let of_the_other = Record { term: Term(2), primary: STANDBY, mode: Mode::Solo, ..record() };
    a.handle(now, read(now, 8, of_the_other));
    let follows = PgFacts { volume: Some(VolumeId(1)), ..standby_facts() };
    a.handle(now, Event::Postgres(follows));
    assert!(!a.is_urgent(now), "there is nothing that each millisecond counts for");
    a.handle(now, Event::Postgres(PgFacts { state: PostgresState::Down, ..follows }));
    assert!(!a.hands_over_log(), "the log of a standby is nobody's end of the log");
    a.handle(now, Event::Postgres(follows));
    let told = a.handle(now, Event::Order(ReplyId(2), Term(2), OrderKind::Restart));
    assert!(told.contains(&Command::AnswerOrder(ReplyId(2), OrderReply::Accepted)), "{told:?}");
}

/// No record of an earlier term should ever come back; a person who restores one must not make two primaries of it.
#[test]
fn who_has_resigned_a_term_does_not_write_in_it_although_its_role_was_unknown_in_between() {
    let (mut a, now) = stopping();
    let down = PgFacts {
        directory: Directory::Primary,
        volume: Some(VolumeId(1)),
        end: Some((TimelineId(1), Lsn(10))),
        ..PgFacts::default()
    };
    let told = a.handle(now, Event::Postgres(down));
    assert!(told.iter().any(|c| matches!(c, Command::Resign(_))), "{told:?}");
    assert_eq!(a.gate(now), Gate::Closed(Refusal::Resigned));
    a.handle(now, read(now, 8, Record { term: Term(0), ..record() }));
    assert_eq!(a.role(), Role::Unknown);
    let later = now + 1_000;
    let told = a.handle(later, read(later, 9, Record { mode: Mode::Solo, standby_volume: None, ..record() }));
    assert_eq!((a.role(), a.gate(later)), (Role::Primary, Gate::Closed(Refusal::Resigned)));
    let terms: Vec<_> = told
        .iter()
        .filter_map(|c| if let Command::Cas { record, .. } = c { Some(record.term) } else { None })
        .collect();
    assert_eq!(terms, [Term(2)], "it writes again in the next one only");
}

/// A primary that is just being started, at 0, in `Paired`.
fn starting_primary() -> (Authority, PgFacts) {
    let settings = Settings { on_crash: OnPostgresCrash::Restart, ..standby(Mode::Paired).0.common.settings };
    let disk = Durable {
        record_uid: Some(RecordUid(1)),
        term: Term(1),
        primary: true,
        volume: Some(VolumeId(1)),
        longest_ttl_ms: 5_000,
        ..Durable::default()
    };
    let mut a = Authority::new(PRIMARY, NodeId(1), settings, disk, Ms(0));
    let up = PgFacts {
        state: PostgresState::Primary,
        directory: Directory::Primary,
        volume: Some(VolumeId(1)),
        timeline: Some(TimelineId(1)),
        flush: Some(Lsn(10)),
        ..PgFacts::default()
    };
    commands(&mut a, Ms(0), Mode::Paired, Event::Postgres(PgFacts { state: PostgresState::Down, ..up }));
    (a, up)
}

/// What a primary does in that time, whose standby answers each heartbeat.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sent {
    heartbeats: usize,
    resignations: usize,
    writes: Vec<Record>,
}

fn answered(a: &mut Authority, span: std::ops::Range<u64>, streaming: bool) -> Sent {
    let mut sent = Sent::default();
    for now in span.step_by(100).map(Ms) {
        let mut told = commands(a, now, Mode::Paired, Event::Tick);
        while let Some(command) = told.pop() {
            match command {
                Command::Heartbeat(hb) => {
                    sent.heartbeats += 1;
                    let (volume, timeline) = (Some(VolumeId(2)), Some(TimelineId(1)));
                    let (flush, replay) = (Some(Lsn(10)), Some(Lsn(10)));
                    let standby = StandbyInfo { volume, timeline, flush, replay, streaming, leaving: false };
                    let (to, seq, verdict) = (PRIMARY.incarnation, hb.seq, Verdict::Promised);
                    let answer = Answer { to, term: Term(1), seq, number: seq, verdict, standby };
                    told.extend(commands(a, now, Mode::Paired, Event::Answer(answer)));
                }
                Command::Resign(_) => sent.resignations += 1,
                Command::Cas { record, .. } => sent.writes.push(record),
                _ => {}
            }
        }
    }
    sent
}

/// It is told to end at `2 * TTL`, and its standby says that it can take over.
fn told_to_end() -> (Authority, PgFacts) {
    let (mut a, up) = starting_primary();
    answered(&mut a, 0..TTL / 5, true);
    commands(&mut a, Ms(TTL / 5), Mode::Paired, Event::Postgres(up));
    answered(&mut a, TTL / 5..2 * TTL, true);
    let told = commands(&mut a, Ms(2 * TTL), Mode::Paired, Event::Leave);
    assert!(told.iter().any(|c| matches!(c, Command::AskCanTake(_))), "{told:?}");
    let yes = Event::CanTakeReply(Some(CanTakeReply::Yes(STANDBY.incarnation)));
    commands(&mut a, Ms(2 * TTL), Mode::Paired, yes);
    (a, up)
}

#[test]
fn a_primary_that_stops_for_its_standby_does_not_go_solo_because_that_streams_no_more() {
    let (mut a, _) = told_to_end();
    assert_eq!(answered(&mut a, 2 * TTL..3 * TTL, false).writes, []);
}

/// On a slow volume what was killed may take long to die. `Solo`, or a heartbeat, would keep the standby from taking over.
#[test]
fn a_postgres_that_was_killed_and_is_not_dead_yet_is_silent_until_its_promise_has_lapsed() {
    let (mut a, up) = told_to_end();
    let polite = answered(&mut a, 2 * TTL..2 * TTL + 6_000, false);
    assert!(polite.heartbeats > 0 && polite.writes.is_empty(), "{polite:?}");
    let lingers = 2 * TTL + 6_100..4 * TTL + 6_100;
    let end = lingers.end;
    assert_eq!(answered(&mut a, lingers, false), Sent::default());
    // Dead at last, before the standby was seen to have taken over.
    let dead = PgFacts { state: PostgresState::Down, end: Some((TimelineId(1), Lsn(10))), ..up };
    commands(&mut a, Ms(end), Mode::Paired, Event::Postgres(dead));
    let resigned = answered(&mut a, end + 1_000..end + 2_000, false);
    assert!(resigned.resignations > 0 && resigned.writes.is_empty(), "{resigned:?}");
}
