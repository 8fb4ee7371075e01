//! What is decided about a pair. Plain data: `decide` makes it, the steps carry it out, the status tells it.

mod adoption;
mod order;
mod roll;
mod slices;

use pgpair_api::names::AdoptStep;
use pgpair_backup::adopt::{self, Doubt, Loss};
use pgpair_core::authority::messages::Evidence;
use pgpair_core::ids::{Incarnation, InstanceId, SystemIdentifier, Term};
use pgpair_core::record::Record;

use crate::certificates::server::ServerStep;
use crate::outcome::{FaultKind, StepFailure};
pub use adoption::{AdoptJob, AdoptionPlan, Verdict};
pub use order::{OrderPlan, OrderProgress, Reissuing, Rotation};
pub use roll::{Pending, RollPlan, RollStep, Waits};
pub use slices::{AnyPlan, EndpointTarget, RoPlan, RwPlan};

/// Steps and reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Create this record.
    pub create_lease: Option<Record>,
    /// The volumes of an earlier pair are taken up.
    pub adoption: Option<AdoptionPlan>,
    /// Instance a; `None`: leave it as it is.
    pub a: Option<InstancePlan>,
    /// Instance b; `None`: leave it as it is.
    pub b: Option<InstancePlan>,
    /// The seeding Job to create.
    pub create_job: Option<(InstanceId, u32)>,
    /// Seeding Jobs to delete.
    pub delete_jobs: Vec<(InstanceId, u32)>,
    /// The pod of a lost node to let go of: Kubernetes would wait for its kubelet for ever.
    pub release: Option<(InstanceId, PodName)>,
    /// The read-write slice.
    pub rw: RwPlan,
    /// The read-only slice.
    pub ro: RoPlan,
    /// The slice of all instances that answer.
    pub any: AnyPlan,
    /// Proofs of death to send: to whom (instance and agent process), and what.
    pub evidence: Vec<(InstanceId, Incarnation, Evidence)>,
    /// Agents that follow older settings than the spec's and are given the newer ones now.
    pub configure: Vec<InstanceId>,
    /// Agents that follow older settings because they refuse the spec's, with their words.
    pub refused_settings: Vec<(InstanceId, String)>,
    /// Agents that have not got the passwords of the Secrets, and are given them now.
    pub passwords: Vec<InstanceId>,
    /// The next step with a certificate of a person.
    pub server: ServerStep,
    /// An instance shows what cert-manager has made.
    pub has_shown_issued: bool,
    /// Agents that are given the certificates of their Secrets, which are newer than what they use.
    pub certificates: Vec<InstanceId>,
    /// A password that is made anew because it is old.
    pub aged: Option<Rotation>,
    /// The order of a person.
    pub order: OrderPlan,
    /// Changes that need a restart.
    pub roll: RollPlan,
    /// What is worth an Event once the steps are done.
    pub notices: Vec<Notice>,
    /// What stands in the way, most important first.
    pub problems: Vec<Problem>,
    /// Nothing is under way: the next look may wait.
    pub settled: bool,
}

impl Plan {
    /// With what failed of it among the problems.
    #[must_use]
    pub fn with_failures(mut self, failed: Vec<StepFailure>) -> Plan {
        let (taken, failed): (Vec<_>, Vec<_>) =
            failed.into_iter().partition(|failure| failure.fault.kind == FaultKind::NameTaken);
        self.problems.splice(0..0, taken.into_iter().map(Problem::StepFailed));
        self.problems.extend(failed.into_iter().map(Problem::StepFailed));
        self
    }

    /// The password that is made anew; a person goes first.
    #[must_use]
    pub fn rotation(&self) -> Option<&Rotation> {
        match &self.order {
            OrderPlan::Rotate(rotation) => Some(rotation),
            OrderPlan::None
            | OrderPlan::Tell(_)
            | OrderPlan::Send { .. }
            | OrderPlan::Reissue(_)
            | OrderPlan::Revoke(..) => self.aged.as_ref(),
        }
    }

