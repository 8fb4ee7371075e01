//! What is known about a pair at one moment, and how sure it is. Plain data: the decisions read nothing else.

mod adoption;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use pgpair_api::loss::KnownWal;
use pgpair_api::status::OrderStatus;
use pgpair_core::authority::messages::EvidenceKind;
use pgpair_core::ids::{Incarnation, InstanceId};
use pgpair_core::instance::PostgresState;
use pgpair_core::record::{Mode, Record};
use pgpair_wire::config::PairConfig;
use pgpair_wire::report::InstanceReport;
use pgpair_wire::seed::SeedProgress;

use crate::certificates::offered::{NotTaken, OfferSummary};
use crate::certificates::rotation::{AuthorityView, PartyView};
use crate::certificates::server::Holder;
use crate::rollout::Turn;
use crate::secrets::passwords::{Entry, Keeper};
use crate::trouble::PodTrouble;
pub use adoption::{AdoptJobs, AdoptionObserved, JobView};

/// Everything that is known about a pair.
#[derive(Debug, Clone)]
pub struct Observed {
    /// When it was observed.
    pub now: Timestamp,
    /// What the spec says to the agents. Of a pair that is held: what they were given last, below the generation of the spec.
    pub config: PairConfig,
    /// `spec.paused`.
    pub paused: bool,
    /// Label of nodes by which the instances have to be apart; `None`: they may share a node.
    pub apart_by: Option<String>,
    /// Why the spec cannot be carried out.
    pub invalid: Option<String>,
    /// The annotation `pgpair.dev/order`.
    pub order: Option<String>,
    /// `status.order`: the last order and what was told of it.
    pub last_order: Option<OrderStatus>,
    /// What the status tells of the WAL.
    pub known_wal: KnownWal,
    /// `status.systemIdentifier`: present once the pair has data.
    pub system_identifier: Option<String>,
    /// The record, read from the API server itself for this observation; or as the watch has brought it, if
    /// [`Observed::is_glance`].
    pub lease: LeaseView,
    /// The record is that of the watch, and the reports may be some seconds old. Nothing but the status may be decided on them.
    pub is_glance: bool,
    /// Instance a.
    pub a: InstanceObserved,
    /// Instance b.
    pub b: InstanceObserved,
    /// EndpointSlice of `NAME-rw`.
    pub rw: SliceView,
    /// EndpointSlice of `NAME-ro`.
    pub ro: SliceView,
    /// EndpointSlice of `NAME-r`.
    pub any: SliceView,
    /// `NAME-rw` was found to lead elsewhere than to the primary in earlier observations.
    pub rw_mismatch: Mismatch,
    /// The Node that carries the out-of-service taint, among those on which the primary's agent is known to have run.
    pub out_of_service: Option<String>,
    /// Secrets with certificates, and when these end.
    pub certificates: Vec<(String, Timestamp)>,
    /// Proofs of death that agents have taken.
    pub taken: BTreeSet<Taken>,
    /// What the pair may do about pending changes, as one of many.
    pub turn: Turn,
    /// Settings that the agent of an instance refused last, and how long ago.
    pub refused_settings: BTreeMap<InstanceId, (SettingsRefusal, Duration)>,
    /// The passwords of roles, as their Secrets were when they were read.
    pub passwords: Vec<PasswordView>,
    /// Days after which a password of the operator's is made anew.
    pub password_max_age_days: Option<i32>,
    /// How long ago the agent of an instance refused passwords.
    pub refused_passwords: BTreeMap<InstanceId, Duration>,
    /// The certificate of a person for postgres, if the spec names one or an instance has something of one.
    pub server: Option<ServerObserved>,
    /// What the Secrets of instances say of their certificates.
    pub certified: BTreeMap<InstanceId, PartyView>,
    /// What that of the operator says.
    pub operator_certified: Option<PartyView>,
    /// The same of the roles that log in by a certificate, by their names; those that have one.
    pub roles_certified: BTreeMap<String, PartyView>,
    /// What the Secret of the authorities says.
    pub authority: Option<AuthorityView>,
    /// Certificates that the agent of an instance refused last, why, and how long ago.
    pub refused_certificates: BTreeMap<InstanceId, (String, Duration)>,
    /// The version of the certificates that the agent of an instance was given last, and how long ago.
    pub given_certificates: BTreeMap<InstanceId, (u64, Duration)>,
    /// How long ago this process took a step of a rolling change; `None`: never.
    pub rolled_ago: Option<Duration>,
    /// The volumes of an earlier pair are to be taken up.
    pub adoption: Option<AdoptionObserved>,
}

