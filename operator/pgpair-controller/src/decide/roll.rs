//! Changes that need a restart, one instance at a time.
//!
//! Flow: the standby first (its pod is deleted, or its postgres restarted), until the pair is `Paired` again; then the
//! primary hands over; then the former primary, which is a standby by now. Guarantees: never both at once; a primary is
//! asked to hand over, and only while `Paired`; nothing begins while a copy, an order or a change of primary is under way.
//! A standby that cannot start is no use to anybody: its pod is replaced by a newer template at once.
//!
//! The exception: a parameter that hot standby compares (`max_connections` and others) is *lowered*. A standby cannot have
//! less than its primary, so the agents render what the control file demands, and a hand-over would only move the old value
//! to the new primary. The primary is restarted in place, and then the standby, which has learned of the new value.

use std::time::Duration;

use pgpair_core::ids::InstanceId;
use pgpair_core::instance::PostgresState;
use pgpair_core::order::{OrderKind, OrderReply};
use pgpair_core::record::{Mode, Record};
use pgpair_wire::order::Order;

use crate::observed::{InstanceObserved, Observed};
use crate::plan::{Pending, RollPlan, RollStep, Waits};
use crate::rollout::Turn;

/// Time between two steps: caches and reports have to show the one before the next is decided.
const PAUSE: Duration = Duration::from_secs(10);
/// The same after a step that an agent refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// Prefix of the ids of orders that the operator gives by itself.
const ID: &str = "roll-";

/// Decides about pending changes. `busy`: something else is under way.
#[must_use]
pub fn decide_roll(observed: &Observed, busy: bool) -> RollPlan {
    let Some(record) = observed.record() else { return RollPlan::default() };
    let primary = record.primary.instance;
    let order = [primary.peer(), primary];
    let pending: Vec<_> =
        order.iter().filter_map(|i| Some((*i, find_pending(observed.instance(*i))?))).collect();
    let Some((instance, what)) = pending.first().cloned() else {
        let comes_back = !is_back(observed, record) || has_raised(observed, primary.peer());
        let returns = observed.turn == Turn::Begun && !observed.is_held() && comes_back;
        return RollPlan { waits: returns.then_some(Waits::Return), ..RollPlan::default() };
    };
    let step = if observed.is_held() {
        Err(Waits::Held)
    } else {
        decide_step(observed, record, instance, &what, busy)
    };
    match step {
        Ok((step, takes_turn)) => RollPlan { pending, step: Some(step), takes_turn, waits: None },
        Err(waits) => RollPlan { pending, step: None, takes_turn: false, waits: Some(waits) },
    }
}

fn find_pending(instance: &InstanceObserved) -> Option<Pending> {
    if instance.is_outdated() {
        return Some(Pending::Pod);
    }
    let parameters = &instance.report.recent()?.pending_restart;
    (!parameters.is_empty()).then(|| Pending::Restart(parameters.clone()))
}

fn decide_step(
    observed: &Observed,
    record: &Record,
    instance: InstanceId,
    what: &Pending,
    busy: bool,
) -> Result<(RollStep, bool), Waits> {
    let pause = if last_was_refused(observed) { REFUSED_PAUSE } else { PAUSE };
    if observed.rolled_ago.is_some_and(|ago| ago < pause) {
        return Err(Waits::Step);
    }
    // A pod that never started anything, of a template that could not work, is in nobody's way but its own.
    if let Some(step) = replace_stillborn(observed) {
        return Ok((step, false));
    }
    if let Some(step) = replace_failing(observed, record).filter(|_| !busy) {
        return Ok((step, false));
    }
    match &observed.turn {
        Turn::Free | Turn::Begun => {}
        Turn::Stopped(_) if matches!(what, Pending::Restart(_)) => {}
        turn => return Err(Waits::Turn(turn.clone())),
    }
    if busy {
        return Err(Waits::Busy);
    }
    if !is_whole(observed, record) {
        return Err(Waits::NotPaired);
    }
    let primary = record.primary.instance;
    let order =
        |kind| Order { id: format!("{ID}{}", observed.now.as_millisecond()), term: record.term, kind };
    let step = match what {
        _ if is_lowered(observed, primary, what) && instance == primary => {
            RollStep::Send { to: primary, order: order(OrderKind::Restart) }
        }
        _ if instance == primary => RollStep::Send { to: primary, order: order(OrderKind::Switchover) },
        Pending::Pod => recreate(observed, instance).ok_or(Waits::NotPaired)?,
        Pending::Restart(_) => RollStep::Send { to: instance, order: order(OrderKind::Restart) },
    };
    Ok((step, true))
}

