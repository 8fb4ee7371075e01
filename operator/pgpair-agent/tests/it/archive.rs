//! The archive as postgres uses it.

use std::fs;

use axum::Router;
use axum::extract::Path as UrlPath;
use axum::http::StatusCode;
use axum::routing::get;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use pgpair_agent::net::tls::Identity;
use pgpair_agent::postgres::control_file;
use pgpair_agent::postgres::pgdata;
use pgpair_agent::postgres::promote::promote;
use pgpair_agent::wal::archive::{Places, first_missing, has_segment, look, wal_file};
use pgpair_agent::wal::cleanup::{self, Needed};
use pgpair_agent::wal::restore::{RestoreError, restore};
use pgpair_core::timeline::TimelineId;
use pgpair_core::wal::{Segment, WalFile};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::fixture::{Instance, LIMIT, eventually, run};

/// What the agent of `i` serves its peer.
pub async fn serve_wal(i: &Instance) {
    let layout = i.settings.layout.clone();
    let system = control_file::system_identifier(&layout.pgdata()).unwrap();
    let app = Router::new().route(
        "/v1/wal/{name}",
        get(async move |UrlPath(name): UrlPath<String>| {
            match wal_file(&layout, system, &name, Places::Archive) {
                Some(path) => Ok(fs::read(path).unwrap()),
                None => Err(StatusCode::NOT_FOUND),
            }
        }),
    );
    let acceptor = TlsAcceptor::from(Identity::load(&i.settings.layout.tls).unwrap().server());
    let listener = TcpListener::bind((i.settings.listen, i.settings.peer_port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(app.clone()));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

/// Fills a segment and waits until it is in the archives of all `at`.
async fn archived_segment(primary: &Instance, at: &[&Instance]) -> String {
    let client = primary.person("postgres").await.unwrap();
    let name: String =
        client.query_one("SELECT pg_walfile_name(pg_current_wal_insert_lsn())", &[]).await.unwrap().get(0);
    primary.exec("INSERT INTO t VALUES (1); SELECT pg_switch_wal(); INSERT INTO t VALUES (1)").await;
    for i in at {
        let path = i.wal_archive().join(&name);
        eventually("the segment is archived", async || path.exists().then_some(())).await;
    }
    name
}

#[test]
fn both_archives_hold_the_same_segments() {
    run(async |w| {
        w.pair().await;
        let name = archived_segment(&w.a, &[&w.a, &w.b]).await;
        let read = |i: &Instance| fs::read(i.wal_archive().join(&name)).unwrap();
        assert!(read(&w.a) == read(&w.b));
        let facts = eventually("postgres says so", async || {
            let facts = w.a.facts().await;
            (facts.archiver.last_archived.as_deref() >= Some(name.as_str())).then_some(facts)
        })
        .await;
        let system = control_file::system_identifier(&w.a.settings.layout.pgdata()).unwrap();
        let status = look(&w.a.settings.layout, system, Some(&facts.archiver), None).report;
        assert!(status.last_segment >= Some(name) && status.last_archived_at_ms.is_some());
        assert_eq!((status.failures, status.backlog_segments.is_some()), (Some(0), true));
    });
}

#[test]
fn a_failing_archive_is_counted_and_named() {
    run(async |w| {
        w.primary().await;
        assert_eq!(w.a.facts().await.archiver.failing, None);
        // Another server's segment under the next name.
        let client = w.a.person("postgres").await.unwrap();
        let query = "SELECT pg_walfile_name(pg_current_wal_insert_lsn())";
        let name: String = client.query_one(query, &[]).await.unwrap().get(0);
        fs::create_dir_all(w.a.wal_archive()).unwrap();
        fs::write(w.a.wal_archive().join(&name), b"foreign").unwrap();
        w.a.exec("INSERT INTO t VALUES (1); SELECT pg_switch_wal()").await;
        let facts = eventually("the refusal is seen", async || {
            Some(w.a.facts().await.archiver).filter(|a| a.failing.is_some())
        })
        .await;
        assert!(facts.failures >= 1 && facts.failing == Some(name.clone()));
        assert_eq!(fs::read(w.a.wal_archive().join(name)).unwrap(), b"foreign");
    });
}

#[test]
fn a_segment_comes_from_our_archive_else_from_the_peers_else_from_nobody() {
    run(async |w| {
        w.pair().await;
        let name = archived_segment(&w.a, &[&w.a, &w.b]).await;
        let to = w.path().join("restored");
        assert_eq!(restore(&w.b.settings, &name, &to).unwrap(), "archive");
        let own = w.b.wal_archive().join(&name);
        let content = fs::read(&own).unwrap();
        assert!(fs::read(&to).unwrap() == content);
        fs::remove_file(&to).unwrap();
        fs::remove_file(&own).unwrap();
        // restore() has a runtime of its own, as the command has.
        let ask = async |name: String| {
            let (settings, to) = (w.b.settings.clone(), to.clone());
            tokio::task::spawn_blocking(move || restore(&settings, &name, &to)).await.unwrap()
        };
        assert!(matches!(ask(name.clone()).await, Err(RestoreError::Peer { .. })));
        serve_wal(&w.a).await;
        assert_eq!(ask(name.clone()).await.unwrap(), "peer");
        assert!(fs::read(&to).unwrap() == content);
        let absent = "0000000100000000000000FE".to_owned();
        assert!(matches!(ask(absent).await, Err(RestoreError::Nobody)));
        // A damaged copy of ours is not used.
        fs::write(&own, &content[..100]).unwrap();
        assert_eq!(ask(name).await.unwrap(), "peer");
    });
}

#[test]
fn a_standby_whose_wal_is_gone_from_the_primary_catches_up_from_the_peers_archive() {
    run(async |mut w| {
        w.a.config.parameters.insert("wal_keep_size".into(), "0".into());
        let (_, b) = w.pair().await;
        w.b.stop(&b).await;
        w.a.sql.drop_slot("pgpair_b").await.unwrap();
        for _ in 0..3 {
            archived_segment(&w.a, &[&w.a]).await;
        }
        w.a.sql.checkpoint(crate::fixture::LIMIT).await.unwrap();
        serve_wal(&w.a).await;
        w.a.sql.ensure_slot("pgpair_b").await.unwrap();
        w.b.start(w.b.standby_of(&w.a)).await;
        w.streaming(&w.a).await;
        assert_eq!(w.b.count().await, w.a.count().await);
    });
}

/// A promotion that was cut off leaves one, say. PostgreSQL would take it for the newest timeline, and refuse to start on it.
#[test]
fn a_history_without_our_past_keeps_no_standby_from_starting_and_its_number_is_not_used_again() {
    run(async |w| {
        let (a, b) = w.pair().await;
        w.a.exec("INSERT INTO t VALUES (1); CHECKPOINT").await;
        w.streaming(&w.a).await;
        w.b.exec("CHECKPOINT").await;
        w.b.stop(&b).await;
        fs::create_dir_all(w.b.wal_archive()).unwrap();
        fs::write(w.b.wal_archive().join("00000002.history"), "1\t0/2000000\tcut off\n").unwrap();
        let b = w.b.start(w.b.standby_of(&w.a)).await;
        w.streaming(&w.a).await;
        assert_eq!(w.b.facts().await.timeline, Some(TimelineId(1)));
        w.a.kill(&a).await;
        promote(&w.b.settings, &b, &w.b.sql, LIMIT).await.unwrap();
        assert_eq!(w.b.facts().await.timeline, Some(TimelineId(3)));
    });
}

#[test]
fn log_that_is_gone_from_the_primary_is_told_and_a_lost_slot_is_made_anew() {
    run(async |mut w| {
        w.a.config.parameters.insert("wal_keep_size".into(), "0".into());
        let (_, b) = w.pair().await;
        w.b.stop(&b).await;
        // The limit that the agent derives is too large for a test.
        w.a.exec("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'").await;
        w.a.exec("SELECT pg_reload_conf()").await;
        let needs = w.a.facts().await.peer_slot.unwrap().restart.unwrap();
        let layout = &w.a.settings.layout;
        let system = control_file::system_identifier(&layout.pgdata()).unwrap();
        let history = pgdata::history(layout, system, TimelineId(1)).unwrap().unwrap();
        let size = w.a.facts().await.segment_size;
        let found = async || has_segment(layout, system, &history, needs, size).unwrap();
        assert!(found().await.has);
        let lost = eventually("the slot is lost", async || {
            archived_segment(&w.a, &[&w.a]).await;
            w.a.sql.checkpoint(crate::fixture::LIMIT).await.ok()?;
            w.a.facts().await.peer_slot.filter(|s| s.lost)
        })
        .await;
        assert_eq!(lost.restart, None);
        assert!(found().await.has, "the archive still has it");
        let first = first_missing(&w.b.settings.layout, system, &history, needs, size).unwrap();
        assert!(first >= Segment::holding(TimelineId(1), needs, size).start(size), "{first}");
        let gone = Segment::holding(TimelineId(1), needs, size).file_name(size);
        fs::remove_file(w.a.wal_archive().join(gone)).unwrap();
        let now = found().await;
        assert!(!now.has && now.oldest.is_some());
        w.a.sql.ensure_slot("pgpair_b").await.unwrap();
        let slot = w.a.facts().await.peer_slot.unwrap();
        assert!(!slot.lost && slot.restart > Some(needs));
    });
}

#[test]
fn the_archive_loses_only_what_nobody_needs_and_only_when_it_must() {
    run(async |w| {
        w.primary().await;
        let mut names = Vec::new();
        for _ in 0..3 {
            names.push(archived_segment(&w.a, &[&w.a]).await);
        }
        w.a.sql.checkpoint(crate::fixture::LIMIT).await.unwrap();
        let facts = w.a.facts().await;
        let needed = Needed { own: facts.redo, peer: None, slot: None, segment_size: facts.segment_size };
        let there = || names.iter().filter(|n| w.a.wal_archive().join(n).exists()).count();
        cleanup::round(&w.a.settings.layout, needed);
        // There is room.
        let needs = Needed { peer: facts.redo, ..needed };
        cleanup::archived_log(&w.a.settings.layout, needs, |_| Some((1 << 40, 1 << 39))).unwrap();
        assert_eq!(there(), 3);
        // Without room: not while the peer's needs are unknown, then up to them and no further.
        cleanup::archived_log(&w.a.settings.layout, needed, |_| Some((1, 0))).unwrap();
        assert_eq!(there(), 3);
        let second = WalFile::parse(&names[1], facts.segment_size);
        let Some(WalFile::Segment(second)) = second else { panic!("{second:?}") };
        let peer = Some(second.start(facts.segment_size));
        cleanup::archived_log(&w.a.settings.layout, Needed { peer, ..needed }, |_| Some((1, 0))).unwrap();
        assert!(!w.a.wal_archive().join(&names[0]).exists());
        assert_eq!(there(), 2);
    });
}
