//! Volumes whose pair is gone: what a look tells of them, and that they are let go of.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgpair_agent::instance::layout::Layout;
use pgpair_agent::postgres::control_file::{self, control_data};
use pgpair_agent::postgres::end_of_wal::end_of_wal;
use pgpair_agent::postgres::pgdata::PgDataError;
use pgpair_agent::postgres::promote::settle;
use pgpair_agent::standby::adopt::{ReleaseError, Released, let_go, look_at};
use pgpair_core::authority::{Durability, Durable};
use pgpair_core::ids::{Term, VolumeId};
use pgpair_core::lsn::Lsn;
use pgpair_core::record::{Began, Beginning, Mode, RecordUid};
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_core::wal::{Segment, SegmentSize};
use pgpair_wire::adopt::{KeptVolume, Look};

use crate::fixture::{Instance, LIMIT, eventually, run};
use crate::promotion::cut_off;

async fn look(i: &Instance) -> Look {
    look_at(&i.settings.layout, &i.bin).await
}

async fn kept(i: &Instance) -> KeptVolume {
    match look(i).await {
        Look::Volume(kept) => kept,
        other => panic!("{other:?}"),
    }
}

/// What the agent of a primary remembers of its term.
fn remembered() -> Durable {
    Durable {
        record_uid: Some(RecordUid(7)),
        term: Term(2),
        primary: true,
        volume: Some(VolumeId(2)),
        longest_ttl_ms: 5_000,
        mode: Some(Mode::Solo),
        durability: Some(Durability::Sync),
        began: Some(Began { how: Beginning::Lapse, before: Mode::Paired }),
        ..Durable::default()
    }
}

fn store(layout: &Layout, durable: &Durable) {
    fs::write(layout.state_json(), serde_json::to_vec(durable).unwrap()).unwrap();
}

/// Every file and directory below, with its size and the time of its last change; without the file of the lock.
fn files(root: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for path in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
            let of = path.symlink_metadata().unwrap();
            if of.is_dir() {
                dirs.push(path.clone());
            }
            if !path.ends_with("pgpair.lock") {
                found.insert(path, (of.len(), of.modified().unwrap()));
            }
        }
    }
    found
}

#[test]
fn a_look_tells_where_the_log_of_a_killed_primary_ends_and_what_it_remembers() {
    run(async |w| {
        let flushed = w.killed_one_after_the_other().await;
        let layout = &w.b.settings.layout;
        // A volume that remembers that nothing was promised is told from one that remembers nothing.
        assert_eq!(kept(&w.b).await.state, Some(Durable::default()));
        store(layout, &remembered());
        let (of_a, of_b) = (kept(&w.a).await, kept(&w.b).await);
        let control = control_data(&w.b.bin, &layout.pgdata()).await.unwrap();
        let end = end_of_wal(&w.b.bin, layout, &control, None).await.unwrap();
        assert!(end.end >= flushed && end.timeline == TimelineId(2), "{end:?}, {flushed}");
        assert_eq!((of_b.end, of_b.end_unknown.as_deref()), (Some(end.end), None));
        assert_eq!(of_b.history.timeline, TimelineId(2));
        let [(TimelineId(1), left)] = of_b.history.ancestors[..] else { panic!("{:?}", of_b.history) };
        assert!(left < end.end);
        assert_eq!((of_a.history, of_a.end >= Some(left)), (TimelineHistory::first(), true));
        assert_eq!((of_a.volume_id, of_b.volume_id), (VolumeId(1), VolumeId(2)));
        assert_eq!(of_a.system_identifier, control.system_identifier);
        assert_eq!(Some(of_b.version), w.b.bin.major().await);
        assert_eq!((of_a.state, of_b.state), (None, Some(remembered())));
        let written = UNIX_EPOCH + Duration::from_millis(of_b.written_ms.unwrap());
        assert!(written.elapsed().is_ok_and(|age| age < 2 * LIMIT), "{written:?}");
    });
}

#[test]
fn a_look_changes_nothing() {
    run(async |w| {
        w.killed_one_after_the_other().await;
        store(&w.b.settings.layout, &remembered());
        for i in [&w.a, &w.b] {
            let roots = [&i.settings.layout.data, &i.settings.layout.archive];
            let before = roots.map(|root| files(root));
            assert!(before[0].len() > 500, "{}", before[0].len());
            kept(i).await;
            assert_eq!(roots.map(|root| files(root)), before);
        }
    });
}

