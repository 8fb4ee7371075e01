//! Roles and databases of the configuration.

use pgpair_agent::postgres::postmaster::definitions::apply;
use pgpair_wire::config::{DatabaseConfig, PairConfig, RoleConfig};
use pgpair_wire::report::{DefinitionFault, DefinitionKind};

use crate::fixture::{Instance, run};
use crate::sessions::TRAPS;

fn role(name: &str, member_of: &[&str]) -> RoleConfig {
    let member_of = member_of.iter().map(|of| (*of).to_owned()).collect();
    RoleConfig {
        name: name.into(),
        login: name != "reader",
        member_of,
        connection_limit: -1,
        certificate: false,
    }
}

fn database(name: &str, owner: &str, extensions: &[&str]) -> DatabaseConfig {
    let extensions = extensions.iter().map(|e| (*e).to_owned()).collect();
    DatabaseConfig { name: name.into(), owner: owner.into(), extensions }
}

/// A role that becomes a member of one that comes after it, and a database that is its own.
pub fn some_definitions() -> PairConfig {
    PairConfig {
        generation: 7,
        roles: vec![role("report", &["reader", "pg_read_all_data"]), role("reader", &[])],
        databases: vec![database("reporting", "report", &["hstore", "plpgsql"])],
        ..PairConfig::default()
    }
}

/// What is wrong, by name.
async fn wrong(i: &Instance, config: &PairConfig) -> Vec<(String, DefinitionFault, String)> {
    let report = apply(&i.sql, config).await.unwrap();
    assert_eq!(report.generation, config.generation);
    report.wrong.into_iter().map(|wrong| (wrong.name, wrong.how, wrong.why)).collect()
}

async fn is(i: &Instance, database: &str, condition: &str) -> bool {
    let client = i.person(database).await.unwrap();
    client.query_one(&format!("SELECT ({condition})::boolean"), &[]).await.unwrap().get(0)
}

#[test]
fn roles_and_databases_come_into_being_in_an_order_that_works_and_once() {
    run(async |w| {
        w.primary().await;
        let config = some_definitions();
        assert_eq!(wrong(&w.a, &config).await, []);
        let member = "pg_has_role('report', 'reader', 'MEMBER') AND pg_has_role('report', 'pg_read_all_data', 'MEMBER')";
        assert!(is(&w.a, "postgres", member).await);
        assert!(is(&w.a, "postgres", "(SELECT rolcanlogin FROM pg_roles WHERE rolname = 'report')").await);
        assert!(
            !is(&w.a, "postgres", "(SELECT rolcanlogin OR rolsuper FROM pg_roles WHERE rolname = 'reader')")
                .await
        );
        let there = "(SELECT count(*) = 1 FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \
                     WHERE extname = 'hstore' AND nspname = 'public')";
        assert!(is(&w.a, "reporting", there).await, "not where the agent's own search path leads");
        assert!(is(&w.a, "reporting", "(SELECT pg_get_userbyid(datdba) = 'report' FROM pg_database WHERE datname = current_database())").await);
        let rows = async || -> String {
            let all = "SELECT string_agg(xmin::text, ' ' ORDER BY oid) FROM pg_authid WHERE rolname IN ('report', 'reader')";
            w.a.person("postgres").await.unwrap().query_one(all, &[]).await.unwrap().get(0)
        };
        let before = rows().await;
        assert_eq!(wrong(&w.a, &config).await, []);
        assert_eq!(rows().await, before, "nothing is written again");
    });
}

