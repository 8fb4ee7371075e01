//! Primary and standby: seeding, synchronous commit, promotion.

use std::fs;
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

use crate::fixture::{LIMIT, eventually, run};

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
