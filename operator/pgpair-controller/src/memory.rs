//! What this process remembers of a pair from one reconcile to the next. Losing it costs some reads and no-op writes; nothing
//! that matters rests on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::core::ObjectMeta;
use pgpair_core::ids::InstanceId;
use pgpair_wire::report::InstanceReport;
use rustls::ClientConfig;

use crate::agent_client::{AgentAddress, AgentLine};
use crate::observe::Hindrance;
use crate::observed::{LeaseView, Observed, SettingsRefusal, Taken};
use crate::retry::Retries;

/// What is kept of one pair: its memory, which one reconcile at a time may use, and the errors in a row.
#[derive(Debug, Clone, Default)]
pub struct PairMemory {
    /// Shared with the reconcile that runs.
    pub memory: Arc<tokio::sync::Mutex<Memory>>,
    /// Reconciles that failed in a row.
    pub errors: u32,
}

/// What this process remembers of a pair between two observations.
#[derive(Debug, Default)]
pub struct Memory {
    /// Last report of each instance, and when it came.
    pub reports: BTreeMap<InstanceId, (InstanceReport, Instant)>,
    /// Since when this process has found that an instance is expected to run.
    pub expected: BTreeMap<InstanceId, Instant>,
    /// What keeps a pod of an instance from running.
    pub hindrances: BTreeMap<InstanceId, Hindrance>,
    /// When warnings about a pod of the pair were read last.
    pub warnings_read: Option<Instant>,
    /// AgentLines to the agents.
    pub lines: AgentLines,
    /// Certificates, and the resource version of the Secret that they come from.
    pub tls: Option<(String, Arc<ClientConfig>)>,
    /// The record of a settled pair, and when it was read.
    pub lease: Option<(LeaseView, Instant)>,
    /// Observations in a row that found `NAME-rw` leading elsewhere, and the time of the first.
    pub rw_mismatch: Option<(u32, Instant)>,
    /// What was applied last, by kind and name.
    pub applied: BTreeMap<String, Applied>,
    /// When the status was written last.
    pub status_written: Option<Instant>,
    /// Evidence that was taken: by which agent process, about which, of which kind.
    pub evidence: BTreeSet<Taken>,
    /// The settings that the agent of an instance refused last, and when.
    pub refused_settings: BTreeMap<InstanceId, (SettingsRefusal, Instant)>,
    /// When a step of a rolling change was taken.
    pub rolled: Option<Instant>,
    /// Steps that failed and are tried again later.
    pub retries: Retries,
}

impl Memory {
    /// Notes whether the pair was found as it should be: its record need not be read again for some seconds.
    pub fn settled(&mut self, observed: &Observed, settled: bool) {
        if !settled {
            self.lease = None;
        } else if !observed.lease_is_recent {
            self.lease = Some((observed.lease.clone(), Instant::now()));
        }
    }

    /// Notes whether an instance is expected to run; for how long this process has found that.
    pub fn expected(&mut self, i: InstanceId, expected: bool) -> Option<Duration> {
        if !expected {
            self.expected.remove(&i);
            return None;
        }
        Some(self.expected.entry(i).or_insert_with(Instant::now).elapsed())
    }
}

/// The lines to both agents, and where these are.
#[derive(Debug, Default)]
pub struct AgentLines {
    /// To the agent of a.
    pub a: (AgentLine, Option<AgentAddress>),
    /// To the agent of b.
    pub b: (AgentLine, Option<AgentAddress>),
}

impl AgentLines {
    /// With the agent of b there.
    #[cfg(test)]
    pub fn with_b(target: AgentAddress) -> AgentLines {
        AgentLines { b: (AgentLine::default(), Some(target)), ..AgentLines::default() }
    }

    /// The line to the agent of `i`; `None` while it is not known where that is.
    pub fn to(&mut self, i: InstanceId) -> Option<(&mut AgentLine, &AgentAddress)> {
        let (line, target) = match i {
            InstanceId::A => &mut self.a,
            InstanceId::B => &mut self.b,
        };
        Some((line, target.as_ref()?))
    }
}

/// What was applied and what the API server made of it. While both stand, applying again would change nothing, so an
/// idle pair causes no writes; an object that somebody changed or deleted has another mark and is applied again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// SHA-256 of the object as JSON.
    pub hash: [u8; 32],
    /// What the API server answered.
    pub mark: AppliedMark,
}

impl Applied {
    /// Whether a cached object is older than what this process wrote.
    #[must_use]
    pub fn outdates(&self, cached: Option<&ObjectMeta>) -> bool {
        match (&self.mark, cached) {
            (_, None) => true,
            (AppliedMark::Generation(written), Some(meta)) => meta.generation.unwrap_or(0) < *written,
            (AppliedMark::Version(_) | AppliedMark::Exists, Some(_)) => false,
        }
    }
}

/// What tells that an object's desired part may have changed: the generation where there is one, else the version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppliedMark {
    /// `metadata.generation`.
    Generation(i64),
    /// `metadata.resourceVersion`.
    Version(String),
    /// Its status shares the version with its spec: only existence is checked.
    Exists,
}
