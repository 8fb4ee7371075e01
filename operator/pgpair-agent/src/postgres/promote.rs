//! Promotion by the trigger file. The caller has won the record.

use std::convert::Infallible;
use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use pgpair_core::timeline::TimelineId;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::fence::clock;
use crate::instance::env::InstanceEnv;
use crate::instance::fsx::{self, Context, FileError};
use crate::instance::layout::Layout;
use crate::postgres::control_file::{ControlData, control_data};
use crate::postgres::pgdata::PgDataError;
use crate::postgres::postmaster::{Postmaster, PostmasterError};
use crate::postgres::render::{self, decoding::SlotCopies};
use crate::postgres::slots;
use crate::postgres::sql::{Sql, SqlError};
use crate::postgres::tool::PgBin;

/// Content of a trigger file of ours: a person's is empty, or says something else.
const OURS: &[u8] = b"pgpair: a promotion is under way\n";
const POLL: Duration = Duration::from_millis(5);
/// How long a walreceiver is given to go by itself.
const RECEIVER_GOES: Duration = Duration::from_millis(100);
/// After this promotion goes on: what still streams is harmless once the record is won.
const RECEIVER_GONE: Duration = Duration::from_millis(500);
/// For one of the files that a promotion begins with. The next try writes all of them again.
const VOLUME: Duration = Duration::from_secs(10);
/// An end of recovery that takes as long may wait for queries; the same before they are looked for again.
const CONFLICT: Duration = Duration::from_millis(200);

/// A promotion that did not come to its end. The data directory may be promoted all the same: ask it.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// The trigger file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The postmaster.
    #[error(transparent)]
    Postmaster(#[from] PostmasterError),
    /// The confirming write.
    #[error("promoted, but not confirmed: {0}")]
    Unconfirmed(#[source] SqlError),
    /// A volume does not answer. Nothing is promoted without what it was to take.
    #[error("the volume has not taken {file} within {limit:?}")]
    Volume {
        /// What was written.
        file: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// Recovery did not end.
    #[error("recovery did not end within {limit:?}{}", last.as_ref().map(|e| format!(" (last: {e})")).unwrap_or_default())]
    Late {
        /// The time it had.
        limit: Duration,
        /// Last failure seen.
        last: Option<String>,
    },
}

/// When each step was done. Durations count from the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promotion {
    /// Unix milliseconds at which the trigger file was durable.
    pub trigger_file_at_ms: i64,
    /// Unix milliseconds at which a write was flushed.
    pub promoted_at_ms: i64,
    /// The walreceiver was gone.
    pub receiver_stopped: Duration,
    /// The trigger file existed.
    pub triggered: Duration,
    /// `pg_is_in_recovery()` was false.
    pub out_of_recovery: Duration,
    /// A write was flushed.
    pub confirmed: Duration,
}

/// Stops the walreceiver, creates the trigger file, acts on it, and waits until a write was flushed. Run
/// [`Sql::checkpoint`] in the background afterwards: before PostgreSQL 16 `pg_rewind` reads the timeline of its source from the
/// control file, where only a checkpoint puts it.
///
/// # Errors
/// Not confirmed within `limit`.
pub async fn promote(
    settings: &InstanceEnv,
    postmaster: &Postmaster,
    sql: &Sql,
    limit: Duration,
) -> Result<Promotion, PromoteError> {
    let promoted = take_steps(settings, postmaster, sql, limit).await;
    if promoted.is_err() {
        // The next attempt makes them anew; until then a standby asks its peer for WAL again.
        fsx::remove(&settings.layout.trigger())?;
        fsx::remove(&settings.layout.alone())?;
    }
    promoted
}

async fn take_steps(
    settings: &InstanceEnv,
    postmaster: &Postmaster,
    sql: &Sql,
    limit: Duration,
) -> Result<Promotion, PromoteError> {
    let begin = Instant::now();
    let layout = &settings.layout;
    // A restore_command that waits for a dead peer would hold up the end of recovery, once for each file it is asked for.
    fsx::write(&layout.alone(), b"", 0o600)?;
    let (stopped, marked) = tokio::join!(stop_receiver(layout, postmaster, sql), mark(layout, sql));
    stopped?;
    marked?;
    let receiver_stopped = begin.elapsed();
    fsx::write(&layout.trigger(), OURS, 0o600)?;
    let (triggered, trigger_file_at_ms) = (begin.elapsed(), clock::unix_ms());
    // Not like the files before: one that appears later would promote at a time that nobody has chosen.
    fsx::write_new(&layout.in_pgdata("promote"), b"", 0o600)?;
    postmaster.signal(Signal::USR1)?;
    wait_out_of_recovery(postmaster, sql, limit.saturating_sub(begin.elapsed())).await?;
    let out_of_recovery = begin.elapsed();
    let left = limit.saturating_sub(begin.elapsed()).max(POLL);
    sql.flush_probe(left).await.map_err(PromoteError::Unconfirmed)?;
    let (confirmed, promoted_at_ms) = (begin.elapsed(), clock::unix_ms());
    fsx::remove(&layout.trigger())?;
    // Not durable before something else is: what is left of it is settled by the control file.
    fsx::remove(&layout.promoting_json())?;
    Ok(Promotion {
        trigger_file_at_ms,
        promoted_at_ms,
        receiver_stopped,
        triggered,
        out_of_recovery,
        confirmed,
    })
}

/// What a promotion was begun from. It lies beside the data directory from before the trigger file exists until the promotion is confirmed.
///
/// PostgreSQL promotes in steps: it removes `standby.signal`, then writes the history of the new timeline, and at last the record and the control
/// file that begin it (`StartupXLOG`, `xlog.c`). Whoever starts a directory that was left between the first and the last step gets a primary
/// that goes on writing the *old* timeline, which another server may have written too.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    /// The timeline that was followed.
    from: TimelineId,
}

