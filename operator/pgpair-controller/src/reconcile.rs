//! One reconcile: validate, observe, decide, build and execute, tell. It is not told why it runs, starts from the
//! beginning each time, and may stop at any step.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::controller::Action;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt};
use pgpair_api::PgReplicaPair;
use pgpair_api::names::PairName;
use pgpair_api::status::{OrderState, PgReplicaPairStatus, Reason};
use pgpair_api::validate::Defaults;
use pgpair_core::ids::InstanceId;
use rand::RngExt;

use crate::api::Requests;
use crate::cache::Caches;
use crate::decide::decide;
use crate::desired::Desired;
use crate::error::Error;
use crate::events::{EventDraft, of_change, of_notice};
use crate::execute::{agents, execute, upkeep};
use crate::memory::{Memory, PairMemory};
use crate::metrics::{Metrics, OrderLabels};
use crate::observe::observe;
use crate::observed::Observed;
use crate::plan::{Notice, OrderProgress, Plan};
use crate::status::{compute, degraded, is_worth_a_write, merge};

/// Next look. Mostly reads of agents over open connections; the record of a pair that is as it should be is read less often
/// (see [`crate::observe`]).
const QUICK: Duration = Duration::from_secs(1);
/// Next look while an order is carried out.
const ORDER: Duration = Duration::from_millis(300);
/// Next look after an error, doubled with each one in a row.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest such delay.
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// Longest wait for an Event to be taken; Events are for people and never hold up work.
const EVENT_TIMEOUT: Duration = Duration::from_secs(3);

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
    /// Sender of Events; one per process, because it holds the series.
    pub recorder: Recorder,
    /// Memory and errors in a row of each pair.
    pub pairs: Arc<Mutex<HashMap<PairName, PairMemory>>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("defaults", &self.defaults).finish_non_exhaustive()
    }
}

impl Context {
    fn with_known<T>(&self, name: &PairName, f: impl FnOnce(&mut PairMemory) -> T) -> T {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        f(pairs.entry(name.clone()).or_default())
    }

    /// Forgets pairs that are no longer there, and their metrics.
    pub fn retain(&self, exists: impl Fn(&PairName) -> bool) {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.retain(|name, _| {
            let keep = exists(name);
            if !keep {
                self.metrics.forget(name);
            }
            keep
        });
    }
}

/// Reconciles one pair.
///
/// # Errors
/// The first thing that failed; it is also told in the status and tried again later.
#[tracing::instrument(skip_all, fields(namespace = pair.namespace().unwrap_or_default(), pair = pair.name_any()))]
pub async fn reconcile(pair: Arc<PgReplicaPair>, ctx: Arc<Context>) -> Result<Action, Error> {
    let _timer = ctx.metrics.reconcile_timer();
    if pair.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change()); // the garbage collector takes what the pair owns
    }
    let name = PairName { namespace: pair.namespace().unwrap_or_default(), name: pair.name_any() };
    let requests = Requests::new(ctx.client.clone(), &name.namespace, ctx.metrics.clone());
    let known = ctx.with_known(&name, |known| known.memory.clone());
    let mut memory = known.lock().await;
    let result = steps(&pair, &name, &requests, &mut memory, &ctx).await;
    match &result {
        Ok(_) => ctx.with_known(&name, |known| known.errors = 0),
        Err(error) => tell_error(&pair, &name, &requests, &mut memory, &ctx, error).await,
    }
    result
}

