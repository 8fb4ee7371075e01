//! The agent's own sessions, whatever people have set in the database.

use std::time::Duration;

use pgpair_agent::postgres::postmaster::passwords::{Reports, Roles, follow};
use pgpair_agent::postgres::postmaster::{definitions, keep_own_roles, put_back_promises};
use pgpair_agent::postgres::promote::promote;
use pgpair_agent::postgres::sql::proof::Gate;
use pgpair_core::ids::InstanceId;
use pgpair_wire::config::StandbyProfile;
use pgpair_wire::scram::GivenPasswords;

use crate::definitions::some_definitions;
use crate::fixture::{Instance, World, eventually, run};
use crate::passwords::password;

const LIMIT: Duration = Duration::from_secs(10);

/// Each statement of the agent's, once.
async fn everything(i: &Instance) {
    // A new session for each: what was set since the last one is in effect.
    i.sql.forget().await;
    let seen = i.sql.observe().await.expect("a look");
    i.sql.positions().await.expect("positions");
    i.sql.pending_restart().await.expect("what needs a restart");
    if seen.in_recovery {
        return;
    }
    i.sql.flush_probe(LIMIT).await.expect("a write");
    i.sql.checkpoint(LIMIT).await.expect("a checkpoint");
    i.sql.ensure_slot("pgpair_b").await.expect("a slot");
    keep_own_roles(&i.sql).await.expect("roles");
    let given = GivenPasswords::from([("shop".to_owned(), password("later"))]);
    let gate = Gate::of(&i.settings);
    follow(&i.sql, &gate, &given, Roles::Writable, &Reports::new()).await.expect("passwords");
    definitions::apply(&i.sql, &some_definitions()).await.expect("definitions");
}

