//! Which replica of the operator works: the algorithm of client-go, by hand, and beside other installations.
//!
//! Guarantees: leadership and the work under it end *before* another replica may begin; expiry is counted on the local monotonic clock
//! from when the record last changed, never from a time written by another node; each write carries the resource version
//! it was decided on; no replica leads while another installation claims the same pairs (see [`crate::neighbours`]). This Lease never
//! fences a primary: two leaders at once would only do the same work twice.

mod claim;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::cache::Signs;
use crate::events::EventQueue;
use crate::neighbours::{Domain, Neighbours};
use claim::Claim;

/// A record that has not changed for so long may be taken over.
const LEASE: Duration = Duration::from_secs(15);
/// Without a renewal for so long, leadership is dropped: less than [`LEASE`], so that it ends before another begins.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between attempts; 1.2 times this must be below [`RENEW_DEADLINE`].
const RETRY: Duration = Duration::from_secs(2);
/// Longest wait for one request, so that several fit before the deadline.
const REQUEST: Duration = Duration::from_secs(3);
/// Work that runs when leadership ends is cut off after this: with [`RENEW_DEADLINE`] less than [`LEASE`], so that it has ended when
/// another replica may begin.
pub const DRAIN: Duration = Duration::from_secs(4);

/// Whether this replica works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leadership {
    /// It works.
    Leads,
    /// It does not begin anything. What runs may go on until then.
    Ended {
        /// When work must have ended.
        until: Instant,
    },
}

impl Leadership {
    /// Whether work may begin.
    #[must_use]
    pub fn leads(self) -> bool {
        self == Leadership::Leads
    }

    /// When work must have ended; `None` while it may begin.
    #[must_use]
    pub fn ends(self) -> Option<Instant> {
        match self {
            Leadership::Leads => None,
            Leadership::Ended { until } => Some(until),
        }
    }
}

/// The installation that a replica belongs to.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Namespace of its Lease.
    pub namespace: String,
    /// Name of its Lease.
    pub lease: String,
    /// Name of the replica: differs between replicas.
    pub identity: String,
    /// What the installation looks after.
    pub domain: Domain,
}

/// One replica's part in the election.
pub struct Elector {
    client: Client,
    api: Api<Lease>,
    member: Membership,
    signs: Signs,
    events: EventQueue,
    seen: Option<(String, Instant)>,
    claim: Claim,
    neighbours: Neighbours,
}

impl std::fmt::Debug for Elector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Elector").field("member", &self.member).finish_non_exhaustive()
    }
}

/// Why an attempt did not succeed.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("another replica leads")]
    Held,
    #[error("the API server did not answer within {} s", REQUEST.as_secs())]
    Timeout,
    #[error(transparent)]
    Request(#[from] kube::Error),
}

impl Elector {
    /// A replica of that installation.
    #[must_use]
    pub fn new(client: Client, member: Membership, signs: Signs, events: EventQueue) -> Self {
        Elector {
            api: Api::namespaced(client.clone(), &member.namespace),
            client,
            member,
            signs,
            events,
            seen: None,
            claim: Claim::default(),
            neighbours: Neighbours::default(),
        }
    }

