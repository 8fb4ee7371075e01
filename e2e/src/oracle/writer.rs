//! The client: one number after another, and a new connection as soon as the old one is in doubt.
//!
//! Flow: connect; ask who answers, and refuse a server in recovery; then a number every interval until an error or a
//! time-out; then connect again, and go on with a **new** number.
//! Guarantee: an [`Event::Ack`] is emitted only for a commit that the server acknowledged on the connection whose server
//! it names. Every wait has an end.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use pgpair_core::lsn::Lsn;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Client, Config, Statement};

use crate::oracle::event::{Ack, Event, Reign};
use crate::oracle::tls::Tls;

/// Limits of one writer; the defaults are those of the tests.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Between two numbers.
    pub interval: Duration,
    /// For the connection and the question who answers.
    pub connect: Duration,
    /// For one number.
    pub statement: Duration,
    /// Between two attempts to connect.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            interval: Duration::from_millis(20),
            connect: Duration::from_millis(300),
            statement: Duration::from_secs(1),
            retry: Duration::from_millis(20),
        }
    }
}

/// One writer.
#[derive(Debug, Clone)]
pub struct Writer {
    /// Its name in rows and events.
    pub name: String,
    /// Where it connects to: any instance, or always the same one.
    pub config: Config,
    /// Its table.
    pub table: String,
    /// Its first number. Ranges of writers of one table must not meet.
    pub first: i64,
    /// Whether it creates the table.
    pub create: bool,
    /// Its limits.
    pub timing: Timing,
}

/// Microseconds since 1970 of the real-time clock.
#[must_use]
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Prints an event at once: what is not on its way when the machine dies would be an acknowledgement forgotten.
pub fn emit(event: &Event) {
    let mut out = std::io::stdout().lock();
    // Nobody is left to be told of a closed standard output.
    let _ = writeln!(out, "{}", event.to_line());
    let _ = out.flush();
}

struct Session {
    client: Client,
    insert: Statement,
    reign: Reign,
}

impl Writer {
    /// Writes for ever.
    ///
    /// # Errors
    /// Only for a table name that is none.
    pub async fn run(self, emit: impl Fn(&Event)) -> anyhow::Result<()> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        ensure!(
            !self.table.is_empty() && self.table.chars().all(plain),
            "table name {:?}: only a-z, 0-9 and _ may be used",
            self.table
        );
        emit(&Event::Start {
            writer: self.name.clone(),
            target: format!("{:?}:{:?}", self.config.get_hosts(), self.config.get_ports()),
            table: self.table.clone(),
            at_us: now_us(),
        });
        let mut n = self.first;
        let mut told = String::new();
        loop {
            match timeout(self.timing.connect, self.connect()).await {
                Ok(Ok(session)) => {
                    told.clear();
                    emit(&Event::Connected {
                        writer: self.name.clone(),
                        reign: session.reign.clone(),
                        at_us: now_us(),
                    });
                    n = self.write_until_doubt(&session, n, &emit).await;
                }
                Ok(Err(error)) => self.refused(format!("{error:#}"), &mut told, &emit),
                Err(_) => {
                    self.refused(format!("no session within {:?}", self.timing.connect), &mut told, &emit)
                }
            }
            sleep(self.timing.retry).await;
        }
    }

    fn refused(&self, error: String, told: &mut String, emit: &impl Fn(&Event)) {
        if *told != error {
            emit(&Event::Refused { writer: self.name.clone(), at_us: now_us(), error: error.clone() });
            *told = error;
        }
    }

    async fn connect(&self) -> anyhow::Result<Session> {
        let (client, connection) = self.config.connect(Tls::new()?).await.context("connecting")?;
        // It ends with the client, or with the server; its errors come back through the client's calls.
        tokio::spawn(connection);
        let reign = who(&client).await?;
        if self.create {
            self.create_table(&client).await?;
        }
        let sql = format!(
            "INSERT INTO {} (n, writer) VALUES ($1, $2) RETURNING pg_current_wal_insert_lsn()",
            self.table
        );
        let insert = client.prepare(&sql).await.context("preparing the insert")?;
        Ok(Session { client, insert, reign })
    }

    /// Asked first: "if not exists" alone would write a notice and take a lock at every connection.
    async fn create_table(&self, client: &Client) -> anyhow::Result<()> {
        let found = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&self.table]).await;
        if !found.context("looking for the table")?.try_get(0)? {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS {} (n bigint PRIMARY KEY, writer text NOT NULL, server text NOT NULL \
                 DEFAULT coalesce(host(inet_server_addr()), 'local'), at timestamptz NOT NULL DEFAULT clock_timestamp())",
                self.table
            );
            client.batch_execute(&sql).await.context("creating the table")?;
        }
        Ok(())
    }

    /// Returns the next number to use.
    async fn write_until_doubt(&self, session: &Session, mut n: i64, emit: &impl Fn(&Event)) -> i64 {
        let mut ticks = interval(self.timing.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let sent_us = now_us();
            let outcome =
                timeout(self.timing.statement, session.client.query_one(&session.insert, &[&n, &self.name]))
                    .await;
            let at_us = now_us();
            let error = match outcome {
                Ok(Ok(row)) => match row.try_get::<_, PgLsn>(0) {
                    Ok(lsn) => {
                        let reign = session.reign.clone();
                        emit(&Event::Ack(Ack {
                            n,
                            sent_us,
                            acked_us: at_us,
                            reign,
                            lsn: Lsn(u64::from(lsn)),
                        }));
                        n += 1;
                        continue;
                    }
                    Err(error) => error.to_string(),
                },
                Ok(Err(error)) => error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string),
                Err(_) => format!("no answer within {:?}", self.timing.statement),
            };
            emit(&Event::Unknown { n, sent_us, at_us, error });
            return n + 1;
        }
    }
}

/// Who answers. A server in recovery is refused: it cannot write.
async fn who(client: &Client) -> anyhow::Result<Reign> {
    // The name of the file being written begins with the timeline; pg_control_checkpoint() would still tell the old one
    // for a while after a promotion. In recovery the function is an error, so it must not be called.
    let row = client
        .query_one(
            "SELECT coalesce(host(inet_server_addr()), 'local'), coalesce(inet_server_port(), 0), CASE WHEN \
             pg_is_in_recovery() THEN NULL ELSE left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END",
            &[],
        )
        .await
        .context("asking who answers")?;
    let (address, port): (String, i32) = (row.try_get(0)?, row.try_get(1)?);
    let Some(timeline) = row.try_get::<_, Option<String>>(2)? else {
        bail!("{address}:{port} is in recovery");
    };
    let timeline = u32::from_str_radix(&timeline, 16).with_context(|| format!("timeline {timeline:?}"))?;
    Ok(Reign { timeline, server: format!("{address}:{port}") })
}
