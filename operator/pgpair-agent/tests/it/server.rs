//! One server: access, configuration, and the end of its log.

use std::fs;

use pgpair_agent::postgres::control_file;
use pgpair_agent::postgres::end_of_wal::end_of_wal;
use pgpair_agent::postgres::pgdata::{self, DataDir, Volume};
use pgpair_agent::postgres::postmaster::{ClientAccess, StartAs, bootstrap, set_clients};
use pgpair_agent::postgres::render::Upstream;
use pgpair_core::ids::VolumeId;
use tokio_postgres::NoTls;

use crate::fixture::{Instance, eventually, run};

async fn app_connects(i: &Instance) -> Result<(), String> {
    let text = format!("host=127.0.0.1 port={} user=shop password=s3cret dbname=shop", i.settings.pg_port);
    let (client, connection) = tokio_postgres::connect(&text, NoTls).await.map_err(|e| format!("{e:?}"))?;
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE IF NOT EXISTS mine (n int)").await.map_err(|e| e.to_string())
}

#[test]
fn the_application_gets_in_with_its_password_and_only_while_clients_are_let_in() {
    run(async |w| {
        let postmaster = w.primary().await;
        app_connects(&w.a).await.unwrap();
        set_clients(&w.a.settings, &w.a.config, &postmaster, ClientAccess::Closed).unwrap();
        let refused = async || app_connects(&w.a).await.err();
        let e = eventually("no client gets in", refused).await;
        assert!(e.contains("no pg_hba.conf entry"), "{e}");
        set_clients(&w.a.settings, &w.a.config, &postmaster, ClientAccess::Open).unwrap();
        eventually("clients get in", async || app_connects(&w.a).await.ok()).await;
    });
}

#[test]
fn making_roles_twice_changes_nothing_and_initdb_leaves_a_complete_volume() {
    run(async |w| {
        let postmaster = w.primary().await;
        bootstrap(&w.a.settings, &w.a.config, &w.a.sql).await.unwrap();
        let system_identifier = control_file::system_identifier(&w.a.settings.layout.pgdata()).unwrap();
        let volume = Volume { volume_id: VolumeId(1), system_identifier };
        assert_eq!(pgdata::inspect(&w.a.settings.layout).unwrap(), DataDir::Ready(volume));
        assert_eq!(pgdata::inspect(&w.b.settings.layout).unwrap(), DataDir::Empty);
        let control = control_file::control_data(&w.a.bin, &w.a.settings.layout.pgdata()).await.unwrap();
        assert_eq!(control.system_identifier, system_identifier);
        w.a.stop(&postmaster).await;
        assert!(postmaster.has_exited().unwrap().contains("exit status: 0"));
    });
}

#[test]
fn postgres_understands_every_line_that_is_written() {
    run(async |mut w| {
        let tricky = r"it's a \ test % $HOME";
        w.a.config.parameters.insert("application_name".into(), tricky.into());
        w.a.config.hba.push("host shop shop 192.0.2.0/24 scram-sha-256".into());
        w.primary().await;
        let client = w.a.person("postgres").await.unwrap();
        for view in ["pg_file_settings", "pg_hba_file_rules"] {
            let rows = client
                .query(&format!("SELECT error FROM {view} WHERE error IS NOT NULL"), &[])
                .await
                .unwrap();
            let errors: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
            assert!(errors.is_empty(), "{view}: {errors:?}");
        }
        let query = "SELECT setting FROM pg_file_settings WHERE name = 'application_name'";
        let seen: String = client.query_one(query, &[]).await.unwrap().get(0);
        assert_eq!(seen, tricky);
        let rules: i64 =
            client.query_one("SELECT count(*) FROM pg_hba_file_rules", &[]).await.unwrap().get(0);
        assert_eq!(rules, 10);
    });
}