/// The certificate of a person for postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerObserved {
    /// The Secret that the spec names; `None`: none any more.
    pub source: Option<String>,
    /// What was found there.
    pub offer: Offer,
    /// How cert-manager is asked for it, if it is.
    pub issuer: Option<IssuerState>,
    /// An instance shows what cert-manager has made.
    pub has_shown_issued: bool,
    /// Instance a.
    pub a: Holder,
    /// Instance b.
    pub b: Holder,
}

/// How cert-manager is asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuerState {
    /// It was asked, or will be.
    Asked,
    /// The API server does not know its kind.
    KindMissing,
}

/// What is offered in a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// It was not read yet.
    Unread,
    /// A certificate that can be taken.
    Good(OfferSummary),
    /// Something that cannot.
    Bad(NotTaken),
}

/// The password of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordView {
    /// The role.
    pub role: String,
    /// The Secret that holds it.
    pub secret: String,
    /// What is known of it.
    pub entry: Entry,
    /// That is of the Secret as it is now, as far as a watch tells.
    pub is_read: bool,
    /// Whose the Secret is.
    pub keeper: Keeper,
    /// What its last password was made for, if the operator made it.
    pub rotated_by: Option<String>,
}

/// Settings that an agent refused: PostgreSQL does not accept them, or they are out of range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsRefusal {
    /// Their generation.
    pub generation: i64,
    /// Why, in the agent's words.
    pub message: String,
}

/// One proof of death that an agent has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taken {
    /// The agent process that took it.
    pub by: Incarnation,
    /// The dead one.
    pub dead: Incarnation,
    /// Whether it rests on a taint; else on the kubelet's word.
    pub taint: bool,
}

impl Taken {
    /// Of this kind.
    #[must_use]
    pub fn new(by: Incarnation, dead: Incarnation, kind: EvidenceKind) -> Taken {
        Taken { by, dead, taint: kind == EvidenceKind::OutOfServiceTaint }
    }
}

/// How often in a row, and for how long, the read-write Service was found leading elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Observations in a row.
    pub times: u32,
    /// Since the first of them.
    pub lasting: Duration,
}

/// The pair's Lease.
#[derive(Debug, Clone, PartialEq)]
pub enum LeaseView {
    /// There is none.
    Missing,
    /// It is not a record; why.
    Unreadable(String),
    /// The record.
    Present(Record),
}

impl LeaseView {
    /// The record, if there is one.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        match self {
            LeaseView::Present(record) => Some(record),
            LeaseView::Missing | LeaseView::Unreadable(_) => None,
        }
    }
}

/// One instance.
#[derive(Debug, Clone, Default)]
pub struct InstanceObserved {
    /// Its StatefulSet.
    pub set: Option<SetView>,
    /// Its pod.
    pub pod: Option<PodView>,
    /// What its agent says.
    pub report: ReportView,
    /// Its seeding Jobs, oldest first.
    pub jobs: Vec<SeedJob>,
    /// `status.updateRevision` of the StatefulSet, if that is of its newest template.
    pub update_revision: Option<String>,
    /// The last report that this process had, however old, and its age.
    pub last_report: Option<(Box<InstanceReport>, Duration)>,
    /// A person has given it up: both claims are deleted or to be, its pod is to be, and the node of that does not answer.
    pub is_given_up: bool,
    /// What keeps its pod, or the pod of its seeding Job, from existing or running.
    pub trouble: Option<PodTrouble>,
    /// Without a report in this process: how long the agent has not answered, at least.
    pub silent_for: Option<Duration>,
    /// The agent process that reported last, and the node on which it ran; also from an earlier operator process.
    pub known: Option<AgentProcess>,
}

