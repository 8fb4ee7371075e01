//! Roles and databases of the configuration, on a primary.
//!
//! Order: roles, then their memberships, then databases, then extensions. Guarantees: nothing is dropped and nothing is taken away;
//! what PostgreSQL refuses is told in its words and stops nothing else; a definition is carried out when it is new, and what somebody
//! has changed in the database since stays and is told. Which definition was carried out last is noted in the database, as a setting of
//! the role or the database, so every instance knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgpair_wire::config::{DatabaseConfig, PairConfig, RoleConfig};
use pgpair_wire::report::{DefinitionFault, DefinitionKind, DefinitionsReport, WrongDefinition};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use crate::postgres::sql::{Sql, SqlError, within};

const LIMIT: Duration = Duration::from_secs(5);
/// A database is copied from a template; an extension runs a script.
const LONG: Duration = Duration::from_secs(60);
const LOOK: &str = "look at roles and databases";
const ROLES: &str = include_str!("../sql/role_definitions.sql");
const DATABASES: &str = include_str!("../sql/database_definitions.sql");
const EXTENSION: &str = include_str!("../sql/extension.sql");
/// Schema of extensions that leave the choice.
const SCHEMA: &str = "public";

/// Carries the definitions out that are new; what is wrong with the others.
///
/// # Errors
/// Postgres does not say what there is.
pub async fn apply(sql: &Sql, config: &PairConfig) -> Result<DefinitionsReport, SqlError> {
    let mut wrong = roles(sql, &config.roles).await?;
    wrong.extend(databases(sql, &config.databases).await?);
    Ok(DefinitionsReport { generation: config.generation, wrong })
}

/// What is done about one definition.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Everything is as it says.
    Fits,
    /// It is new and has to be carried out, or at least noted.
    CarryOut,
    /// It was carried out, and this was changed since.
    Leave(String),
}

fn decide(differences: &[String], mark: Option<&String>, wanted: &str) -> Step {
    match (mark.is_some_and(|mark| mark == wanted), differences) {
        (true, []) => Step::Fits,
        (true, _) => Step::Leave(differences.join(", ")),
        (false, _) => Step::CarryOut,
    }
}

/// Tells a definition from others.
fn mark_of(definition: &impl Serialize) -> String {
    let text = serde_json::to_string(definition).unwrap_or_default();
    Sha256::digest(text.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// What there is of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KnownRole {
    login: bool,
    connections: i32,
    member_of: BTreeSet<String>,
    mark: Option<String>,
}

impl KnownRole {
    fn read(row: &Row) -> Result<(String, KnownRole), tokio_postgres::Error> {
        let member_of: Vec<String> = row.try_get("member_of")?;
        let known = KnownRole {
            login: row.try_get("login")?,
            connections: row.try_get("connections")?,
            member_of: member_of.into_iter().collect(),
            mark: row.try_get("mark")?,
        };
        Ok((row.try_get("name")?, known))
    }

    /// What is otherwise than wanted; more memberships are not.
    fn differences(&self, wanted: &RoleConfig) -> Vec<String> {
        let mut out = Vec::new();
        if self.login != wanted.login {
            out.push(format!("it may {}log in", if self.login { "" } else { "not " }));
        }
        if self.connections != wanted.connection_limit {
            out.push(format!("its connection limit is {}", self.connections));
        }
        let missing = wanted.member_of.iter().filter(|of| !self.member_of.contains(*of));
        out.extend(missing.map(|of| format!("it is no member of {of}")));
        out
    }
}

async fn roles(sql: &Sql, wanted: &[RoleConfig]) -> Result<Vec<WrongDefinition>, SqlError> {
    let names = wanted.iter().map(|role| role.name.as_str()).collect();
    let known = look(sql, ROLES, names, KnownRole::read).await?;
    let (mut wrong, mut new) = (Wrong::of(DefinitionKind::Role), Vec::new());
    for role in wanted {
        let found = known.get(&role.name);
        let differences = found.map(|found| found.differences(role)).unwrap_or_default();
        match decide(&differences, found.and_then(|found| found.mark.as_ref()), &mark_of(role)) {
            Step::Fits => {}
            Step::Leave(what) => wrong.tell(&role.name, DefinitionFault::Differs, what),
            Step::CarryOut => new.push((role, found)),
        }
    }
    // All of them first, since one may become a member of another.
    let mut made = Vec::new();
    for (role, found) in new {
        match make_role(sql, role, found).await {
            Ok(()) => made.push((role, found)),
            Err(e) => wrong.tell(&role.name, DefinitionFault::Refused, e.to_string()),
        }
    }
    for (role, found) in made {
        if let Err(e) = join(sql, role, found).await {
            wrong.tell(&role.name, DefinitionFault::Refused, e.to_string());
        }
    }
    Ok(wrong.told)
}

async fn make_role(sql: &Sql, role: &RoleConfig, found: Option<&KnownRole>) -> Result<(), SqlError> {
    let verb = if found.is_some() { "ALTER" } else { "CREATE" };
    let login = if role.login { "LOGIN" } else { "NOLOGIN" };
    let name = escape_identifier(&role.name);
    let text = format!("{verb} ROLE {name} {login} CONNECTION LIMIT {}", role.connection_limit);
    sql.batch_alone("make or change the role", &text, LIMIT).await
}

/// One membership that is refused keeps no other from being given; the first one is told.
async fn join(sql: &Sql, role: &RoleConfig, found: Option<&KnownRole>) -> Result<(), SqlError> {
    let name = escape_identifier(&role.name);
    let mut failed = None;
    for of in role.member_of.iter().filter(|of| found.is_none_or(|found| !found.member_of.contains(*of))) {
        let text = format!("GRANT {} TO {name}", escape_identifier(of));
        failed = failed.or(sql.batch_alone("make the role a member", &text, LIMIT).await.err());
    }
    if let Some(failed) = failed {
        return Err(failed);
    }
    let text = format!("ALTER ROLE {name} SET pgpair.role = {}", escape_literal(&mark_of(role)));
    sql.batch_alone("note the role's definition", &text, LIMIT).await
}

/// What there is of a database, but its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KnownDatabase {
    owner: String,
    mark: Option<String>,
}