    /// Takes part until `stop` says so, and tells in `leads` whether this replica works. At the end it waits until `working` is
    /// false, but not longer than [`DRAIN`], and gives the Lease up.
    pub async fn run(
        mut self,
        leads: watch::Sender<Leadership>,
        mut working: watch::Receiver<bool>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut renewed: Option<Instant> = None;
        loop {
            // Dropped before the next attempt may hang: the deadline counts from the last success.
            let attempt = tokio::select! {
                biased;
                () = expire(renewed) => Err(AttemptError::Timeout),
                result = self.attempt() => result,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            if matches!(attempt, Ok(_) | Err(AttemptError::Held)) {
                self.signs.health.note_answer();
            }
            match attempt {
                Ok(at) => {
                    renewed = Some(at);
                    let led = leads.borrow().leads();
                    // Never without a look at the other installations; what hangs there costs no more than a renewal that hangs.
                    tokio::select! {
                        // Work ends before the next renewal, which gives the claim up.
                        may_work = self.may_work(led) => set(&leads, may_work, Instant::now() + RETRY),
                        () = expire(renewed) => {}
                        _ = stop.wait_for(|stop| *stop) => break,
                    }
                }
                Err(AttemptError::Held) => {
                    renewed = None;
                    self.drop_claim();
                    set(&leads, false, Instant::now()); // another one works already
                }
                Err(error) => {
                    tracing::warn!(%error, "the operator's lease could not be renewed");
                    if let Some(at) = renewed.take_if(|at| at.elapsed() >= RENEW_DEADLINE) {
                        self.drop_claim();
                        set(&leads, false, at + RENEW_DEADLINE + DRAIN);
                    }
                }
            }
            tokio::select! {
                () = sleep(if self.claim.is_hasty() { Duration::ZERO } else { RETRY }) => {}
                () = expire(renewed) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        set(&leads, false, Instant::now() + DRAIN);
        if renewed.is_some() {
            // Before that, another replica would work beside what runs here. Too late: the Lease runs out as if this one had died.
            if timeout(DRAIN, working.wait_for(|working| !*working)).await.is_ok() {
                self.release().await;
            }
        }
    }

    /// Takes or renews the Lease; gives the time at which the successful write was sent.
    async fn attempt(&mut self) -> Result<Instant, AttemptError> {
        let found = bounded(self.api.get_opt(&self.member.lease)).await?;
        let sent = Instant::now();
        let Some(lease) = found else {
            let mine = bounded(self.api.create(&PostParams::default(), &self.lease(None))).await?;
            self.claim.written(mine);
            return Ok(sent);
        };
        let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default();
        if !holder.is_empty() && holder != self.member.identity && !self.expired(&lease) {
            return Err(AttemptError::Held);
        }
        self.claim.inherit(&lease, Timestamp::now());
        let mine = self.lease(Some(&lease));
        match bounded(self.api.replace(&self.member.lease, &PostParams::default(), &mine)).await {
            Ok(mine) => {
                self.claim.written(mine);
                Ok(sent)
            }
            Err(AttemptError::Request(kube::Error::Api(status))) if status.code == 409 => {
                Err(AttemptError::Held)
            }
            Err(e) => Err(e),
        }
    }

    /// Whether the record has stood unchanged for the length of a lease, on our clock.
    fn expired(&mut self, lease: &Lease) -> bool {
        let version = lease.resource_version().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() >= LEASE,
            _ => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    fn lease(&self, found: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let old = found.and_then(|l| l.spec.clone()).unwrap_or_default();
        let mine = old.holder_identity.as_deref() == Some(&self.member.identity);
        Lease {
            metadata: ObjectMeta {
                name: Some(self.member.lease.clone()),
                resource_version: found.and_then(ResourceExt::resource_version),
                uid: found.and_then(ResourceExt::uid),
                labels: Some(claim::labels()),
                annotations: Some(self.member.domain.annotations(self.claim.is_made())),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.member.identity.clone()),
                lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
                acquire_time: if mine { old.acquire_time } else { Some(now.clone()) },
                renew_time: Some(now),
                lease_transitions: Some(
                    old.lease_transitions.unwrap_or(0) + i32::from(found.is_some() && !mine),
                ),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Empties the holder, so that the next replica need not wait. Best effort: else the lease runs out.
    async fn release(&self) {
        let Ok(Some(found)) = bounded(self.api.get_opt(&self.member.lease)).await else { return };
        if found.spec.as_ref().and_then(|s| s.holder_identity.as_deref()) != Some(&self.member.identity) {
            return;
        }
        let mut lease = self.lease(Some(&found));
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        if let Err(error) =
            bounded(self.api.replace(&self.member.lease, &PostParams::default(), &lease)).await
        {
            tracing::warn!(%error, "the operator's lease could not be given up and will run out");
        }
    }
}

/// Ends when leadership of that renewal would; never without one.
async fn expire(renewed: Option<Instant>) {
    match renewed {
        Some(at) => tokio::time::sleep_until(at + RENEW_DEADLINE).await,
        None => std::future::pending().await,
    }
}

/// `until`: when work must have ended, if it begins no more.
fn set(leads: &watch::Sender<Leadership>, value: bool, until: Instant) {
    leads.send_if_modified(|now| {
        let changed = now.leads() != value;
        if changed {
            tracing::info!(leads = value, "leadership");
            *now = if value { Leadership::Leads } else { Leadership::Ended { until } };
        }
        changed
    });
}

async fn bounded<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, AttemptError> {
    Ok(timeout(REQUEST, request).await.map_err(|_| AttemptError::Timeout)??)
}

#[cfg(test)]
pub(crate) mod tests;
