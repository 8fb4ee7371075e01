//! Roles and the application's database.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use pgpair_wire::config::PairConfig;
use pgpair_wire::names::{AGENT_ROLE, REPLICATION_ROLE, SUPERUSER};
use pgpair_wire::scram::{VERIFIERS_KEY, Verifier, Verifiers};
use postgres_protocol::escape::{escape_identifier, escape_literal};

use crate::instance::env::InstanceEnv;
use crate::instance::fsx::{self, Context};
use crate::postgres::postmaster::PostmasterError;
use crate::postgres::sql::{Sql, SqlError, within};

const LIMIT: Duration = Duration::from_secs(30);
/// For the user's own statements: they may fill tables.
const POST_INIT: Duration = Duration::from_secs(600);

/// Functions that `pg_rewind` calls on its source (PostgreSQL, pg_rewind, Notes; `libpq_source.c`). Some of them everybody may call until
/// somebody takes that right away.
const REWIND_FUNCTIONS: [&str; 8] = [
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
    "pg_catalog.pg_current_wal_insert_lsn()",
    "pg_catalog.pg_is_in_recovery()",
    "pg_catalog.pg_tablespace_location(oid)",
    "pg_catalog.set_config(text, text, boolean)",
];
/// The owner of a database sets the search path of all who come to it, and could lead a superuser to functions of his (CVE-2018-1058). A
/// setting of the role wins over that of the database. The value is PostgreSQL's default; one that a person has set stays.
const OWN_SEARCH_PATH: &str = "DO $$ BEGIN \
    IF NOT EXISTS (SELECT FROM pg_db_role_setting s, unnest(s.setconfig) c \
                   WHERE s.setrole = 10 AND s.setdatabase = 0 AND c LIKE 'search_path=%') THEN \
        EXECUTE (SELECT format('ALTER ROLE %I SET search_path = \"$user\", public', rolname) FROM pg_authid WHERE oid = 10); \
    END IF; END $$";
/// How far the first setup has come, where the next primary finds it: as a setting of the agent's role that nobody uses. What is done stays so.
const MARK: &str = "DO $$ BEGIN \
    IF NOT EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole \
                   WHERE r.rolname = 'pgpair_agent' AND s.setdatabase = 0 AND 'pgpair.bootstrap=done' = ANY (s.setconfig)) THEN \
        ALTER ROLE pgpair_agent SET pgpair.bootstrap = ";
const IS_BEGUN: &str = "SELECT FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole \
    WHERE r.rolname = 'pgpair_agent' AND s.setdatabase = 0 AND 'pgpair.bootstrap=begun' = ANY (s.setconfig)";
/// Whether our roles may do all that they have to, and lead nowhere else.
const ARE_SOUND: &str = include_str!("../sql/roles.sql");

/// Makes roles and database that are missing; run it on a new primary while clients are kept out. The password of
/// a role that has one is left as it is. The statements of `config.bootstrap.post_init_sql` are run at last, once.
///
/// # Errors
/// Postgres refused, or the mounted Secret is incomplete.
pub async fn bootstrap(
    settings: &InstanceEnv,
    config: &PairConfig,
    sql: &Sql,
) -> Result<(), PostmasterError> {
    let app = App::read(settings)?;
    let mark = |how_far: &str| format!("{MARK}'{how_far}'; END IF; END $$");
    for statement in own_role_statements().into_iter().chain([mark("begun")]).chain(role_statements(&app)) {
        sql.batch_alone("create the roles", &statement, LIMIT).await?;
    }
    sql.login().prefer_own();
    if !database_exists(sql, &app.database).await? {
        let text = format!(
            "CREATE DATABASE {} OWNER {}",
            escape_identifier(&app.database),
            escape_identifier(&app.user)
        );
        sql.batch_alone("create the application's database", &text, LIMIT).await?;
    }
    sql.flush_probe(LIMIT).await?;
    post_init(sql, &app.database, &config.bootstrap.post_init_sql).await?;
    Ok(sql.batch_alone("note that the first setup is done", &mark("done"), LIMIT).await?)
}

/// Does the rest of a [`bootstrap`] that an earlier primary has begun and not finished. Whether there was one.
///
/// # Errors
/// As [`bootstrap`].
pub async fn finish_bootstrap(
    settings: &InstanceEnv,
    config: &PairConfig,
    sql: &Sql,
) -> Result<bool, PostmasterError> {
    let client = sql.session(None).await?;
    let begun = client.query_opt(IS_BEGUN, &[]);
    if within("look whether the first setup was finished", LIMIT, begun).await?.is_none() {
        return Ok(false);
    }
    bootstrap(settings, config, sql).await?;
    tracing::warn!("the first setup, which an earlier primary had not finished, is done");
    Ok(true)
}

/// Runs the statements in the application's database, in one transaction with the mark that they were run: a setting of that
/// database, for nothing else is both part of the transaction and out of the application's way.
async fn post_init(sql: &Sql, database: &str, statements: &[String]) -> Result<(), PostmasterError> {
    const ACTION: &str = "run spec.bootstrap.postInitSQL";
    const DONE: &str = "SELECT FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase \
                        WHERE d.datname = current_database() AND 'pgpair.post_init=done' = ANY (s.setconfig)";
    if statements.is_empty() {
        return Ok(());
    }
    let ours = sql.session(Some(database)).await?;
    let done = ours.query(DONE, &[]);
    if !within("look whether spec.bootstrap.postInitSQL was run", LIMIT, done).await?.is_empty() {
        return Ok(());
    }
    let mut text = String::from("SET statement_timeout = 0; BEGIN; SET LOCAL synchronous_commit = local;\n");
    for statement in statements {
        // The line break ends a comment at the end of a statement.
        let _ = writeln!(text, "{}\n;", statement.trim().trim_end_matches(';'));
    }
    let _ =
        write!(text, "ALTER DATABASE {} SET pgpair.post_init = 'done'; COMMIT", escape_identifier(database));
    let client = sql.session_for_person(database).await?;
    within(ACTION, POST_INIT, client.batch_execute(&text)).await?;
    tracing::info!(statements = statements.len(), "spec.bootstrap.postInitSQL was run");
    Ok(())
}

