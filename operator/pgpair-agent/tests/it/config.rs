//! What a person may set, and what a changed setting does to a running postgres.

use std::fs;

use pgpair_agent::postgres::objection::{Objection, TryError};
use pgpair_agent::postgres::postmaster::{
    ClientAccess, StartAs, bootstrap, finish_bootstrap, floors, reload_config, try_parameters,
};
use pgpair_agent::postgres::render::Floors;
use pgpair_wire::config::{Bootstrap, StandbyProfile};

use crate::fixture::{Instance, World, eventually, run};

async fn show(i: &Instance, name: &str) -> Option<String> {
    let client = i.person("postgres").await.ok()?;
    client.query_one(&format!("SHOW {name}"), &[]).await.ok().map(|r| r.get(0))
}

#[test]
fn a_changed_configuration_reaches_a_running_postgres_and_what_needs_a_restart_is_named() {
    run(async |mut w| {
        let postmaster = w.primary().await;
        assert_eq!(show(&w.a, "max_standby_streaming_delay").await.as_deref(), Some("5s"));
        assert_eq!(w.a.sql.pending_restart().await.unwrap().1, Vec::<String>::new());
        let (before, _) = w.a.sql.pending_restart().await.unwrap();
        w.a.config.standby_profile = StandbyProfile::Reporting;
        w.a.config.parameters.insert("max_connections".into(), "150".into());
        w.a.config.parameters.insert("work_mem".into(), "7MB".into());
        w.a.config.hba.push("host shop shop 192.0.2.0/24 md5".into());
        let (settings, config) = (&w.a.settings, &w.a.config);
        reload_config(settings, config, Floors::default(), ClientAccess::Open, &postmaster).unwrap();
        let pending = eventually("postgres has read it", async || {
            let (loaded, pending) = w.a.sql.pending_restart().await.ok()?;
            (loaded != before).then_some(pending)
        })
        .await;
        assert_eq!(pending, ["max_connections"]);
        for (name, value) in [
            ("max_standby_streaming_delay", "1h"),
            ("hot_standby_feedback", "off"),
            ("work_mem", "7MB"),
            ("max_connections", "100"),
        ] {
            assert_eq!(show(&w.a, name).await.as_deref(), Some(value), "{name}");
        }
        let rule =
            "SELECT count(*)::text FROM pg_hba_file_rules WHERE address = '192.0.2.0' AND error IS NULL";
        let client = w.a.person("postgres").await.unwrap();
        assert_eq!(client.query_one(rule, &[]).await.unwrap().get::<_, &str>(0), "1");
        assert!(postmaster.has_exited().is_none());
    });
}

/// A primary that runs with more than the default, and a seeded standby for which less is configured.
async fn lowered(w: &mut World) {
    for (name, value) in [("max_connections", "150"), ("max_prepared_transactions", "5")] {
        w.a.config.parameters.insert(name.into(), value.into());
    }
    w.primary().await;
    w.b.seed().await;
    w.b.config.parameters.insert("max_connections".into(), "40".into());
}

#[test]
fn a_standby_starts_with_no_less_than_its_primary_has_whatever_is_configured() {
    run(async |mut w| {
        lowered(&mut w).await;
        let role = w.b.standby_of(&w.a);
        let b = w.b.start(role.clone()).await;
        assert_eq!(show(&w.b, "max_connections").await.as_deref(), Some("150"));
        assert_eq!(show(&w.b, "max_prepared_transactions").await.as_deref(), Some("5"));
        w.streaming(&w.a).await;
        // A reload asks for the same, so nothing waits for a restart that would do nothing.
        let found = floors(&w.b.settings, &w.b.bin, &role).await;
        let (before, _) = w.b.sql.pending_restart().await.unwrap();
        reload_config(&w.b.settings, &w.b.config, found, ClientAccess::Open, &b).unwrap();
        eventually("postgres has read it", async || {
            let (loaded, pending) = w.b.sql.pending_restart().await.ok()?;
            (loaded != before).then(|| assert_eq!(pending, Vec::<String>::new()))
        })
        .await;
        w.b.stop(&b).await;
        w.b.config.parameters.insert("max_connections".into(), "200".into());
        w.b.start(role).await;
        assert_eq!(show(&w.b, "max_connections").await.as_deref(), Some("200"));
    });
}

#[test]
fn what_is_taken_for_postgres_default_is_its_default() {
    run(async |w| {
        w.primary().await;
        let client = w.a.person("postgres").await.unwrap();
        for (name, _, default) in floors(&w.a.settings, &w.a.bin, &StartAs::Primary).await.named() {
            let row = client.query_one("SELECT boot_val FROM pg_settings WHERE name = $1", &[&name]).await;
            assert_eq!(row.unwrap().get::<_, &str>(0), default.to_string(), "{name}");
        }
    });
}

