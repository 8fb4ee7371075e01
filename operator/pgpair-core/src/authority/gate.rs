//! Rule 0: whether postgres may be writable. The tables are read from above; `docs/authority.md` shows them as they are here.

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

use crate::authority::Authority;
use crate::authority::clause::{Clause, Condition, all_hold, first_unmet};
use crate::authority::promises::HeldPromise;
use crate::authority::timing::Ms;
use crate::ids::Term;
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

type Holds = fn(&Authority, Ms) -> bool;

/// All of it must hold, and then one of [`WARRANTS`].
pub(super) const GATE: [Condition<Refusal, Holds>; 7] = [
    Condition::new(
        "the record is the pair's, or a promise for this term is held",
        Refusal::ForeignRecord,
        |a, _| !a.view.foreign() || a.held.promised(a.term()).is_some(),
    ),
    Condition::of(
        Clause::Resigned,
        "this incarnation has not resigned this term",
        Refusal::Resigned,
        |a, _| !a.resign.has_resigned(a.term()),
    ),
    Condition::new("the record names this instance; unread, the disk does", Refusal::NotPrimary, |a, _| {
        a.role() == Role::Primary
    }),
    Condition::of(
        Clause::PrimaryVolume,
        "the data directory is the one that the record names",
        Refusal::VolumeReplaced,
        |a, _| a.volume_is_named(),
    ),
    // A restart with the API away goes by the disk: what is not there yet may be promised away.
    Condition::of(
        Clause::StoredFirst,
        "that this instance is the primary of this term is on its disk",
        Refusal::NotStored,
        |a, _| a.persisted.term >= a.term() && a.persisted.primary,
    ),
    Condition::new(
        "the named incarnation did not run on another node, unless it is this one or proven dead",
        Refusal::OtherNode,
        |a, _| !a.is_elsewhere(),
    ),
    Condition::of(
        Clause::OwnPromise,
        "every promise that this instance gave has lapsed or is void",
        Refusal::OwnPromise,
        |a, now| a.given.all_lapsed(now),
    ),
];

/// By what a primary writes.
pub(super) struct Warrant {
    pub(super) clause: Clause,
    /// In the words of `docs/authority.md`.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the page, which a test compares"))]
    pub(super) words: &'static str,
    /// If it is there: until when it would hold.
    until: fn(&Authority) -> Option<Option<Ms>>,
    holds: Holds,
}

/// The first that is there and holds.
pub(super) const WARRANTS: [Warrant; 2] = [
    Warrant {
        clause: Clause::NamedIncarnation,
        words: "the settled record says `Solo` and names this incarnation: until it says something else",
        until: |a| {
            let solo = |r: &Record| r.mode == Mode::Solo && r.primary_volume.is_some();
            a.view.settled().is_some_and(|v| solo(&v.record)).then_some(None)
        },
        holds: |a, _| a.view.settled().is_some_and(|v| v.record.primary == a.me),
    },
    Warrant {
        clause: Clause::Fence,
        words: "a promise for this term is held: until its fence",
        until: |a| Some(Some(a.held.promised(a.term())?.fence_at())),
        holds: |a, now| a.held.promised(a.term()).map(HeldPromise::fence_at).is_some_and(|end| now < end),
    },
];

/// What a standby's directory needs besides the gate.
pub(super) const PROMOTION: [Condition<(), Holds>; 2] = [
    Condition::of(
        Clause::OwnPromise,
        "every promise that this instance gave has lapsed or is void",
        (),
        |a, now| a.given.all_lapsed(now),
    ),
    Condition::of(
        Clause::Quarantine,
        "its quarantine is over: no promise of an earlier process of it can be open",
        (),
        |a, now| now >= a.quarantine_until,
    ),
];

impl Authority {
    /// Whether postgres may be writable at `now` (rule 0). Every start, promotion and un-fencing asks here.
    #[must_use]
    pub fn gate(&self, now: Ms) -> Gate {
        if let Some(refusal) = first_unmet(&GATE, |holds| holds(self, now)) {
            return Gate::Closed(refusal);
        }
        let warrant = WARRANTS.iter().find_map(|w| {
            let until = (w.until)(self)?;
            w.clause.demands((w.holds)(self, now)).then_some(Gate::Open { until })
        });
        warrant.unwrap_or(Gate::Closed(Refusal::NoPromise))
    }

    /// Rule 0 for a directory that is a standby's: besides the gate, nothing that this instance promised may be open.
    #[must_use]
    pub fn may_promote(&self, now: Ms) -> bool {
        self.gate(now).is_open() && all_hold(&PROMOTION, |holds| holds(self, now))
    }

    /// Whether the data directory is the one that the record (or, unread, the disk) names for this instance as primary.
    pub(super) fn volume_is_named(&self) -> bool {
        let named = match self.record() {
            Some(r) => r.primary_volume,
            None => self.durable.volume,
        };
        self.term() == Term(0) || (named.is_some() && named == self.pg.volume)
    }
}
