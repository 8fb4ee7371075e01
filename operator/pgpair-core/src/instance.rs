//! What an instance is in a term, and what its postgres does.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

/// Role of an instance in a term.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
pub enum Role {
    /// Named by the record.
    Primary,
    /// The other one.
    Standby,
    /// The record has not been seen yet.
    Unknown,
}

/// State of the postmaster of one instance.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
pub enum PostgresState {
    /// No process holds the volume's lock.
    Down,
    /// Started, not yet accepting connections.
    Starting,
    /// In recovery, accepting connections.
    Standby,
    /// In recovery, told to leave it.
    Promoting,
    /// Out of recovery: a write was flushed.
    Primary,
}
