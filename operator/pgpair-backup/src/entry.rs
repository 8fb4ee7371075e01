//! The entry of a backup: one small JSON file, written last. A backup without it does not exist.
//!
//! # Guarantees
//! - An entry is read only if it is that of the backup, the lineage and the system by whose name it was found.
//! - Fields that this version does not know are ignored. A version that would be misread without them has a higher `format`, and such an
//!   entry is [`Unreadable::NewerFormat`]: known to be there, and not understood.
//! - An entry that cannot be read is never taken for one that is not there. Whether the pages are whole is a field that must be there:
//!   its absence is not "sound".
//! - At most [`MOST_BYTES`] are read.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use jiff::Timestamp;
use pgpair_core::ids::{Lineage, SystemIdentifier, Term};
use pgpair_core::instance::Role;
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_core::wal::SegmentSize;
use serde::{Deserialize, Serialize};

use crate::contents::{Contents, Contradiction};
use crate::ids::{Attempt, BackupId};
use crate::layout::Home;
use crate::window::Base;

/// What this version writes, and the highest that it understands.
pub const FORMAT: u32 = 1;
/// Room for 25,000 parts, each of which takes about 300 bytes of JSON: 25 TB compressed, with parts of 1 GiB.
pub const MOST_BYTES: usize = 8 << 20;

/// One backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// Which backup.
    pub id: BackupId,
    /// Which attempt at it succeeded: the directory of the objects.
    pub attempt: Attempt,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// Whose past it belongs to.
    pub lineage: Lineage,
    /// Bytes of a WAL segment.
    pub segment_size: u64,
    /// The programs that took part.
    pub versions: Versions,
    /// Full, or on top of another.
    pub kind: Kind,
    /// The history of the timeline on which it stopped.
    pub history: TimelineHistory,
    /// When it began, by the source's clock.
    pub started_at: Timestamp,
    /// When it ended, by the source's clock.
    pub stopped_at: Timestamp,
    /// From whom.
    pub source: Source,
    /// What was found of the pages.
    pub pages: Pages,
    /// Whether the cluster has page checksums; `None`: not known.
    #[serde(default)]
    pub page_checksums: Option<bool>,
    /// Parameters that a recovery has to have at least as high, such as `max_connections`.
    #[serde(default)]
    pub floors: BTreeMap<String, u64>,
    /// The objects.
    pub contents: Contents,
}

/// The programs that took part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// `server_version_num`.
    pub server: u32,
    /// Of the C library, on which the order of text indexes depends; `None`: not known.
    #[serde(default)]
    pub c_library: Option<String>,
    /// Of the program that wrote the entry.
    pub writer: String,
}

/// What a restore needs beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Kind {
    /// Nothing.
    Full,
    /// Another backup, and what that needs.
    Incremental {
        /// The backup on which it is based.
        parent: BackupId,
    },
}

/// The instance that was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Term of the pair.
    pub term: Term,
    /// What the instance was, from beginning to end.
    pub role: Role,
}

/// What the server found when it checked the pages that it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Pages {
    /// No page failed its checksum; or there are no checksums, see [`Entry::page_checksums`].
    Sound,
    /// Some pages failed. Such a backup is kept for what it holds, and never counts as restorable.
    Damaged {
        /// How many; `None`: not known.
        #[serde(default)]
        pages: Option<NonZeroU64>,
    },
}

/// Why an entry cannot be read. The backup is kept, because it is not known what it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not read at all.
    #[error("the entry has {0} bytes, more than {MOST_BYTES}")]
    TooLarge(usize),
    /// No JSON, or not that of an entry.
    #[error("the file is not an entry: {0}")]
    Malformed(String),
    /// Of a later version of this program.
    #[error("the entry has format {0}; this version understands up to {FORMAT}")]
    NewerFormat(u32),
    /// It says that it belongs elsewhere.
    #[error("the {0} in the entry is not that of the place where the entry lies")]
    Elsewhere(Belonging),
    /// A field contradicts another.
    #[error(transparent)]
    Contents(#[from] Contradiction),
    /// The history does not lead to the stop.
    #[error("the entry has the history of timeline {history}, and the backup stopped on timeline {stop}")]
    History {
        /// The timeline of the history.
        history: TimelineId,
        /// Where the backup stopped.
        stop: TimelineId,
    },
    /// Its numbers do not grow.
    #[error("the timelines in the history of the entry do not grow")]
    HistoryDoesNotGrow,
    /// It is based on itself.
    #[error("the backup is its own parent")]
    OwnParent,
    /// It could not be fetched.
    #[error("the entry cannot be fetched: {0}")]
    Unreachable(String),
}

