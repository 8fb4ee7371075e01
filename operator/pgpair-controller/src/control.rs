//! What the leading replica does: caches first, then the controller, until leadership ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::channel::mpsc;
use futures::future::try_join_all;
use futures::{Stream, StreamExt};
use kube::runtime::controller::{self, Action, Config};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, Predicate, WatchStreamExt, predicates, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use pgpair_api::names::{OPERATOR, PairName};
use pgpair_api::validate::Defaults;
use tokio::sync::watch;

use crate::cache::{Caches, Signs, watch_all};
use crate::context::Context;
use crate::error::Error;
use crate::health::Phase;
use crate::memory::PairMemory;
use crate::metrics::Metrics;
use crate::report::chain;
use crate::run::RunError;
use crate::undecodable::{reconcile_watched, watched_error_policy};
use crate::watched::Watched;

/// Pairs that are reconciled at once.
const CONCURRENCY: u16 = 8;
/// Changes of one pair within this time make one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Longest wait for the first lists.
pub const FIRST_LIST: Duration = Duration::from_secs(60);
/// Longest wait for reconciles that run when the process is told to stop.
const DRAIN: Duration = Duration::from_secs(15);

/// What a replica works with, whenever it leads.
#[derive(Clone)]
pub struct Operator {
    /// Client of the API server.
    pub client: Client,
    /// What the operator gives where the spec is silent.
    pub defaults: Arc<Defaults>,
    /// Name of this replica.
    pub identity: String,
    /// Health and metrics.
    pub signs: Signs,
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Works until leadership ends.
///
/// # Errors
/// The caches were not filled in time.
pub async fn lead(operator: &Operator, mut leading: watch::Receiver<bool>) -> Result<(), RunError> {
    let health = &operator.signs.health;
    health.enter(Phase::Filling);
    let (triggers, triggered) = mpsc::unbounded::<ObjectRef<Watched>>();
    let (caches, feeders, first_lists) = watch_all(&operator.client, &triggers, &operator.signs);
    let feeders: Vec<_> = feeders.into_iter().map(tokio::spawn).collect();
    let ended = async {
        // An error means that the election has ended, and leadership with it.
        let _ = leading.wait_for(|leads| !*leads).await;
    };
    let result = tokio::select! {
        filled = tokio::time::timeout(FIRST_LIST, try_join_all(first_lists)) => {
            if matches!(filled, Ok(Ok(_))) { Ok(true) } else { Err(RunError::Caches) }
        }
        () = ended => Ok(false),
    };
    if let Ok(true) = result {
        health.enter(Phase::Working);
        control(operator, caches, triggered, leading).await;
    }
    for feeder in feeders {
        feeder.abort();
    }
    health.enter(Phase::Waiting);
    result.map(|_| ())
}

async fn control(
    operator: &Operator,
    caches: Caches,
    triggered: mpsc::UnboundedReceiver<ObjectRef<Watched>>,
    mut leading: watch::Receiver<bool>,
) {
    let ctx = context(operator, caches);
    let mut ended = leading.clone();
    let ends = async move {
        let _ = ended.wait_for(|leads| !*leads).await; // an error ends leadership too
    };
    let run = reconcile_all(ctx.clone(), operator.signs.clone(), triggered, ends);
    tokio::select! {
        () = run => {}
        () = async {
            let _ = leading.wait_for(|leads| !*leads).await; // as above
            tokio::time::sleep(DRAIN).await;
        } => tracing::warn!("reconciles still ran when leadership had ended and are cut off"),
    }
    // What the next leader shows must not stand beside what this one knew.
    ctx.retain(|_| false);
    ctx.metrics.undecodable.clear();
}

/// Watches the pairs and reconciles each of them, until `ends`.
async fn reconcile_all(
    ctx: Arc<Context>,
    signs: Signs,
    triggered: impl Stream<Item = ObjectRef<Watched>> + Send + 'static,
    ends: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let (reader, writer) = reflector::store();
    let metrics = ctx.metrics.clone();
    let pairs = watcher(Api::<Watched>::all(ctx.client.clone()), watcher::Config::default())
        .default_backoff()
        .inspect(move |item| {
            signs.note(&Watched::kind(&()), item);
            note_decoded(&metrics, item);
        })
        .modify(|pair| pair.managed_fields_mut().clear())
        .reflect(writer)
        .applied_objects()
        // Our own status writes are no reason to look again.
        .predicate_filter(
            predicates::generation.combine(predicates::labels).combine(predicates::annotations),
            Default::default(),
        );
    let known = reader.clone();
    let context = ctx.clone();
    Controller::for_stream(pairs, reader)
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .reconcile_on(triggered)
        .graceful_shutdown_on(ends)
        .run(reconcile_watched, watched_error_policy, ctx)
        .for_each(move |ended| {
            note_ended(ended);
            context.retain(|name| is_known(&known, name));
            futures::future::ready(())
        })
        .await;
}

fn is_known(pairs: &Store<Watched>, name: &PairName) -> bool {
    pairs.get(&ObjectRef::new(&name.name).within(&name.namespace)).is_some()
}

fn note_decoded(metrics: &Metrics, item: &watcher::Result<watcher::Event<Watched>>) {
    let (pair, decodable) = match item {
        Ok(watcher::Event::Apply(pair) | watcher::Event::InitApply(pair)) => (pair, pair.pair().is_ok()),
        Ok(watcher::Event::Delete(pair)) => (pair, true),
        Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => return,
    };
    let name = PairName { namespace: pair.namespace().unwrap_or_default(), name: pair.name_any() };
    metrics.decoded(&name, decodable);
}

/// How a reconcile ended, or what kept the controller from beginning one.
type Ended = Result<(ObjectRef<Watched>, Action), controller::Error<Error, watcher::Error>>;

fn note_ended(ended: Ended) {
    match ended {
        Ok(_) => {}
        // A change of an object whose pair is gone or is not ours.
        Err(controller::Error::ObjectNotFound(pair)) => tracing::debug!(%pair, "no such pair"),
        // What failed has been told by the reconcile itself, and errors of the watch where they came.
        Err(error @ (controller::Error::ReconcilerFailed(..) | controller::Error::QueueError(_))) => {
            tracing::debug!(error = chain(&error), "not reconciled");
        }
        Err(error @ controller::Error::RunnerError(_)) => {
            tracing::error!(error = chain(&error), "the controller failed");
        }
    }
}

fn context(operator: &Operator, caches: Caches) -> Arc<Context> {
    let reporter = Reporter { controller: OPERATOR.into(), instance: Some(operator.identity.clone()) };
    Arc::new(Context {
        client: operator.client.clone(),
        caches,
        defaults: operator.defaults.clone(),
        metrics: operator.signs.metrics.clone(),
        recorder: Recorder::new(operator.client.clone(), reporter),
        pairs: Arc::new(Mutex::new(HashMap::<PairName, PairMemory>::new())),
    })
}

#[cfg(test)]
mod tests;
