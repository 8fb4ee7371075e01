use std::fs;
use std::time::Duration;

use pgpair_core::authority::OnPostgresCrash;
use pgpair_core::authority::messages::Heartbeat;
use pgpair_core::authority::timing::Timing;
use pgpair_core::authority::{Directory, Durability, Durable, NodeId, PgFacts, ReplyId, Settings};
use pgpair_core::ids::{Incarnation, InstanceId, Term};
use pgpair_core::instance::PostgresState;
use pgpair_core::journal::replay::Replay;
use pgpair_core::record::Holder;
use tempfile::TempDir;

use super::*;

/// A standby that gets heartbeats, its journal, and the writer pumped by hand.
struct Desk {
    dir: TempDir,
    authority: Authority,
    journal: Journal,
    queue: mpsc::Receiver<Line>,
    writer: Writer,
    seq: u64,
}

fn authority(incarnation: u64) -> Authority {
    let settings = Settings {
        timing: Timing::new(5_000).unwrap(),
        durability: Durability::Sync,
        max_lag: 1_000,
        automatic: true,
        on_crash: OnPostgresCrash::Failover,
    };
    let me = Holder { instance: InstanceId::B, incarnation: Incarnation(incarnation) };
    let durable = Durable { term: Term(1), longest_ttl_ms: 5_000, ..Durable::default() };
    Authority::new(me, NodeId(1), settings, durable, Ms(0))
}

impl Desk {
    fn new(queue: usize) -> Desk {
        let dir = tempfile::tempdir().unwrap();
        Desk::at(dir, queue, 1)
    }

    fn at(dir: TempDir, queue: usize, incarnation: u64) -> Desk {
        let (mut journal, queue) = Journal::new(queue);
        let authority = authority(incarnation);
        journal.snapshot(Ms(0), &authority);
        let mut writer = Writer::new(dir.path().join("journal"), journal.wanted.clone());
        writer.limit = 64 << 10;
        Desk { dir, authority, journal, queue, writer, seq: 0 }
    }

    fn heartbeat(&mut self) {
        self.seq += 1;
        let from = Holder { instance: InstanceId::A, incarnation: Incarnation(9) };
        let echo = Some(self.seq - 1);
        let hb = Heartbeat { term: Term(1), from, seq: self.seq, ttl_ms: 5_000, echo, version: None };
        let event = Event::Heartbeat(ReplyId(self.seq), hb);
        self.journal.handle(&mut self.authority, Ms(self.seq * 500), event);
    }

    fn pump(&mut self) {
        while let Ok(line) = self.queue.try_recv() {
            self.writer.take(line);
        }
    }

    fn lines(&self, file: fn(&Path) -> PathBuf) -> Vec<Line> {
        let text = fs::read_to_string(file(&self.dir.path().join("journal"))).unwrap();
        assert!(text.ends_with('\n'));
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }
}

/// Plays the lines; says what was told at the snapshots after the first.
fn replay(lines: impl IntoIterator<Item = Line>) -> (Replay, Vec<String>) {
    let mut lines = lines.into_iter();
    let Some(Line::Snapshot(first)) = lines.next() else { unreachable!("a file begins with a snapshot") };
    let (mut replay, mut told) = (Replay::new(*first), Vec::new());
    for line in lines {
        let snapshot = matches!(line, Line::Snapshot(_));
        let tale = replay.take(line).unwrap();
        if snapshot {
            told.push(tale.came.text);
        }
    }
    (replay, told)
}

#[test]
fn the_older_of_two_files_is_replaced_and_each_is_replayed_by_itself() {
    let mut desk = Desk::new(8);
    let mut full = 0;
    for _ in 0..6_000 {
        desk.heartbeat();
        desk.pump();
        full = full.max(fs::metadata(current(&desk.dir.path().join("journal"))).unwrap().len());
    }
    assert!((50 << 10..=64 << 10).contains(&full), "{full}");
    let (old, new) = (desk.lines(previous), desk.lines(current));
    assert!(matches!(&old[0], Line::Snapshot(s) if s.number > 0), "the beginning is gone");
    assert_eq!(replay(new.clone()).0.authority(), &desk.authority);
    let (both, told) = replay(old.into_iter().chain(new));
    assert_eq!(both.authority(), &desk.authority);
    assert_eq!(told, ["a snapshot, as replayed"]);
}