/// What has become of a promotion that this directory was left in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// None was under way.
    None,
    /// It has come to its end: the new timeline is in the control file.
    Done,
    /// It had not, and is a standby again, to be promoted once more: PostgreSQL takes the next number for that.
    Undone,
}

/// Looks what has become of a promotion that was under way when postgres died. Call this before a directory is started as a primary.
///
/// # Errors
/// It cannot be told; the directory must not be started then.
pub async fn settle(layout: &Layout, bin: &PgBin) -> Result<Settled, PgDataError> {
    let Some(mark) = fsx::read_json::<Mark>(&layout.promoting_json())? else { return Ok(Settled::None) };
    let signal = layout.in_pgdata("standby.signal");
    if !signal.exists() && control_data(bin, &layout.pgdata()).await?.newest_timeline() > mark.from {
        fsx::remove(&layout.promoting_json())?;
        return Ok(Settled::Done);
    }
    fsx::write(&signal, b"", 0o600)?;
    Ok(Settled::Undone)
}

/// The timeline that was followed by a directory that was left in the middle of a promotion: between the removal of `standby.signal` and the control
/// file of the new timeline. Nothing of the new timeline was acknowledged then. `None`: it was not left there, or that is not known.
///
/// # Errors
/// The mark of the promotion cannot be read.
pub fn cut_off_from(layout: &Layout, control: &ControlData) -> Result<Option<TimelineId>, FileError> {
    let mark = fsx::read_json::<Mark>(&layout.promoting_json())?;
    let between = !layout.in_pgdata("standby.signal").exists();
    Ok(mark.map(|mark| mark.from).filter(|from| between && control.newest_timeline() <= *from))
}

/// A file that is written in a thread of its own, for as long as a promotion waits for a volume.
async fn put(
    file: &'static str,
    write: impl FnOnce() -> Result<(), FileError> + Send + 'static,
) -> Result<(), PromoteError> {
    let written = fsx::within(VOLUME, write).await;
    Ok(written.ok_or(PromoteError::Volume { file, limit: VOLUME })??)
}

async fn mark(layout: &Layout, sql: &Sql) -> Result<(), PromoteError> {
    // One that does not answer can be promoted all the same, and then only its death in these few milliseconds is not noticed.
    let Some(from) = sql.observe().await.ok().and_then(|facts| facts.timeline) else { return Ok(()) };
    let path = layout.promoting_json();
    put("the mark of a promotion", move || fsx::write_json(&path, &Mark { from })).await
}

/// Whether a person has created the trigger file; it is removed. An order to fail over, nothing more: call this only while
/// no promotion of ours is under way. One of ours, left by an agent that was killed, is nobody's order.
///
/// # Errors
/// The file cannot be read or removed.
pub fn take_request(layout: &Layout) -> Result<bool, FileError> {
    let path = layout.trigger();
    let content = match fs::read(&path) {
        Ok(content) => content,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).at("read", &path),
    };
    Ok(fsx::remove(&path)? && content != OURS)
}

async fn stop_receiver(layout: &Layout, postmaster: &Postmaster, sql: &Sql) -> Result<(), PromoteError> {
    // It reads there also that slots are copied no more.
    let conf = layout.in_pgdata(render::UPSTREAM_CONF);
    put("the settings of a standby", move || fsx::write(&conf, render::no_upstream_conf().as_bytes(), 0o600))
        .await?;
    postmaster.reload()?;
    tokio::join!(end_receiver(sql), end_copying(postmaster, sql));
    Ok(())
}

/// The process that copies slots waits for its primary, and the end of recovery waits for it.
async fn end_copying(postmaster: &Postmaster, sql: &Sql) {
    if postmaster.slot_copies() == SlotCopies::Kept
        && let Err(e) = slots::end_copying(sql).await
    {
        tracing::debug!(error = %e, "the process that copies slots cannot be ended");
    }
}

async fn end_receiver(sql: &Sql) {
    let begin = Instant::now();
    while begin.elapsed() < RECEIVER_GONE {
        // A failed look is no reason to stay a standby.
        let Ok(facts) = sql.observe().await else { break };
        let Some(receiver) = facts.receiver else { break };
        if begin.elapsed() >= RECEIVER_GOES
            && let Some(pid) = Pid::from_raw(receiver.pid)
        {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn wait_out_of_recovery(
    postmaster: &Postmaster,
    sql: &Sql,
    limit: Duration,
) -> Result<(), PromoteError> {
    let mut last = None;
    let poll = async {
        loop {
            match sql.observe().await {
                Ok(facts) if !facts.in_recovery => return,
                Ok(_) => {}
                Err(e) => last = Some(e.to_string()),
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::select! {
        () = poll => Ok(()),
        never = end_conflicts(postmaster, sql) => match never {},
        how = postmaster.exited() => Err(PostmasterError::Exited { awaited: "it was promoted", how }.into()),
        () = tokio::time::sleep(limit) => Err(PromoteError::Late { limit, last }),
    }
}

/// Ends the queries for which the end of recovery waits, for ever. Another value of `max_standby_streaming_delay` would not reach a replay
/// that waits already.
async fn end_conflicts(postmaster: &Postmaster, sql: &Sql) -> Infallible {
    loop {
        tokio::time::sleep(CONFLICT).await;
        end_copying(postmaster, sql).await;
        match sql.end_conflicts().await {
            Ok(0) => {}
            Ok(sessions) => tracing::warn!(sessions, "ended the sessions for which the promotion waited"),
            Err(e) => tracing::debug!(error = %e, "queries that may hold the promotion up cannot be ended"),
        }
    }
}