/// What an entry says of where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Belonging {
    /// Id of the backup.
    Id,
    /// Lineage.
    Lineage,
    /// System identifier.
    #[strum(serialize = "system identifier")]
    System,
    /// Size of segments.
    #[strum(serialize = "segment size")]
    SegmentSize,
}

/// What a backup is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It ended well.
    Sound,
    /// It has pages that fail their checksum.
    Damaged {
        /// How many; `None`: not known.
        pages: Option<NonZeroU64>,
    },
    /// It is there, and is not understood.
    Unreadable(Unreadable),
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl Entry {
    /// Reads the entry of backup `id` of a lineage.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn read(home: Home, id: BackupId, json: &[u8]) -> Result<Entry, Unreadable> {
        if json.len() > MOST_BYTES {
            return Err(Unreadable::TooLarge(json.len()));
        }
        let malformed = |e: serde_json::Error| Unreadable::Malformed(e.to_string());
        let head: Head = serde_json::from_slice(json).map_err(malformed)?;
        if head.format > FORMAT {
            return Err(Unreadable::NewerFormat(head.format));
        }
        let entry: Entry = serde_json::from_slice(json).map_err(malformed)?;
        entry.check(home, id)?;
        Ok(entry)
    }

    /// As it is stored.
    ///
    /// # Errors
    /// It could not be read again.
    pub fn write(&self, home: Home) -> Result<Vec<u8>, Unreadable> {
        self.check(home, self.id)?;
        let mut json = serde_json::to_vec_pretty(self).map_err(|e| Unreadable::Malformed(e.to_string()))?;
        json.push(b'\n');
        if json.len() > MOST_BYTES { Err(Unreadable::TooLarge(json.len())) } else { Ok(json) }
    }

    fn check(&self, home: Home, id: BackupId) -> Result<(), Unreadable> {
        let belongs = [
            (self.id == id, Belonging::Id),
            (self.lineage == home.lineage, Belonging::Lineage),
            (self.system_identifier == home.system, Belonging::System),
            (SegmentSize::new(self.segment_size) == Some(home.segment_size), Belonging::SegmentSize),
        ];
        if let Some((_, what)) = belongs.iter().find(|(same, _)| !same) {
            return Err(Unreadable::Elsewhere(*what));
        }
        self.contents.check()?;
        let (stop, _) = self.contents.stop();
        if self.history.timeline != stop {
            return Err(Unreadable::History { history: self.history.timeline, stop });
        }
        let ancestors = &self.history.ancestors;
        let grows = ancestors.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1)
            && ancestors.last().is_none_or(|(t, _)| *t < self.history.timeline);
        if !grows {
            return Err(Unreadable::HistoryDoesNotGrow);
        }
        if self.parent() == Some(self.id) {
            return Err(Unreadable::OwnParent);
        }
        Ok(())
    }

    /// The backup on which it is based.
    #[must_use]
    pub fn parent(&self) -> Option<BackupId> {
        match self.kind {
            Kind::Full => None,
            Kind::Incremental { parent } => Some(parent),
        }
    }

    /// Whether its pages are whole.
    #[must_use]
    pub fn state(&self) -> State {
        match self.pages {
            Pages::Sound => State::Sound,
            Pages::Damaged { pages } => State::Damaged { pages },
        }
    }

    /// As a beginning of recoveries. Whether it can be restored is for the caller to know.
    #[must_use]
    pub fn base(&self) -> Base {
        let (timeline, stop) = self.contents.stop();
        Base { id: self.id, lineage: self.lineage, timeline, stop, stopped_at: self.stopped_at }
    }
}

#[cfg(test)]
pub(crate) mod tests;
