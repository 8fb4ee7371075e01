//! What means something in one role only: a primary's part of the state, and a standby's.

use serde::{Deserialize, Serialize};

use crate::authority::messages::{EvidenceKind, Resignation};
use crate::authority::notes::SoloReason;
use crate::authority::timing::Ms;
use crate::ids::{Incarnation, Term};
use crate::lsn::Lsn;

/// A primary's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Primary {
    pub(super) pairing: Pairing,
    pub(super) resign: Resign,
}

/// A standby's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Standby {
    pub(super) takeover: Option<Takeover>,
}

/// The way between `Solo` and `Paired`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub(super) struct Pairing {
    /// Why and since when the primary wants to leave `Paired`.
    pub(super) noticed: Option<(Ms, SoloReason)>,
    /// The standby has not been streaming since.
    pub(super) not_streaming_since: Option<Ms>,
    /// The standby lacks something and has had no more than this, since.
    pub(super) stalled: Option<(Ms, Lsn)>,
    /// The standby lacks more than `max_lag`.
    pub(super) behind: Option<Behind>,
    /// Postgres hangs since.
    pub(super) hung_since: Option<Ms>,
    /// Commits are made to wait, to pair, since.
    pub(super) sync_since: Option<Ms>,
    /// No pairing before.
    pub(super) not_before: Ms,
    /// Consecutive pairings that did not last; the back-off doubles with each.
    pub(super) flaps: u32,
    pub(super) paired_at: Option<Ms>,
    /// Postgres has not been up as a primary since.
    pub(super) down_since: Option<Ms>,
    /// Postgres may be started, and has not come up, since.
    pub(super) starting_since: Option<Ms>,
    /// No heartbeats before: a postgres that does not come up must not keep its standby from taking over.
    pub(super) mute_until: Ms,
}

/// A standby that lacks more than `max_lag`: how far behind it is in time. What it tells is up to a second old, and a load of any
/// speed is further ahead by then than any number of bytes; whoever soon has what the primary had keeps up with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Behind {
    /// The primary had `due` then, which the standby has not been seen to have.
    pub(super) since: Ms,
    pub(super) due: Lsn,
    /// What was due before came in time.
    pub(super) kept_up: bool,
}

/// How far a resignation has come. One of an earlier term is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub(super) enum Resign {
    #[default]
    None,
    /// The standby has been asked whether it can take it.
    Asking { since: Ms },
    /// It cannot, or did not say: postgres starts again under the gate, and it is not asked before `until`.
    Declined { until: Ms },
    /// That process of it can: postgres stops politely, or has died; where its log ends is being looked up.
    Stopping { since: Ms, to: Incarnation },
    /// This incarnation never writes again in `term`.
    Resigned { term: Term, since: Ms, to: Incarnation, heard: Option<Ms>, told: Option<Ms>, refused: bool },
}

impl Resign {
    pub(super) fn has_resigned(&self, now_term: Term) -> bool {
        matches!(self, Resign::Resigned { term, .. } if *term == now_term)
    }

    pub(super) fn is_asking(&self) -> bool {
        matches!(self, Resign::Asking { .. } | Resign::Stopping { .. })
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self, Resign::Stopping { .. })
    }

    pub(super) fn is_declined(&self) -> bool {
        matches!(self, Resign::Declined { .. })
    }

    /// A resignation is not remembered beyond its term.
    pub(super) fn forget_before(&mut self, current: Term) {
        if matches!(self, Resign::Resigned { term, .. } if *term < current) {
            *self = Resign::None;
        }
    }
}

/// What speaks for taking over from the primary of the present term.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub(super) struct Takeover {
    pub(super) resigned: Option<(Ms, Resignation)>,
    /// Proven dead, each by the proof that came first.
    pub(super) dead: Vec<(Incarnation, EvidenceKind)>,
    /// Who was told to take its term back, and how long it has the time to do so.
    pub(super) refused: Option<(Incarnation, Ms)>,
}

impl Takeover {
    pub(super) fn proof(&self, incarnation: Incarnation) -> Option<EvidenceKind> {
        self.dead.iter().find(|(dead, _)| *dead == incarnation).map(|(_, kind)| *kind)
    }
}