#[test]
fn what_postgres_refuses_is_told_in_its_words_and_stops_nothing_else() {
    run(async |w| {
        w.primary().await;
        let config = PairConfig {
            roles: vec![role("lonely", &["nobody", "pg_monitor"]), role("good", &[])],
            databases: vec![
                database("orphan", "nobody", &[]),
                database("poor", "good", &["no_such_extension", "hstore"]),
                database("fine", "good", &[]),
            ],
            ..some_definitions()
        };
        for _ in 0..2 {
            let told = wrong(&w.a, &config).await;
            let expected = [
                ("lonely", "role \"nobody\" does not exist"),
                ("orphan", "role \"nobody\" does not exist"),
                ("poor", "the image has no extension no_such_extension"),
            ];
            assert_eq!(told.len(), expected.len(), "{told:?}");
            for ((name, how, why), (expected, words)) in told.iter().zip(expected) {
                assert!(
                    name == expected && *how == DefinitionFault::Refused && why.contains(words),
                    "{told:?}"
                );
            }
        }
        assert!(is(&w.a, "postgres", "pg_has_role('lonely', 'pg_monitor', 'MEMBER')").await);
        assert!(is(&w.a, "poor", "(SELECT count(*) = 1 FROM pg_extension WHERE extname = 'hstore')").await);
        assert!(is(&w.a, "fine", "true").await);
        w.a.exec("CREATE ROLE nobody").await;
        let told = wrong(&w.a, &config).await;
        assert_eq!(told.len(), 1, "what stood in the way is gone: {told:?}");
    });
}

#[test]
fn what_somebody_changes_in_the_database_stays_and_is_told_until_the_definition_changes() {
    run(async |w| {
        w.primary().await;
        let mut config = some_definitions();
        assert_eq!(wrong(&w.a, &config).await, []);
        w.a.exec(
            "REVOKE reader FROM report; ALTER ROLE report NOLOGIN CONNECTION LIMIT 3; \
             ALTER DATABASE reporting OWNER TO shop",
        )
        .await;
        w.a.person("reporting").await.unwrap().batch_execute("DROP EXTENSION hstore").await.unwrap();
        let told = wrong(&w.a, &config).await;
        let of_role = "it may not log in, its connection limit is 3, it is no member of reader";
        let of_database = "its owner is shop, extension hstore is not there";
        let differs = DefinitionFault::Differs;
        assert_eq!(
            told,
            [("report".into(), differs, of_role.into()), ("reporting".into(), differs, of_database.into())]
        );
        config.roles[0].connection_limit = 4;
        config.databases[0].extensions.push("citext".into());
        assert_eq!(wrong(&w.a, &config).await, []);
        let now = "(SELECT rolcanlogin AND rolconnlimit = 4 AND pg_has_role(oid, 'reader', 'MEMBER') FROM pg_roles WHERE rolname = 'report')";
        assert!(is(&w.a, "postgres", now).await);
        // What is in no definition any more stays.
        config.roles.clear();
        config.databases.clear();
        assert_eq!(wrong(&w.a, &config).await, []);
        assert!(
            is(
                &w.a,
                "reporting",
                "(SELECT count(*) = 2 FROM pg_extension WHERE extname IN ('hstore', 'citext'))"
            )
            .await
        );
    });
}

#[test]
fn an_owner_of_a_database_cannot_have_its_functions_called_by_a_definition() {
    run(async |w| {
        w.primary().await;
        w.a.person("shop").await.unwrap().batch_execute(TRAPS).await.unwrap();
        w.a.exec("ALTER DATABASE shop SET search_path = evil, pg_catalog").await;
        let databases = vec![database("shop", "shop", &["hstore"])];
        let config = PairConfig { databases, ..some_definitions() };
        assert_eq!(wrong(&w.a, &config).await, []);
        let ours = w.a.sql.session(Some("shop")).await.unwrap();
        let caught = ours.query("SELECT what FROM evil.caught", &[]).await.unwrap();
        assert_eq!(
            caught.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(),
            Vec::<String>::new()
        );
        let place = "SELECT FROM pg_extension WHERE extname = 'hstore' AND extnamespace::regnamespace::text = 'public'";
        assert_eq!(ours.query(place, &[]).await.unwrap().len(), 1);
    });
}

#[test]
fn what_is_told_names_roles_and_databases_apart() {
    run(async |w| {
        w.primary().await;
        let config = PairConfig {
            roles: vec![role("same", &["nobody"])],
            databases: vec![database("same", "nobody", &[])],
            ..some_definitions()
        };
        let kinds: Vec<_> =
            apply(&w.a.sql, &config).await.unwrap().wrong.into_iter().map(|w| w.kind).collect();
        assert_eq!(kinds, [DefinitionKind::Role, DefinitionKind::Database]);
    });
}