/// A schema that comes before `pg_catalog` for everybody, in which functions and operators of the same names and of the types of the agent's
/// expressions note that they were called.
pub const TRAPS: &str = r"
    CREATE SCHEMA evil;
    CREATE TABLE evil.caught (what text);
    DO $do$
    DECLARE f record;
    BEGIN
        FOR f IN SELECT * FROM (VALUES
            ('pg_is_in_recovery()', 'boolean', 'pg_catalog.pg_is_in_recovery()'),
            ('pg_current_wal_flush_lsn()', 'pg_lsn', 'pg_catalog.pg_current_wal_flush_lsn()'),
            ('pg_current_wal_insert_lsn()', 'pg_lsn', 'pg_catalog.pg_current_wal_insert_lsn()'),
            ('pg_conf_load_time()', 'timestamptz', 'pg_catalog.pg_conf_load_time()'),
            ('current_setting(n text)', 'text', 'pg_catalog.current_setting(n)'),
            ('pg_size_bytes(n text)', 'bigint', 'pg_catalog.pg_size_bytes(n)'),
            ('pg_walfile_name(n pg_lsn)', 'text', 'pg_catalog.pg_walfile_name(n)'),
            ('substr(s text, a int, b int)', 'text', 'pg_catalog.substr(s, a, b)'),
            ('now()', 'timestamptz', 'pg_catalog.now()'),
            ('split_part(s text, d text, n int)', 'text', 'pg_catalog.split_part(s, d, n)'),
            ('starts_with(s text, p text)', 'boolean', 'pg_catalog.starts_with(s, p)'),
            ('unnest(a text[])', 'text', '(SELECT u FROM pg_catalog.unnest(a) u LIMIT 1)'),
            ('lower(s text)', 'text', 'pg_catalog.lower(s)'),
            ('pg_create_physical_replication_slot(n name, i boolean)', 'record',
             'pg_catalog.pg_create_physical_replication_slot(n, i)'),
            ('pg_logical_emit_message(t boolean, p text, c text)', 'pg_lsn',
             'pg_catalog.pg_logical_emit_message(t, p, c)')
        ) AS f (signature, result, real)
        LOOP
            EXECUTE format('CREATE FUNCTION evil.%s RETURNS %s LANGUAGE plpgsql AS $f$
                BEGIN INSERT INTO evil.caught VALUES (%L); RETURN %s; END $f$', f.signature, f.result, f.signature, f.real);
        END LOOP;
        FOR f IN SELECT * FROM (VALUES
            ('=', 'text', 'text', 'boolean'), ('=', 'name', 'text', 'boolean'), ('=', 'name', 'name', 'boolean'),
            ('=', 'oid', 'oid', 'boolean'), ('||', 'text', 'text', 'text'), ('*', 'numeric', 'int', 'numeric'),
            ('*', 'double precision', 'int', 'double precision'), ('>', 'timestamptz', 'timestamptz', 'boolean'),
            ('<=', 'timestamptz', 'timestamptz', 'boolean'),
            ('-', 'timestamptz', 'timestamptz', 'interval'), ('<', 'int', 'int', 'boolean')
        ) AS o (name, l, r, result)
        LOOP
            EXECUTE format('CREATE FUNCTION evil.%I(l %s, r %s) RETURNS %s LANGUAGE plpgsql AS $f$
                BEGIN INSERT INTO evil.caught VALUES (%L); RETURN l OPERATOR(pg_catalog.%s) r; END $f$',
                'op_' || f.l || f.r || f.name, f.l, f.r, f.result, f.name || f.l, f.name);
            EXECUTE format('CREATE OPERATOR evil.%s (FUNCTION = evil.%I, LEFTARG = %s, RIGHTARG = %s)',
                f.name, 'op_' || f.l || f.r || f.name, f.l, f.r);
        END LOOP;
    END $do$;
    ALTER ROLE ALL SET search_path = evil, pg_catalog;
    ALTER ROLE postgres SET search_path = evil, pg_catalog;
    ALTER ROLE pgpair_agent SET search_path = evil, pg_catalog;
    ALTER DATABASE postgres SET search_path = evil, pg_catalog;
";

#[test]
fn no_statement_of_the_agent_runs_a_function_of_somebody_else() {
    run(async |w| {
        w.primary().await;
        w.a.exec(TRAPS).await;
        everything(&w.a).await;
        let person = w.a.sql.session_for_person("postgres").await.unwrap();
        let caught = person.query("SELECT what FROM evil.caught", &[]).await.unwrap();
        let caught: Vec<String> = caught.iter().map(|row| row.get(0)).collect();
        assert_eq!(caught, Vec::<String>::new());
        // The traps work: a person falls into them.
        person.batch_execute("SELECT pg_is_in_recovery(), 'a'::text = 'b'::text").await.unwrap();
        let caught = person.query_one("SELECT pg_catalog.count(*) FROM evil.caught", &[]).await.unwrap();
        assert_eq!(caught.get::<_, i64>(0), 2);
    });
}

#[test]
fn the_owner_of_a_database_leads_no_superuser_to_his_functions() {
    run(async |w| {
        w.primary().await;
        w.a.exec("CREATE ROLE tenant").await;
        w.a.exec("CREATE DATABASE let OWNER tenant").await;
        w.a.exec("ALTER DATABASE let SET search_path = trap, pg_catalog").await;
        let path = async || {
            let person = w.a.sql.session_for_person("let").await.unwrap();
            person.query_one("SHOW search_path", &[]).await.unwrap().get::<_, String>(0)
        };
        assert_eq!(path().await, "\"$user\", public");
        // Pairs of an earlier release have no such setting, and a person may take it away.
        w.a.exec("ALTER ROLE postgres RESET search_path").await;
        assert_eq!(path().await, "trap, pg_catalog");
        assert!(keep_own_roles(&w.a.sql).await.unwrap());
        assert_eq!(path().await, "\"$user\", public");
        w.a.exec("ALTER ROLE postgres SET search_path = mine").await;
        assert!(!keep_own_roles(&w.a.sql).await.unwrap(), "a person's own stays");
        assert_eq!(path().await, "mine");
    });
}

#[test]
fn what_people_set_for_sessions_does_not_reach_the_agents() {
    const SETTINGS: [&str; 12] = [
        "default_transaction_read_only = on",
        "default_transaction_isolation = serializable",
        "session_preload_libraries = 'no_such_library'",
        "local_preload_libraries = 'no_such_library'",
        "statement_timeout = 1",
        "lock_timeout = 1",
        "idle_session_timeout = 1",
        "idle_in_transaction_session_timeout = 1",
        "role = 'shop'",
        "synchronous_commit = off",
        "default_tablespace = 'no_such_tablespace'",
        "DateStyle = 'German'",
    ];
    run(async |w| {
        let (_a, _b) = w.pair().await;
        let person = w.a.person("postgres").await.unwrap();
        for setting in SETTINGS {
            for whose in ["ALL", "postgres", "pgpair_agent"] {
                person.batch_execute(&format!("ALTER ROLE {whose} SET {setting}")).await.expect(setting);
            }
        }
        if w.a.facts().await.version_num >= 170_000 {
            for whose in ["ALL", "pgpair_agent"] {
                person
                    .batch_execute(&format!("ALTER ROLE {whose} SET transaction_timeout = 1"))
                    .await
                    .unwrap();
            }
        }
        w.streaming(&w.a).await;
        everything(&w.a).await;
        everything(&w.b).await;
    });
}

#[test]
fn triggers_for_events_do_not_stop_the_agent() {
    run(async |w| {
        w.primary().await;
        let raises = "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; \
                      CREATE EVENT TRIGGER ddl ON ddl_command_start EXECUTE FUNCTION refuse(); \
                      ALTER EVENT TRIGGER ddl ENABLE ALWAYS;";
        w.a.exec(raises).await;
        if w.a.facts().await.version_num >= 170_000 {
            w.a.exec(
                "SET event_triggers = off; CREATE EVENT TRIGGER login ON login EXECUTE FUNCTION refuse(); \
                 ALTER EVENT TRIGGER login ENABLE ALWAYS",
            )
            .await;
            w.a.sql.session_for_person("postgres").await.unwrap_err();
        }
        everything(&w.a).await;
    });
}

#[test]
fn a_login_or_a_database_that_is_taken_away_does_not_shut_the_agent_out_and_is_put_right() {
    run(async |w| {
        w.primary().await;
        w.a.exec(
            "ALTER ROLE postgres NOLOGIN; REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; \
             REVOKE EXECUTE ON FUNCTION pg_catalog.pg_current_wal_insert_lsn() FROM PUBLIC, pgpair_replication; \
             ALTER ROLE pgpair_replication NOLOGIN CONNECTION LIMIT 0",
        )
        .await;
        everything(&w.a).await;
        assert!(!keep_own_roles(&w.a.sql).await.unwrap(), "it was put right");
        let ours = w.a.sql.session(None).await.unwrap();
        let may = "SELECT rolcanlogin AND has_function_privilege(oid, 'pg_current_wal_insert_lsn()', 'EXECUTE') \
                   AND has_database_privilege(oid, 'postgres', 'CONNECT') FROM pg_authid WHERE rolname = 'pgpair_replication'";
        assert!(ours.query_one(may, &[]).await.unwrap().get::<_, bool>(0));
        ours.batch_execute("ALTER ROLE postgres LOGIN; ALTER ROLE pgpair_agent NOLOGIN").await.unwrap();
        everything(&w.a).await;
        let elsewhere = w.a.sql.session(Some("template1")).await.unwrap();
        elsewhere.batch_execute("ALTER ROLE pgpair_agent NOSUPERUSER").await.unwrap();
        everything(&w.a).await;
        elsewhere.batch_execute("ALTER DATABASE postgres ALLOW_CONNECTIONS false").await.unwrap();
        everything(&w.a).await;
        drop(ours);
        elsewhere.batch_execute("ALTER DATABASE postgres RENAME TO postgres2").await.unwrap();
        w.a.sql.forget().await;
        w.a.sql.observe().await.unwrap();
        w.a.sql.flush_probe(LIMIT).await.unwrap();
        assert_eq!(w.a.sql.login().refusal(), None);
    });
}

#[test]
fn what_keeps_everybody_out_is_told_in_the_words_of_postgres() {
    run(async |w| {
        w.primary().await;
        let ours = w.a.sql.session(None).await.unwrap();
        ours.batch_execute("ALTER ROLE postgres NOLOGIN; ALTER ROLE pgpair_agent NOLOGIN").await.unwrap();
        w.a.sql.positions().await.unwrap_err();
        let told = w.a.sql.login().refusal().unwrap();
        assert_eq!(told, "role \"pgpair_agent\" is not permitted to log in");
    });
}

#[test]
fn a_setting_that_a_promise_rests_on_is_put_back_and_commits_wait_although_it_was_changed() {
    run(async |w| {
        let (a, _b) = w.pair().await;
        w.a.exec("ALTER SYSTEM SET synchronous_standby_names = ''").await;
        w.a.exec("ALTER SYSTEM SET fsync = off").await;
        w.a.exec("ALTER SYSTEM SET work_mem = '5MB'").await;
        a.reload().unwrap();
        let from = w.a.sync(&a, Some(InstanceId::B)).await;
        assert!(from.is_some(), "commits wait");
        let shows = async |name: &str| -> String {
            let ours = w.a.sql.session(None).await.unwrap();
            ours.query_one(&format!("SELECT current_setting('{name}')"), &[]).await.unwrap().get(0)
        };
        assert_eq!(shows("synchronous_standby_names").await, "FIRST 1 (pgpair_b)");
        assert_eq!((shows("fsync").await, shows("work_mem").await), ("on".to_owned(), "5MB".to_owned()));
        assert_eq!(put_back_promises(&w.a.settings, &a).unwrap(), Vec::<String>::new());
    });
}

/// Has a person's transaction on the standby read, and the primary write what cannot be replayed before it ends; then promotes the standby.
async fn promotes_although(mut w: World, reads: &str, writes: &[&str]) {
    w.b.config.standby_profile = StandbyProfile::Reporting;
    let (a, b) = w.pair().await;
    let report = w.b.person("postgres").await.unwrap();
    report.batch_execute(reads).await.unwrap();
    for statement in writes {
        w.a.exec(statement).await;
    }
    eventually("replay waits", async || {
        let seen = "SELECT FROM pg_stat_activity WHERE backend_type = 'startup' \
                    AND (wait_event_type = 'Lock' OR wait_event = 'RecoveryConflictSnapshot')";
        w.b.person("postgres").await.ok()?.query_opt(seen, &[]).await.ok()?
    })
    .await;
    w.a.stop(&a).await;
    promote(&w.b.settings, &b, &w.b.sql, LIMIT).await.unwrap();
    report.batch_execute("SELECT 1").await.unwrap_err();
}

#[test]
fn a_report_whose_rows_are_gone_does_not_hold_a_promotion_up() {
    run(async |w| {
        let reads = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t";
        promotes_although(w, reads, &["DELETE FROM t", "VACUUM t"]).await;
    });
}

#[test]
fn an_idle_transaction_that_holds_a_lock_does_not_hold_a_promotion_up() {
    run(async |w| {
        promotes_although(w, "BEGIN; SELECT count(*) FROM t", &["ALTER TABLE t ADD COLUMN more int"]).await;
    });
}
