//! Roles, the application's database, and the agent's own schema.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use pgpair_wire::config::PairConfig;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::password::scram_sha_256;

use crate::instance::env::InstanceEnv;
use crate::instance::fsx::Context;
use crate::postgres::postmaster::PostmasterError;
use crate::postgres::render::REPLICATION_ROLE;
use crate::postgres::sql::{Sql, within};

const LIMIT: Duration = Duration::from_secs(30);
/// For the user's own statements: they may fill tables.
const POST_INIT: Duration = Duration::from_secs(600);

/// Functions that `pg_rewind` calls on its source (PostgreSQL, pg_rewind, Notes).
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// Makes roles, database and schema that are missing; run it on a new primary while clients are kept out. The password of
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
    for statement in role_statements(&app) {
        sql.batch_alone("create the roles", &statement, LIMIT).await?;
    }
    if !database_exists(sql, &app.database).await? {
        let text = format!(
            "CREATE DATABASE {} OWNER {}",
            escape_identifier(&app.database),
            escape_identifier(&app.user)
        );
        sql.batch_alone("create the application's database", &text, LIMIT).await?;
    }
    sql.flush_probe(LIMIT).await?;
    post_init(sql, &app.database, &config.bootstrap.post_init_sql).await
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
    let client = sql.session(Some(database)).await?;
    let done = client.query(DONE, &[]);
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
    within(ACTION, POST_INIT, client.batch_execute(&text)).await?;
    tracing::info!(statements = statements.len(), "spec.bootstrap.postInitSQL was run");
    Ok(())
}

/// What the mounted Secrets say.
pub(super) struct App {
    pub(super) user: String,
    database: String,
    pub(super) password: String,
    /// Of `postgres`; `None`: it cannot log in over the network.
    pub(super) superuser: Option<String>,
}

impl App {
    pub(super) fn read(settings: &InstanceEnv) -> Result<App, PostmasterError> {
        let field = |name: &str| {
            let path = settings.layout.app.join(name);
            fs::read_to_string(&path)
                .map(|t| t.trim_end_matches('\n').to_owned())
                .at("read the Secret", &path)
        };
        let superuser = settings.layout.app.join("superuser-password").exists();
        Ok(App {
            user: field("username")?,
            database: field("dbname")?,
            password: field("password")?,
            superuser: if superuser { Some(field("superuser-password")?) } else { None },
        })
    }
}

fn role_statements(app: &App) -> Vec<String> {
    let replication = format!("{REPLICATION_ROLE} LOGIN REPLICATION");
    // Made here: the server and its log never see the password.
    let verifier = scram_sha_256(app.password.as_bytes());
    let user = format!("{} LOGIN PASSWORD {}", escape_identifier(&app.user), escape_literal(&verifier));
    let mut out = vec![create_role(REPLICATION_ROLE, &replication), create_role(&app.user, &user)];
    out.extend(app.superuser.as_ref().map(|password| first_password("postgres", password)));
    for f in REWIND_FUNCTIONS {
        out.push(format!("GRANT EXECUTE ON FUNCTION pg_catalog.{f} TO {REPLICATION_ROLE}"));
    }
    out
}

fn create_role(name: &str, definition: &str) -> String {
    let body = format!(
        "BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {}) THEN CREATE ROLE {definition}; END IF; END",
        escape_literal(name)
    );
    format!("DO {}", escape_literal(&body).trim_start())
}

/// A password for a role that has none.
fn first_password(name: &str, password: &str) -> String {
    let verifier = scram_sha_256(password.as_bytes());
    let body = format!(
        "BEGIN IF EXISTS (SELECT FROM pg_authid WHERE rolname = {} AND rolpassword IS NULL) THEN ALTER ROLE {} PASSWORD {}; END IF; END",
        escape_literal(name),
        escape_identifier(name),
        escape_literal(&verifier)
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
    fn the_password_is_never_part_of_a_statement() {
        let app = App {
            user: "o'x".into(),
            database: "d".into(),
            password: "s3cret-word".into(),
            superuser: Some("0ther-word".into()),
        };
        let all = role_statements(&app).join("\n");
        assert!(!all.contains("s3cret-word") && !all.contains("0ther-word"));
        assert_eq!(all.matches("SCRAM-SHA-256$4096:").count(), 2);
    }
}
