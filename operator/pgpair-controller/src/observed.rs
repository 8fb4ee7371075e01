//! What is known about a pair at one moment, and how sure it is. Plain data: the decisions read nothing else.

use jiff::Timestamp;
use pgpair_core::ids::InstanceId;
use pgpair_core::record::Record;
use pgpair_core::report::{InstanceReport, PostgresState};
use serde::Deserialize;

/// Everything that is known about a pair.
#[derive(Debug, Clone)]
pub struct Observed {
    /// When it was observed.
    pub now: Timestamp,
    /// `status.systemIdentifier`: present once the pair has data.
    pub system_identifier: Option<String>,
    /// The record, read from the API server for this observation.
    pub lease: LeaseView,
    /// Instance a.
    pub a: InstanceObserved,
    /// Instance b.
    pub b: InstanceObserved,
    /// EndpointSlice of `NAME-rw`.
    pub rw: SliceView,
    /// EndpointSlice of `NAME-ro`.
    pub ro: SliceView,
    /// How many observations in a row have already found that `NAME-rw` leads elsewhere than to the primary.
    pub rw_mismatches: u32,
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
    /// Condition Ready.
    pub ready: bool,
    /// A deletion timestamp is set.
    pub deleting: bool,
    /// Phase Running.
    pub running: bool,
}

/// What the agent of an instance says, and how old that is.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum ReportView {
    /// This operator process has never had a report of it.
    #[default]
    NeverSeen,
    /// Answered in this observation.
    Fresh(Box<InstanceReport>),
    /// Answered a few seconds ago, not now.
    Stale(Box<InstanceReport>),
    /// Has not answered for longer.
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

/// `GET /v1/seed` of a seeding pod.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeedProgress {
    /// Bytes copied.
    pub done_bytes: u64,
    /// Bytes to copy; an estimate of the primary.
    pub total_bytes: Option<u64>,
    /// 0 to 100.
    pub percent: Option<f64>,
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SliceView {
    /// There is none.
    Missing,
    /// The addresses that it leads to.
    Present(Vec<String>),
}

impl Observed {
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
        match &self.lease {
            LeaseView::Present(record) => Some(record),
            _ => None,
        }
    }

    /// The primary, if the record names it and it says itself, now and in that term, that it takes writes.
    #[must_use]
    pub fn serving_primary(&self) -> Option<InstanceId> {
        let record = self.record()?;
        let primary = record.primary.instance;
        let report = self.instance(primary).report.fresh()?;
        let serves = report.authority.gate_open
            && report.authority.term == record.term
            && report.incarnation == record.primary.incarnation
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