/// An agent process and where it ran, by its own report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentProcess {
    /// The process.
    pub incarnation: Incarnation,
    /// The node.
    pub node: String,
}

/// A StatefulSet of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetView {
    /// `spec.replicas`.
    pub replicas: i32,
    /// `status.replicas`.
    pub running: i32,
    /// Number of the seeding Job that it waits for or last had; 0: none ever.
    pub seed: u32,
    /// Seeding Jobs that failed in a row.
    pub seed_failures: u32,
}

/// A pod of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Address, once it has one.
    pub ip: Option<String>,
    /// Node, once it is bound.
    pub node: Option<String>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Condition Ready.
    pub ready: bool,
    /// A deletion timestamp is set.
    pub deleting: bool,
    /// Phase Running.
    pub running: bool,
    /// The container `postgres` runs, or has run.
    pub started: bool,
    /// Label `controller-revision-hash`: the template that it was made of.
    pub revision: Option<String>,
    /// What the kubelet says about ended runs of the container `postgres`.
    pub ended: Vec<Ended>,
}

/// A terminated state of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Why, in the kubelet's words.
    pub reason: String,
    /// Content of the termination log.
    pub message: String,
}

/// What the agent of an instance says, and how old that is.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum ReportView {
    /// This operator process has never had a report of it, and none is overdue.
    #[default]
    NeverSeen,
    /// Answered in this observation.
    Fresh(Box<InstanceReport>),
    /// Answered a few seconds ago, not now.
    Stale(Box<InstanceReport>),
    /// Has not answered for longer, or not at all although it is expected to run: also after a change of the operator's leader.
    Unreachable,
}

impl ReportView {
    /// The report, if it is of this observation.
    #[must_use]
    pub fn fresh(&self) -> Option<&InstanceReport> {
        match self {
            ReportView::Fresh(report) => Some(report),
            _ => None,
        }
    }

    /// The report, if it is not older than some seconds.
    #[must_use]
    pub fn recent(&self) -> Option<&InstanceReport> {
        match self {
            ReportView::Fresh(report) | ReportView::Stale(report) => Some(report),
            _ => None,
        }
    }
}

/// A seeding Job.
#[derive(Debug, Clone, PartialEq)]
pub struct SeedJob {
    /// Its number.
    pub number: u32,
    /// How it stands.
    pub state: SeedState,
    /// What its pod says.
    pub progress: Option<SeedProgress>,
    /// How its last pod failed, in the words of the seeding program.
    pub failure: Option<SeedFailure>,
}

/// How a seeding pod failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedFailure {
    /// Why.
    pub why: String,
    /// The volume still holds the complete data directory that it held before.
    pub kept: bool,
}

/// How a seeding Job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeedState {
    /// Neither complete nor failed.
    Running,
    /// Condition Complete.
    Complete,
    /// Condition Failed.
    Failed {
        /// Since when.
        at: Timestamp,
        /// What Kubernetes says about it.
        message: String,
    },
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SliceView {
    /// There is none, or somebody took the pair's label from it.
    Missing,
    /// The addresses that it leads to.
    Present(Vec<String>),
    /// It leads to these addresses, but its ports or labels are not those that the operator gave it: clients do not arrive.
    Altered(Vec<String>),
}