/// What the mounted Secret says.
struct App {
    user: String,
    database: String,
    /// The first passwords.
    verifiers: Verifiers,
}

impl App {
    fn read(settings: &InstanceEnv) -> Result<App, PostmasterError> {
        let field = |name: &str| {
            let path = settings.layout.app.join(name);
            fs::read_to_string(&path)
                .map(|t| t.trim_end_matches('\n').to_owned())
                .at("read the Secret", &path)
        };
        Ok(App {
            user: field("username")?,
            database: field("dbname")?,
            verifiers: fsx::read_json(&settings.layout.app.join(VERIFIERS_KEY))?.unwrap_or_default(),
        })
    }
}

/// The application's role, and the first password of the superuser. One that has no verifier yet gets its password from the operator later.
fn role_statements(app: &App) -> Vec<String> {
    let password = |role: &str| {
        let verifier = app.verifiers.get(role).map(Verifier::as_str);
        verifier.map(|text| format!(" PASSWORD {}", escape_literal(text).trim_start())).unwrap_or_default()
    };
    let user = format!("{} LOGIN{}", escape_identifier(&app.user), password(&app.user));
    let mut out = vec![create_role(&app.user, &user)];
    out.extend(app.verifiers.get(SUPERUSER).map(|verifier| first_password(SUPERUSER, verifier)));
    out
}

/// What makes our own two roles what they have to be, whatever they are, and the first superuser's sessions his own.
fn own_role_statements() -> Vec<String> {
    let (agent, replication) =
        (format!("{AGENT_ROLE} LOGIN SUPERUSER"), format!("{REPLICATION_ROLE} LOGIN REPLICATION"));
    let mut out = vec![
        create_role(AGENT_ROLE, &agent),
        create_role(REPLICATION_ROLE, &replication),
        format!("ALTER ROLE {agent}"),
        format!("ALTER ROLE {replication} CONNECTION LIMIT -1"),
        // Given by name: what everybody may do can be taken from everybody.
        format!("GRANT USAGE ON SCHEMA pg_catalog TO {REPLICATION_ROLE}"),
        format!("GRANT CONNECT ON DATABASE postgres TO {REPLICATION_ROLE}"),
    ];
    out.extend(REWIND_FUNCTIONS.map(|f| format!("GRANT EXECUTE ON FUNCTION {f} TO {REPLICATION_ROLE}")));
    out.push(OWN_SEARCH_PATH.to_owned());
    out
}

/// Puts our own two roles right if a person has changed them: what a promotion, a rewind or the stream needs, must be there before. True
/// if there was something to do.
///
/// # Errors
/// What could not be put right; everything else was.
pub async fn keep_own_roles(sql: &Sql) -> Result<bool, SqlError> {
    let client = sql.session(None).await?;
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&REWIND_FUNCTIONS.as_slice()];
    let sound = within("look at the agent's roles", LIMIT, client.query_one(ARE_SOUND, &parameters)).await?;
    if sound.get(0) {
        return Ok(false);
    }
    let mut failed = None;
    for statement in own_role_statements() {
        let done = within("put the agent's roles right", LIMIT, client.batch_execute(&statement)).await;
        failed = failed.or(done.err());
    }
    sql.login().prefer_own();
    failed.map_or(Ok(true), Err)
}

fn create_role(name: &str, definition: &str) -> String {
    let body = format!(
        "BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {}) THEN CREATE ROLE {definition}; END IF; END",
        escape_literal(name)
    );
    format!("DO {}", escape_literal(&body).trim_start())
}

/// A password for a role that has none.
fn first_password(name: &str, verifier: &Verifier) -> String {
    let body = format!(
        "BEGIN IF EXISTS (SELECT FROM pg_authid WHERE rolname = {} AND rolpassword IS NULL) THEN ALTER ROLE {} PASSWORD {}; END IF; END",
        escape_literal(name),
        escape_identifier(name),
        escape_literal(verifier.as_str())
    );
    format!("DO {}", escape_literal(&body).trim_start())
}

async fn database_exists(sql: &Sql, name: &str) -> Result<bool, PostmasterError> {
    let client = sql.session(None).await?;
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&name];
    let query = client.query_opt("SELECT FROM pg_database WHERE datname = $1", &parameters);
    Ok(within("look for the application's database", LIMIT, query).await?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_made_with_its_verifier_or_without_a_password() {
        let verifier = Verifier::make("s3cret-word").unwrap();
        let mut app = App {
            user: "o'x".into(),
            database: "d".into(),
            verifiers: Verifiers::from([("o'x".into(), verifier)]),
        };
        let all = role_statements(&app);
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].matches("LOGIN PASSWORD ''SCRAM-SHA-256$4096:").count(), 1, "{all:?}");
        app.verifiers.clear();
        assert!(!role_statements(&app)[0].contains("PASSWORD"));
    }
}
