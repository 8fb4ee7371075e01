//! What this process remembers of a pair from one reconcile to the next. Losing it costs some reads and no-op writes; nothing
//! that matters rests on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::core::ObjectMeta;
use pgpair_core::ids::{InstanceId, Term};
use pgpair_wire::config::PairConfig;
use pgpair_wire::report::InstanceReport;
use rustls::ClientConfig;

use crate::agent_client::{AgentAddress, AgentLine};
use crate::hear::{Ears, SeedEar};
use crate::managed::Digest16;
use crate::observe::Hindrance;
use crate::observed::{Observed, Offer, SettingsRefusal, Taken};
use crate::retry::Retries;
use crate::secrets::issued::Issued;
use crate::unrest::Unrest;

/// What is kept of one pair: its memory, which one reconcile at a time may use, and the errors in a row.
#[derive(Debug, Clone, Default)]
pub struct PairMemory {
    /// Shared with the reconcile that runs.
    pub memory: Arc<tokio::sync::Mutex<Memory>>,
    /// Reconciles that failed in a row.
    pub errors: u32,
}

/// When everything of a pair was looked at last, the record read from the API server itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Looked {
    /// This process has not seen the pair before.
    #[default]
    Never,
    /// Never by this process, but what the watches brought was as an earlier one has told; everything is looked at then.
    Later(Instant),
    /// Something failed since then.
    Failed,
    /// At that time; the term that the record had.
    At(Instant, Option<Term>),
}

impl Looked {
    /// Whether a record of that term is not older than what was read before.
    #[must_use]
    pub fn allows(self, term: Term) -> bool {
        match self {
            Looked::At(_, seen) => Some(term) >= seen,
            Looked::Never | Looked::Later(_) | Looked::Failed => true,
        }
    }
}

/// What was found in a Secret with a certificate for postgres.
#[derive(Debug, Clone)]
pub struct KnownOffer {
    /// Its name.
    pub secret: String,
    /// By which names it was judged.
    pub names: Vec<String>,
    /// Its version; `None`: there was none.
    pub version: Option<String>,
    /// What was found.
    pub offer: Offer,
    /// When it was looked at.
    pub at: Instant,
}

/// What this process remembers of a pair between two observations.
#[derive(Debug, Default)]
pub struct Memory {
    /// What the agents are heard with.
    pub ears: Ears,
    /// What the base backup of each instance is heard with.
    pub seeds: BTreeMap<InstanceId, SeedEar>,
    /// Last report of each instance, and when it was heard or confirmed last.
    pub reports: BTreeMap<InstanceId, (Arc<InstanceReport>, Instant)>,
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
    /// The settings that the agents were given, and the version of the ConfigMap that they come from; read only while the pair is held.
    pub given: Option<(String, Option<PairConfig>)>,
    /// What is known of the last look at everything.
    pub looked: Looked,
    /// Observations in a row that found `NAME-rw` leading elsewhere, and the time of the first.
    pub rw_mismatch: Option<(u32, Instant)>,
    /// What was applied last, by kind and name.
    pub applied: BTreeMap<String, Applied>,
    /// What was under way with the pair at the last look.
    pub unrest: Unrest,
    /// When the status was written last.
    pub status_written: Option<Instant>,
    /// Evidence that was taken: by which agent process, about which, of which kind.
    pub evidence: BTreeSet<Taken>,
    /// The settings that the agent of an instance refused last, and when.
    pub refused_settings: BTreeMap<InstanceId, (SettingsRefusal, Instant)>,
    /// What was read last of the Secrets of people that hold passwords, and when; `None`: it was not there.
    pub persons_secrets: BTreeMap<String, (Option<ObjectMeta>, Instant)>,
    /// What was found last in the Secret with a certificate for postgres.
    pub offer: Option<KnownOffer>,
    /// What cert-manager was asked for.
    pub issued: Issued,
    /// Why the agent of an instance refused certificates last, and when.
    pub refused_certificates: BTreeMap<InstanceId, (String, Instant)>,
    /// The version of the certificates that the agent of an instance was given last, and when.
    pub given_certificates: BTreeMap<InstanceId, (u64, Instant)>,
    /// When the agent of an instance refused passwords last.
    pub refused_passwords: BTreeMap<InstanceId, Instant>,
    /// When a step of a rolling change was taken.
    pub rolled: Option<Instant>,
    /// Steps that failed and are tried again later.
    pub retries: Retries,
}

impl Memory {
    /// Notes what was looked at. After a failure everything is looked at again the next time; after the first glance of this process at
    /// `later`, which is asked for then only.
    pub fn note_look(&mut self, observed: &Observed, has_failed: bool, later: impl FnOnce() -> Instant) {
        if has_failed {
            self.looked = Looked::Failed;
        } else if !observed.is_glance {
            self.looked = Looked::At(Instant::now(), observed.record().map(|record| record.term));
        } else if self.looked == Looked::Never {
            self.looked = Looked::Later(later());
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

    /// Closes them until they are needed again.
    pub fn close(&mut self) {
        (self.a.0, self.b.0) = Default::default();
    }

    /// Where the agent of `i` is; `None`: not known.
    pub fn set_address(&mut self, i: InstanceId, address: Option<AgentAddress>) {
        match i {
            InstanceId::A => self.a.1 = address,
            InstanceId::B => self.b.1 = address,
        }
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
    /// Digest of its content.
    pub hash: Digest16,
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