impl Observed {
    /// Whether nothing of the spec comes into effect, and the pair is only kept going as it is.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.paused || self.invalid.is_some()
    }

    /// Generation of the spec.
    #[must_use]
    pub fn generation(&self) -> i64 {
        self.config.generation
    }

    /// One of the instances.
    #[must_use]
    pub fn instance(&self, i: InstanceId) -> &InstanceObserved {
        match i {
            InstanceId::A => &self.a,
            InstanceId::B => &self.b,
        }
    }

    /// The record, if there is one.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.lease.record()
    }

    /// The primary, if the record names it and it says itself, now and in that term, that it takes writes.
    #[must_use]
    pub fn serving_primary(&self) -> Option<InstanceId> {
        self.serving(|instance| instance.report.fresh())
    }

    /// The same, or so it said a moment ago: one missed answer is not news.
    #[must_use]
    pub fn served_lately(&self) -> Option<(InstanceId, &InstanceReport)> {
        let primary = self.serving(InstanceObserved::lately)?;
        Some((primary, self.instance(primary).lately()?))
    }

    /// The node on which both instances run; `None`: none, or it is not known.
    #[must_use]
    pub fn shared_node(&self) -> Option<&str> {
        let node = |i: &InstanceObserved| i.pod.as_ref().and_then(|p| p.node.clone());
        let both = node(&self.a).is_some_and(|node_a| node(&self.b) == Some(node_a));
        self.a.pod.as_ref().filter(|_| both).and_then(|p| p.node.as_deref())
    }

    /// Whether `NAME-rw` leads to that instance. While its pod is not seen, to any address: one that is missed is not news.
    #[must_use]
    pub fn rw_leads_to(&self, i: InstanceId) -> bool {
        let SliceView::Present(addresses) = &self.rw else { return false };
        match self.instance(i).pod.as_ref().and_then(|p| p.ip.as_ref()) {
            Some(ip) => std::slice::from_ref(ip) == addresses.as_slice(),
            None => !addresses.is_empty(),
        }
    }

    fn serving(&self, report: impl Fn(&InstanceObserved) -> Option<&InstanceReport>) -> Option<InstanceId> {
        let record = self.record()?;
        let primary = record.primary.instance;
        let report = report(self.instance(primary))?;
        // In `Paired` a restarted primary goes on by its standby's promise (rule 7), and the record names its predecessor.
        let named = record.mode == Mode::Paired || report.incarnation == record.primary.incarnation;
        let serves = report.authority.gate_open
            && report.authority.term == record.term
            && named
            && report.postgres.state == PostgresState::Primary;
        serves.then_some(primary)
    }

    /// Whether anything says that the pair has data: then the record is never created again.
    #[must_use]
    pub fn has_data(&self) -> bool {
        let reported =
            |i: &InstanceObserved| i.report.recent().is_some_and(|r| r.system_identifier.is_some());
        self.system_identifier.is_some() || reported(&self.a) || reported(&self.b)
    }
}

/// An answer may be missed once before it is news: this covers a request that was not answered and the look after it.
const LATELY: Duration = Duration::from_secs(4);

impl InstanceObserved {
    /// The last report, if it is of this observation or of one a moment ago. For what people and readers see; nothing about
    /// writing is decided on it.
    #[must_use]
    pub fn lately(&self) -> Option<&InstanceReport> {
        let last = self.last_report.as_ref().filter(|(_, age)| *age < LATELY).map(|(report, _)| &**report);
        self.report.fresh().or(last)
    }

    /// Whether its pod was made of an earlier template than the StatefulSet's newest. Unknown counts as no.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        match (&self.update_revision, &self.pod) {
            (Some(newest), Some(pod)) => pod.revision.as_ref().is_some_and(|r| r != newest),
            _ => false,
        }
    }

    /// How the last pod of the Job that it waits for failed.
    #[must_use]
    pub fn seed_failure(&self) -> Option<&SeedFailure> {
        let awaited = self.set?.seed;
        let job = self.jobs.iter().find(|j| j.number == awaited)?;
        job.failure.as_ref().filter(|_| matches!(job.state, SeedState::Failed { .. }))
    }

    /// Whether a seeding Job of it runs.
    #[must_use]
    pub fn is_seeding(&self) -> bool {
        self.jobs.iter().any(|j| j.state == SeedState::Running)
    }
}
