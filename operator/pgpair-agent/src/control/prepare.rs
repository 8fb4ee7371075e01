//! What is done before an order that stops the primary is judged: checkpoints, so that the stop is short, and, before a
//! switchover, a look at replay, so that the promotion is. The primary serves meanwhile.

use std::time::{Duration, Instant};

use pgpair_core::order::{OrderKind, OrderRefusal};
use pgpair_wire::order::CHECKPOINT;

use crate::postgres::sql::{Sql, SqlSnapshot};

/// The standby may have so much left to replay when it is promoted: it takes about a second.
const LEFT: u64 = 64 << 20;
/// How often the standby's replay is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Longest wait for the standby's replay.
const REPLAY: Duration = Duration::from_secs(30);
/// The same for the checkpoint before a restart: whoever orders one may have a reason not to wait.
const RESTART: Duration = Duration::from_secs(120);
/// What gets dirty while a long checkpoint is written is left to the next one. After one that was as short as this a fast shutdown, which
/// writes one more, ends before it is ended by force.
const SHORT: Duration = Duration::from_secs(3);
/// Checkpoints until one is short.
const ROUNDS: u32 = 5;

/// Returns when the primary may stop for an order of this kind.
///
/// # Errors
/// Nobody would serve for long: a planned promotion would have much to replay, or the stop much to write.
pub(super) async fn prepare_stop(kind: OrderKind, sql: &Sql) -> Result<(), OrderRefusal> {
    if kind != OrderKind::Switchover {
        write_buffers(sql, RESTART).await;
        return Ok(());
    }
    if !write_buffers(sql, CHECKPOINT).await {
        return Err(OrderRefusal::TimedOut);
    }
    tokio::time::timeout(REPLAY, await_replay(sql)).await.map_err(|_| OrderRefusal::ReplayBehind)
}

/// Whether a stop has little left to write. A postgres that cannot be asked is not waited for: an order may be what helps it.
async fn write_buffers(sql: &Sql, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let done = sql.checkpoint(end.saturating_duration_since(begun)).await;
        let is_late = Instant::now() >= end;
        if let Err(e) = done {
            tracing::warn!(error = %e, "no checkpoint before the stop");
            return !is_late;
        }
        if begun.elapsed() <= SHORT {
            return true;
        }
        if is_late {
            break;
        }
    }
    tracing::warn!("no checkpoint was short enough: a stop would take long");
    false
}

/// Whether there is a standby that lacks nothing else is the state machine's to judge.
async fn await_replay(sql: &Sql) {
    while let Ok(seen) = sql.observe().await
        && left_to_replay(&seen).is_some_and(|left| left > LEFT)
    {
        tokio::time::sleep(LOOK).await;
    }
}

/// Bytes of the log that the standby has not replayed, whether it has received them or not.
fn left_to_replay(seen: &SqlSnapshot) -> Option<u64> {
    Some(seen.flush_lsn?.bytes_since(seen.peer.as_ref()?.replay?))
}
