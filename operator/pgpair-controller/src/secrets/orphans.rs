//! Secrets in the operator's own namespace whose pair is gone. No owner reference leads there from the pair's namespace, so nothing takes
//! them away with the pair; and an operator that was away when the pair went finds them later.
//!
//! Flow, once an hour: the Secrets are listed by their label, then all pairs, whatever their class. A Secret without a pair of its uid is only suspected; it
//! goes if that is still so ten minutes later, and if the API server, asked for this one pair, says again that there is none.
//!
//! Guarantee: nothing is deleted because something is not known. A cache is never asked; a list that failed, was cut off or may not be read proves
//! nothing; and neither does "not found", which is also the answer of an API server that does not know the kind. The proof is a list
//! that came and does not hold the uid, or a namespace that does not exist. A mistake would cost three steps of a rotation, and no data.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::core::ObjectMeta;
use pgpair_api::PgReplicaPair;
use pgpair_api::names::{LABEL_OF_UID, PairName};
use tokio::time::{Instant, sleep};

use crate::api::Requests;
use crate::cache::with_operator::pair_of;
use crate::error::{Error, MayBeRefusal, chain};
use crate::neighbours::Domain;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(3600);
/// How long it must have been so that there is no pair; also when it is looked again then, and when a new leader looks first.
const WAIT: Duration = Duration::from_secs(600);

/// Looks for them again and again.
#[derive(Debug)]
pub struct Orphans {
    /// Requests in the operator's own namespace.
    requests: Requests,
    /// That namespace.
    namespace: String,
    domain: Domain,
    /// Pairs that were not there, by their uid, and since when.
    suspected: BTreeMap<String, Instant>,
}

impl Orphans {
    /// With `requests` in `namespace`, which is the operator's own.
    #[must_use]
    pub fn new(requests: Requests, namespace: &str, domain: Domain) -> Orphans {
        Orphans { requests, namespace: namespace.to_owned(), domain, suspected: BTreeMap::new() }
    }

    /// For ever.
    pub async fn take_away(mut self) {
        let mut wait = WAIT;
        loop {
            sleep(wait).await;
            let now = Instant::now();
            if let Err(error) = self.look(now).await {
                tracing::warn!(error = chain(&error), "Secrets without a pair could not be looked for");
            }
            let is_new = |since: &Instant| now - *since < WAIT;
            wait = if self.suspected.values().any(is_new) { WAIT } else { EVERY };
        }
    }

    async fn look(&mut self, now: Instant) -> Result<(), Error> {
        // Secrets first: each pair of theirs was there before the pairs are listed.
        let mut left = self.list_kept().await?;
        self.take_out_pairs(&mut left).await?;
        self.suspected.retain(|uid, _| left.contains_key(uid));
        let mut failed = None;
        for (uid, pair) in left {
            let since = *self.suspected.entry(uid.clone()).or_insert(now);
            if now - since < WAIT {
                continue;
            }
            match self.take_away_of(&pair, &uid).await {
                Ok(true) => {
                    self.suspected.remove(&uid);
                }
                Ok(false) => {}
                // One of which nothing can be known must not keep the others here.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn take_away_of(&self, pair: &PairName, uid: &str) -> Result<bool, Error> {
        let is_gone = self.is_gone(pair, uid).await?;
        if is_gone {
            self.delete_secrets(pair, uid).await?;
        }
        Ok(is_gone)
    }

    /// The pairs that have Secrets here, by their uid.
    async fn list_kept(&self) -> Result<BTreeMap<String, PairName>, Error> {
        let mut kept = BTreeMap::new();
        let note = |meta: &ObjectMeta| kept.extend(pair_of(meta).map(|(pair, uid)| (uid, pair)));
        let labelled = ListParams::default().labels(LABEL_OF_UID);
        self.requests.list_metadata::<Secret>(Some(&self.namespace), labelled, note).await?;
        Ok(kept)
    }

    /// Takes out the pairs that are there, and those of which nothing can be known.
    async fn take_out_pairs(&self, left: &mut BTreeMap<String, PairName>) -> Result<(), Error> {
        for scope in self.domain.scopes() {
            let note = |meta: &ObjectMeta| drop(left.remove(meta.uid.as_deref().unwrap_or_default()));
            let listed = self.requests.list_metadata::<PgReplicaPair>(scope, ListParams::default(), note);
            match listed.await {
                // Its namespace is gone, and with it the right to look into it.
                Err(error) if scope.is_some() && error.is_refused_with(403) => {}
                listed => listed?,
            }
        }
        Ok(())
    }

    /// Whether the API server says now that there is no pair of this uid.
    async fn is_gone(&self, pair: &PairName, uid: &str) -> Result<bool, Error> {
        let named = ListParams::default().fields(&format!("metadata.name={}", pair.name));
        let mut is_there = false;
        let note = |meta: &ObjectMeta| is_there |= meta.uid.as_deref() == Some(uid);
        match self.requests.list_metadata::<PgReplicaPair>(Some(&pair.namespace), named, note).await {
            Ok(()) => Ok(!is_there),
            Err(error) if error.is_refused_with(403) => {
                match self.requests.has_namespace(&pair.namespace).await {
                    Ok(exists) => Ok(!exists),
                    // It may not be looked at either: then nothing is known.
                    Err(error) if error.is_refused_with(403) => Ok(false),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn delete_secrets(&self, pair: &PairName, uid: &str) -> Result<(), Error> {
        let mut found = BTreeSet::new();
        let note = |meta: &ObjectMeta| {
            let is_of_pair = pair_of(meta).is_some_and(|(of, of_uid)| of == *pair && of_uid == uid);
            found.extend(meta.name.clone().zip(meta.uid.clone()).filter(|_| is_of_pair));
        };
        let labelled = ListParams::default().labels(&format!("{LABEL_OF_UID}={uid}"));
        self.requests.list_metadata::<Secret>(Some(&self.namespace), labelled, note).await?;
        for (name, of_secret) in found {
            self.requests.delete_exactly::<Secret>(&name, &of_secret).await?;
            tracing::info!(
                secret = name,
                namespace = pair.namespace,
                pair = pair.name,
                "deleted: its pair is gone"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
