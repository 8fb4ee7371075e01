//! What became of a plan: the steps by which it is carried out, what was done, and what failed.

use std::fmt;

use pgpair_core::ids::InstanceId;
use pgpair_core::ids::InstanceId::{A, B};

use crate::error::Error;
use crate::plan::{Notice, OrderProgress, Scope};

/// One object that a pair has whatever becomes of it: a row of [`Children`](crate::children::Children).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    /// The identity of the agents.
    Account,
    /// What the agents may do.
    Role,
    /// Gives the role to the account.
    Binding,
    /// The disruption budget.
    Budget,
    /// The settings of the agents.
    Config,
    /// The Service that names the pods.
    PodsService,
    /// The Service for writes.
    RwService,
    /// The Service for reads.
    RoService,
    /// The Service of any instance.
    AnyService,
    /// The data volume of an instance.
    DataClaim(InstanceId),
    /// The archive volume of an instance.
    ArchiveClaim(InstanceId),
}

/// One step of what is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Apply an object that the pair has whatever becomes of it.
    Base(Child),
    /// Make and renew the Secrets.
    Secrets,
    /// Create the record.
    Record,
    /// Lead the Services where they belong.
    Slices,
    /// Delete seeding Jobs that are over.
    Jobs,
    /// Give newer settings to the agents.
    Settings,
    /// Apply the StatefulSet of an instance.
    Set(InstanceId),
    /// Create a seeding Job.
    SeedJob,
    /// Take a step of a rolling change.
    Roll,
}

/// Everything, in the order in which it runs: an object comes after those that it needs.
const EVERYTHING: [Step; 22] = [
    Step::Base(Child::Account),
    Step::Base(Child::Role),
    Step::Base(Child::Binding),
    Step::Base(Child::Budget),
    Step::Base(Child::Config),
    Step::Base(Child::PodsService),
    Step::Base(Child::RwService),
    Step::Base(Child::RoService),
    Step::Base(Child::AnyService),
    Step::Base(Child::DataClaim(A)),
    Step::Base(Child::ArchiveClaim(A)),
    Step::Base(Child::DataClaim(B)),
    Step::Base(Child::ArchiveClaim(B)),
    Step::Secrets,
    Step::Record,
    Step::Slices,
    Step::Jobs,
    Step::Settings,
    Step::Set(A),
    Step::Set(B),
    Step::SeedJob,
    Step::Roll,
];

/// What keeps a pair that is held going as it is. Nothing that a person could notice changes, and nothing comes into being
/// that the spec speaks of.
const UPKEEP: [Step; 2] = [Step::Slices, Step::Secrets];

impl Step {
    /// The steps of `scope`, in the order in which they run.
    #[must_use]
    pub fn of(scope: Scope) -> &'static [Step] {
        match scope {
            Scope::Report => &[],
            Scope::Upkeep => &UPKEEP,
            Scope::Everything => &EVERYTHING,
        }
    }

    /// Whether `notice` tells that this step was done.
    #[must_use]
    pub fn tells(self, notice: &Notice) -> bool {
        match notice {
            Notice::Bootstrapping => self == Step::Record,
            Notice::EndpointRepaired(_) => self == Step::Slices,
            Notice::RebuildStarted(i, _) | Notice::SeedingFinished(i, _) => self == Step::Set(*i),
            Notice::SeedingStarted(..) => self == Step::SeedJob,
            Notice::Rolling(..) => self == Step::Roll,
            Notice::EvidenceSent(..) => false, // an agent was told: no step
        }
    }
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Child::Account => f.write_str("service account"),
            Child::Role => f.write_str("role"),
            Child::Binding => f.write_str("role binding"),
            Child::Budget => f.write_str("disruption budget"),
            Child::Config => f.write_str("settings"),
            Child::PodsService => f.write_str("service of the pods"),
            Child::RwService => f.write_str("service for writes"),
            Child::RoService => f.write_str("service for reads"),
            Child::AnyService => f.write_str("service of any instance"),
            Child::DataClaim(i) => write!(f, "data volume of {i}"),
            Child::ArchiveClaim(i) => write!(f, "archive volume of {i}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Base(child) => write!(f, "apply the {child}"),
            Step::Secrets => f.write_str("make and renew the secrets"),
            Step::Record => f.write_str("create the record"),
            Step::Slices => f.write_str("write the endpoints of the services"),
            Step::Jobs => f.write_str("delete old seeding jobs"),
            Step::Settings => f.write_str("give settings to the agents"),
            Step::Set(i) => write!(f, "apply the stateful set of {i}"),
            Step::SeedJob => f.write_str("create a seeding job"),
            Step::Roll => f.write_str("take a step of a rolling change"),
        }
    }
}

/// A step that failed.
#[derive(Debug)]
pub struct StepError {
    /// Which.
    pub step: Step,
    /// Why.
    pub error: Error,
}

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was really done, as far as people want to know of it.
    pub done: Vec<Notice>,
    /// What is to be told of the order of a person.
    pub order: Option<OrderProgress>,
    /// What failed, in the order of the steps.
    pub failed: Vec<StepError>,
}
