//! One reconcile: observe, decide, act, report. It is not told why it runs, starts from the beginning each time, and may stop
//! at any step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use pgpair_api::PgReplicaPair;
use pgpair_api::names::PairName;
use pgpair_api::status::{ConditionType, Reason};
use pgpair_core::ids::InstanceId;
use rand::RngExt;

use crate::act::act;
use crate::cache::Caches;
use crate::context::{Context, Pass, pair_name};
use crate::decide::{decide, decide_scope};
use crate::desired::DesiredPair;
use crate::error::Error;
use crate::hear::Pace;
use crate::memory::{Looked, Memory};
use crate::observe::{Freshness, observe};
use crate::observed::Observed;
use crate::plan::{Plan, Waits};
use crate::report::{report, report_error};
use crate::rollout::Turn;
use crate::status::condition;

/// Next look at a pair of which something could not be carried out. Each step is tried again in a time of its own.
const AGAIN: Duration = Duration::from_secs(3);
/// Next look at a pair that is as it should be.
const SLOW: Duration = Duration::from_secs(60);
/// The same, of a pair that shows a certificate of a person: a renewed one is to be in effect within a minute.
const RENEWED: Duration = Duration::from_secs(20);
/// Of these looks, one that reads the record from the API server itself and compares every object, which watches tell of at once.
const WHOLE: Duration = Duration::from_secs(300);
/// The turn that each pair has before a new leader looks at everything of the first one.
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// Next look after an error, doubled with each one in a row.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest such delay.
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// Reconciles one pair.
///
/// # Errors
/// The first thing that failed; it is also told in the status and tried again later.
#[tracing::instrument(skip_all, fields(namespace = pair.namespace().unwrap_or_default(), pair = pair.name_any()))]
pub async fn reconcile(pair: Arc<PgReplicaPair>, ctx: Arc<Context>) -> Result<Action, Error> {
    let _timer = ctx.metrics.reconcile_timer();
    if pair.metadata.deletion_timestamp.is_some() {
        ctx.metrics.pairs.forget(&pair_name(&pair)); // it is observed no more
        return Ok(Action::await_change()); // the garbage collector takes what the pair owns
    }
    let pass = Pass::new(&ctx, &pair);
    let memory = ctx.with_memory(&pass.name, |known| known.memory.clone());
    let mut memory = memory.lock().await;
    let result = take_phases(&pass, &mut memory).await;
    match &result {
        Ok(_) => ctx.with_memory(&pass.name, |known| known.errors = 0),
        Err(error) => {
            memory.looked = Looked::Failed;
            report_error(&pass, &mut memory, error).await;
        }
    }
    result
}

async fn take_phases(pass: &Pass<'_>, memory: &mut Memory) -> Result<Action, Error> {
    let Pass { ctx, pair, name, requests } = pass;
    let exists = exists(&ctx.caches, name);
    let desired = DesiredPair::of(pair, &ctx.defaults)?;
    if let Some(why) = desired.invalid.clone().filter(|_| !exists) {
        return Err(Error::Invalid(why));
    }
    let turn = ctx.rollout.turn(name, has_begun_to_roll(pair));
    let touched = ctx.triggers.take_touched(name);
    let freshness = decide_freshness(memory, touched, is_told(pair), Instant::now());
    let mut observed = observe(pass, memory, &desired, freshness).await?;
    observed.turn = turn.clone();
    let mut plan = decide(&observed);
    if freshness != Freshness::Now && !plan.is_idle() {
        // What rests on what was heard or read some seconds ago counts only if there is nothing to do.
        observed = observe(pass, memory, &desired, Freshness::Now).await?;
        observed.turn = turn;
        plan = decide(&observed);
    }
    take_turn(ctx, name, &observed, &mut plan);
    let scope = decide_scope(&observed, exists);
    let outcome = act(requests, &ctx.caches, memory, &desired.pair, &observed, &plan, scope).await;
    let has_failed = !outcome.failed.is_empty();
    memory.note_look(&observed, has_failed, || Instant::now() + first_look_in(ctx.count_pairs()));
    let wait = memory.unrest.note(&plan, Instant::now());
    set_pace(memory, wait.is_none());
    let told = report(pass, memory, &observed, &plan, outcome).await?;
    let first_look = match memory.looked {
        Looked::Later(at) => at.saturating_duration_since(Instant::now()),
        Looked::Never | Looked::Failed | Looked::At(..) => SLOW,
    };
    // No watch brings a Secret of a person.
    let slow = if observed.server.is_some() { RENEWED } else { SLOW };
    let next = wait.unwrap_or(slow).min(told.due_in.unwrap_or(slow)).min(first_look);
    Ok(Action::requeue(jittered(if has_failed { next.min(AGAIN) } else { next })))
}