async fn steps(
    pair: &PgReplicaPair,
    name: &PairName,
    requests: &Requests,
    memory: &mut Memory,
    ctx: &Context,
) -> Result<Action, Error> {
    let exists = exists(&ctx.caches, name);
    let desired = Desired::of(pair, &ctx.defaults)?;
    if let Some(why) = desired.invalid.clone().filter(|_| !exists) {
        return Err(Error::Invalid(why));
    }
    let (observed, plan) = look(pair, requests, memory, ctx, &desired).await?;
    // Also of a pair that is held, for its agents still fail over.
    let proofs = agents::send_evidence(memory, &plan).await;
    let order = agents::send_order(memory, &plan, &observed).await;
    tell_notices(pair, name, ctx, &proofs).await;
    let done = match (observed.lease_is_recent, observed.is_held()) {
        (false, false) => execute(requests, &ctx.caches, memory, &desired.pair, &plan).await?,
        (false, true) if exists => upkeep(requests, &ctx.caches, memory, &desired.pair, &plan).await?,
        (true, _) | (false, true) => Vec::new(),
    };
    tell_notices(pair, name, ctx, &done).await;
    memory.settled(&observed, plan.is_idle());
    let old = pair.status.clone().unwrap_or_default();
    let new = compute(name, pair.metadata.generation, &observed, &plan, order.as_ref(), &old);
    ctx.metrics.pairs.measure(name, &observed, &new);
    write(pair, requests, memory, ctx, &old, new).await?;
    Ok(Action::requeue(jittered(next_look(&observed, order.as_ref()))))
}

/// Whether anything runs, or was made to run.
fn exists(caches: &Caches, name: &PairName) -> bool {
    let set = |i: &InstanceId| ObjectRef::new(&name.instance(*i)).within(&name.namespace);
    InstanceId::ALL.iter().any(|i| caches.stateful_sets.get(&set(i)).is_some())
}

/// Observes and decides. A plan that rests on a record of some seconds ago counts only if there is nothing to do.
async fn look(
    pair: &PgReplicaPair,
    requests: &Requests,
    memory: &mut Memory,
    ctx: &Context,
    desired: &Desired,
) -> Result<(Observed, Plan), Error> {
    let observed = observe(requests, &ctx.caches, memory, pair, desired, true).await?;
    let plan = decide(&observed);
    if !observed.lease_is_recent || plan.is_idle() {
        return Ok((observed, plan));
    }
    let observed = observe(requests, &ctx.caches, memory, pair, desired, false).await?;
    let plan = decide(&observed);
    Ok((observed, plan))
}

fn next_look(observed: &Observed, order: Option<&OrderProgress>) -> Duration {
    let running = match order {
        Some(told) => told.state == OrderState::Running,
        None => observed.last_order.as_ref().is_some_and(|o| o.state == OrderState::Running),
    };
    if running { ORDER } else { QUICK }
}

async fn tell_notices(pair: &PgReplicaPair, name: &PairName, ctx: &Context, notices: &[Notice]) {
    for notice in notices {
        ctx.metrics.decided(notice);
    }
    tell(pair, ctx, notices.iter().map(|notice| logged(name, notice)).collect()).await;
}

/// Writes the status if it is worth it; the Events of the change follow the write, so that they are told once.
async fn write(
    pair: &PgReplicaPair,
    requests: &Requests,
    memory: &mut Memory,
    ctx: &Context,
    old: &PgReplicaPairStatus,
    new: PgReplicaPairStatus,
) -> Result<(), Error> {
    if !is_worth_a_write(old, &new, memory.status_written.map(|at| at.elapsed())) {
        return Ok(());
    }
    if !replace_status(pair, requests, new.clone()).await? {
        return Ok(()); // somebody wrote meanwhile: their change triggers the next reconcile, which sees it
    }
    memory.status_written = Some(Instant::now());
    count_order(&ctx.metrics, old, &new);
    tell(pair, ctx, of_change(old, &new)).await;
    Ok(())
}

fn count_order(metrics: &Metrics, old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) {
    let Some(order) = &new.order else { return };
    let before = old.order.as_ref().filter(|o| o.id == order.id).map(|o| o.state);
    let state = match order.state {
        OrderState::Running => return,
        OrderState::Done => "Done",
        OrderState::Refused => "Refused",
        OrderState::Failed => "Failed",
    };
    if before != Some(order.state) {
        let kind = OrderProgress::kind_word(&order.kind);
        metrics.orders.get_or_create(&OrderLabels { kind, state }).inc();
    }
}

