//! Synchronous replication, switched while postgres runs, with proof.
//!
//! Backends obey a flag in shared memory that the *checkpointer* sets when it has read the configuration again.
//! `pg_stat_replication.sync_state` is the walsender's own view and proves nothing. So: a new session sees the new value
//! (the postmaster has signalled its children), a `CHECKPOINT` asked for after that has begun (the checkpointer has passed
//! the head of its loop, where it reads the configuration), and commits that end after the insert position read then wait.
//!
//! That it has begun shows in what the session waits for: first for the start of a checkpoint, then for its end (`CheckpointStart`,
//! `CheckpointDone`; PostgreSQL, `checkpointer.c`, `RequestCheckpoint`). Its end proves nothing more, and with a large buffer cache on
//! a slow volume it takes minutes.

use std::time::Duration;

use pgpair_core::ids::InstanceId;
use pgpair_core::lsn::Lsn;
use tokio_postgres::Client;

use crate::instance::env::InstanceEnv;
use crate::instance::fsx;
use crate::postgres::postmaster::{Postmaster, PostmasterError, configure};
use crate::postgres::render;
use crate::postgres::sql::{Sql, SqlError, within};

const POLL: Duration = Duration::from_millis(5);
const QUERY: Duration = Duration::from_secs(5);

/// Makes commits wait for `standby`, or for nobody. `Some`: the insert position after which every commit waits; when the
/// standby has flushed it, everything acknowledged so far is there too.
///
/// # Errors
/// No proof within `limit`; commits may or may not wait then.
pub async fn set_sync(
    settings: &InstanceEnv,
    postmaster: &Postmaster,
    sql: &Sql,
    standby: Option<InstanceId>,
    limit: Duration,
) -> Result<Option<Lsn>, PostmasterError> {
    let path = settings.layout.in_pgdata(render::SYNC_CONF);
    fsx::write(&path, render::sync_conf(standby, postmaster.slot_copies())?.as_bytes(), 0o600)?;
    // What ALTER SYSTEM has written would win over it.
    if configure::put_back_promises(settings, postmaster)?.is_empty() {
        postmaster.reload()?;
    }
    let want = render::sync_names(standby);
    let proof = async {
        let client = session_that_sees(sql, &want).await?;
        if standby.is_none() {
            return Ok::<_, SqlError>(None);
        }
        checkpoint_begins(sql, &client).await?;
        let from = insert_lsn(&client).await?;
        // Nobody commits on an idle server, so nothing would flush the end of the log, and the standby could not confirm it, until
        // the background writer does so: up to a minute.
        sql.flush_probe(QUERY).await?;
        Ok(Some(from))
    };
    let awaited = "switching synchronous commit";
    tokio::select! {
        result = tokio::time::timeout(limit, proof) => match result {
            Ok(lsn) => Ok(lsn?),
            Err(_) => Err(PostmasterError::Late { awaited, limit, last: None }),
        },
        how = postmaster.exited() => Err(PostmasterError::Exited { awaited, how }),
    }
}

/// A session that was started with the new configuration. The caller bounds the time.
async fn session_that_sees(sql: &Sql, want: &str) -> Result<Client, SqlError> {
    loop {
        let client = sql.session(None).await?;
        let query = client.query_one("SELECT current_setting('synchronous_standby_names')", &[]);
        let row = within("read synchronous_standby_names", QUERY, query).await?;
        if row.get::<_, &str>(0) == want {
            return Ok(client);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Asks for a checkpoint and returns when it has begun. It goes on by itself. The caller bounds the time.
async fn checkpoint_begins(sql: &Sql, observer: &Client) -> Result<(), SqlError> {
    let action = "wait for the checkpointer";
    let asking = sql.session(None).await?;
    let pid: i32 = within(action, QUERY, asking.query_one("SELECT pg_backend_pid()", &[])).await?.get(0);
    let mut asked = tokio::spawn(async move {
        // The session lives as long as it waits.
        asking.batch_execute("SET statement_timeout = 0; CHECKPOINT").await
    });
    let waits_for = "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'CheckpointDone'";
    loop {
        tokio::select! {
            ended = &mut asked => match ended {
                Ok(done) => return done.map_err(|source| SqlError::Postgres { action, source }),
                Err(_) => std::future::pending().await, // the runtime ends
            },
            () = tokio::time::sleep(POLL) => {}
        }
        let waits = within(action, QUERY, observer.query_opt(waits_for, &[&pid])).await?;
        if waits.is_some() {
            return Ok(());
        }
    }
}

async fn insert_lsn(client: &Client) -> Result<Lsn, SqlError> {
    let action = "read the insert position";
    let query = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]);
    let text: String = within(action, QUERY, query).await?.get(0);
    text.parse().map_err(|_| SqlError::Answer { action, text })
}