/// How fresh what is observed has to be. A new leader has all pairs to look at at once: what the watches brought and the agents say is
/// enough for one of which an earlier leader has told what its spec is now, and everything else is looked at later.
fn decide_freshness(memory: &Memory, touched: bool, is_told: bool, now: Instant) -> Freshness {
    let is_enough = match memory.looked {
        Looked::Never => is_told, // what changed before was in the first lists
        Looked::Later(at) => !touched && now < at,
        Looked::Failed => false,
        Looked::At(at, _) => !touched && now.saturating_duration_since(at) < WHOLE,
    };
    match memory.looked {
        Looked::Later(_) | Looked::At(..) if memory.unrest.is_there() => Freshness::Now,
        _ if is_enough => Freshness::Glance,
        _ => Freshness::Look,
    }
}

/// Whether the status is that of the spec as it is.
fn is_told(pair: &PgReplicaPair) -> bool {
    let told = pair.status.as_ref().and_then(|status| status.observed_generation);
    told.is_some() && told == pair.metadata.generation
}

/// When everything of a pair is looked at of which a new leader has seen only that it is as it was told; of so many pairs, which are all
/// to be heard first.
fn first_look_in(pairs: usize) -> Duration {
    let turns = FIRST_LOOK.saturating_mul(u32::try_from(pairs).unwrap_or(u32::MAX));
    turns.mul_f64(1.0 + rand::rng().random_range(0.0..1.0))
}

/// Agents of a pair that is as it should be are heard of less often, and nothing is kept open to tell them something.
fn set_pace(memory: &mut Memory, is_calm: bool) {
    memory.ears.set_pace(if is_calm { Pace::Calm } else { Pace::Brisk });
    if is_calm {
        memory.lines.close();
    }
}

/// Whether the status says that the changes that need a restart have begun; also by an earlier leader.
fn has_begun_to_roll(pair: &PgReplicaPair) -> bool {
    let told = pair.status.as_ref().and_then(|s| condition(s, ConditionType::UpdatePending));
    told.is_some_and(|c| c.status == "True" && c.reason == Reason::Rolling.as_str())
}

/// Takes the pair's turn in the roll-out for the step of `plan`, or takes the step back; gives the turn on when all is done.
fn take_turn(ctx: &Context, name: &PairName, observed: &Observed, plan: &mut Plan) {
    let roll = &mut plan.roll;
    if roll.takes_turn
        && let Err(turn) = ctx.rollout.begin(name, roll.is_of_a_person())
    {
        roll.wait_for(turn);
    }
    let done = observed.turn == Turn::Begun && roll.pending.is_empty() && roll.waits.is_none();
    if matches!(roll.waits, Some(Waits::Turn(_))) {
        ctx.rollout.wait(name);
    }
    if done || observed.is_held() {
        ctx.end_roll(name);
    }
    ctx.metrics.show_rollout(ctx.rollout.count());
}

/// Whether anything runs, or was made to run.
fn exists(caches: &Caches, name: &PairName) -> bool {
    let set = |i: &InstanceId| ObjectRef::new(&name.instance(*i)).within(&name.namespace);
    InstanceId::ALL.iter().any(|i| caches.stateful_sets.get(&set(i)).is_some())
}

/// When to look again after an error: a new pair with an invalid spec waits for its change, everything else is tried again,
/// slower and slower.
pub fn error_policy(pair: Arc<PgReplicaPair>, error: &Error, ctx: Arc<Context>) -> Action {
    if matches!(error, Error::Invalid(_)) {
        return Action::await_change();
    }
    let errors = ctx.with_memory(&pair_name(&pair), |known| known.errors);
    let delay = RETRY_FIRST.saturating_mul(1 << errors.saturating_sub(1).min(6)).min(RETRY_LONGEST);
    Action::requeue(jittered(delay))
}

/// Up to a tenth longer, so that many pairs do not keep step.
fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(1.0 + rand::rng().random_range(0.0..0.1))
}

#[cfg(test)]
mod tests;