/// `false`: the pair has changed since it was read, or is gone.
///
/// # Errors
/// The request failed in another way.
pub async fn replace_status(
    pair: &PgReplicaPair,
    requests: &Requests,
    new: PgReplicaPairStatus,
) -> Result<bool, Error> {
    let mut body = pair.clone();
    body.status = Some(new);
    match requests.replace_status(&body).await {
        Ok(_) => Ok(true),
        Err(Error::Request { source, .. })
            if crate::api::is_status(&source, 409) || crate::api::is_status(&source, 404) =>
        {
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

fn logged(name: &PairName, notice: &Notice) -> EventDraft {
    let told = of_notice(name, notice);
    tracing::info!(reason = told.shown, "{}", told.note);
    told
}

async fn tell(pair: &PgReplicaPair, ctx: &Context, events: Vec<EventDraft>) {
    for told in events {
        ctx.metrics.wrote("Event", "event");
        let sent =
            tokio::time::timeout(EVENT_TIMEOUT, ctx.recorder.publish(&told.event(), &pair.object_ref(&())))
                .await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, reason = told.shown, "an event was refused"),
            Err(_) => tracing::warn!(reason = told.shown, "an event was not taken in time"),
        }
    }
}

async fn tell_error(
    pair: &PgReplicaPair,
    name: &PairName,
    requests: &Requests,
    memory: &mut Memory,
    ctx: &Context,
    error: &Error,
) {
    ctx.metrics.errors.get_or_create(&crate::metrics::ErrorLabels { error: error.label() }).inc();
    ctx.with_known(name, |known| known.errors = known.errors.saturating_add(1));
    tracing::warn!(error = chain(error), "reconcile failed");
    let reason = match error {
        Error::Invalid(_) => Reason::InvalidSpec,
        Error::Certificates { .. } | Error::Secret { .. } | Error::Password { .. } | Error::Config { .. } => {
            Reason::ApplyFailed
        }
        // An API server that is away cannot take a status either; one refusal may be gone a second later.
        Error::Request { .. } | Error::Timeout { .. } if ctx.with_known(name, |k| k.errors) < 3 => return,
        Error::Request { .. } | Error::Timeout { .. } => Reason::ApplyFailed,
    };
    let old = pair.status.clone().unwrap_or_default();
    let mut new = PgReplicaPairStatus { observed_generation: pair.metadata.generation, ..old.clone() };
    let draft = degraded(reason, chain(error));
    new.conditions = merge(&old.conditions, vec![draft], pair.metadata.generation, jiff::Timestamp::now());
    if let Err(error) = write(pair, requests, memory, ctx, &old, new).await {
        tracing::warn!(error = chain(&error), "the error could not be told in the status");
    }
}

/// An error with its causes, as one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        out = format!("{out}: {c}");
        cause = c.source();
    }
    out
}

/// When to look again after an error: a new pair with an invalid spec waits for its change, everything else is tried again,
/// slower and slower.
pub fn error_policy(pair: Arc<PgReplicaPair>, error: &Error, ctx: Arc<Context>) -> Action {
    if matches!(error, Error::Invalid(_)) {
        return Action::await_change();
    }
    let name = PairName { namespace: pair.namespace().unwrap_or_default(), name: pair.name_any() };
    let errors = ctx.with_known(&name, |known| known.errors);
    let delay = RETRY_FIRST.saturating_mul(1 << errors.saturating_sub(1).min(6)).min(RETRY_LONGEST);
    Action::requeue(jittered(delay))
}

/// Up to a tenth longer, so that many pairs do not keep step.
fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(1.0 + rand::rng().random_range(0.0..0.1))
}

#[cfg(test)]
mod tests;
