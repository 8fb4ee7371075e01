//! A former primary comes back.

use std::fs;

use pgpair_agent::postgres::control_file::{self, ControlData};
use pgpair_agent::postgres::end_of_wal::{Position, end_of_wal};
use pgpair_agent::postgres::pgdata::{self, DataDir};
use pgpair_agent::postgres::promote::promote;
use pgpair_agent::postgres::render::Upstream;
use pgpair_agent::standby::rejoin::{KeptBranch, RejoinError, Relation, compare, keep_branch, rewind};
use pgpair_core::timeline::TimelineId;
use pgpair_core::wal::{Segment, WalFile};
use pgpair_wire::wal::PrimaryHistory;

use crate::archive::serve_wal;
use crate::fixture::{Instance, LIMIT, World, eventually, run};

async fn stopped(i: &Instance) -> (ControlData, Position) {
    let control = control_file::control_data(&i.bin, &i.settings.layout.pgdata()).await.unwrap();
    let end = end_of_wal(&i.bin, &i.settings.layout, &control, None).await.unwrap();
    (control, end)
}

async fn history_of(primary: &Instance) -> PrimaryHistory {
    let facts = primary.facts().await;
    let system = control_file::system_identifier(&primary.settings.layout.pgdata()).unwrap();
    let history =
        pgdata::history(&primary.settings.layout, system, facts.timeline.unwrap()).unwrap().unwrap();
    PrimaryHistory { history, flush: facts.flush_lsn.unwrap() }
}

async fn relation(old: &Instance, new: &Instance) -> (ControlData, Relation) {
    let (control, end) = stopped(old).await;
    let own =
        pgdata::history(&old.settings.layout, control.system_identifier, end.timeline).unwrap().unwrap();
    (control, compare(&own, end, &history_of(new).await))
}

/// B is started anew without what A wrote last, and promoted: A has a branch of its own.
async fn branch_off(w: &World) -> (ControlData, KeptBranch) {
    let b = w.b.start(w.b.standby_of(&w.a)).await;
    promote(&w.b.settings, &b, &w.b.sql, LIMIT).await.unwrap();
    w.b.sql.checkpoint(LIMIT).await.unwrap();
    let (control, relation) = relation(&w.a, &w.b).await;
    let Relation::Diverged(branch) = relation else { panic!("{relation:?}") };
    let kept = keep_branch(&w.a.settings, &control, branch).unwrap();
    (control, kept)
}

async fn follows(w: &World) {
    w.b.sql.ensure_slot("pgpair_a").await.unwrap();
    w.a.start(w.a.standby_of(&w.b)).await;
    w.streaming(&w.b).await;
    w.b.exec("INSERT INTO t VALUES (3)").await;
    let want = w.b.count().await;
    eventually("the old primary has what the new one has", async || {
        (w.a.count().await == want).then_some(())
    })
    .await;
    assert_eq!(w.a.facts().await.timeline, Some(TimelineId(2)));
    // Slots of its time as primary would keep WAL for ever.
    assert!(!w.a.settings.layout.in_pgdata("pg_replslot/pgpair_b").exists());
}

#[test]
fn a_branch_is_detected_kept_and_rewound_and_then_the_directory_follows() {
    run(async |w| {
        let (a, b) = w.pair().await;
        w.b.stop(&b).await;
        w.a.exec("INSERT INTO t SELECT generate_series(1, 5000)").await;
        w.a.exec("SELECT pg_switch_wal(); INSERT INTO t VALUES (1)").await;
        w.a.kill(&a).await;
        let (control, kept) = branch_off(&w).await;
        println!("{kept:?}");
        assert_eq!(kept.bytes, kept.to.bytes_since(kept.from));
        assert!(kept.files.len() >= 2 && kept.dir.join("branch.json").exists());
        for name in &kept.files {
            assert!(kept.dir.join(name).metadata().unwrap().len() == control.segment_size.bytes());
        }
        let lock = w.a.lock();
        rewind(&w.a.settings, &w.a.config, &w.a.bin, &lock, &kept, &w.b.upstream()).await.unwrap();
        drop(lock);
        assert!(matches!(pgdata::inspect(&w.a.settings.layout), Ok(DataDir::Ready(_))));
        follows(&w).await;
        assert_eq!(w.a.count().await, 1001);
    });
}

#[test]
fn after_a_clean_switchover_the_old_primary_follows_without_rewind() {
    run(async |w| {
        let (a, b) = w.pair().await;
        w.a.stop(&a).await;
        let (_, end) = stopped(&w.a).await;
        eventually("the standby has the shutdown checkpoint", async || {
            w.b.facts().await.receive_lsn.filter(|l| *l >= end.end)
        })
        .await;
        promote(&w.b.settings, &b, &w.b.sql, LIMIT).await.unwrap();
        let (_, relation) = relation(&w.a, &w.b).await;
        assert_eq!(relation, Relation::Contained);
        follows(&w).await;
    });
}