/// The same, by a record that was read just now: something may be restarted.
fn is_whole(observed: &Observed, record: &Record) -> bool {
    !observed.is_glance && is_back(observed, record)
}

/// Whether the standby has more of a parameter than is configured because this primary has: the primary has to come first.
fn is_lowered(observed: &Observed, primary: InstanceId, what: &Pending) -> bool {
    let Pending::Restart(parameters) = what else { return false };
    let standby = observed.instance(primary.peer()).report.fresh();
    standby.is_some_and(|r| r.raised.iter().any(|name| parameters.contains(name)))
}

/// Whether it runs with more of a parameter than is configured: its restart comes as soon as it has learned of the primary's.
fn has_raised(observed: &Observed, standby: InstanceId) -> bool {
    observed.instance(standby).report.fresh().is_some_and(|report| !report.raised.is_empty())
}

/// `Paired`, with a primary that takes writes and a standby that streams, both in pods that are ready and stay.
fn is_back(observed: &Observed, record: &Record) -> bool {
    let stays = |i: &InstanceId| {
        let instance = observed.instance(*i);
        let pod = instance.pod.as_ref().is_some_and(|p| p.ready && !p.deleting);
        let set = instance.set.is_some_and(|s| s.replicas == 1);
        let report = instance.report.fresh().is_some_and(|r| r.need.is_none());
        pod && set && report && !instance.is_seeding()
    };
    let standby = observed.instance(record.primary.instance.peer()).report.fresh();
    record.mode == Mode::Paired
        && observed.serving_primary().is_some()
        && standby
            .is_some_and(|r| r.postgres.state == PostgresState::Standby && r.postgres.streaming == Some(true))
        && InstanceId::ALL.iter().all(stays)
}

fn replace_stillborn(observed: &Observed) -> Option<RollStep> {
    let stillborn = |i: &InstanceId| {
        let instance = observed.instance(*i);
        let pod = instance.pod.as_ref().is_some_and(|p| !p.started && !p.running && !p.deleting);
        pod && instance.is_outdated() && instance.report.fresh().is_none()
    };
    recreate(observed, InstanceId::ALL.into_iter().find(stillborn)?)
}

/// The standby's pod if its agent says that it cannot start postgres, while the primary goes on alone: what keeps it from that may
/// be the template, such as an image of another major version, and the pair cannot be `Paired` before.
fn replace_failing(observed: &Observed, record: &Record) -> Option<RollStep> {
    let id = record.primary.instance.peer();
    let standby = observed.instance(id);
    let report = standby.report.fresh()?;
    let fails =
        report.postgres.state == PostgresState::Down && report.trouble.is_some() && report.need.is_none();
    let is_alone = record.mode == Mode::Solo && !observed.is_glance;
    let stays = standby.pod.as_ref().is_some_and(|pod| !pod.deleting) && !standby.is_seeding();
    if fails && is_alone && stays && standby.is_outdated() { recreate(observed, id) } else { None }
}

fn recreate(observed: &Observed, instance: InstanceId) -> Option<RollStep> {
    let pod = observed.instance(instance).pod.as_ref()?;
    Some(RollStep::Recreate { instance, pod: pod.name.clone(), uid: pod.uid.clone() })
}

fn last_was_refused(observed: &Observed) -> bool {
    InstanceId::ALL.iter().any(|i| {
        let report = observed.instance(*i).report.recent();
        report
            .and_then(|r| r.order.as_ref())
            .is_some_and(|o| o.id.starts_with(ID) && matches!(o.reply, OrderReply::Refused(_)))
    })
}

#[cfg(test)]
mod tests;
