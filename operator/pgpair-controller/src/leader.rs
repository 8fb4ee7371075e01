//! Which replica of the operator works: the algorithm of client-go, by hand.
//!
//! Guarantees: leadership is dropped *before* another replica may take it; expiry is counted on the local monotonic clock
//! from when the record last changed, never from a time written by another node; each write carries the resource version
//! it was decided on. This Lease never fences a primary: two leaders at once would only do the same work twice.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use pgpair_api::names::OPERATOR;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::health::Health;

/// A record that has not changed for so long may be taken over.
const LEASE: Duration = Duration::from_secs(15);
/// Without a renewal for so long, leadership is dropped: less than [`LEASE`], so that it ends before another begins.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between attempts; 1.2 times this must be below [`RENEW_DEADLINE`].
const RETRY: Duration = Duration::from_secs(2);
/// Longest wait for one request, so that several fit before the deadline.
const REQUEST: Duration = Duration::from_secs(3);

/// One replica's part in the election.
pub struct Elector {
    api: Api<Lease>,
    identity: String,
    health: Arc<Health>,
    seen: Option<(String, Instant)>,
}

impl std::fmt::Debug for Elector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Elector").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Why an attempt did not succeed.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("another replica leads")]
    Held,
    #[error("the api server did not answer within {} s", REQUEST.as_secs())]
    Timeout,
    #[error(transparent)]
    Request(#[from] kube::Error),
}

impl Elector {
    /// `identity` must differ between replicas: the pod's name.
    #[must_use]
    pub fn new(api: Api<Lease>, identity: String, health: Arc<Health>) -> Self {
        Elector { api, identity, health, seen: None }
    }

    /// Takes part until `stop` says so, and tells in `leads` whether this replica works. Gives the Lease up at the end.
    pub async fn run(mut self, leads: watch::Sender<bool>, mut stop: watch::Receiver<bool>) {
        let mut renewed: Option<Instant> = None;
        loop {
            // Dropped before the next attempt may hang: the deadline counts from the last success.
            let attempt = tokio::select! {
                result = self.attempt() => result,
                () = expire(renewed) => Err(AttemptError::Timeout),
                _ = stop.wait_for(|stop| *stop) => break,
            };
            if matches!(attempt, Ok(_) | Err(AttemptError::Held)) {
                self.health.note_answer();
            }
            match attempt {
                Ok(at) => {
                    renewed = Some(at);
                    set(&leads, true);
                }
                Err(AttemptError::Held) => {
                    renewed = None;
                    set(&leads, false);
                }
                Err(error) => {
                    tracing::warn!(%error, "the operator's lease could not be renewed");
                    if renewed.is_none_or(|at| at.elapsed() >= RENEW_DEADLINE) {
                        renewed = None;
                        set(&leads, false);
                    }
                }
            }
            tokio::select! {
                () = sleep(RETRY) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        let led = *leads.borrow();
        set(&leads, false);
        if led {
            self.release().await;
        }
    }

    /// Takes or renews the Lease; gives the time at which the successful write was sent.
    async fn attempt(&mut self) -> Result<Instant, AttemptError> {
        let found = bounded(self.api.get_opt(OPERATOR)).await?;
        let sent = Instant::now();
        let Some(lease) = found else {
            bounded(self.api.create(&PostParams::default(), &self.lease(None))).await?;
            return Ok(sent);
        };
        let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && !self.expired(&lease) {
            return Err(AttemptError::Held);
        }
        match bounded(self.api.replace(OPERATOR, &PostParams::default(), &self.lease(Some(&lease)))).await {
            Ok(_) => Ok(sent),
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
        let mine = old.holder_identity.as_deref() == Some(&self.identity);
        Lease {
            metadata: ObjectMeta {
                name: Some(OPERATOR.into()),
                resource_version: found.and_then(ResourceExt::resource_version),
                uid: found.and_then(ResourceExt::uid),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
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
        let Ok(Some(found)) = bounded(self.api.get_opt(OPERATOR)).await else { return };
        if found.spec.as_ref().and_then(|s| s.holder_identity.as_deref()) != Some(&self.identity) {
            return;
        }
        let mut lease = self.lease(Some(&found));
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        if let Err(error) = bounded(self.api.replace(OPERATOR, &PostParams::default(), &lease)).await {
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

fn set(leads: &watch::Sender<bool>, value: bool) {
    leads.send_if_modified(|now| {
        let changed = *now != value;
        if changed {
            tracing::info!(leads = value, "leadership");
        }
        *now = value;
        changed
    });
}

async fn bounded<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, AttemptError> {
    Ok(timeout(REQUEST, request).await.map_err(|_| AttemptError::Timeout)??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock_api::{Answers, Seen, mock_api, seen};

    #[tokio::test]
    async fn a_leader_that_is_told_to_stop_gives_its_lease_up_at_once() {
        let (client, server) = mock_api(Answers::Stored);
        let elector = Elector::new(Api::namespaced(client, "operators"), "replica-1".into(), Arc::default());
        let (leads, mut leading) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let election = tokio::spawn(elector.run(leads, stopped));
        leading.wait_for(|leads| *leads).await.unwrap();
        stop.send_replace(true);
        election.await.unwrap();
        let holders: Vec<_> = seen(server)
            .await
            .into_iter()
            .filter(Seen::is_write)
            .map(|s| s.body["spec"]["holderIdentity"].as_str().unwrap_or("?").to_owned())
            .collect();
        assert_eq!(holders, ["replica-1", ""], "taken, then given up, and nothing in between");
        assert!(!*leading.borrow());
    }

    #[tokio::test]
    async fn a_replica_that_does_not_lead_leaves_the_lease_alone() {
        let (client, server) = mock_api(Answers::Conflict);
        let elector = Elector::new(Api::namespaced(client, "operators"), "replica-2".into(), Arc::default());
        let (leads, leading) = watch::channel(false);
        let (stop, stopped) = watch::channel(true);
        elector.run(leads, stopped).await;
        drop(stop);
        assert!(!*leading.borrow());
        let writes = seen(server).await.into_iter().filter(Seen::is_write).count();
        assert!(writes <= 1, "at most the attempt that met a conflict");
    }
}