/// Another server has used the number of the new timeline. By what PostgreSQL looks at, the old primary could go on along that history, and
/// would wait for ever for WAL that the new one does not have.
#[test]
fn an_archive_that_contradicts_the_primarys_timeline_is_not_followed() {
    run(async |w| {
        let (a, b) = w.pair().await;
        w.a.stop(&a).await;
        let (_, end) = stopped(&w.a).await;
        eventually("the standby has the shutdown checkpoint", async || {
            w.b.facts().await.receive_lsn.filter(|l| *l >= end.end)
        })
        .await;
        promote(&w.b.settings, &b, &w.b.sql, LIMIT).await.unwrap();
        let of_primary = w.b.wal_archive().join("00000002.history");
        eventually("its history is archived", async || of_primary.exists().then_some(())).await;
        serve_wal(&w.b).await;
        let (other, text) = (w.a.wal_archive().join("00000002.history"), "1\t0/F0000000\tanother server\n");
        fs::create_dir_all(w.a.wal_archive()).unwrap();
        fs::write(&other, text).unwrap();
        follows(&w).await;
        assert_eq!(fs::read_to_string(&other).unwrap(), text, "it is kept");
    });
}

#[test]
fn a_rewind_that_cannot_reach_its_source_may_be_tried_again() {
    run(async |w| {
        let (a, b) = w.pair().await;
        w.b.stop(&b).await;
        w.a.exec("INSERT INTO t VALUES (1)").await;
        w.a.kill(&a).await;
        let (_, kept) = branch_off(&w).await;
        let lock = w.a.lock();
        let nobody = Upstream { port: 1, ..w.b.upstream() };
        let e = rewind(&w.a.settings, &w.a.config, &w.a.bin, &lock, &kept, &nobody).await.unwrap_err();
        assert!(matches!(e, RejoinError::NotBegun { .. }) && e.passes(), "{e}");
        assert!(matches!(pgdata::inspect(&w.a.settings.layout), Ok(DataDir::Ready(_))));
        // Interrupted in the middle, it would look like this.
        fs::write(w.a.settings.layout.rewinding(), b"").unwrap();
        assert!(matches!(pgdata::inspect(&w.a.settings.layout), Ok(DataDir::Unfinished)));
    });
}

/// The log from the last common checkpoint to the fork is gone everywhere, while the end of ours can be read: this stays so.
#[test]
fn a_rewind_that_lacks_the_last_common_checkpoint_says_so_and_changes_nothing() {
    run(async |w| {
        let (a, b) = w.pair().await;
        w.a.exec("CHECKPOINT").await;
        for n in 0..4 {
            w.a.exec(&format!("SELECT pg_switch_wal(); INSERT INTO t VALUES ({n})")).await;
        }
        w.streaming(&w.a).await;
        w.b.stop(&b).await;
        w.a.exec("SELECT pg_switch_wal(); INSERT INTO t VALUES (1)").await;
        w.a.exec("SELECT pg_switch_wal(); CHECKPOINT").await;
        w.a.kill(&a).await;
        let (control, kept) = branch_off(&w).await;
        let fork = Segment::holding(kept.timeline, kept.from, control.segment_size).number;
        for dir in [w.a.settings.layout.pg_wal(), w.a.wal_archive(), w.b.wal_archive()] {
            let Ok(entries) = fs::read_dir(dir) else { continue };
            for path in entries.map(|e| e.unwrap().path()) {
                let name = path.file_name().unwrap().to_str().unwrap();
                if let Some(WalFile::Segment(s)) = WalFile::parse(name, control.segment_size)
                    && s.number < fork
                {
                    fs::remove_file(&path).unwrap();
                }
            }
        }
        let lock = w.a.lock();
        let e =
            rewind(&w.a.settings, &w.a.config, &w.a.bin, &lock, &kept, &w.b.upstream()).await.unwrap_err();
        println!("{e}");
        assert!(matches!(e, RejoinError::NotBegun { .. }) && !e.passes(), "{e}");
        assert!(matches!(pgdata::inspect(&w.a.settings.layout), Ok(DataDir::Ready(_))));
    });
}

#[test]
fn the_end_of_wal_of_a_killed_standby_is_what_it_had_received() {
    run(async |w| {
        let (_, b) = w.pair().await;
        w.a.exec("INSERT INTO t SELECT generate_series(1, 3000)").await;
        w.streaming(&w.a).await;
        let received = w.b.facts().await.receive_lsn.unwrap();
        w.b.kill(&b).await;
        let (control, end) = stopped(&w.b).await;
        assert_eq!((end.timeline, end.end >= received), (TimelineId(1), true));
        let hinted = end_of_wal(&w.b.bin, &w.b.settings.layout, &control, Some(received)).await.unwrap();
        assert_eq!(hinted, end);
        let (_, relation) = relation(&w.b, &w.a).await;
        assert_eq!(relation, Relation::Contained);
    });
}

#[test]
fn the_end_of_wal_of_a_killed_new_primary_is_on_its_new_timeline() {
    run(async |w| {
        let flushed = w.killed_one_after_the_other().await;
        let (control, end) = stopped(&w.b).await;
        assert_eq!((end.timeline, end.end >= flushed), (TimelineId(2), true));
        let history = pgdata::history(&w.b.settings.layout, control.system_identifier, end.timeline).unwrap();
        assert_eq!(history.unwrap().ancestors.len(), 1);
    });
}
