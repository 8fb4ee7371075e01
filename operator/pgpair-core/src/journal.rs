//! The journal of decisions: every event that the state machine took, so that it can be played again elsewhere and comes
//! to the same decisions. One [`Line`] is one line of JSON; the agent writes them, `pgpair explain` reads them.
//!
//! Only what changes nothing and asks for nothing is left out, and that by comparison of the state before and after.

pub mod replay;
pub mod shorthand;
#[cfg(test)]
mod tests;
mod words;

use serde::{Deserialize, Serialize};

use crate::authority::timing::Ms;
use crate::authority::{Authority, Event};
use shorthand::Short;

/// Form of the lines; a reader understands this one only.
pub const FORMAT: u32 = 3;

/// The rules that took the decisions: another version may decide otherwise.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Line {
    /// The whole state: each file begins with one, and so does what follows a gap.
    #[serde(rename = "snapshot")]
    Snapshot(Box<Snapshot>),
    /// An event, when it was taken, and the Unix time in milliseconds, which is for people only.
    #[serde(rename = "e")]
    Event(Ms, i64, Event),
    /// The same for one that is like the last of its kind since the last snapshot.
    #[serde(rename = "s")]
    Short(Ms, i64, Short),
}

/// The state of one agent process at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`FORMAT`] of the lines that follow.
    pub journal: u32,
    /// [`VERSION`] of the agent.
    pub pgpair: String,
    /// When.
    pub at: Ms,
    /// The same in Unix milliseconds.
    pub unix_ms: i64,
    /// How many events this agent process has told the journal before, lost ones included.
    pub number: u64,
    /// How many of them, the last ones, are in no file: the disk did not keep up.
    pub lost: u64,
    /// The state, with the incarnation and the settings.
    pub authority: Authority,
}

/// As much of a [`Snapshot`] as any version can read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Origin {
    /// Form of the lines.
    pub journal: u32,
    /// Version of the agent.
    pub pgpair: String,
}

/// The first line of a journal of whatever version.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub enum FirstLine {
    /// Always this.
    #[serde(rename = "snapshot")]
    Snapshot(Origin),
}

impl Origin {
    /// Whether the rules here are those that wrote it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.journal == FORMAT && self.pgpair == VERSION
    }
}
