//! What means something in one role only: a primary's part of the state, or a standby's. Never both: with its role, an instance
//! forgets what it did in it.

use serde::{Deserialize, Serialize};

use crate::authority::messages::{EvidenceKind, Resignation};
use crate::authority::notes::SoloReason;
use crate::authority::timing::Ms;
use crate::ids::{Incarnation, VolumeId};
use crate::instance::Role;
use crate::lsn::Lsn;

/// What belongs to the present role in the present term.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// The record has not been read and the disk does not say, or the record is older than the disk.
    Unknown,
    Primary(Primary),
    Standby(Standby),
}

impl Part {
    /// At the beginning of a role.
    pub(super) fn of(role: Role) -> Part {
        match role {
            Role::Unknown => Part::Unknown,
            Role::Primary => Part::Primary(Primary::default()),
            Role::Standby => Part::Standby(Standby::default()),
        }
    }

    pub(super) fn role(&self) -> Role {
        match self {
            Part::Unknown => Role::Unknown,
            Part::Primary(_) => Role::Primary,
            Part::Standby(_) => Role::Standby,
        }
    }

    pub(super) fn primary(&self) -> Option<&Primary> {
        if let Part::Primary(primary) = self { Some(primary) } else { None }
    }

    pub(super) fn standby(&self) -> Option<&Standby> {
        if let Part::Standby(standby) = self { Some(standby) } else { None }
    }
}

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
    /// The standby's data directory that the record is about to name: it has all that was acknowledged, and commits wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pairs_with: Option<VolumeId>,
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

/// How far a resignation has come.
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
    /// The term is given up to that process.
    Resigned { since: Ms, to: Incarnation, heard: Option<Ms>, told: Option<Ms>, refused: bool },
}

impl Resign {
    pub(super) fn is_asking(&self) -> bool {
        matches!(self, Resign::Asking { .. } | Resign::Stopping { .. })
    }

    /// It has begun and has not come to its end.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self, Resign::None | Resign::Declined { .. })
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self, Resign::Stopping { .. })
    }

    pub(super) fn is_declined(&self) -> bool {
        matches!(self, Resign::Declined { .. })
    }

    /// The standby needs the log of the dead postgres, or soon may.
    pub(super) fn hands_over_log(&self) -> bool {
        matches!(self, Resign::Stopping { .. } | Resign::Resigned { .. })
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
