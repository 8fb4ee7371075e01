//! The claim of an installation on its pairs: made, looked at again, given up.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Resource};
use pgpair_api::names::{COMPONENT_OPERATOR, LABEL_COMPONENT};
use tokio::time::Instant;

use super::{AttemptError, Elector, bounded};
use crate::error::MayBeRefusal;
use crate::events::EventDraft;
use crate::neighbours::{Installation, Verdict, decide_claim};
use pgpair_api::events::EventReason;

/// Time between two looks at the other installations while this one works.
const LOOK: Duration = Duration::from_secs(30);
/// The same while it stands aside.
const LOOK_ASIDE: Duration = Duration::from_secs(10);

/// A claim that was renewed so lately has not been given up for anybody else: less than the time after which others take an installation
/// for gone.
const LATELY: Duration = Duration::from_secs(30);

/// What has become of the claim.
#[derive(Debug, Default)]
pub(super) struct Claim {
    /// Our Lease as it was written last.
    lease: Option<Lease>,
    state: State,
    looked: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum State {
    /// The others have not been looked at.
    #[default]
    Unknown,
    /// Nothing stood against it: it is written with the next renewal, which follows at once.
    Made,
    /// It was written and looked at again: this installation works.
    Confirmed,
    /// It belongs to this installation.
    Theirs((String, String)),
}

impl Claim {
    /// Whether the Lease says that the pairs are ours.
    pub(super) fn is_made(&self) -> bool {
        matches!(self.state, State::Made | State::Confirmed)
    }

    /// Whether the next renewal must not wait: a claim is worth something once it is written.
    pub(super) fn is_hasty(&self) -> bool {
        self.state == State::Made && self.lease.as_ref().is_some_and(|l| !Installation::of(l).claims)
    }

    /// Takes over the claim of the replica that led before: an installation whose replicas change keeps its pairs.
    pub(super) fn inherit(&mut self, found: &Lease, now: Timestamp) {
        let renewed = found.spec.as_ref().and_then(|s| s.renew_time.as_ref());
        let lately = renewed.is_some_and(|at| now.duration_since(at.0).unsigned_abs() < LATELY);
        if self.state == State::Unknown && lately && Installation::of(found).claims {
            self.state = State::Made;
        }
    }

    pub(super) fn written(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    fn is_due(&self) -> bool {
        let pause = match self.state {
            State::Unknown | State::Made => return true,
            State::Confirmed => LOOK,
            State::Theirs(_) => LOOK_ASIDE,
        };
        self.looked.is_none_or(|at| at.elapsed() >= pause)
    }
}

/// Labels of an installation's Lease.
pub(super) fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([(LABEL_COMPONENT.to_owned(), COMPONENT_OPERATOR.to_owned())])
}

impl Elector {
    /// Forgets the claim: this replica does not speak for its installation any more.
    pub(super) fn drop_claim(&mut self) {
        self.claim = Claim::default();
        self.signs.metrics.conflict.set(0);
    }

    /// Whether no other installation claims the same pairs. The Lease has just been renewed.
    pub(super) async fn may_work(&mut self, working: bool) -> bool {
        let Some(mine) = self.claim.lease.clone() else { return false };
        if !self.claim.is_due() {
            return self.claim.state == State::Confirmed;
        }
        let others = match self.installations().await {
            Ok(leases) => self.neighbours.alive(&leases, Instant::now(), Timestamp::now()),
            Err(error) => {
                // Who works goes on: the others see its claim. Who does not yet work cannot know whether it may.
                tracing::warn!(%error, "the leases of other installations of the operator could not be listed");
                return working;
            }
        };
        self.claim.looked = Some(Instant::now());
        let me = Installation::of(&mine);
        let verdict = decide_claim(&me, &others, working);
        self.follow(verdict, me.claims, &mine).await
    }

    async fn follow(&mut self, verdict: Verdict, written: bool, mine: &Lease) -> bool {
        let other = match verdict {
            Verdict::Work => {
                self.claim.state = if written { State::Confirmed } else { State::Made };
                self.signs.metrics.conflict.set(0);
                return written;
            }
            Verdict::Wait(other) => {
                self.claim.state = State::Made;
                other
            }
            Verdict::StandAside(other) => {
                let known = self.claim.state == State::Theirs(other.clone());
                self.claim.state = State::Theirs(other.clone());
                if !known {
                    self.tell_conflict(&other, mine);
                }
                other
            }
        };
        tracing::debug!(namespace = other.0, lease = other.1, "another installation has the pairs");
        false
    }

    fn tell_conflict(&self, (namespace, lease): &(String, String), mine: &Lease) {
        self.signs.metrics.conflict.set(1);
        let message = format!(
            "another installation of the operator (Lease {lease} in namespace {namespace}) looks after the same pairs: this one does nothing until that one is uninstalled. Give one of them another class or other namespaces (values class and watchNamespaces of the chart), or uninstall it"
        );
        tracing::warn!(namespace, lease, "{message}");
        let draft = EventDraft::new(EventReason::OperatorConflict, true, message);
        self.events.publish(&mine.object_ref(&()), draft);
    }

    /// The Leases of all installations that this one can see: in the whole cluster, or else in the namespaces that it looks after and in
    /// its own. Those that it may not list are left out: an account of fewer rights still has to look after its pairs.
    async fn installations(&self) -> Result<Vec<Lease>, AttemptError> {
        let all = Api::<Lease>::all(self.client.clone());
        if let Some(found) = list_permitted(&all).await? {
            return Ok(found);
        }
        let namespaces = &self.member.domain.namespaces;
        let own = std::iter::once(&self.member.namespace).filter(|n| !namespaces.contains(*n));
        let mut found = Vec::new();
        for namespace in namespaces.iter().chain(own) {
            let api = Api::<Lease>::namespaced(self.client.clone(), namespace);
            found.extend(list_permitted(&api).await?.unwrap_or_default());
        }
        Ok(found)
    }
}

/// `None`: this account may not list them.
async fn list_permitted(api: &Api<Lease>) -> Result<Option<Vec<Lease>>, AttemptError> {
    let params = ListParams::default().labels(&format!("{}={}", LABEL_COMPONENT, COMPONENT_OPERATOR));
    match bounded(api.list(&params)).await {
        Ok(found) => Ok(Some(found.items)),
        Err(AttemptError::Request(error)) if error.is_refused_with(403) => {
            tracing::debug!(%error, "the leases of other installations may not be listed");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
