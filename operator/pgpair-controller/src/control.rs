//! What the leading replica does: caches first, then the controller, until leadership ends.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::channel::mpsc;
use futures::future::try_join_all;
use futures::{Stream, StreamExt};
use kube::runtime::controller::{self, Action, Config};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, Predicate, WatchStreamExt, predicates, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use pgpair_api::names::PairName;
use pgpair_api::validate::Defaults;
use pgpair_api::word::Word;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::Requests;
use crate::cache::{Caches, PAGE, Scope, Signs, api_in, watch_all};
use crate::context::Context;
use crate::error::Error;
use crate::error::chain;
use crate::events::EventQueue;
use crate::health::Phase;
use crate::hear::Hearing;
use crate::leader::Leadership;
use crate::memory::PairMemory;
use crate::metrics::Metrics;
use crate::neighbours::Domain;
use crate::orders::orphans;
use crate::rollout::Rollout;
use crate::run::RunError;
use crate::secrets::orphans::Orphans;
use crate::triggers::Triggers;
use crate::undecodable::{reconcile_watched, watched_error_policy};
use crate::watched::{Watched, only_class};

/// Pairs that are reconciled at once. They wait for the API server, and for agents that answered a moment ago: silent ones are never
/// waited for.
const CONCURRENCY: u16 = 64;
/// Changes of one pair within this time make one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Longest wait for the first lists.
pub const FIRST_LIST: Duration = Duration::from_secs(60);