#[test]
fn without_the_primarys_values_a_standby_would_not_start() {
    run(async |mut w| {
        lowered(&mut w).await;
        let b = w.b.start(w.b.standby_of(&w.a)).await;
        w.b.stop(&b).await;
        // What the agent writes is undone: postgres must refuse, or the floors are for nothing.
        let path = w.b.settings.layout.in_pgdata("postgresql.conf");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("max_connections = '150'", "max_connections = '40'")).unwrap();
        let out = std::process::Command::new(w.b.bin.program("postgres"))
            .arg("-D")
            .arg(w.b.settings.layout.pgdata())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains("max_connections = 40 is a lower setting"), "{said}");
    });
}

#[test]
fn a_value_that_postgres_refuses_is_found_before_it_is_used() {
    run(async |mut w| {
        // Nothing to try it with: that is no reason to refuse.
        w.a.config.parameters.insert("work_mem".into(), "lots".into());
        try_parameters(&w.a.settings, &w.a.bin, &w.a.config).await.unwrap();
        w.a.config.parameters.clear();
        w.primary().await;
        let mut tried = w.a.config.clone();
        for (name, value, says) in [
            ("work_mem", "lots", "invalid value for parameter \"work_mem\": \"lots\""),
            ("no_such_parameter", "1", "unrecognized configuration parameter \"no_such_parameter\""),
        ] {
            tried.parameters = [(name.to_owned(), value.to_owned())].into();
            let e = try_parameters(&w.a.settings, &w.a.bin, &tried).await.unwrap_err();
            let TryError::Objection(Objection::Parameters(said)) = e else { panic!("{e}") };
            assert!(said.starts_with(says), "{said}");
        }
        tried.parameters = [("work_mem".to_owned(), "5MB".to_owned())].into();
        try_parameters(&w.a.settings, &w.a.bin, &tried).await.unwrap();
        assert!(w.a.facts().await.version_num > 140_000, "the running postgres did not notice");
    });
}

#[test]
fn the_first_directory_is_made_as_wished_and_the_users_statements_run_once() {
    run(async |mut w| {
        w.a.config.bootstrap = Bootstrap {
            checksums: false,
            locale: "C".into(),
            encoding: "SQL_ASCII".into(),
            version: None,
            post_init_sql: vec![
                "CREATE TABLE seeded (n int) -- of the application".into(),
                "INSERT INTO seeded VALUES (1);".into(),
                "ALTER TABLE seeded OWNER TO shop".into(),
            ],
        };
        w.primary().await;
        bootstrap(&w.a.settings, &w.a.config, &w.a.sql).await.unwrap();
        let app = w.a.person("shop").await.unwrap();
        let one = async |text: &str| app.query_one(text, &[]).await.unwrap().get::<_, String>(0);
        assert_eq!(one("SELECT count(*)::text FROM seeded").await, "1");
        assert_eq!(one("SHOW data_checksums").await, "off");
        let made = "SELECT datcollate || ' ' || pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'shop'";
        assert_eq!(one(made).await, "C SQL_ASCII");
    });
}

#[test]
fn a_statement_that_fails_leaves_nothing_behind_and_may_be_tried_again() {
    run(async |mut w| {
        w.a.init().await;
        w.a.start(StartAs::Primary).await;
        let good = "CREATE TABLE seeded (n int)".to_owned();
        w.a.config.bootstrap.post_init_sql = vec![good.clone(), "SELECT 1/0".into()];
        let e = bootstrap(&w.a.settings, &w.a.config, &w.a.sql).await.unwrap_err().to_string();
        assert!(e.contains("postInitSQL") && e.contains("division by zero"), "{e}");
        w.a.config.bootstrap.post_init_sql = vec![good];
        bootstrap(&w.a.settings, &w.a.config, &w.a.sql).await.unwrap();
    });
}

#[test]
fn a_first_setup_that_was_cut_off_is_finished_by_the_next_primary_and_once() {
    run(async |mut w| {
        w.a.init().await;
        w.a.start(StartAs::Primary).await;
        let good = "CREATE TABLE seeded (n int)".to_owned();
        w.a.config.bootstrap.post_init_sql = vec![good.clone(), "SELECT 1/0".into()];
        bootstrap(&w.a.settings, &w.a.config, &w.a.sql).await.unwrap_err();
        w.a.config.bootstrap.post_init_sql = vec![good];
        let finish = async || finish_bootstrap(&w.a.settings, &w.a.config, &w.a.sql).await.unwrap();
        assert!(finish().await, "an earlier primary had begun it");
        assert!(!finish().await, "it is done");
        bootstrap(&w.a.settings, &w.a.config, &w.a.sql).await.unwrap();
        assert!(!finish().await, "what is done stays so");
    });
}
