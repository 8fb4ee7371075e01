//! SQL over the local socket, each statement under a limit.

use std::sync::Arc;
use std::time::Duration;

use pgpair_core::lsn::Lsn;
use pgpair_core::wal::SegmentSize;
use tokio::sync::Mutex;
use tokio_postgres::{Client, Statement};

use crate::instance::env::InstanceEnv;
use crate::postgres::libraries::LibraryPath;

/// A connection over the socket is made at once or not at all.
const CONNECT: Duration = Duration::from_secs(2);
/// For [`Sql::observe`]: it reads memory only.
const OBSERVE: Duration = Duration::from_secs(1);
const CONNECTING: &str = "connect to the local postgres";
/// For slots and the like.
const SMALL: Duration = Duration::from_secs(5);

const OBSERVE_QUERY: &str = include_str!("sql/observe.sql");
const PROBE: &str = include_str!("sql/probe.sql");

mod login;
pub mod proof;
mod rows;
mod sessions;

pub use login::Login;
use rows::Failures;
pub use rows::{ArchiverFacts, PeerRow, Receiver, Slot, SqlSnapshot, StreamState};

/// A statement that failed.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// Postgres refused or the connection broke.
    #[error("cannot {action}: {}", reason(source))]
    Postgres {
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        source: tokio_postgres::Error,
    },
    /// No answer in time.
    #[error("cannot {action} within {limit:?}: postgres does not answer")]
    Late {
        /// What was attempted.
        action: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// An answer of another form than expected.
    #[error("cannot {action}: postgres answered {text:?}")]
    Answer {
        /// What was attempted.
        action: &'static str,
        /// What came.
        text: String,
    },
}

/// The error of the server says more than the error of the client library.
fn reason(e: &tokio_postgres::Error) -> String {
    match (e.as_db_error(), std::error::Error::source(e)) {
        (Some(db), _) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        (None, Some(cause)) => format!("{e}: {cause}"),
        (None, None) => e.to_string(),
    }
}

/// The agent's connection to the local postgres, as a superuser. Clones share it; it is reopened after an error.
#[derive(Debug, Clone)]
pub struct Sql {
    login: Arc<Login>,
    peer: &'static str,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    connection: Option<Connection>,
    failures: Failures,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    observe: Statement,
}

impl Sql {
    /// Prepares a connection; nothing is opened yet.
    #[must_use]
    pub fn new(settings: &InstanceEnv) -> Sql {
        let peer = InstanceEnv::standby_name(settings.instance.peer());
        Sql { login: Arc::new(Login::new(settings, CONNECT)), peer, open: Arc::default() }
    }

    /// One with a kept connection of its own, which logs in as this one does.
    #[must_use]
    pub(crate) fn beside(&self) -> Sql {
        Sql { login: self.login.clone(), peer: self.peer, open: Arc::default() }
    }

    /// Reads everything about this postgres in one statement.
    ///
    /// # Errors
    /// Postgres is down, starting up, or does not answer.
    pub async fn observe(&self) -> Result<SqlSnapshot, SqlError> {
        let action = "read the state of postgres";
        let mut open = within(action, OBSERVE, async { Ok(self.open.lock().await) }).await?;
        let result = within(action, OBSERVE, async {
            let connection = match &open.connection {
                Some(c) if !c.client.is_closed() => c,
                _ => {
                    let client = self.login.open(None).await?;
                    let observe = client.prepare(OBSERVE_QUERY).await?;
                    open.connection.insert(Connection { client, observe })
                }
            };
            connection.client.query_one(&connection.observe, &[&self.peer]).await
        })
        .await;
        match result {
            Ok(row) => {
                let misread = |text| SqlError::Answer { action, text };
                let bytes: i64 = row.try_get("segment_size").map_err(|e| misread(e.to_string()))?;
                let size = u64::try_from(bytes).ok().and_then(SegmentSize::new);
                let size = size.ok_or_else(|| misread(format!("a segment size of {bytes} bytes")))?;
                rows::facts(&row, size, &mut open.failures).map_err(|e| misread(e.to_string()))
            }
            Err(e) => {
                open.connection = None;
                Err(e)
            }
        }
    }

    /// Commits a small write and returns when it is on disk here; does not wait for a standby.
    ///
    /// # Errors
    /// It did not succeed within `limit`.
    pub async fn flush_probe(&self, limit: Duration) -> Result<(), SqlError> {
        self.batch_alone("write and flush a probe", PROBE, limit).await
    }

    /// Runs `CHECKPOINT` and waits for its end.
    ///
    /// # Errors
    /// It did not end within `limit`.
    pub async fn checkpoint(&self, limit: Duration) -> Result<(), SqlError> {
        let text = format!("SET statement_timeout = {}; CHECKPOINT", limit.as_millis());
        self.batch_alone("run a checkpoint", &text, limit).await
    }

