//! What agents tell each other about write-ahead log.

use pgpair_core::ids::Term;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineHistory;
use serde::{Deserialize, Serialize};

/// What a primary tells about its past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimaryHistory {
    /// Its timeline and the ancestors of it.
    pub history: TimelineHistory,
    /// What it has flushed on it.
    pub flush: Lsn,
}

/// What a rejoining instance compares its own log with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimaryTimeline {
    /// Term in which the answering instance is primary, with its promotion confirmed.
    pub term: Term,
    /// Its timeline, where that comes from, and how far it is written.
    pub past: PrimaryHistory,
    /// Whether it has the segment that was asked for, in `pg_wal` or in its archive; `None`: not asked for, or not known.
    #[serde(default)]
    pub has_needed: Option<bool>,
    /// Where the oldest log that it has begins; `None` as above.
    #[serde(default)]
    pub oldest: Option<Lsn>,
}

/// What of the log an instance needs to start again: answer to `GET` [`crate::paths::NEEDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalNeeds {
    /// Where its next recovery begins.
    pub redo: Lsn,
}

/// A file of an archive: answer to `GET` [`crate::paths::WAL`] is a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedFile {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}