impl KnownDatabase {
    fn read(row: &Row) -> Result<(String, KnownDatabase), tokio_postgres::Error> {
        let known = KnownDatabase { owner: row.try_get("owner")?, mark: row.try_get("mark")? };
        Ok((row.try_get("name")?, known))
    }
}

async fn databases(sql: &Sql, wanted: &[DatabaseConfig]) -> Result<Vec<WrongDefinition>, SqlError> {
    let names = wanted.iter().map(|database| database.name.as_str()).collect();
    let known = look(sql, DATABASES, names, KnownDatabase::read).await?;
    let mut wrong = Wrong::of(DefinitionKind::Database);
    for database in wanted {
        match database_fits(sql, database, known.get(&database.name)).await {
            Ok(Step::Fits | Step::CarryOut) => {}
            Ok(Step::Leave(what)) => wrong.tell(&database.name, DefinitionFault::Differs, what),
            Err(e) => wrong.tell(&database.name, DefinitionFault::Refused, e.to_string()),
        }
    }
    Ok(wrong.told)
}

/// Carries it out if it is new.
async fn database_fits(
    sql: &Sql,
    wanted: &DatabaseConfig,
    found: Option<&KnownDatabase>,
) -> Result<Step, DefinitionError> {
    let mark = mark_of(wanted);
    let Some(found) = found else {
        let name = (escape_identifier(&wanted.name), escape_identifier(&wanted.owner));
        // It cannot be part of a transaction, so it cannot share a batch with its limit.
        let client = limitless(sql, None).await?;
        let text = format!("CREATE DATABASE {} OWNER {}", name.0, name.1);
        within("make the database", LONG, client.batch_execute(&text)).await?;
        carry_out(sql, wanted, &mark).await?;
        return Ok(Step::CarryOut);
    };
    let mut differences = Vec::new();
    if found.owner != wanted.owner {
        differences.push(format!("its owner is {}", found.owner));
    }
    if !wanted.extensions.is_empty() {
        let client = limitless(sql, Some(&wanted.name)).await?;
        for extension in &wanted.extensions {
            let is_there = look_for(&client, extension).await?.is_some_and(|found| found.is_there);
            if !is_there {
                differences.push(format!("extension {extension} is not there"));
            }
        }
    }
    let step = decide(&differences, found.mark.as_ref(), &mark);
    if step == Step::CarryOut {
        if found.owner != wanted.owner {
            let (name, owner) = (escape_identifier(&wanted.name), escape_identifier(&wanted.owner));
            let text = format!("ALTER DATABASE {name} OWNER TO {owner}");
            sql.batch_alone("give the database to its owner", &text, LIMIT).await?;
        }
        carry_out(sql, wanted, &mark).await?;
    }
    Ok(step)
}

/// Its extensions; one that is refused keeps no other from being made, and the first one is told.
async fn carry_out(sql: &Sql, wanted: &DatabaseConfig, mark: &str) -> Result<(), DefinitionError> {
    let mut failed = None;
    if !wanted.extensions.is_empty() {
        let client = limitless(sql, Some(&wanted.name)).await?;
        for extension in &wanted.extensions {
            failed = failed.or(extend(&client, extension).await.err());
        }
    }
    if let Some(failed) = failed {
        return Err(failed);
    }
    let name = escape_identifier(&wanted.name);
    let text = format!("ALTER DATABASE {name} SET pgpair.database = {}", escape_literal(mark));
    Ok(sql.batch_alone("note the database's definition", &text, LIMIT).await?)
}

