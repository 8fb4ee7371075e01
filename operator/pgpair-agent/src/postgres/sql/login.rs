//! How the agent logs in, and which settings its sessions have, whatever people have set in the database.
//!
//! A superuser may take the login from the role `postgres`, close or drop the database `postgres`, and give settings, libraries and
//! triggers to roles and databases. So the agent has a role of its own and goes to another database if it must, and each setting
//! that could change what its statements mean or whether they run is in the startup packet, which wins over the
//! configuration, `ALTER ROLE` and `ALTER DATABASE` (PostgreSQL, Parameter Interaction via the Configuration File). With `search_path`
//! there, no statement of the agent can find an operator, a cast or a function of somebody else.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pgpair_wire::names::{AGENT_ROLE, SUPERUSER};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls};

use crate::instance::env::InstanceEnv;

/// In which databases the agent works, in this order: every cluster has them from the beginning.
const DATABASES: [&str; 2] = ["postgres", "template1"];
/// Who logs in, and where, in the order of preference.
const WAYS: [(&str, &str); 4] = [
    (AGENT_ROLE, DATABASES[0]),
    (AGENT_ROLE, DATABASES[1]),
    (SUPERUSER, DATABASES[0]),
    (SUPERUSER, DATABASES[1]),
];

/// What could keep a statement of ours from its meaning, its rights or its time.
const PINNED: [(&str, &str); 21] = [
    ("search_path", "pg_catalog,pg_temp"),
    ("role", "none"),
    ("session_replication_role", "replica"),
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_deferrable", "off"),
    ("synchronous_commit", "local"),
    ("statement_timeout", "10s"),
    ("lock_timeout", "5s"),
    ("idle_session_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("row_security", "off"),
    ("default_tablespace", ""),
    ("temp_tablespaces", ""),
    ("default_table_access_method", "heap"),
    ("standard_conforming_strings", "on"),
    ("client_min_messages", "warning"),
    ("DateStyle", "ISO"),
    ("jit", "off"),
];
/// The same, since PostgreSQL 17. Before it no trigger is fired by a login.
const PINNED_SINCE_17: [(&str, &str); 2] = [("transaction_timeout", "0"), ("event_triggers", "off")];

/// What is known of the server's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pins {
    All,
    Before17,
}

/// Logs in.
#[derive(Debug)]
pub struct Login {
    config: Config,
    /// The server is older than 17.
    is_older: AtomicBool,
    /// The last way that was open.
    way: AtomicU8,
    refusal: Mutex<Option<String>>,
}

impl Login {
    /// To the postgres of this instance, each attempt within `limit`.
    #[must_use]
    pub fn new(settings: &InstanceEnv, limit: Duration) -> Login {
        let mut config = Config::new();
        config
            .host_path(settings.layout.socket_dir())
            .port(settings.pg_port)
            .application_name("pgpair-agent")
            .connect_timeout(limit);
        Login { config, is_older: AtomicBool::new(false), way: AtomicU8::new(0), refusal: Mutex::default() }
    }

    /// A session for statements of the agent's own, in `database` or in any.
    ///
    /// # Errors
    /// Nobody may log in, or postgres does not accept connections.
    pub async fn open(&self, database: Option<&str>) -> Result<Client, Error> {
        let result = self.try_ways(database).await;
        let refusal = result.as_ref().err().and_then(words_of_refusal);
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
        result
    }

    async fn try_ways(&self, database: Option<&str>) -> Result<Client, Error> {
        let last = usize::from(self.way.load(Ordering::Relaxed));
        let way = WAYS.get(last).copied().unwrap_or(WAYS[0]);
        let mut refusal = match self.attempt(way, database).await {
            Err(e) if is_closed_way(&e) => e,
            result => return result,
        };
        for (n, way) in WAYS.into_iter().enumerate() {
            match self.attempt(way, database).await {
                // What is told is why the first way is closed, which should be open.
                Err(e) if is_closed_way(&e) => refusal = if n == 0 { e } else { refusal },
                result => {
                    if result.is_ok() && n != last {
                        let (role, database) = way;
                        tracing::info!(role, database, "the agent logs in another way than before");
                        self.way.store(u8::try_from(n).unwrap_or_default(), Ordering::Relaxed);
                    }
                    return result;
                }
            }
        }
        Err(refusal)
    }

    /// A session for statements of a person's, with the settings that a person's session has.
    ///
    /// # Errors
    /// It is not open to the role that initdb made, or postgres does not accept connections.
    pub async fn open_for_person(&self, database: &str) -> Result<Client, Error> {
        connect(self.config.clone().application_name("pgpair").user(SUPERUSER).dbname(database)).await
    }

    /// The first way is tried again by the next session, after what kept it closed may have been put right.
    pub fn prefer_own(&self) {
        self.way.store(0, Ordering::Relaxed);
    }

    /// Why nobody can log in, as the last attempt was told; `None` if it succeeded, or if postgres did not answer.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn attempt(
        &self,
        (role, usual): (&'static str, &'static str),
        database: Option<&str>,
    ) -> Result<Client, Error> {
        let mut config = self.config.clone();
        config.user(role).dbname(database.unwrap_or(usual));
        if !self.is_older.load(Ordering::Relaxed) {
            match connect(config.options(options(Pins::All))).await {
                // The startup packet is read after authentication: the role may log in.
                Err(e) if e.code() == Some(&SqlState::UNDEFINED_OBJECT) => {
                    self.is_older.store(true, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        connect(config.options(options(Pins::Before17))).await
    }
}

async fn connect(config: &Config) -> Result<Client, Error> {
    let (client, connection) = config.connect(NoTls).await?;
    // Ends by itself when the client is dropped; its error reaches the pending query.
    tokio::spawn(connection);
    Ok(client)
}

/// What a server says that lets nobody in; nothing of one that only starts or stops.
fn words_of_refusal(e: &Error) -> Option<String> {
    let refusal = e.as_db_error()?;
    (*refusal.code() != SqlState::CANNOT_CONNECT_NOW && *refusal.code() != SqlState::ADMIN_SHUTDOWN)
        .then(|| refusal.message().to_owned())
}

/// Whether another role or another database may help.
fn is_closed_way(e: &Error) -> bool {
    let codes = [
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION, // no such role, it may not log in, or it is no superuser and may not set what we set
        SqlState::INSUFFICIENT_PRIVILEGE,
        SqlState::INVALID_CATALOG_NAME,             // no such database
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, // it takes no connections
    ];
    e.code().is_some_and(|code| codes.contains(code))
}

/// The options of a startup packet (PostgreSQL, Message Formats): blanks and backslashes in values are escaped.
fn options(pins: Pins) -> String {
    let newer = if pins == Pins::All { &PINNED_SINCE_17[..] } else { &[] };
    let option = |(name, value): &(&str, &str)| {
        format!("-c {name}={}", value.replace('\\', r"\\").replace(' ', r"\ "))
    };
    PINNED.iter().chain(newer).map(option).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_blanks_stay_one_word_and_what_only_newer_servers_know_is_left_out_for_older_ones() {
        let all = options(Pins::All);
        assert!(all.starts_with("-c search_path=pg_catalog,pg_temp -c role=none "), "{all}");
        assert!(all.contains(r"-c default_transaction_isolation=read\ committed -c"), "{all}");
        assert!(all.ends_with("-c event_triggers=off"), "{all}");
        assert!(!options(Pins::Before17).contains("event_triggers"));
    }
}