#[test]
fn alter_system_does_not_survive_a_start_for_what_the_operator_owns() {
    run(async |w| {
        let postmaster = w.primary().await;
        w.a.exec("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
        w.a.exec("ALTER SYSTEM SET work_mem = '5MB'").await;
        w.a.stop(&postmaster).await;
        w.a.start(StartAs::Primary).await;
        assert_eq!(w.a.facts().await.sync_names, "");
        let auto = fs::read_to_string(w.a.settings.layout.in_pgdata("postgresql.auto.conf")).unwrap();
        assert!(auto.contains("5MB") && !auto.contains("synchronous"), "{auto}");
    });
}

/// Starts the stopped directory as a standby of nobody and returns where its replay stops.
async fn replayed_to(i: &Instance, at_least: pgpair_core::lsn::Lsn) -> pgpair_core::lsn::Lsn {
    let nobody = StartAs::Standby(Upstream { port: 1, ..i.upstream() });
    let standby = i.start(nobody).await;
    let end = eventually("replay comes to the end", async || {
        let facts = i.sql.observe().await.ok()?;
        facts.replay_lsn.filter(|l| *l >= at_least)
    })
    .await;
    i.stop(&standby).await;
    end
}

#[test]
fn the_end_of_wal_is_where_a_replay_ends() {
    run(async |w| {
        let layout = w.a.settings.layout.clone();
        let postmaster = w.primary().await;
        // Records that cross pages, a segment switch, and something after it.
        w.a.exec("INSERT INTO t SELECT generate_series(1, 50000)").await;
        w.a.exec("SELECT pg_switch_wal(); INSERT INTO t VALUES (1)").await;
        // The last record crosses pages too.
        w.a.exec("SELECT pg_logical_emit_message(false, 'x', repeat('x', 30000))").await;
        let flushed = eventually("all is on disk", async || {
            let facts = w.a.facts().await;
            facts.flush_lsn.filter(|f| Some(*f) == facts.insert_lsn)
        })
        .await;
        w.a.kill(&postmaster).await;
        let control = control_file::control_data(&w.a.bin, &layout.pgdata()).await.unwrap();
        assert!(!control.is_clean_primary());
        // Segments made in advance are empty, and which of all files a program finds first is chance.
        let empty: Vec<_> =
            (0xC0..=0xFF).map(|n| layout.pg_wal().join(format!("0000000100000000000000{n:X}"))).collect();
        for path in &empty {
            fs::File::create(path).unwrap().set_len(control.segment_size.bytes()).unwrap();
        }
        let begin = std::time::Instant::now();
        let slow = end_of_wal(&w.a.bin, &layout, &control, None).await.unwrap();
        let slow_took = begin.elapsed();
        let begin = std::time::Instant::now();
        let quick = end_of_wal(&w.a.bin, &layout, &control, Some(flushed)).await.unwrap();
        println!("end of WAL {slow:?}: {slow_took:?} from the checkpoint, {:?} with a hint", begin.elapsed());
        assert_eq!(slow, quick);
        assert_eq!(slow.end, flushed);
        for path in &empty {
            fs::remove_file(path).unwrap();
        }
        assert_eq!(replayed_to(&w.a, slow.end).await, slow.end);
    });
}

#[test]
fn the_end_of_wal_after_a_clean_stop_is_the_end_of_the_shutdown_checkpoint() {
    run(async |w| {
        let layout = w.a.settings.layout.clone();
        let postmaster = w.primary().await;
        w.a.stop(&postmaster).await;
        let control = control_file::control_data(&w.a.bin, &layout.pgdata()).await.unwrap();
        assert!(control.is_clean_primary());
        let end = end_of_wal(&w.a.bin, &layout, &control, None).await.unwrap().end;
        assert!(end > control.checkpoint && end.bytes_since(control.checkpoint) < 256);
        assert_eq!(replayed_to(&w.a, end).await, end);
    });
}

#[test]
fn a_postmaster_that_cannot_start_is_an_error_with_its_status() {
    run(async |mut w| {
        w.a.init().await;
        w.a.config.parameters.insert("shared_buffers".into(), "nonsense".into());
        let postmaster = w.a.start_only(StartAs::Primary).await;
        let e = postmaster.wait_ready(&w.a.sql, crate::fixture::LIMIT).await.unwrap_err().to_string();
        assert!(e.contains("exit status: 1"), "{e}");
        assert!(w.a.free().await.is_some());
    });
}