/// Why a definition is not carried out.
#[derive(Debug, thiserror::Error)]
enum DefinitionError {
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error("the image has no extension {0}")]
    NoExtension(String),
}

/// What there is of an extension.
struct KnownExtension {
    is_there: bool,
    /// The schema that it must have.
    schema: Option<String>,
}

/// `None`: the image does not have it.
async fn look_for(client: &Client, extension: &str) -> Result<Option<KnownExtension>, SqlError> {
    let parameters: [&(dyn ToSql + Sync); 1] = [&extension];
    let row = within("look for the extension", LIMIT, client.query_opt(EXTENSION, &parameters)).await?;
    let read = |row: Row| -> Result<KnownExtension, tokio_postgres::Error> {
        Ok(KnownExtension { is_there: row.try_get("is_there")?, schema: row.try_get("schema")? })
    };
    let found = row.map(read).transpose();
    found.map_err(|source| SqlError::Postgres { action: "look for the extension", source })
}

async fn extend(client: &Client, extension: &str) -> Result<(), DefinitionError> {
    let Some(found) = look_for(client, extension).await? else {
        return Err(DefinitionError::NoExtension(extension.to_owned()));
    };
    if found.is_there {
        return Ok(());
    }
    // The agent's own search path would put it into pg_catalog.
    let schema = if found.schema.is_none() { format!(" SCHEMA {SCHEMA}") } else { String::new() };
    let text = format!("CREATE EXTENSION {}{schema}", escape_identifier(extension));
    Ok(within("make the extension", LONG, client.batch_execute(&text)).await?)
}

/// A session whose statements may take long.
async fn limitless(sql: &Sql, database: Option<&str>) -> Result<Client, SqlError> {
    let client = sql.session(database).await?;
    let text = format!("SET statement_timeout = {}", LONG.as_millis());
    within("set a time limit", LIMIT, client.batch_execute(&text)).await?;
    Ok(client)
}

async fn look<T>(
    sql: &Sql,
    text: &str,
    names: Vec<&str>,
    read: impl Fn(&Row) -> Result<(String, T), tokio_postgres::Error>,
) -> Result<BTreeMap<String, T>, SqlError> {
    let client = sql.session(None).await?;
    let parameters: [&(dyn ToSql + Sync); 1] = [&names];
    let rows = within(LOOK, LIMIT, client.query(text, &parameters)).await?;
    let known: Result<_, _> = rows.iter().map(read).collect();
    known.map_err(|source| SqlError::Postgres { action: LOOK, source })
}

/// What is told of one kind.
struct Wrong {
    kind: DefinitionKind,
    told: Vec<WrongDefinition>,
}

impl Wrong {
    fn of(kind: DefinitionKind) -> Wrong {
        Wrong { kind, told: Vec::new() }
    }

    fn tell(&mut self, name: &str, how: DefinitionFault, why: String) {
        tracing::warn!(name, why, "a role or a database is not as the spec says");
        self.told.push(WrongDefinition { kind: self.kind, name: name.to_owned(), how, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> RoleConfig {
        RoleConfig {
            name: "report".into(),
            login: true,
            member_of: vec!["reader".into()],
            connection_limit: 5,
            certificate: false,
        }
    }

    #[test]
    fn a_definition_is_carried_out_once_and_what_was_changed_since_stays() {
        let (mark, other) = (mark_of(&wanted()), mark_of(&RoleConfig { login: false, ..wanted() }));
        let changed = ["it may not log in".to_owned()];
        assert_eq!(decide(&[], None, &mark), Step::CarryOut);
        assert_eq!(decide(&changed, Some(&other), &mark), Step::CarryOut, "the spec was changed");
        assert_eq!(decide(&[], Some(&mark), &mark), Step::Fits);
        assert_eq!(decide(&changed, Some(&mark), &mark), Step::Leave("it may not log in".into()));
    }

    #[test]
    fn what_is_missing_differs_and_what_is_more_does_not() {
        let known = |login: bool, connections: i32, member_of: &[&str]| KnownRole {
            login,
            connections,
            member_of: member_of.iter().map(|of| (*of).to_owned()).collect(),
            mark: None,
        };
        assert_eq!(known(true, 5, &["reader", "writer"]).differences(&wanted()), Vec::<String>::new());
        let all = known(false, -1, &[]).differences(&wanted());
        assert_eq!(all, ["it may not log in", "its connection limit is -1", "it is no member of reader"]);
    }
}
