//! Primary and standby: seeding, synchronous commit, promotion.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use pgpair_agent::postgres::pgdata::{self, DataDir};
use pgpair_agent::postgres::postmaster::StartAs;
use pgpair_agent::postgres::postmaster::sync::set_sync;
use pgpair_agent::postgres::promote::{promote, take_request};
use pgpair_agent::postgres::sql::StreamState;
use pgpair_agent::standby::base_backup::{self, SeedError};
use pgpair_core::ids::{InstanceId, VolumeId};
use pgpair_core::timeline::TimelineId;
use pgpair_wire::seed::SeedProgress;
use rustix::process::{Signal, kill_process};

use crate::fixture::{Instance, LIMIT, eventually, run};

#[test]
fn a_seeded_volume_streams_and_shows_how_far_it_was() {
    run(async |w| {
        w.primary().await;
        // Left by a try that was killed.
        fs::create_dir_all(w.b.settings.layout.seeding().join("base")).unwrap();
        let progress = w.b.seed().await;
        assert!(progress.last().is_some_and(|p| p.percent == Some(100)), "{progress:?}");
        assert!(!w.b.settings.layout.seeding().exists());
        assert!(
            matches!(pgdata::inspect(&w.b.settings.layout), Ok(DataDir::Ready(v)) if v.volume_id == VolumeId(2))
        );
        w.b.start(w.b.standby_of(&w.a)).await;
        w.streaming(&w.a).await;
        let (a, b) = (w.a.facts().await, w.b.facts().await);
        assert_eq!((a.in_recovery, b.in_recovery, w.b.count().await), (false, true, 1000));
        assert_eq!((a.timeline, b.timeline), (Some(TimelineId(1)), Some(TimelineId(1))));
        assert_eq!(b.receiver.unwrap().stream, StreamState::Streaming);
        assert!(b.receive_lsn.is_some() && a.receive_lsn.is_none() && b.insert_lsn.is_none());
    });
}

/// A killed container leaves lock files behind, and in the next one their number belongs to another process.
#[test]
fn lock_files_of_a_dead_postmaster_do_not_keep_the_next_one_from_starting() {
    run(async |w| {
        let a = w.primary().await;
        w.a.stop(&a).await;
        let mut other = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let layout = &w.a.settings.layout;
        let text = format!("{}\n{}\n0\n", other.id(), layout.pgdata().display());
        let socket = format!(".s.PGSQL.{}.lock", w.a.settings.pg_port);
        for path in [layout.in_pgdata("postmaster.pid"), layout.socket_dir().join(socket)] {
            fs::write(path, &text).unwrap();
        }
        w.a.start(StartAs::Primary).await;
        other.kill().unwrap();
        other.wait().unwrap();
    });
}

