//! What is known of the record: the newest version seen, and the writes whose outcome is not.

use serde::{Deserialize, Serialize};

use crate::authority::clause::Clause;
use crate::authority::timing::Ms;
use crate::record::{Record, RecordUid, Version, Versioned};

/// Number of a compare-and-set of this agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CasId(pub u64);

/// A compare-and-set that may still land.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OpenCas {
    /// Which one.
    pub id: CasId,
    /// Version it was sent with.
    pub expected: Version,
    /// What it writes.
    pub record: Record,
    /// When it was sent.
    pub sent: Ms,
    /// Whether its reply may still come.
    pub awaiting_reply: bool,
}

/// Outcome of a compare-and-set as its sender sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CasOutcome {
    /// It landed; the record now has this version.
    Won(Version),
    /// The record has another version than the one sent.
    Conflict,
    /// It never left: the connection was refused.
    NotSent,
    /// No reply, or an error that does not tell: it may have landed, or may land later.
    Unknown,
    /// The record does not exist.
    Missing,
}

/// Outcome of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReadOutcome {
    /// The record.
    Got(Versioned),
    /// No such record.
    Missing,
    /// What is there is no record, or contradicts itself.
    Malformed,
    /// No answer.
    Failed,
}

/// What this agent knows of the record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct View {
    pub(super) last: Option<Versioned>,
    /// The read that confirmed `last` was asked at this time.
    pub(super) asked: Ms,
    pub(super) open: Vec<OpenCas>,
    /// A conflict was seen with this version: whatever is not newer is outdated.
    pub(super) outdated: Option<Version>,
    /// The record is missing or has another uid than the one on disk.
    pub(super) foreign: bool,
    pub(super) reading: Option<Ms>,
    pub(super) read_tried: Option<Ms>,
}

impl View {
    /// The newest version seen, settled or not.
    #[must_use]
    pub fn last(&self) -> Option<&Versioned> {
        self.last.as_ref()
    }

    /// The record, if nothing of ours is open and nobody else is known to have changed it.
    #[must_use]
    pub fn settled(&self) -> Option<&Versioned> {
        let known = Clause::OpenIsUnknown.demands(!self.has_open());
        (known && self.outdated.is_none() && !self.foreign).then_some(self.last.as_ref()).flatten()
    }

    /// As [`View::settled`], and read by a request that was asked at `since` or later.
    #[must_use]
    pub fn settled_since(&self, since: Ms) -> Option<&Versioned> {
        self.settled().filter(|_| self.asked >= since)
    }

    /// Whether a compare-and-set of ours may still land.
    #[must_use]
    pub fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The open compare-and-sets.
    #[must_use]
    pub fn open(&self) -> &[OpenCas] {
        &self.open
    }

    /// Whether the record is missing or another than the one that this volume knows.
    #[must_use]
    pub fn foreign(&self) -> bool {
        self.foreign
    }

    /// Whether a read may be asked now: none under way, and the last one not just tried.
    #[must_use]
    pub fn may_read(&self, now: Ms, every: u64) -> bool {
        self.reading.is_none() && self.read_tried.is_none_or(|t| now - t >= every)
    }

    /// A read is asked at `now`.
    pub fn reading(&mut self, now: Ms) {
        self.reading = Some(now);
        self.read_tried = Some(now);
    }

    /// The answer to the read that was asked at `asked`. `known` is the uid on disk, if any.
    pub fn on_read(&mut self, asked: Ms, outcome: ReadOutcome, known: Option<RecordUid>) {
        self.reading = None;
        match outcome {
            ReadOutcome::Got(v) if Clause::OwnRecord.demands(known.is_none_or(|uid| uid == v.uid)) => {
                self.saw(asked, v);
            }
            ReadOutcome::Got(_) | ReadOutcome::Missing => self.foreign = true,
            ReadOutcome::Malformed | ReadOutcome::Failed => {}
        }
    }