#[test]
fn a_look_finds_no_volume_without_a_complete_directory_and_none_that_is_in_use() {
    run(async |w| {
        assert_eq!(look(&w.b).await, Look::Nothing);
        assert_eq!(fs::read_dir(&w.b.settings.layout.data).unwrap().count(), 1, "the lock");
        let a = w.primary().await;
        assert_eq!(look(&w.a).await, Look::InUse);
        w.a.stop(&a).await;
        let held = w.a.lock();
        assert_eq!(look(&w.a).await, Look::InUse);
        drop(held);
        assert!(kept(&w.a).await.end.is_some());
        fs::write(w.a.settings.layout.rewinding(), b"").unwrap();
        assert_eq!(look(&w.a).await, Look::Nothing);
    });
}

#[test]
fn a_look_does_not_read_what_belongs_to_another_version_or_cluster_or_is_damaged() {
    run(async |w| {
        let a = w.primary().await;
        w.a.stop(&a).await;
        let layout = &w.a.settings.layout;
        store(layout, &remembered());
        let refused = async |path: &Path, content: &str, words: &str| {
            let before = fs::read(path).unwrap();
            fs::write(path, content).unwrap();
            match look(&w.a).await {
                Look::Unreadable { why } => assert!(why.contains(words), "{why}"),
                other => panic!("{words}: {other:?}"),
            }
            fs::write(path, before).unwrap();
        };
        refused(&layout.in_pgdata("PG_VERSION"), "9\n", "of PostgreSQL 9").await;
        let other = r#"{"volumeId":"0000000000000001","systemIdentifier":"7"}"#;
        refused(&layout.volume_json(), other, "of the cluster 7").await;
        refused(&layout.volume_json(), "{", "volume.json").await;
        refused(&layout.state_json(), "{", "state.json").await;
        refused(&layout.in_pgdata("global/pg_control"), "", "pg_controldata").await;
        assert!(kept(&w.a).await.end.is_some());
    });
}

/// The segment with this position.
fn segment(i: &Instance, timeline: u32, at: Lsn) -> PathBuf {
    let size = SegmentSize::DEFAULT;
    let name = Segment::holding(TimelineId(timeline), at, size).file_name(size);
    i.settings.layout.pg_wal().join(name)
}

#[test]
fn the_end_of_a_log_that_cannot_be_read_to_its_end_is_not_told() {
    run(async |w| {
        let a = w.primary().await;
        w.a.exec("CHECKPOINT").await;
        w.a.exec("SELECT pg_switch_wal(); INSERT INTO t VALUES (1)").await;
        w.a.kill(&a).await;
        let known = kept(&w.a).await;
        let end = known.end.unwrap();
        let unknown = async |words: &str| {
            let told = kept(&w.a).await;
            assert_eq!((told.end, told.history.clone()), (None, known.history.clone()));
            assert!(told.end_unknown.as_deref().is_some_and(|why| why.contains(words)), "{told:?}");
            assert!(told.written_ms.is_some());
        };
        // All records can be read, and what comes behind them cannot.
        let last = segment(&w.a, 1, end);
        let file = File::options().write(true).open(&last).unwrap();
        file.set_len(SegmentSize::DEFAULT.bytes() - 8192).unwrap();
        unknown("has 16769024 bytes").await;
        file.set_len(SegmentSize::DEFAULT.bytes()).unwrap();
        assert_eq!(kept(&w.a).await.end, Some(end));
        let control = control_data(&w.a.bin, &w.a.settings.layout.pgdata()).await.unwrap();
        fs::remove_file(segment(&w.a, 1, control.redo)).unwrap();
        unknown("no valid WAL").await;
    });
}

/// A directory that was rewound and has not got the log since is such a one.
#[test]
fn the_end_of_a_log_that_ends_before_what_the_data_needs_is_not_told() {
    run(async |w| {
        let (_, b) = w.pair().await;
        w.a.exec("CHECKPOINT").await;
        w.a.exec("SELECT pg_switch_wal(); INSERT INTO t SELECT generate_series(1, 1000)").await;
        w.streaming(&w.a).await;
        w.b.stop(&b).await;
        let end = kept(&w.b).await.end.unwrap();
        fs::remove_file(segment(&w.b, 1, end)).unwrap();
        let told = kept(&w.b).await;
        assert!(told.end.is_none(), "{told:?}");
        assert!(told.end_unknown.unwrap().contains("up to"));
    });
}

