//! What became of a plan: the steps by which it is carried out, what was done, and what failed.

use std::fmt;

use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;
use pgpair_core::ids::InstanceId::{A, B};

use crate::error::{Error, Refusal, chain};
use crate::observed::Observed;
use crate::plan::{Notice, OrderProgress, Scope};

/// One object that a pair has whatever becomes of it: a row of [`Children`](crate::children::Children).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Child {
    /// The identity of the agents.
    Account,
    /// What the agents may do.
    Role,
    /// Gives the role to the account.
    Binding,
    /// The disruption budget.
    Budget,
    /// The network policy.
    Network,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// See that all names of a new pair are free or its own, before anything is made.
    Names,
    /// Apply an object that the pair has whatever becomes of it.
    Base(Child),
    /// Make and renew the Secrets.
    Secrets,
    /// Make a certificate anew, or revoke one, for an order.
    Revocation,
    /// Ask cert-manager for a certificate for postgres.
    Issuer,
    /// Take the next step with the certificate of a person.
    ServerCertificate,
    /// Make a password anew.
    RotatePassword,
    /// Keep the verifiers of the passwords.
    Passwords,
    /// Look at the volumes of an earlier pair, or let go of them.
    Adoption,
    /// Create the record.
    Record,
    /// Lead the Services where they belong.
    Slices,
    /// Delete seeding Jobs that are over.
    Jobs,
    /// Let go of a pod that cannot end.
    Release,
    /// Give newer settings to the agents.
    Settings,
    /// Give passwords to the agents.
    GivePasswords,
    /// Give certificates to the agents.
    GiveCertificates,
    /// Apply the StatefulSet of an instance.
    Set(InstanceId),
    /// Create a seeding Job.
    SeedJob,
    /// Take a step of a rolling change.
    Roll,
}

/// Everything, in the order in which it runs: an object comes after those that it needs.
const EVERYTHING: [Step; 33] = [
    Step::Names,
    Step::Base(Child::Account),
    Step::Base(Child::Role),
    Step::Base(Child::Binding),
    Step::Base(Child::Budget),
    Step::Base(Child::Network),
    Step::Base(Child::Config),
    Step::Base(Child::PodsService),
    Step::Base(Child::RwService),
    Step::Base(Child::RoService),
    Step::Base(Child::AnyService),
    Step::Base(Child::DataClaim(A)),
    Step::Base(Child::ArchiveClaim(A)),
    Step::Base(Child::DataClaim(B)),
    Step::Base(Child::ArchiveClaim(B)),
    Step::Revocation,
    Step::Secrets,
    Step::Issuer,
    Step::ServerCertificate,
    Step::RotatePassword,
    Step::Passwords,
    Step::Adoption,
    Step::Record,
    Step::Slices,
    Step::Jobs,
    Step::Release,
    Step::Settings,
    Step::GivePasswords,
    Step::GiveCertificates,
    Step::Set(A),
    Step::Set(B),
    Step::SeedJob,
    Step::Roll,
];

