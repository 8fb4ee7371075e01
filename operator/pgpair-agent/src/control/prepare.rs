//! What is done before an order that stops the primary is judged: a checkpoint, so that the stop is short, and, before a
//! switchover, a look at replay, so that the promotion is.

use std::time::Duration;

use pgpair_core::order::{OrderKind, OrderRefusal};
use pgpair_wire::order::CHECKPOINT;

use crate::postgres::sql::{Sql, SqlSnapshot};

/// The standby may have so much left to replay when it is promoted: it takes about a second.
const LEFT: u64 = 64 << 20;
/// How often the standby's replay is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Returns when the primary may stop for an order of this kind; a checkpoint that does not end in time holds up nothing.
///
/// # Errors
/// A planned promotion would take long.
pub(super) async fn prepare_stop(kind: OrderKind, sql: &Sql) -> Result<(), OrderRefusal> {
    let checkpoint = async {
        if let Err(e) = sql.checkpoint(CHECKPOINT).await {
            tracing::warn!(error = %e, "no checkpoint before the stop: it will take longer");
        }
    };
    let replay = async {
        if kind != OrderKind::Switchover {
            return Ok(());
        }
        tokio::time::timeout(CHECKPOINT, await_replay(sql)).await.map_err(|_| OrderRefusal::ReplayBehind)
    };
    tokio::join!(checkpoint, replay).1
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
