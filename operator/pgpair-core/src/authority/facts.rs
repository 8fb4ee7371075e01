//! What the protocol needs to know of the local postgres.

use serde::{Deserialize, Serialize};

use crate::authority::clause::Clause;
use crate::ids::{SystemIdentifier, VolumeId};
use crate::instance::PostgresState;
use crate::lsn::Lsn;
use crate::timeline::TimelineId;

/// What kind of data directory there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Directory {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// None, or an empty one.
    Empty,
    /// One with a standby signal: made writable only by promotion.
    Standby,
    /// One that starts as a primary.
    Primary,
    /// One that cannot be used as it is.
    Unusable,
}

/// State of synchronous replication as proven on the running primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum SyncState {
    /// Not known: treat as the worse of the two.
    #[default]
    Unknown,
    /// No commit waits.
    Off,
    /// Every commit waits for the standby; commits before `from` may not have.
    On {
        /// Insert position read after the checkpointer had applied the setting.
        from: Lsn,
        /// The wish that it was proven for: a proof for an earlier one is worth nothing.
        epoch: u32,
    },
}

/// All that the protocol needs to know of the local postgres. Positions that are not known are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PgFacts {
    /// `Down` only when no process holds the volume's lock.
    pub state: PostgresState,
    /// What lies in the data directory.
    pub directory: Directory,
    /// Its id.
    pub volume: Option<VolumeId>,
    /// Its system identifier.
    pub system_identifier: Option<SystemIdentifier>,
    /// Timeline that is written or received.
    pub timeline: Option<TimelineId>,
    /// Flushed (primary), or received and flushed (standby). For comparisons: [`PgFacts::position`].
    pub flush: Option<Lsn>,
    /// Received by the standby, as the same look at the primary shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby_write: Option<Lsn>,
    /// Replayed (standby).
    pub replay: Option<Lsn>,
    /// Whether a walreceiver streams (standby).
    pub streaming: bool,
    /// Timeline and end of the valid log of a stopped directory.
    pub end: Option<(TimelineId, Lsn)>,
    /// Synchronous replication (primary).
    pub sync: SyncState,
    /// Failed starts in a row.
    pub failed_starts: u32,
    /// A running primary has neither answered nor written for longer than it may.
    pub hung: bool,
}

impl PgFacts {
    /// The end of the WAL that this postgres has: see [`position`].
    #[must_use]
    pub fn position(&self) -> Option<Lsn> {
        position(self.flush, self.replay)
    }
}

/// The end of the WAL that a postgres has, from what it says that it has flushed (or received and flushed) and replayed.
///
/// A standby has the greater of the two. `pg_last_wal_receive_lsn()` begins with the start of a segment when the walreceiver
/// starts, and does not move before the primary writes again, although replay may have come further from `pg_wal` or the archive
/// (PostgreSQL, "Recovery Information Functions"; `RequestXLogStreaming` in `walreceiverfuncs.c`). Both positions lie on the
/// timeline that is received, or on one of its ancestors before the standby left it.
#[must_use]
pub fn position(flush: Option<Lsn>, replay: Option<Lsn>) -> Option<Lsn> {
    if Clause::HasReplayed.is_taken_away() { flush } else { flush.max(replay) }
}

impl Default for PgFacts {
    fn default() -> Self {
        PgFacts {
            state: PostgresState::Down,
            directory: Directory::Unknown,
            volume: None,
            system_identifier: None,
            timeline: None,
            flush: None,
            standby_write: None,
            replay: None,
            streaming: false,
            end: None,
            sync: SyncState::Unknown,
            failed_starts: 0,
            hung: false,
        }
    }
}
