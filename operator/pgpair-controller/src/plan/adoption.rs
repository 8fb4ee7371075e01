//! How the volumes of an earlier pair are taken up.

use pgpair_api::names::AdoptStep;
use pgpair_api::status::AdoptionPhase;
use pgpair_backup::adopt::{Doubt, Loss, Other, Refusal};
use pgpair_core::ids::{InstanceId, VolumeId};

/// What is done next, and what is told.
#[derive(Debug, Clone, PartialEq)]
pub struct AdoptionPlan {
    /// How far it is.
    pub phase: AdoptionPhase,
    /// Jobs to create.
    pub create: Vec<AdoptJob>,
    /// Jobs to delete.
    pub delete: Vec<(InstanceId, AdoptStep)>,
    /// The record is of no use: no volume belongs to it. It is deleted.
    pub discard_record: bool,
    /// What follows from what was found, once both volumes were looked at.
    pub verdict: Option<Verdict>,
    /// What was found, in one word.
    pub accept: Option<String>,
}

impl AdoptionPlan {
    /// Nothing to do but to tell this.
    #[must_use]
    pub fn new(phase: AdoptionPhase) -> AdoptionPlan {
        AdoptionPlan {
            phase,
            create: Vec::new(),
            delete: Vec::new(),
            discard_record: false,
            verdict: None,
            accept: None,
        }
    }
}

/// A Job to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdoptJob {
    /// Looks at the volumes of an instance.
    Look(InstanceId),
    /// Lets go of the volume of an instance, if it still is this one; `None`: if there still is no data on it.
    Release(InstanceId, Option<VolumeId>),
}

impl AdoptJob {
    /// What it does.
    #[must_use]
    pub fn step(self) -> AdoptStep {
        match self {
            AdoptJob::Look(_) => AdoptStep::Look,
            AdoptJob::Release(..) => AdoptStep::Release,
        }
    }
}

/// What follows from what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This instance becomes primary.
    Primary {
        /// Which.
        instance: InstanceId,
        /// What becomes of the other one; `None`: its agent will see.
        other: Option<Other>,
        /// What a person has accepted to lose.
        accepted: Option<Loss>,
    },
    /// A person chooses.
    Ask {
        /// Why.
        why: Doubt,
        /// What a choice of a loses; `None`: it cannot be chosen.
        a: Option<Loss>,
        /// The same of b.
        b: Option<Loss>,
    },
    /// Nothing is done.
    Refuse(Refusal),
}
