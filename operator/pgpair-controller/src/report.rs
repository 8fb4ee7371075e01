//! Tells what was observed, decided and done: Events, metrics, the status.

use std::time::{Duration, Instant};

use kube::Resource;
use pgpair_api::PgPairOrder;
use pgpair_api::status::{OrderState, OrderStatus, PgReplicaPairStatus, Reason};

use crate::context::Pass;
use crate::error::{Error, MayBeRefusal, chain};
use crate::events::{EventDraft, of_change, of_notice};
use crate::memory::Memory;
use crate::metrics::{ErrorLabels, Metrics, OrderLabels};
use crate::observed::Observed;
use crate::orders::{self, Follow};
use crate::outcome::Outcome;
use crate::plan::{Notice, Plan};
use crate::status::{compute, degraded, due_in, is_worth_a_write, merge};

/// A request that failed so often in a row is told in the status: a single refusal may be gone a second later.
const ERRORS_TOLD: u32 = 3;

/// What became of the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusTold {
    /// It tells less than what is known, because numbers that move are written only so often: it is to be written after that time.
    pub due_in: Option<Duration>,
}

/// Tells what was done, what failed, and the state of the pair.
///
/// # Errors
/// The status could not be written.
pub async fn report(
    pass: &Pass<'_>,
    memory: &mut Memory,
    observed: &Observed,
    plan: &Plan,
    outcome: Outcome,
) -> Result<StatusTold, Error> {
    let Outcome { done, order, failed } = outcome;
    report_done(pass, &done);
    let plan = &plan.clone().with_failures(failed);
    let old = pass.pair.status.clone().unwrap_or_default();
    let new = compute(&pass.name, pass.pair.metadata.generation, observed, plan, order.as_ref(), &old);
    pass.ctx.metrics.pairs.measure(&pass.name, observed, &new);
    let due_in = due_in(&old, &new, memory.status_written.map(|at| at.elapsed()));
    let order = new.order.clone();
    if report_status(pass, memory, &old, new).await? {
        report_orders(pass, order.as_ref()).await;
    }
    Ok(StatusTold { due_in })
}

fn report_done(pass: &Pass<'_>, notices: &[Notice]) {
    for notice in notices {
        pass.ctx.metrics.decided(notice);
    }
    let drafts = notices.iter().map(|notice| of_notice(&pass.name, notice)).collect::<Vec<_>>();
    for draft in &drafts {
        tracing::info!(reason = draft.shown, "{}", draft.note);
    }
    publish_events(pass, drafts);
}

/// Writes the status if it is worth it; the Events of the change follow the write, so that they are told once. Gives whether what it says of
/// an order is what stands there.
async fn report_status(
    pass: &Pass<'_>,
    memory: &mut Memory,
    old: &PgReplicaPairStatus,
    new: PgReplicaPairStatus,
) -> Result<bool, Error> {
    if !is_worth_a_write(old, &new, memory.status_written.map(|at| at.elapsed())) {
        return Ok(new.order == old.order);
    }
    if !replace_status(pass, new.clone()).await? {
        return Ok(false); // somebody wrote meanwhile: their change triggers the next reconcile, which sees it
    }
    memory.status_written = Some(Instant::now());
    count_order(&pass.ctx.metrics, old, &new);
    publish_events(pass, of_change(old, &new));
    Ok(true)
}

/// Tells orders that are objects what the pair's status says of them, and deletes those that ended long ago. What fails is tried again at
/// the next look; the pair itself needs none of it.
async fn report_orders(pass: &Pass<'_>, order: Option<&OrderStatus>) {
    let orders = orders::of_pair(&pass.ctx.caches, &pass.name);
    for step in orders::follow(&orders, order, jiff::Timestamp::now()) {
        let done = match step {
            Follow::Tell(order) => pass.requests.replace_status(&*order).await.map(|_| ()),
            Follow::Delete(name, uid) => pass.requests.delete_exactly::<PgPairOrder>(&name, &uid).await,
        };
        match done {
            // It has changed or is gone: the watch tells.
            Err(e) if e.is_refused_with(409) || e.is_refused_with(404) => {}
            Err(error) => {
                tracing::warn!(error = chain(&error), "an order that is an object could not be followed")
            }
            Ok(()) => {}
        }
    }
}

/// `false`: the pair has changed since it was read, or is gone.
async fn replace_status(pass: &Pass<'_>, new: PgReplicaPairStatus) -> Result<bool, Error> {
    let mut body = pass.pair.clone();
    body.status = Some(new);
    match pass.requests.replace_status(&body).await {
        Ok(_) => Ok(true),
        Err(e) if e.is_refused_with(409) || e.is_refused_with(404) => Ok(false),
        Err(e) => Err(e),
    }
}

fn count_order(metrics: &Metrics, old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) {
    let Some(order) = &new.order else { return };
    let before = old.order.as_ref().filter(|o| o.id == order.id).map(|o| &o.state);
    // Labels have to be of few words.
    let Some(state) = order.state.known().filter(|state| *state != OrderState::Running) else { return };
    if before != Some(&order.state) {
        let kind = order.kind.known().map(Into::into).unwrap_or_default();
        metrics.orders.get_or_create(&OrderLabels { kind, state: state.into() }).inc();
    }
}

fn publish_events(pass: &Pass<'_>, drafts: Vec<EventDraft>) {
    let about = pass.pair.object_ref(&());
    for draft in drafts {
        pass.ctx.events.publish(&about, draft);
    }
}

/// Tells an error that ended a reconcile early: it is counted, logged, and shown in the status.
pub async fn report_error(pass: &Pass<'_>, memory: &mut Memory, error: &Error) {
    let Pass { ctx, pair, name, .. } = pass;
    ctx.metrics.errors.get_or_create(&ErrorLabels { error: error.label() }).inc();
    let errors = ctx.with_memory(name, |known| {
        known.errors = known.errors.saturating_add(1);
        known.errors
    });
    tracing::warn!(error = chain(error), "reconcile failed");
    let reason = match error {
        Error::Invalid(_) => Reason::InvalidSpec,
        Error::NotOurs(_) => Reason::NameTaken,
        Error::Certificates { .. } | Error::Secret { .. } | Error::Password { .. } | Error::Config { .. } => {
            Reason::ApplyFailed
        }
        // An API server that is away cannot take a status either; one refusal may be gone a second later.
        Error::Refused(_) | Error::Request { .. } | Error::Timeout { .. } if errors < ERRORS_TOLD => return,
        Error::Refused(_) | Error::Request { .. } | Error::Timeout { .. } => Reason::ApplyFailed,
    };
    let old = pair.status.clone().unwrap_or_default();
    let mut new = PgReplicaPairStatus { observed_generation: pair.metadata.generation, ..old.clone() };
    let draft = degraded(reason, chain(error));
    new.conditions = merge(&old.conditions, vec![draft], pair.metadata.generation, jiff::Timestamp::now());
    if let Err(error) = report_status(pass, memory, &old, new).await {
        tracing::warn!(error = chain(&error), "the error could not be told in the status");
    }
}

#[cfg(test)]
mod tests;