/// What a replica works with, whenever it leads.
#[derive(Clone)]
pub struct Operator {
    /// Client of the API server.
    pub client: Client,
    /// What the operator gives where the spec is silent.
    pub defaults: Arc<Defaults>,
    /// Where Events are handed in; one per process, because it holds their series.
    pub events: EventQueue,
    /// What it looks after.
    pub domain: Domain,
    /// Pairs that roll at the same time.
    pub max_rolling: usize,
    /// Health and metrics.
    pub signs: Signs,
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator").field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// Works until leadership ends.
///
/// # Errors
/// The caches were not filled in time.
pub async fn lead(operator: &Operator, leading: watch::Receiver<Leadership>) -> Result<(), RunError> {
    let health = &operator.signs.health;
    health.enter(Phase::Filling);
    let rollout = Arc::new(Rollout::new(operator.max_rolling));
    let filling = AtomicUsize::new(operator.domain.scopes().len());
    let scopes = operator.domain.scopes().into_iter();
    let work = scopes.map(|scope| lead_in(operator, scope, &filling, &rollout, leading.clone()));
    let result = tokio::select! {
        result = try_join_all(work) => result,
        () = orphaned_secrets(operator).take_away() => Ok(Vec::new()), // that has no end
    };
    operator.signs.metrics.show_rollout((0, 0)); // a matter of the next leader
    health.enter(Phase::Waiting);
    result.map(|_| ())
}

fn orphaned_secrets(operator: &Operator) -> Orphans {
    let namespace = &operator.defaults.operator_namespace;
    let requests = Requests::new(operator.client.clone(), namespace, operator.signs.metrics.clone());
    Orphans::new(requests, namespace, operator.domain.clone())
}

/// In one namespace, or in all.
async fn lead_in(
    operator: &Operator,
    scope: Option<&str>,
    filling: &AtomicUsize,
    rollout: &Arc<Rollout>,
    mut leading: watch::Receiver<Leadership>,
) -> Result<(), RunError> {
    let (triggers, triggered) = Triggers::new();
    let place = Scope { pairs: scope, operator: &operator.defaults.operator_namespace };
    let (caches, feeders, first_lists) = watch_all(&operator.client, place, &triggers, &operator.signs);
    // Ends the feeders too, when this future is dropped.
    let mut tasks = JoinSet::new();
    for feeder in feeders {
        tasks.spawn(feeder);
    }
    let filled = tokio::select! {
        filled = tokio::time::timeout(FIRST_LIST, try_join_all(first_lists)) => matches!(filled, Ok(Ok(_))),
        // An error means that the election has ended, and leadership with it.
        _ = leading.wait_for(|leads| !leads.leads()) => return Ok(()),
    };
    if !filled {
        return Err(RunError::Caches);
    }
    tracing::info!(namespace = scope, "the caches are filled, and pairs are looked at");
    if filling.fetch_sub(1, Ordering::Relaxed) == 1 {
        operator.signs.health.enter(Phase::Working);
    }
    control(operator, scope, context(operator, caches, triggers, rollout), triggered, leading).await;
    Ok(())
}

async fn control(
    operator: &Operator,
    scope: Option<&str>,
    ctx: Arc<Context>,
    triggered: mpsc::UnboundedReceiver<ObjectRef<Watched>>,
    mut leading: watch::Receiver<Leadership>,
) {
    let pairs = api_in::<Watched>(&operator.client, scope);
    let mut ended = leading.clone();
    let ends = async move {
        let _ = ended.wait_for(|leads| !leads.leads()).await; // an error ends leadership too
    };
    let run = reconcile_all(ctx.clone(), pairs, operator, triggered, ends);
    let orders = api_in(&operator.client, scope);
    let orphans = orphans::take_away_for_ever(operator.client.clone(), orders, ctx.metrics.clone());
    tokio::select! {
        () = run => {}
        () = orphans => {}
        () = cut_off(&mut leading) => tracing::warn!("reconciles still ran when leadership had ended and are cut off"),
    }
    // What the next leader shows must not stand beside what this one knew.
    ctx.forget_all();
    ctx.metrics.undecodable.clear();
}

/// Ends when no work of an ended leadership may go on.
async fn cut_off(leading: &mut watch::Receiver<Leadership>) {
    let until = match leading.wait_for(|leads| !leads.leads()).await {
        Ok(leads) => leads.ends(),
        Err(_) => None, // the election has ended: then at once
    };
    if let Some(until) = until {
        tokio::time::sleep_until(until).await;
    }
}

/// Watches the pairs and reconciles each of them, until `ends`.
async fn reconcile_all(
    ctx: Arc<Context>,
    pairs: Api<Watched>,
    operator: &Operator,
    triggered: impl Stream<Item = ObjectRef<Watched>> + Send + 'static,
    ends: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let (reader, writer) = reflector::store();
    let mut present = Present { ctx: ctx.clone(), known: HashSet::new(), listed: HashSet::new() };
    let (signs, metrics, class) =
        (operator.signs.clone(), ctx.metrics.clone(), operator.domain.class.clone());
    let pairs = watcher(pairs, watcher::Config::default().page_size(PAGE))
        .default_backoff()
        .inspect(move |item| signs.note(&Watched::kind(&()), item))
        .filter_map(move |item| futures::future::ready(only_class(item, &class)))
        .inspect(move |item| note_decoded(&metrics, item))
        .modify(|pair| pair.managed_fields_mut().clear())
        .reflect(writer)
        .inspect(move |item| present.note(item))
        .applied_objects()
        // Our own status writes are no reason to look again, but for an order: it is announced there before it is sent.
        .predicate_filter(
            predicates::generation
                .combine(predicates::labels)
                .combine(predicates::annotations)
                .combine(order_step),
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
            if let Some(pair) = note_ended(ended) {
                forget_if_gone(&context, &known, &pair);
            }
            futures::future::ready(())
        })
        .await;
}

/// A reconcile that ran while its pair went has remembered and shown it again.
fn forget_if_gone(ctx: &Context, known: &Store<Watched>, pair: &PairName) {
    if known.get(&ObjectRef::new(&pair.name).within(&pair.namespace)).is_none() {
        ctx.forget(pair);
    }
}