    /// Whether there is nothing to carry out or to look at again: it may rest on a record that is some seconds old.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let has_certificates = self.certificates.is_empty() && !self.server.acts();
        self.settled && self.passwords.is_empty() && has_certificates && self.aged.is_none() && !self.moves()
    }

    /// Whether something is to be done soon, or is about to be: an order, a step of a roll, a Service that leads elsewhere.
    #[must_use]
    pub fn moves(&self) -> bool {
        self.order != OrderPlan::None
            || !(self.roll.pending.is_empty()
                || matches!(self.roll.waits, Some(Waits::Held | Waits::Turn(_))))
            || self.rw != RwPlan::Keep
            || self.ro != RoPlan::Keep
            || self.any != AnyPlan::Keep
    }
}

/// One pod, and no other of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodName {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Where it is.
    pub node: Option<String>,
}

/// What the StatefulSet of an instance is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstancePlan {
    /// 0 or 1.
    pub replicas: i32,
    /// Number of the seeding Job that it waits for or last had.
    pub seed: u32,
    /// Seeding Jobs that failed in a row.
    pub seed_failures: u32,
}

/// How much of a plan is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Nothing: it rests on a record of some seconds ago and has nothing to do, or nothing exists that a pair that is held could
    /// need. Only the state is told.
    Report,
    /// What keeps a pair that is held going as it is.
    Upkeep,
    /// Everything.
    Everything,
}

/// A step that people want to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The record of term 0 is created.
    Bootstrapping,
    /// The record of a pair with the data of an earlier one is created: its primary, and the term.
    Adopted(InstanceId, Term),
    /// A record that no volume belongs to is deleted.
    RecordDiscarded,
    /// An instance goes down to be copied anew; why.
    RebuildStarted(InstanceId, String),
    /// A Job begins.
    SeedingStarted(InstanceId, u32),
    /// A Job is complete, and its instance starts.
    SeedingFinished(InstanceId, u32),
    /// The read-write Service led elsewhere and is put right.
    EndpointRepaired(InstanceId),
    /// A proof of death was taken by the agent of an instance.
    EvidenceSent(InstanceId, Evidence),
    /// The pod of an instance that a person has given up, on a node that does not answer, is let go of.
    PodReleased(InstanceId, PodName),
    /// A step of a rolling change; for what.
    Rolling(RollStep, Pending),
}

/// What stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The spec cannot be carried out; why.
    InvalidSpec(String),
    /// The Lease is gone, and the pair has data.
    RecordMissing,
    /// The Lease is no record; why.
    RecordUnreadable(String),
    /// The last Job of an instance failed; what its pod said, or else Kubernetes.
    SeedFailed(InstanceId, u32, String),
    /// A Job of an adoption has failed; why.
    AdoptionFailed(InstanceId, AdoptStep, String),
    /// A person has to choose which volume becomes the primary's.
    AdoptionAsks {
        /// Why.
        why: Doubt,
        /// What a choice of a loses.
        a: Option<Loss>,
        /// The same of b.
        b: Option<Loss>,
        /// What was found, in one word.
        accept: String,
    },
    /// The volumes of an earlier pair are not taken up; why.
    AdoptionRefused(adopt::Refusal),
    /// An instance asks for a base backup and cannot get it yet; why not.
    RebuildBlocked(InstanceId, Blocked),
    /// A step of the operator failed.
    StepFailed(StepFailure),
    /// The volume of an instance holds data of an earlier pair of this name: nothing is done with it.
    ForeignData(InstanceId, Option<SystemIdentifier>),
}

impl Problem {
    /// Whether people are told of it: what may be gone a second later is told when it has lasted.
    #[must_use]
    pub fn is_told(&self) -> bool {
        !matches!(self, Problem::StepFailed(failure) if !failure.is_told())
    }
}

/// Why an instance that asks for a base backup does not get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// The record names it as primary.
    IsPrimary,
    /// The record is still `Paired`: the primary has to go on alone first.
    StillPaired,
    /// No primary says that it takes writes, so there is nothing to copy from.
    NoServingPrimary,
}