#[test]
fn seeding_moves_old_data_aside_and_does_not_touch_foreign_data() {
    run(async |w| {
        let (_, b) = w.pair().await;
        let (send, _) = tokio::sync::watch::channel(SeedProgress::default());
        let locked = base_backup::seed(&w.b.settings, &w.b.config, VolumeId(3), &send).await;
        assert!(matches!(locked, Err(SeedError::Locked(_))), "{locked:?}");
        w.b.stop(&b).await;
        w.b.seed().await;
        let aside: Vec<_> =
            fs::read_dir(w.b.settings.layout.moved_aside()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(aside.len(), 1);
        assert!(aside[0].join("pgdata/PG_VERSION").exists() && aside[0].join("volume.json").exists());
        let control = w.b.settings.layout.in_pgdata("global/pg_control");
        let mut bytes = fs::read(&control).unwrap();
        bytes[0] ^= 1;
        fs::write(&control, bytes).unwrap();
        let foreign = base_backup::seed(&w.b.settings, &w.b.config, VolumeId(3), &send).await;
        assert!(matches!(foreign, Err(SeedError::Foreign { .. })), "{foreign:?}");
        assert!(control.exists());
    });
}

/// On this machine both instances see the same directories: the tablespace lies on b's volume from the beginning, where only a
/// uses it until b is copied.
#[test]
fn a_tablespace_is_copied_beside_the_data_and_what_was_in_its_place_is_kept() {
    run(async |w| {
        let a = w.primary().await;
        let place = w.b.settings.layout.data.join("fast");
        fs::create_dir(&place).unwrap();
        w.a.exec(&format!("CREATE TABLESPACE fast LOCATION '{}'", place.display())).await;
        w.a.exec("CREATE TABLE on_fast TABLESPACE fast AS SELECT generate_series(1, 5000) AS n").await;
        w.b.seed().await;
        w.a.kill(&a).await;
        let aside: Vec<_> =
            fs::read_dir(w.b.settings.layout.moved_aside()).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(
            matches!(&aside[..], [kept] if kept.join("PG_VERSION").exists() || kept.read_dir().unwrap().count() == 1),
            "{aside:?}"
        );
        w.b.start(w.b.standby_of(&w.a)).await;
        let client = w.b.person("postgres").await.unwrap();
        let n: i64 = client.query_one("SELECT count(*) FROM on_fast", &[]).await.unwrap().get(0);
        assert_eq!(n, 5000);
        let link = fs::read_dir(w.b.settings.layout.in_pgdata("pg_tblspc")).unwrap().next().unwrap().unwrap();
        assert_eq!(fs::read_link(link.path()).unwrap(), place);
        assert!(!w.b.settings.layout.seeding_tablespaces().join(link.file_name()).exists());
    });
}

#[test]
fn a_tablespace_that_the_volume_cannot_hold_is_refused_and_the_old_copy_stays() {
    run(async |w| {
        // There before postgres starts: beside what is closed to it, it reaches nothing that comes later.
        let elsewhere = w.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let (_, b) = w.pair().await;
        w.b.stop(&b).await;
        w.a.exec(&format!("CREATE TABLESPACE far LOCATION '{}'", elsewhere.display())).await;
        let (send, _) = tokio::sync::watch::channel(SeedProgress::default());
        let refused = base_backup::seed(&w.b.settings, &w.b.config, VolumeId(3), &send).await;
        assert!(matches!(refused, Err(SeedError::Tablespace(_))), "{refused:?}");
        assert!(matches!(pgdata::inspect(&w.b.settings.layout), Ok(DataDir::Ready(_))));
    });
}

/// The programs of `i`, of which `pg_basebackup` finds no space while `full` (a shell command) succeeds.
fn programs_on_a_full_volume(i: &mut Instance, root: &Path, full: &str) {
    let (real, ours) = (i.settings.pg_bin.clone().unwrap(), root.join("programs"));
    fs::create_dir(&ours).unwrap();
    for program in fs::read_dir(&real).unwrap().map(|e| e.unwrap().path()) {
        std::os::unix::fs::symlink(&program, ours.join(program.file_name().unwrap())).unwrap();
    }
    let backup = ours.join("pg_basebackup");
    fs::remove_file(&backup).unwrap();
    let script = format!(
        "#!/bin/sh\nif {full}; then echo 'could not write to file \"x\": No space left on device' >&2; exit 1; fi\nexec {}/pg_basebackup \"$@\"\n",
        real.display()
    );
    fs::write(&backup, script).unwrap();
    fs::set_permissions(&backup, fs::Permissions::from_mode(0o755)).unwrap();
    i.settings.pg_bin = Some(ours);
}

#[test]
fn without_space_for_two_copies_the_one_that_is_of_no_use_goes_and_one_that_can_serve_stays() {
    run(async |mut w| {
        let (_, b) = w.pair().await;
        w.b.stop(&b).await;
        w.b.seed().await; // what was there lies in moved-aside
        let layout = w.b.settings.layout.clone();
        let root = w.path().to_owned();
        let full = format!("[ -e {} ]", layout.in_pgdata("PG_VERSION").display());
        programs_on_a_full_volume(&mut w.b, &root, &full);
        let (send, _) = tokio::sync::watch::channel(SeedProgress::default());
        let refused = base_backup::seed(&w.b.settings, &w.b.config, VolumeId(3), &send).await;
        assert!(matches!(refused, Err(SeedError::NoRoom(_))), "{refused:?}");
        assert!(matches!(pgdata::inspect(&layout), Ok(DataDir::Ready(_))));
        assert_eq!(fs::read_dir(layout.moved_aside()).unwrap().count(), 0);
        fs::write(layout.rebuild_needed(), "its log is gone").unwrap();
        base_backup::seed(&w.b.settings, &w.b.config, VolumeId(3), &send).await.unwrap();
        assert!(!layout.rebuild_needed().exists());
        w.b.start(w.b.standby_of(&w.a)).await;
        w.streaming(&w.a).await;
        assert_eq!(w.b.count().await, 1000);
    });
}

#[test]
fn with_sync_proven_a_commit_waits_for_the_standby_until_sync_is_off() {
    run(async |w| {
        let (a, b) = w.pair().await;
        let lsn = w.a.sync(&a, Some(InstanceId::B)).await.expect("an insert position");
        eventually("the standby has flushed it", async || {
            w.a.facts().await.peer.filter(|p| p.flush >= Some(lsn))
        })
        .await;
        w.a.exec("INSERT INTO t VALUES (1)").await;
        assert_eq!(w.a.facts().await.peer.unwrap().sync_state, "sync");
        w.b.stop(&b).await;
        let client = w.a.person("postgres").await.unwrap();
        client.batch_execute("SET synchronous_commit = on").await.unwrap();
        let mut commit = tokio::spawn(async move { client.batch_execute("INSERT INTO t VALUES (2)").await });
        let waits = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        eventually("the commit waits", async || {
            let observer = w.a.person("postgres").await.ok()?;
            observer.query_opt(waits, &[]).await.ok()?
        })
        .await;
        // The agent's own write must not hang.
        w.a.sql.flush_probe(Duration::from_secs(5)).await.unwrap();
        assert!(!commit.is_finished());
        assert_eq!(w.a.sync(&a, None).await, None);
        tokio::time::timeout(LIMIT, &mut commit).await.unwrap().unwrap().unwrap();
    });
}

/// A checkpoint of a large buffer cache takes minutes on a slow volume; the proof needs its beginning only.
#[test]
fn sync_is_proven_before_the_checkpoint_ends() {
    run(async |w| {
        let (a, _) = w.pair().await;
        w.a.exec("CREATE TABLE large (x text)").await;
        let observer = w.a.person("postgres").await.unwrap();
        let goes_on = "SELECT FROM pg_stat_activity WHERE wait_event = 'CheckpointDone'";
        // On a quick disk a checkpoint of 90 MB may end before it is looked at.
        for _ in 0..5 {
            w.a.exec("INSERT INTO large SELECT repeat('x', 1000) FROM generate_series(1, 80000)").await;
            assert!(w.a.sync(&a, Some(InstanceId::B)).await.is_some());
            if observer.query_opt(goes_on, &[]).await.unwrap().is_some() {
                return;
            }
            w.a.sync(&a, None).await;
            w.a.exec("TRUNCATE large").await;
        }
        panic!("each time the checkpoint had ended");
    });
}

/// The postmaster and new sessions see the new value by then; backends obey what the checkpointer has read.
#[test]
fn nothing_is_proven_while_the_checkpointer_has_not_read_the_new_value() {
    run(async |w| {
        let (a, _) = w.pair().await;
        let client = w.a.person("postgres").await.unwrap();
        let ask = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
        let pid: i32 = client.query_one(ask, &[]).await.unwrap().get(0);
        let checkpointer = rustix::process::Pid::from_raw(pid).unwrap();
        kill_process(checkpointer, Signal::STOP).unwrap();
        let (settings, sql) = (&w.a.settings, &w.a.sql);
        let early = set_sync(settings, &a, sql, Some(InstanceId::B), Duration::from_millis(1500)).await;
        kill_process(checkpointer, Signal::CONT).unwrap();
        assert!(early.is_err(), "{early:?}");
        let shown: String = client.query_one("SHOW synchronous_standby_names", &[]).await.unwrap().get(0);
        assert!(shown.contains("pgpair_b"), "a session sees it already: {shown}");
        assert!(w.a.sync(&a, Some(InstanceId::B)).await.is_some());
    });
}

#[test]
fn promotion_is_quick_confirmed_and_leaves_no_trigger_file() {
    run(async |w| {
        let (a, b) = w.pair().await;
        w.a.kill(&a).await;
        let p = promote(&w.b.settings, &b, &w.b.sql, LIMIT).await.unwrap();
        println!("{p:?}");
        assert!(p.confirmed < Duration::from_secs(5), "{p:?}");
        assert!(p.receiver_stopped <= p.triggered && p.triggered <= p.out_of_recovery);
        assert!(!w.b.settings.layout.trigger().exists());
        w.b.exec("INSERT INTO t VALUES (1)").await;
        let facts = w.b.facts().await;
        assert_eq!((facts.in_recovery, facts.timeline), (false, Some(TimelineId(2))));
        assert_eq!(w.b.count().await, 1001);
    });
}

#[test]
fn promotion_does_not_wait_for_a_peer_that_does_not_answer() {
    run(async |w| {
        let (a, b) = w.pair().await;
        // Accepts, and says nothing for ever: as bad as a node that has lost its power.
        let silent =
            tokio::net::TcpListener::bind((w.a.settings.listen, w.a.settings.peer_port)).await.unwrap();
        w.a.kill(&a).await;
        let asked = tokio::time::timeout(LIMIT, silent.accept()).await.unwrap().unwrap();
        let p = promote(&w.b.settings, &b, &w.b.sql, LIMIT).await.unwrap();
        println!("with a silent peer: {p:?}");
        assert!(p.confirmed < Duration::from_millis(2500), "{p:?}");
        drop(asked);
    });
}

#[test]
fn promotion_stops_the_stream_of_a_primary_that_still_runs() {
    run(async |w| {
        let (_, b) = w.pair().await;
        let p = promote(&w.b.settings, &b, &w.b.sql, LIMIT).await.unwrap();
        println!("with a living primary: {p:?}");
        assert!(p.receiver_stopped < Duration::from_secs(2));
        let client = w.b.person("postgres").await.unwrap();
        let upstream: String =
            client.query_one("SELECT current_setting('primary_conninfo')", &[]).await.unwrap().get(0);
        assert_eq!(upstream, "", "it was told to stream from nobody before it was told to promote");
        w.a.exec("INSERT INTO t VALUES (1)").await;
        assert_eq!(w.b.count().await, 1000);
    });
}

#[test]
fn a_persons_trigger_file_promotes_nothing_and_is_a_request() {
    run(async |w| {
        let (_, _b) = w.pair().await;
        assert!(!take_request(&w.b.settings.layout).unwrap());
        fs::write(w.b.settings.layout.trigger(), b"").unwrap();
        assert!(take_request(&w.b.settings.layout).unwrap());
        assert!(!w.b.settings.layout.trigger().exists());
        assert!(w.b.facts().await.in_recovery);
    });
}