#[test]
fn what_the_writer_does_not_take_is_counted_and_a_snapshot_follows() {
    let mut desk = Desk::new(4);
    for _ in 0..10 {
        desk.heartbeat();
    }
    desk.pump();
    desk.heartbeat();
    desk.heartbeat();
    desk.pump();
    let (replay, told) = replay(desk.lines(current));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("8 events are missing here (the disk did not keep up)"), "{}", told[0]);
    assert_eq!(replay.authority(), &desk.authority);
}

#[test]
fn a_disk_that_fails_costs_lines_and_nothing_else() {
    let mut desk = Desk::new(8);
    desk.writer.retry = Duration::ZERO;
    let dir = desk.dir.path().join("journal");
    fs::write(&dir, "not a directory").unwrap();
    for _ in 0..5 {
        desk.heartbeat();
        desk.pump();
    }
    fs::remove_file(&dir).unwrap();
    for _ in 0..5 {
        desk.heartbeat();
        desk.pump();
    }
    let lines = desk.lines(current);
    let lost = |l: &Line| matches!(l, Line::Snapshot(s) if s.lost > 0 && s.lost == s.number);
    assert!(lost(&lines[0]), "{:?}", lines[0]);
    assert_eq!(replay(lines).0.authority(), &desk.authority);
}

#[test]
fn a_new_process_goes_on_after_the_last_whole_line() {
    let mut desk = Desk::new(8);
    desk.heartbeat();
    desk.pump();
    let path = current(&desk.dir.path().join("journal"));
    let whole = fs::read(&path).unwrap();
    // Longer than what is written next.
    fs::write(&path, [&whole[..], b"{\"e\":[123,", &[b'1'; 20_000]].concat()).unwrap();
    let mut next = Desk::at(desk.dir, 8, 2);
    next.heartbeat();
    next.pump();
    assert!(fs::read(&path).unwrap().starts_with(&whole));
    let (replay, told) = replay(next.lines(current));
    assert!(told.len() == 1 && told[0].starts_with("a new agent process"), "{told:?}");
    assert_eq!(replay.authority(), &next.authority);
}

#[test]
fn what_changes_nothing_is_not_told() {
    let mut desk = Desk::new(64);
    desk.heartbeat();
    // A read is due, and its answer does not come.
    desk.journal.handle(&mut desk.authority, Ms(6_000), Event::Tick);
    desk.pump();
    let before = desk.lines(current).len();
    for n in 1..20 {
        let facts = *desk.authority.postgres();
        desk.journal.handle(&mut desk.authority, Ms(6_000 + n), Event::Tick);
        desk.journal.handle(&mut desk.authority, Ms(6_000 + n), Event::Postgres(facts));
    }
    let news = PgFacts { failed_starts: 1, ..*desk.authority.postgres() };
    desk.journal.handle(&mut desk.authority, Ms(6_100), Event::Postgres(news));
    desk.pump();
    let lines = desk.lines(current);
    assert_eq!(lines.len() - before, 1, "{:?}", &lines[before..]);
    assert_eq!(replay(lines).0.authority(), &desk.authority);
}

#[test]
fn what_time_alone_changes_is_told() {
    let mut desk = Desk::new(64);
    let me = desk.authority.me();
    let fenced = Durable { term: Term(1), fenced: true, ..Durable::default() };
    let settings = Settings {
        timing: desk.authority.timing(),
        durability: Durability::Sync,
        max_lag: 1_000,
        automatic: true,
        on_crash: OnPostgresCrash::Failover,
    };
    desk.authority = Authority::new(me, NodeId(1), settings, fenced, Ms(0));
    let running =
        PgFacts { state: PostgresState::Standby, directory: Directory::Standby, ..PgFacts::default() };
    desk.journal.handle(&mut desk.authority, Ms(1), Event::Postgres(running));
    let told = [9_998, 9_999, 10_000, 10_001].map(|at| {
        let before = desk.journal.number;
        desk.journal.handle(&mut desk.authority, Ms(at), Event::Tick);
        desk.journal.number - before
    });
    assert_eq!(told, [0, 0, 1, 0], "at twice ttl a standby that is fenced stops, primary or no primary");
}
