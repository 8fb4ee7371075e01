//! Rule 0: whether postgres may be writable. The tables are read from above; `docs/authority.md` shows them as they are here.

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

use crate::authority::clause::{Clause, Condition, all_hold, first_unmet};
use crate::authority::common::Common;
use crate::authority::promises::HeldPromise;
use crate::authority::timing::Ms;
use crate::instance::Role;
use crate::record::{Mode, Record};

/// Whether postgres may be writable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Gate {
    /// It may, until then.
    Open {
        /// `None`: the record names this incarnation; nothing ends it.
        until: Option<Ms>,
    },
    /// It may not.
    Closed(Refusal),
}

impl Gate {
    /// Whether postgres may be writable.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Gate::Open { .. })
    }

    /// When it closes, if that is known.
    #[must_use]
    pub fn until(self) -> Option<Ms> {
        match self {
            Gate::Open { until } => until,
            Gate::Closed(_) => None,
        }
    }
}

/// Why postgres may not be writable. The word is the reason in status, log and metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, VariantNames)]
pub enum Refusal {
    /// The record is missing or not the one that this volume knows.
    ForeignRecord,
    /// This incarnation gave the term up.
    Resigned,
    /// The record names the other instance, or has not been read.
    NotPrimary,
    /// The record names another data directory.
    VolumeReplaced,
    /// `Paired`, and no unexpired promise.
    NoPromise,
    /// The term is not on disk yet.
    NotStored,
    /// The named incarnation last ran on another node: this node's lock proves nothing about it.
    OtherNode,
    /// A promise of our own to the other instance is still open.
    OwnPromise,
    /// A person wants postgres to stay down.
    Fenced,
}

impl Refusal {
    /// A stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

type Holds = fn(&Common, Ms) -> bool;

/// All of it must hold, and then one of [`WARRANTS`].
pub(super) const GATE: [Condition<Refusal, Holds>; 7] = [
    Condition::new(
        "the record is the pair's, or a promise for this term is held",
        Refusal::ForeignRecord,
        |c, _| !c.view.foreign() || c.promises.held.promised(c.term()).is_some(),
    ),
    Condition::of(
        Clause::Resigned,
        "this incarnation has not resigned this term",
        Refusal::Resigned,
        |c, _| !c.has_resigned(),
    ),
    Condition::new(
        "the record names this instance as primary; while it has not been read, the disk does",
        Refusal::NotPrimary,
        |c, _| c.role() == Role::Primary,
    ),
    Condition::of(
        Clause::PrimaryVolume,
        "the data directory is the one that the record names",
        Refusal::VolumeReplaced,
        |c, _| c.volume_is_named(),
    ),
    // A restart with the API away goes by the disk: what is not there yet may be promised away.
    Condition::of(
        Clause::StoredFirst,
        "the disk says already that this instance is the primary of this term",
        Refusal::NotStored,
        |c, _| c.persisted.term >= c.term() && c.persisted.primary,
    ),
    Condition::new(
        "the incarnation that the record names is this one, or cannot still run on another node",
        Refusal::OtherNode,
        |c, _| !c.is_elsewhere(),
    ),
    Condition::of(
        Clause::OwnPromise,
        "every promise that this instance gave has lapsed or is void",
        Refusal::OwnPromise,
        |c, now| c.promises.given.all_lapsed(now),
    ),
];

/// By what a primary writes.
pub(super) struct Warrant {
    pub(super) clause: Clause,
    /// In the words of `docs/authority.md`.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the page, which a test compares"))]
    pub(super) words: &'static str,
    /// If it is there: until when it would hold.
    until: fn(&Common) -> Option<Option<Ms>>,
    holds: Holds,
}

/// The first that is there and holds.
pub(super) const WARRANTS: [Warrant; 2] = [
    Warrant {
        clause: Clause::NamedIncarnation,
        words: "the settled record says `Solo` and names this incarnation: until it says something else",
        until: |c| {
            let solo = |r: &Record| r.mode == Mode::Solo && r.primary_volume.is_some();
            c.view.settled().is_some_and(|v| solo(&v.record)).then_some(None)
        },
        holds: |c, _| c.view.settled().is_some_and(|v| v.record.primary == c.me),
    },
    Warrant {
        clause: Clause::Fence,
        words: "a promise for this term is held: until its fence",
        until: |c| Some(Some(c.promises.held.promised(c.term())?.fence_at())),
        holds: |c, now| {
            c.promises.held.promised(c.term()).map(HeldPromise::fence_at).is_some_and(|end| now < end)
        },
    },
];

/// What a standby's directory needs besides the gate.
pub(super) const PROMOTION: [Condition<(), Holds>; 2] = [
    Condition::of(
        Clause::OwnPromise,
        "every promise that this instance gave has lapsed or is void",
        (),
        |c, now| c.promises.given.all_lapsed(now),
    ),
    Condition::of(
        Clause::Quarantine,
        "its quarantine is over: no promise of an earlier process of it can be open",
        (),
        |c, now| now >= c.promises.quarantine_until,
    ),
];

/// Whether postgres may be writable at `now` (rule 0).
pub(super) fn gate(c: &Common, now: Ms) -> Gate {
    if let Some(refusal) = first_unmet(&GATE, |holds| holds(c, now)) {
        return Gate::Closed(refusal);
    }
    let warrant = WARRANTS.iter().find_map(|w| {
        let until = (w.until)(c)?;
        w.clause.demands((w.holds)(c, now)).then_some(Gate::Open { until })
    });
    warrant.unwrap_or(Gate::Closed(Refusal::NoPromise))
}

/// Rule 0 for a directory that is a standby's: besides the gate, nothing that this instance promised may be open.
pub(super) fn may_promote(c: &Common, now: Ms) -> bool {
    gate(c, now).is_open() && all_hold(&PROMOTION, |holds| holds(c, now))
}
