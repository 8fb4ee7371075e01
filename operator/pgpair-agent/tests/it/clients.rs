//! Who gets in, and how.

use std::fs;
use std::process::Command;

use pgpair_agent::postgres::postmaster::{ClientAccess, bootstrap, set_clients};
use pgpair_wire::config::{ClientTls, PairConfig};
use tokio_postgres::NoTls;

use crate::fixture::{Instance, eventually, run};

async fn without_tls(i: &Instance, user: &str, password: &str) -> Result<(), String> {
    let port = i.settings.pg_port;
    let text = format!("host=127.0.0.1 port={port} user={user} password={password} dbname=shop");
    let (client, connection) = tokio_postgres::connect(&text, NoTls).await.map_err(|e| format!("{e:?}"))?;
    tokio::spawn(connection);
    client.batch_execute("SELECT 1").await.map_err(|e| e.to_string())
}

pub fn with_tls(i: &Instance, user: &str, password: &str) -> Result<(), String> {
    let port = i.settings.pg_port;
    // Files that are not there, instead of those of whoever runs the tests.
    let text = format!(
        "host=127.0.0.1 port={port} user={user} password={password} dbname=shop sslmode=require sslcert=/none sslrootcert=/none"
    );
    let mut psql = Command::new(i.bin.program("psql"));
    let out = psql.env("LC_ALL", "C").args([&text, "-Atc", "SELECT 1"]).output().unwrap();
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}

#[test]
fn without_tls_nobody_gets_in_unless_it_is_optional_whatever_the_users_lines_say() {
    run(async |mut w| {
        w.a.config.client_tls = ClientTls::Required;
        w.a.config.hba.push("host all all 127.0.0.1/32 trust".into());
        let postmaster = w.primary().await;
        let e = without_tls(&w.a, "shop", "s3cret").await.unwrap_err();
        assert!(e.contains("pg_hba.conf rejects connection"), "{e}");
        with_tls(&w.a, "shop", "s3cret").unwrap();
        w.a.config.client_tls = ClientTls::Optional;
        set_clients(&w.a.settings, &w.a.config, &postmaster, ClientAccess::Open).unwrap();
        eventually("TLS is optional", async || without_tls(&w.a, "shop", "s3cret").await.ok()).await;
    });
}

/// `all` in a line is no physical replication.
#[test]
fn without_its_certificate_the_replication_role_does_not_stream_whatever_the_users_lines_say() {
    run(async |mut w| {
        w.a.config.hba.push("host replication all 127.0.0.1/32 trust".into());
        let postmaster = w.primary().await;
        w.a.exec("CREATE ROLE other LOGIN REPLICATION").await;
        let streams = |user: &str, tls: &str| {
            let port = w.a.settings.pg_port;
            let text = format!(
                "host=127.0.0.1 port={port} user={user} replication=true sslmode={tls} sslcert=/none sslrootcert=/none"
            );
            let mut psql = Command::new(w.a.bin.program("psql"));
            let out = psql.env("LC_ALL", "C").args([&text, "-Atc", "IDENTIFY_SYSTEM"]).output().unwrap();
            if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
        };
        for tls in ["disable", "require"] {
            let e = streams("pgpair_replication", tls).unwrap_err();
            assert!(e.contains("rejects") || e.contains("certificate"), "{tls}: {e}");
            assert_eq!(streams("other", tls), Ok(()));
        }
        let config = PairConfig { client_tls: ClientTls::Required, ..w.a.config.clone() };
        set_clients(&w.a.settings, &config, &postmaster, ClientAccess::Open).unwrap();
        eventually("nobody streams without TLS", async || streams("other", "disable").err()).await;
        assert_eq!(streams("other", "require"), Ok(()));
    });
}

#[test]
fn who_streams_under_the_standbys_name_without_its_slot_is_ended_and_never_taken_for_it() {
    run(async |mut w| {
        w.a.config.hba.push("host replication other 127.0.0.1/32 trust".into());
        w.pair().await;
        w.a.exec("CREATE ROLE other LOGIN REPLICATION").await;
        let received = w.path().join("received");
        fs::create_dir(&received).unwrap();
        let from =
            format!("host=127.0.0.1 port={} user=other application_name=pgpair_b", w.a.settings.pg_port);
        let mut other = Command::new(w.a.bin.program("pg_receivewal"));
        let other = other.args(["--no-loop", "--synchronous", "-d", &from, "-D"]).arg(&received);
        let mut other = other.spawn().unwrap();
        eventually("it streams", async || (w.a.facts().await.impostors == 1).then_some(())).await;
        assert!(w.a.facts().await.peer.is_some_and(|peer| peer.replay.is_some()), "the standby replays");
        assert_eq!(w.a.sql.end_impostors().await.unwrap(), "other");
        eventually("it has ended", async || other.try_wait().unwrap()).await;
        assert_eq!(w.a.facts().await.impostors, 0);
        w.streaming(&w.a).await;
    });
}

#[test]
fn the_superuser_comes_over_the_network_only_if_asked_for_whatever_the_users_lines_say() {
    run(async |mut w| {
        w.a.mount_passwords(&[("shop", "s3cret"), ("postgres", "r00t")]);
        for database in ["all", "replication"] {
            w.a.config.hba.push(format!("host {database} all 127.0.0.1/32 trust"));
        }
        let postmaster = w.primary().await;
        let gets_in = |what: &str| {
            let port = w.a.settings.pg_port;
            let text =
                format!("host=127.0.0.1 port={port} user=postgres {what} sslcert=/none sslrootcert=/none");
            let mut psql = Command::new(w.a.bin.program("psql"));
            let statement = if what.contains("replication") { "IDENTIFY_SYSTEM" } else { "SELECT 1" };
            let out = psql.env("LC_ALL", "C").args([&text, "-Atc", statement]).output().unwrap();
            if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
        };
        let ways = ["dbname=shop", "dbname=postgres", "replication=true"]
            .map(|to| ["disable", "require"].map(|tls| format!("{to} sslmode={tls}")));
        for way in ways.as_flattened() {
            let e = gets_in(way).unwrap_err();
            assert!(e.contains("rejects"), "{way}: {e}");
        }
        w.a.config.superuser_access = true;
        set_clients(&w.a.settings, &w.a.config, &postmaster, ClientAccess::Open).unwrap();
        eventually("its password lets it in", async || with_tls(&w.a, "postgres", "r00t").ok()).await;
        for way in ways.as_flattened() {
            let e = gets_in(way).unwrap_err();
            assert!(e.contains("rejects") || e.contains("no password supplied"), "{way}: {e}");
        }
    });
}

#[test]
fn the_superuser_gets_in_with_the_first_password_and_a_later_file_does_not_change_it() {
    run(async |mut w| {
        w.a.config.superuser_access = true;
        w.a.mount_passwords(&[("shop", "s3cret"), ("postgres", "r00t")]);
        w.primary().await;
        with_tls(&w.a, "postgres", "r00t").unwrap();
        w.a.mount_passwords(&[("shop", "s3cret"), ("postgres", "other")]);
        bootstrap(&w.a.settings, &w.a.config, &w.a.sql).await.unwrap();
        with_tls(&w.a, "postgres", "r00t").unwrap();
        let e = with_tls(&w.a, "postgres", "other").unwrap_err();
        assert!(e.contains("password authentication failed"), "{e}");
    });
}