/// What keeps a pair that is held going as it is. Nothing that a person could notice changes, and nothing comes into being
/// that the spec speaks of. A password that was changed in its Secret is none of the spec.
const UPKEEP: [Step; 6] = [
    Step::Slices,
    Step::Secrets,
    Step::ServerCertificate,
    Step::Passwords,
    Step::GivePasswords,
    Step::GiveCertificates,
];

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

    /// Whether it has a meaning for what was observed: the names of a pair that exists are its own, and each object is looked at again
    /// when it is applied.
    #[must_use]
    pub fn is_due(self, observed: &Observed) -> bool {
        match self {
            Step::Names => !is_born(observed),
            // Of an invalid spec it is not known whose passwords these are.
            Step::Passwords | Step::GivePasswords => observed.invalid.is_none(),
            _ => true,
        }
    }

    /// Whether this step has to wait when `failed` failed. What exists is kept going; what is new comes after all that it needs.
    #[must_use]
    pub fn needs(self, failed: Step, observed: &Observed) -> bool {
        let is_new = |i: InstanceId| observed.instance(i).set.is_none();
        match (self, failed) {
            (_, Step::Names) => true,
            (Step::Set(i), Step::Base(Child::DataClaim(of) | Child::ArchiveClaim(of))) => {
                i == of && is_new(i)
            }
            (
                Step::Set(i),
                Step::Secrets
                | Step::Passwords
                | Step::Base(
                    Child::Account | Child::Role | Child::Binding | Child::Config | Child::PodsService,
                ),
            ) => is_new(i),
            (Step::SeedJob | Step::Roll, Step::Set(_)) => true,
            // A Job's pod waits for claims, and is made by nobody without its account.
            (Step::Adoption, Step::Base(Child::Account | Child::DataClaim(_) | Child::ArchiveClaim(_))) => {
                true
            }
            (Step::Record, Step::Adoption) => true,
            _ => false,
        }
    }

    /// Whether `notice` tells that this step was done.
    #[must_use]
    pub fn tells(self, notice: &Notice) -> bool {
        match notice {
            Notice::Bootstrapping | Notice::Adopted(..) => self == Step::Record,
            Notice::RecordDiscarded => self == Step::Adoption,
            Notice::EndpointRepaired(_) => self == Step::Slices,
            Notice::RebuildStarted(i, _) | Notice::SeedingFinished(i, _) => self == Step::Set(*i),
            Notice::SeedingStarted(..) => self == Step::SeedJob,
            Notice::PodReleased(..) => self == Step::Release,
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
            Child::Network => f.write_str("network policy"),
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
            Step::Names => f.write_str("check the names of the pair's objects"),
            Step::Base(child) => write!(f, "apply the {child}"),
            Step::Secrets => f.write_str("make and renew the secrets"),
            Step::Revocation => f.write_str("revoke a certificate"),
            Step::Issuer => f.write_str("ask cert-manager for a certificate for postgres"),
            Step::ServerCertificate => f.write_str("take the certificate of the spec for postgres"),
            Step::GiveCertificates => f.write_str("give certificates to the agents"),
            Step::RotatePassword => f.write_str("make a password anew"),
            Step::Passwords => f.write_str("keep the verifiers of the passwords"),
            Step::Adoption => f.write_str("look at the volumes of an earlier pair"),
            Step::Record => f.write_str("create the record"),
            Step::Slices => f.write_str("write the endpoints of the services"),
            Step::Jobs => f.write_str("delete old seeding jobs"),
            Step::Release => f.write_str("let go of the pod of a lost node"),
            Step::Settings => f.write_str("give settings to the agents"),
            Step::GivePasswords => f.write_str("give passwords to the agents"),
            Step::Set(i) => write!(f, "apply the stateful set of {i}"),
            Step::SeedJob => f.write_str("create a seeding job"),
            Step::Roll => f.write_str("take a step of a rolling change"),
        }
    }
}

fn is_born(observed: &Observed) -> bool {
    InstanceId::ALL.into_iter().any(|i| observed.instance(i).set.is_some())
}

/// What kind of failure it is: how soon it is worth a word, and another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// A name that the pair needs is another owner's.
    NameTaken,
    /// It will fail again until something is changed.
    Lasting,
    /// It may be gone a second later.
    Passing,
}

/// Why a step failed, in one sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind of failure.
    pub kind: FaultKind,
    /// The sentence: which object, what the API server said, what to do.
    pub sentence: String,
}

impl Fault {
    /// Of `error` in `step`.
    #[must_use]
    pub fn of(step: Step, pair: &ValidatedPair, error: &Error) -> Fault {
        let kind = match error {
            Error::NotOurs(_) => FaultKind::NameTaken,
            // Conflict, too many requests, or the server's own trouble.
            Error::Refused(refusal) if matches!(refusal.code, 409 | 429 | 500..) => FaultKind::Passing,
            Error::Request { .. } | Error::Timeout { .. } => FaultKind::Passing,
            Error::Refused(_)
            | Error::Invalid(_)
            | Error::Certificates { .. }
            | Error::Config { .. }
            | Error::Password { .. }
            | Error::Secret { .. } => FaultKind::Lasting,
        };
        let sentence = match (step, error) {
            (Step::Base(Child::DataClaim(_)), Error::Refused(refusal)) => {
                claim_refused(refusal, "data", &pair.data.size)
            }
            (Step::Base(Child::ArchiveClaim(_)), Error::Refused(refusal)) => {
                claim_refused(refusal, "archive", &pair.archive.size)
            }
            (_, Error::Refused(Refusal { kind, name, message, .. })) => {
                format!("the API server refuses {kind} {name}: {message}")
            }
            _ => chain(error),
        };
        Fault { kind, sentence }
    }
}

fn claim_refused(refusal: &Refusal, field: &str, size: &str) -> String {
    let Refusal { name, message, .. } = refusal;
    format!(
        "volume {name} cannot have {size}: {message}. Put spec.storage.{field}.size back to the size that the volume has, or use a \
         StorageClass that allows expansion; everything else goes on"
    )
}

/// What may be gone a second later is told when it has failed so often in a row.
const PASSING_TOLD: u32 = 3;

impl StepFailure {
    /// Whether people are told of it.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.fault.kind != FaultKind::Passing || self.times >= PASSING_TOLD
    }
}

/// A step that failed, now or when it was tried last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFailure {
    /// Which.
    pub step: Step,
    /// Why.
    pub fault: Fault,
    /// Tries that failed in a row.
    pub times: u32,
}

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was really done, as far as people want to know of it.
    pub done: Vec<Notice>,
    /// What is to be told of the order of a person.
    pub order: Option<OrderProgress>,
    /// What failed, in the order of the steps.
    pub failed: Vec<StepFailure>,
}