    fn saw(&mut self, asked: Ms, v: Versioned) {
        if self.last.is_some_and(|l| l.version > v.version) {
            return; // a late answer to an earlier read
        }
        self.foreign = false;
        self.outdated = self.outdated.filter(|o| *o >= v.version);
        self.asked = self.asked.max(asked);
        self.open.retain(|o| o.expected >= v.version);
        if Clause::NewerVersion.is_taken_away() {
            self.open.retain(|o| o.awaiting_reply);
        }
        self.last = Some(v);
    }

    /// A compare-and-set leaves.
    pub fn on_cas_sent(&mut self, cas: OpenCas) {
        if Clause::WonFirst.is_taken_away()
            && let Some(last) = &mut self.last
        {
            last.record = cas.record;
        }
        self.open.push(cas);
    }

    /// Its reply.
    pub fn on_cas(&mut self, now: Ms, id: CasId, outcome: CasOutcome) {
        let Some(i) = self.open.iter().position(|o| o.id == id) else {
            // Settled meanwhile by a read or by another one; only a newer version still tells something.
            return;
        };
        let cas = self.open[i];
        match outcome {
            CasOutcome::Won(version) => {
                if let Some(uid) = self.last.map(|l| l.uid) {
                    self.saw(now, Versioned { uid, version, record: cas.record });
                    self.open.retain(|o| o.id != id);
                }
            }
            CasOutcome::Conflict => {
                // All that were sent with this version or an older one can no longer land; which one did is not known.
                self.open.retain(|o| o.expected > cas.expected);
                self.outdated = Some(cas.expected);
                self.read_tried = None;
            }
            CasOutcome::NotSent => {
                self.open.remove(i);
            }
            CasOutcome::Unknown => self.open[i].awaiting_reply = false,
            CasOutcome::Missing => {
                self.open.remove(i);
                self.foreign = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(version: u64) -> Versioned {
        Versioned { uid: RecordUid(1), version: Version(version), record: Record::initial() }
    }

    fn view_with_open() -> View {
        let mut v = View::default();
        v.on_read(Ms(1), ReadOutcome::Got(at(5)), None);
        v.on_cas_sent(OpenCas {
            id: CasId(1),
            expected: Version(5),
            record: Record::initial(),
            sent: Ms(2),
            awaiting_reply: true,
        });
        v
    }

    #[test]
    fn a_read_of_the_same_version_settles_nothing() {
        let mut v = view_with_open();
        v.on_cas(Ms(3), CasId(1), CasOutcome::Unknown);
        v.on_read(Ms(4), ReadOutcome::Got(at(5)), None);
        assert!(v.has_open() && v.settled().is_none());
        v.on_read(Ms(5), ReadOutcome::Got(at(6)), None);
        assert_eq!(v.settled().map(|l| l.version), Some(Version(6)));
    }

    #[test]
    fn a_conflict_leaves_the_record_unknown_until_it_is_read() {
        let mut v = view_with_open();
        v.on_cas(Ms(3), CasId(1), CasOutcome::Conflict);
        assert!(!v.has_open() && v.settled().is_none());
        v.on_read(Ms(2), ReadOutcome::Got(at(5)), None);
        assert!(v.settled().is_none(), "an answer from before the conflict proves nothing");
        v.on_read(Ms(4), ReadOutcome::Got(at(7)), None);
        assert!(v.settled_since(Ms(4)).is_some() && v.settled_since(Ms(5)).is_none());
    }

    #[test]
    fn a_late_answer_to_an_earlier_read_changes_nothing() {
        let mut v = view_with_open();
        v.on_cas(Ms(3), CasId(1), CasOutcome::Won(Version(9)));
        v.on_read(Ms(1), ReadOutcome::Got(at(5)), None);
        assert_eq!(v.settled().map(|l| l.version), Some(Version(9)));
    }

    #[test]
    fn another_uid_is_foreign() {
        let mut v = View::default();
        v.on_read(Ms(1), ReadOutcome::Got(at(5)), Some(RecordUid(2)));
        assert!(v.foreign() && v.settled().is_none());
    }

    #[test]
    fn a_request_that_never_left_is_not_open() {
        let mut v = view_with_open();
        v.on_cas(Ms(3), CasId(1), CasOutcome::NotSent);
        assert_eq!(v.settled().map(|l| l.version), Some(Version(5)));
    }
}