    /// Makes sure that the physical slot exists, and that it keeps WAL from now on: a lost one is made anew.
    ///
    /// # Errors
    /// Postgres refused, or all slots are in use.
    pub async fn ensure_slot(&self, name: &str) -> Result<(), SqlError> {
        let name = postgres_protocol::escape::escape_literal(name);
        let text = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                 WHERE slot_name = {name} AND wal_status = 'lost' AND active_pid IS NULL; \
             SELECT pg_create_physical_replication_slot({name}, true) \
             WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {name})"
        );
        self.batch_alone("create the standby's replication slot", &text, SMALL).await
    }

    /// Drops the slot if it exists. Its walsender is ended first.
    ///
    /// # Errors
    /// Postgres refused.
    pub async fn drop_slot(&self, name: &str) -> Result<(), SqlError> {
        let name = postgres_protocol::escape::escape_literal(name);
        let text = format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
                 WHERE slot_name = {name} AND active_pid IS NOT NULL; \
             SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                 WHERE slot_name = {name}"
        );
        self.batch_alone("drop a replication slot", &text, SMALL).await
    }

    /// When postgres read its configuration last, in its own words, and the parameters whose new value there needs a restart.
    ///
    /// # Errors
    /// Postgres refused.
    pub async fn pending_restart(&self) -> Result<(String, Vec<String>), SqlError> {
        // A new session has what the postmaster had when it was made: the signal may not have come yet.
        const TEXT: &str = "SELECT pg_conf_load_time()::text, ARRAY(SELECT name::text FROM pg_settings \
                            WHERE pending_restart ORDER BY name)";
        let action = "ask which parameters need a restart";
        let row = within(action, CONNECT, async { self.login.open(None).await?.query_one(TEXT, &[]).await });
        let row = row.await?;
        let told = row.try_get(0).and_then(|loaded| Ok((loaded, row.try_get(1)?)));
        told.map_err(|source| SqlError::Postgres { action, source })
    }

    /// Over a new connection, which the postmaster has to make a backend for: end of what of the log is on disk, and, if a
    /// session waits for more to get there, the end of what was inserted. Both `None` in recovery.
    ///
    /// # Errors
    /// Postgres refused.
    pub async fn positions(&self) -> Result<(Option<Lsn>, Option<Lsn>), SqlError> {
        const TEXT: &str = include_str!("sql/positions.sql");
        let action = "ask for the positions in the log";
        let row = within(action, CONNECT, async { self.login.open(None).await?.query_one(TEXT, &[]).await })
            .await?;
        let lsn = |i: usize| -> Result<Option<Lsn>, SqlError> {
            let text: Option<String> =
                row.try_get(i).map_err(|source| SqlError::Postgres { action, source })?;
            text.map(|t| t.parse().map_err(|_| SqlError::Answer { action, text: t })).transpose()
        };
        Ok((lsn(0)?, lsn(1)?))
    }

    /// Opens a new session with `database`, or the default one, for the agent's own statements.
    ///
    /// # Errors
    /// Postgres does not accept connections.
    pub async fn session(&self, database: Option<&str>) -> Result<Client, SqlError> {
        within(CONNECTING, CONNECT, self.login.open(database)).await
    }

    /// Opens a new session with `database` for the statements of a person, who gets the settings of a person.
    ///
    /// # Errors
    /// Postgres does not accept connections.
    pub async fn session_for_person(&self, database: &str) -> Result<Client, SqlError> {
        within(CONNECTING, CONNECT, self.login.open_for_person(database)).await
    }

    /// Where it looks for libraries.
    ///
    /// # Errors
    /// Postgres refused.
    pub(crate) async fn library_path(&self) -> Result<LibraryPath, SqlError> {
        const TEXT: &str = "SELECT (SELECT setting FROM pg_config WHERE name = 'PKGLIBDIR'), \
                            current_setting('dynamic_library_path')";
        let query = async {
            let row = self.login.open(None).await?.query_one(TEXT, &[]).await?;
            Ok(LibraryPath { own: row.try_get::<_, String>(0)?.into(), search: row.try_get(1)? })
        };
        within("ask where libraries are", SMALL, query).await
    }

    /// Closes the connection that is kept; the next look opens another.
    pub async fn forget(&self) {
        self.open.lock().await.connection = None;
    }

    /// How the agent logs in.
    #[must_use]
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Statements in a session of their own: a slow one must not hold up [`Sql::observe`].
    pub(crate) async fn batch_alone(
        &self,
        action: &'static str,
        text: &str,
        limit: Duration,
    ) -> Result<(), SqlError> {
        within(action, limit, async {
            let client = self.login.open(None).await?;
            client.batch_execute(text).await
        })
        .await
    }
}

/// Runs one attempt under an outer limit: neither authentication nor a query has one of its own.
pub(crate) async fn within<T>(
    action: &'static str,
    limit: Duration,
    attempt: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, SqlError> {
    match tokio::time::timeout(limit, attempt).await {
        Ok(result) => result.map_err(|source| SqlError::Postgres { action, source }),
        Err(_) => Err(SqlError::Late { action, limit }),
    }
}