/// The pairs that the watch knows: what is kept of one goes with it.
struct Present {
    ctx: Arc<Context>,
    known: HashSet<PairName>,
    /// Those of a list that is being read.
    listed: HashSet<PairName>,
}

impl Present {
    /// Notes what the watch brought, which the store has taken in before.
    fn note(&mut self, item: &watcher::Result<watcher::Event<Watched>>) {
        match item {
            Ok(watcher::Event::Apply(pair)) => drop(self.known.insert(name_of(pair))),
            Ok(watcher::Event::Delete(pair)) => {
                let name = name_of(pair);
                self.known.remove(&name);
                self.ctx.forget(&name);
            }
            Ok(watcher::Event::Init) => self.listed.clear(),
            Ok(watcher::Event::InitApply(pair)) => drop(self.listed.insert(name_of(pair))),
            Ok(watcher::Event::InitDone) => {
                let before = std::mem::replace(&mut self.known, std::mem::take(&mut self.listed));
                for gone in before.difference(&self.known) {
                    self.ctx.forget(gone);
                }
            }
            Err(_) => {}
        }
    }
}

/// How far the status says that the order of a person has come.
fn order_step(pair: &Watched) -> Option<u64> {
    let order = pair.pair().ok()?.status.as_ref()?.order.as_ref()?;
    let mut hasher = DefaultHasher::new();
    let reason = order.reason.as_ref().map(Word::as_str);
    (&order.id, order.state.as_str(), reason).hash(&mut hasher);
    Some(hasher.finish())
}

fn name_of(pair: &Watched) -> PairName {
    PairName { namespace: pair.namespace().unwrap_or_default(), name: pair.name_any() }
}

fn note_decoded(metrics: &Metrics, item: &watcher::Result<watcher::Event<Watched>>) {
    let (pair, decodable) = match item {
        Ok(watcher::Event::Apply(pair) | watcher::Event::InitApply(pair)) => (pair, pair.pair().is_ok()),
        Ok(watcher::Event::Delete(pair)) => (pair, true),
        Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => return,
    };
    metrics.decoded(&name_of(pair), decodable);
}

/// How a reconcile ended, or what kept the controller from beginning one.
type Ended = Result<(ObjectRef<Watched>, Action), controller::Error<Error, watcher::Error>>;

/// Notes it; gives the pair, where one is known.
fn note_ended(ended: Ended) -> Option<PairName> {
    let named = |namespace: Option<String>, name| PairName { namespace: namespace.unwrap_or_default(), name };
    match ended {
        Ok((pair, _)) => Some(named(pair.namespace, pair.name)),
        // A change of an object whose pair is gone or is not ours.
        Err(controller::Error::ObjectNotFound(pair)) => {
            tracing::debug!(%pair, "no such pair");
            Some(named(pair.namespace, pair.name))
        }
        // What failed has been told by the reconcile itself, and errors of the watch where they came.
        Err(controller::Error::ReconcilerFailed(error, pair)) => {
            tracing::debug!(%pair, error = chain(&error), "not reconciled");
            Some(named(pair.namespace, pair.name))
        }
        Err(error @ controller::Error::QueueError(_)) => {
            tracing::debug!(error = chain(&error), "not reconciled");
            None
        }
        Err(error @ controller::Error::RunnerError(_)) => {
            tracing::error!(error = chain(&error), "the controller failed");
            None
        }
    }
}

fn context(operator: &Operator, caches: Caches, triggers: Triggers, rollout: &Arc<Rollout>) -> Arc<Context> {
    Arc::new(Context {
        client: operator.client.clone(),
        caches,
        defaults: operator.defaults.clone(),
        metrics: operator.signs.metrics.clone(),
        events: operator.events.clone(),
        hearing: Hearing::new(triggers.clone()),
        triggers,
        shapes: Arc::default(),
        rollout: rollout.clone(),
        pairs: Arc::new(Mutex::new(HashMap::<PairName, PairMemory>::new())),
    })
}

#[cfg(test)]
mod tests;