/// What PostgreSQL leaves when it is killed between the history of a new timeline and the first record of it.
fn leave_promotion_before_its_first_record(i: &Instance, left: Lsn) {
    let layout = &i.settings.layout;
    let mut bytes = Vec::new();
    File::open(segment(i, 1, left)).unwrap().read_to_end(&mut bytes).unwrap();
    let at = usize::try_from(left.0 % SegmentSize::DEFAULT.bytes()).unwrap();
    bytes[at..].fill(0);
    File::create(segment(i, 2, left)).unwrap().write_all(&bytes).unwrap();
    fs::write(layout.pg_wal().join("00000002.history"), format!("1\t{left}\tno recovery target specified\n"))
        .unwrap();
    let _ = fs::remove_file(layout.in_pgdata("standby.signal"));
    fs::write(layout.promoting_json(), r#"{"from":1}"#).unwrap();
}

#[test]
fn a_log_ends_on_the_old_timeline_if_a_promotion_was_cut_off_before_the_first_record_of_the_new_one() {
    run(async |w| {
        let (a, b) = w.pair().await;
        w.a.stop(&a).await;
        w.b.kill(&b).await;
        let before = kept(&w.b).await;
        let end = before.end.unwrap();
        // What the old timeline got after it was left is no part of what the promotion goes on from.
        let left = Lsn(end.0 - 8);
        leave_promotion_before_its_first_record(&w.b, left);
        assert_eq!(kept(&w.b).await.end, Some(left));
        leave_promotion_before_its_first_record(&w.b, end);
        let layout = &w.b.settings.layout;
        let control = control_data(&w.b.bin, &layout.pgdata()).await.unwrap();
        let found = end_of_wal(&w.b.bin, layout, &control, None).await;
        assert!(matches!(found, Err(PgDataError::NoWal { timeline: TimelineId(2), .. })), "{found:?}");
        let there = files(&layout.data);
        let told = kept(&w.b).await;
        assert_eq!((told.history, told.end), (TimelineHistory::first(), Some(end)));
        assert_eq!(files(&layout.data), there, "the promotion is as it was left");
        // Without its mark, or beside a signal, it may have followed a primary whose log cannot be read.
        for (path, is_there) in [(layout.promoting_json(), false), (layout.in_pgdata("standby.signal"), true)]
        {
            let mark = fs::read(layout.promoting_json()).unwrap();
            if is_there {
                fs::write(&path, b"").unwrap()
            } else {
                fs::remove_file(&path).unwrap()
            };
            let told = kept(&w.b).await;
            assert!(told.end.is_none() && told.end_unknown.is_some(), "{told:?}");
            if is_there {
                fs::remove_file(&path).unwrap()
            } else {
                fs::write(&path, mark).unwrap()
            };
        }
        // It goes on from there: to where the look has said.
        settle(layout, &w.b.bin).await.unwrap();
        comes_to(&w.b, &w.a, end).await;
    });
}

/// A replay of everything that is there ends at this position.
async fn comes_to(i: &Instance, primary: &Instance, end: Lsn) {
    let postmaster = i.start(i.standby_of(primary)).await;
    eventually("all is replayed", async || (i.facts().await.replay_lsn >= Some(end)).then_some(())).await;
    assert_eq!(i.facts().await.replay_lsn, Some(end));
    i.stop(&postmaster).await;
}

#[test]
fn wherever_a_promotion_is_cut_off_a_look_tells_how_far_a_replay_comes() {
    run(async |w| {
        let (a, b) = w.pair().await;
        w.a.stop(&a).await;
        w.b.stop(&b).await;
        let layout = &w.b.settings.layout;
        for n in 0..12 {
            cut_off(&w.b, w.b.standby_of(&w.a), Duration::from_micros(700 * n)).await;
            let told = kept(&w.b).await;
            let end = told.end.unwrap_or_else(|| panic!("{told:?}"));
            println!("after {n}: {:?} {end}, {:?}", told.history, settle(layout, &w.b.bin).await.unwrap());
            fs::write(layout.in_pgdata("standby.signal"), b"").unwrap();
            comes_to(&w.b, &w.a, end).await;
        }
    });
}

#[test]
fn a_volume_is_let_go_of_once_and_only_by_its_own_id() {
    run(async |w| {
        let (a, b) = w.pair().await;
        let layout = &w.b.settings.layout;
        assert!(matches!(let_go(layout, Some(VolumeId(2))), Err(ReleaseError::Locked(_))));
        w.a.stop(&a).await;
        w.b.stop(&b).await;
        store(layout, &remembered());
        let before = fs::read(layout.state_json()).unwrap();
        assert!(matches!(let_go(layout, Some(VolumeId(1))), Err(ReleaseError::OtherVolume { .. })));
        assert_eq!(fs::read(layout.state_json()).unwrap(), before);
        assert_eq!(let_go(layout, Some(VolumeId(2))).unwrap(), Released::Now);
        let released = files(&layout.data);
        assert_eq!(let_go(layout, Some(VolumeId(2))).unwrap(), Released::Before);
        assert_eq!(files(&layout.data), released);
        assert_eq!(kept(&w.b).await.state, Some(Durable { record_uid: None, ..remembered() }));
        assert_eq!(fs::read(layout.state_before_adoption()).unwrap(), before);
        assert!(control_file::major(&layout.pgdata()).is_some());
    });
}
