//! What all reconciles share, and what one of them is about.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::{Client, ResourceExt};
use pgpair_api::PgReplicaPair;
use pgpair_api::names::PairName;
use pgpair_api::validate::Defaults;

use crate::api::Requests;
use crate::cache::Caches;
use crate::events::EventQueue;
use crate::hear::Hearing;
use crate::managed::Shapes;
use crate::memory::PairMemory;
use crate::metrics::Metrics;
use crate::rollout::Rollout;
use crate::triggers::Triggers;

/// What all reconciles share.
#[derive(Clone)]
pub struct Context {
    /// Client of the API server.
    pub client: Client,
    /// Watch caches.
    pub caches: Caches,
    /// What the operator gives where the spec is silent.
    pub defaults: Arc<Defaults>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Where Events are handed in; one per process, because it holds their series.
    pub events: EventQueue,
    /// What makes the controller look at a pair.
    pub triggers: Triggers,
    /// What the answers to applies have shown.
    pub shapes: Arc<Shapes>,
    /// What all listeners to agents share.
    pub hearing: Hearing,
    /// The roll-out over all pairs.
    pub rollout: Arc<Rollout>,
    /// Memory and errors in a row of each pair.
    pub pairs: Arc<Mutex<HashMap<PairName, PairMemory>>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("defaults", &self.defaults).finish_non_exhaustive()
    }
}

impl Context {
    /// Works on what is kept of a pair.
    pub fn with_memory<T>(&self, name: &PairName, f: impl FnOnce(&mut PairMemory) -> T) -> T {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        f(pairs.entry(name.clone()).or_default())
    }

    /// Pairs of which something is kept: all that were looked at.
    #[must_use]
    pub fn count_pairs(&self) -> usize {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Gives the turn of a pair in the roll-out on to one that waits, which is looked at then.
    pub fn end_roll(&self, name: &PairName) {
        if let Some(next) = self.rollout.end(name) {
            self.triggers.announce(&next);
        }
    }

    /// Forgets a pair that is no longer there, and its metrics.
    pub fn forget(&self, name: &PairName) {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        let _ = self.triggers.take_touched(name);
        self.end_roll(name);
        self.metrics.forget(name);
    }

    /// Forgets all pairs: they are a matter of the next leader.
    pub fn forget_all(&self) {
        let pairs = std::mem::take(&mut *self.pairs.lock().unwrap_or_else(PoisonError::into_inner));
        for name in pairs.keys() {
            self.rollout.end(name);
            self.metrics.forget(name);
        }
    }
}

/// One reconcile of one pair: what it is about, and what it works with.
#[derive(Debug)]
pub struct Pass<'a> {
    /// What all reconciles share.
    pub ctx: &'a Context,
    /// The pair as it was read.
    pub pair: &'a PgReplicaPair,
    /// Its name.
    pub name: PairName,
    /// Requests in its namespace.
    pub requests: Requests,
}

impl<'a> Pass<'a> {
    /// Over `pair`.
    #[must_use]
    pub fn new(ctx: &'a Context, pair: &'a PgReplicaPair) -> Pass<'a> {
        let name = pair_name(pair);
        let requests = Requests::new(ctx.client.clone(), &name.namespace, ctx.metrics.clone())
            .with_shapes(ctx.shapes.clone());
        Pass { ctx, pair, name, requests }
    }
}

/// The name of a pair.
#[must_use]
pub fn pair_name(pair: &PgReplicaPair) -> PairName {
    PairName { namespace: pair.namespace().unwrap_or_default(), name: pair.name_any() }
}
