//! What the objects of a backup hold.

use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineId;
use serde::{Deserialize, Serialize};

use crate::digest::Measure;
use crate::ids::PartNumber;

/// An object: what was compressed, and what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Before compression.
    pub plain: Measure,
    /// As it lies in the place.
    pub stored: Measure,
}

/// What a whole backup consists of, and which WAL it needs.
///
/// # Guarantee
/// It comes from [`crate::cut::Cutter::finish`], which has seen the tar and its manifest to their ends, or from an entry that was made from
/// one. Nothing else makes it, so no entry can be made of a stream that was cut short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    pub(crate) parts: Vec<Object>,
    pub(crate) manifest: Object,
    pub(crate) start: Lsn,
    pub(crate) start_timeline: TimelineId,
    pub(crate) stop: Lsn,
    pub(crate) stop_timeline: TimelineId,
}

/// Contents that contradict themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// No part.
    #[error("the backup has no part")]
    NoPart,
    /// More parts than have names.
    #[error("the backup has more than {} parts", PartNumber::LAST.get())]
    TooManyParts,
    /// The stop is not after the start.
    #[error("the backup stops at {stop}, and starts at {start}")]
    Positions {
        /// Where its WAL starts.
        start: Lsn,
        /// Where it stops.
        stop: Lsn,
    },
    /// The stop is on an older timeline than the start.
    #[error("the backup starts on timeline {start} and stops on {stop}")]
    Timelines {
        /// On which its WAL starts.
        start: TimelineId,
        /// On which it stops.
        stop: TimelineId,
    },
}

impl Contents {
    /// The parts of the tar, in order: the first is [`PartNumber::FIRST`].
    #[must_use]
    pub fn parts(&self) -> &[Object] {
        &self.parts
    }

    /// PostgreSQL's manifest.
    #[must_use]
    pub fn manifest(&self) -> Object {
        self.manifest
    }

    /// The first byte of WAL that a restore needs.
    #[must_use]
    pub fn start(&self) -> (TimelineId, Lsn) {
        (self.start_timeline, self.start)
    }

    /// Behind the last byte of WAL that a restore needs.
    #[must_use]
    pub fn stop(&self) -> (TimelineId, Lsn) {
        (self.stop_timeline, self.stop)
    }

    /// Bytes that the objects take in a place.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let parts = self.parts.iter().map(|part| part.stored.bytes);
        parts.fold(self.manifest.stored.bytes, u64::saturating_add)
    }

    /// # Errors
    /// What contradicts what.
    pub(crate) fn check(&self) -> Result<(), Contradiction> {
        if self.parts.is_empty() {
            return Err(Contradiction::NoPart);
        }
        if self.parts.len() > PartNumber::LAST.get() as usize {
            return Err(Contradiction::TooManyParts);
        }
        if self.stop <= self.start {
            return Err(Contradiction::Positions { start: self.start, stop: self.stop });
        }
        if self.stop_timeline < self.start_timeline {
            return Err(Contradiction::Timelines { start: self.start_timeline, stop: self.stop_timeline });
        }
        Ok(())
    }
}
