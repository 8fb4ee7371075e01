//! Orders of people: from the annotation, or the object that was chosen in its place, to the agent, and what becomes of them.
//!
//! Flow: the order is announced in the status (for a promotion with what it may lose), then sent, then followed in the
//! agent's report (while the agent prepares it, then while it carries it out) until it is done or refused. Guarantees: an order is announced before it is sent; an id that was sent
//! is never taken up again, nor is an older one; one order at a time.

use std::time::Duration;

use pgpair_api::convert::lag_of;
use pgpair_api::order::{
    CheckedOrder, InvalidOrder, OrderReason, OrderStage, Task, UserOrder, UserOrderKind, time_of,
};
use pgpair_api::status::{OrderState, OrderStatus};
use pgpair_api::word::Word;
use pgpair_core::ids::InstanceId;
use pgpair_core::instance::PostgresState;
use pgpair_core::lag::Lag;
use pgpair_core::order::{OrderKind, OrderRefusal, OrderReply};
use pgpair_wire::order::{Order, OrderReport, REPORT_LAG, SEND_FOR};
use pgpair_wire::report::InstanceReport;

use super::loss;
use super::{revocation, rotation};
use crate::observed::Observed;
use crate::plan::{OrderPlan, OrderProgress};

/// A copy that a person has ordered and that fails is tried again for so long; then the instance goes on with what it had.
const COPY_FOR: Duration = Duration::from_secs(360);
/// For so long an instance is started again whose copy was given up.
const UP_AFTER: Duration = Duration::from_secs(300);
/// An order whose end is not seen for so long is given up on; the agents' own limits are far shorter.
const FOLLOW_FOR: Duration = Duration::from_secs(900);

/// Decides about the order of a person.
#[must_use]
pub fn decide_order(observed: &Observed) -> OrderPlan {
    match &observed.last_order {
        // A new annotation waits until the order before it has come to its end.
        Some(last) if last.state.is(OrderState::Running) => decide_running(observed, last),
        last => match observed.order.as_deref() {
            Some(annotation) => decide_new(observed, last.as_ref(), annotation),
            None => OrderPlan::None,
        },
    }
}

/// Whether an order is under way, so that nothing else may begin.
#[must_use]
pub fn is_under_way(observed: &Observed, plan: &OrderPlan) -> bool {
    let running = match plan {
        OrderPlan::None => observed.last_order.as_ref().is_some_and(|o| o.state.is(OrderState::Running)),
        OrderPlan::Tell(told) => told.state == OrderState::Running,
        OrderPlan::Send { .. } | OrderPlan::Rotate(_) | OrderPlan::Reissue(_) | OrderPlan::Revoke(..) => true,
    };
    let has_order = |i: &InstanceId| {
        let report = observed.instance(*i).report.recent();
        report.is_some_and(|r| {
            !r.preparing.is_empty() || r.order.as_ref().is_some_and(|o| o.reply == OrderReply::Accepted)
        })
    };
    running || InstanceId::ALL.iter().any(has_order)
}

fn decide_new(observed: &Observed, last: Option<&OrderStatus>, annotation: &str) -> OrderPlan {
    let (order, user) = match parse_order(observed, annotation) {
        Ok(checked) => checked,
        Err((id, kind, why)) => {
            if last.is_some_and(|l| l.id == id) {
                return OrderPlan::None; // told already
            }
            let stage = OrderReason::Invalid(why.reason());
            return refuse(id, kind, None, stage, why.to_string());
        }
    };
    if last.is_some_and(|l| l.id == order.id) {
        return OrderPlan::None;
    }
    let (id, kind) = (order.id.clone(), Word::from(user.kind));
    let sent = last.and_then(|l| l.last_sent.as_deref());
    if sent.is_some_and(|sent| sent == id || time_of(sent) > time_of(&id)) {
        let message = "it was carried out before, or is older than an order that was: order again";
        return refuse(id, kind, None, OrderStage::Repeated.into(), message.into());
    }
    match decide_receiver(observed, &user, &order) {
        Ok(to) => {
            let (message, estimated_loss) = build_announcement(observed, to, &order.task);
            OrderPlan::Tell(OrderProgress {
                id,
                kind,
                instance: Some(to),
                state: OrderState::Running,
                reason: OrderStage::Announced.into(),
                message,
                estimated_loss,
            })
        }
        Err((stage, message)) => refuse(id, kind, None, stage, message.into()),
    }
}

type Unchecked = (String, Word<UserOrderKind>, InvalidOrder);

fn parse_order(observed: &Observed, annotation: &str) -> Result<(CheckedOrder, UserOrder), Unchecked> {
    let user = UserOrder::parse(annotation).map_err(|why| match &why {
        InvalidOrder::Id(id) => (id.clone(), Word::default(), why),
        _ => (format!("unread-{:016x}", fingerprint(annotation)), Word::default(), why),
    })?;
    match user.check(observed.now.as_second()) {
        Ok(order) => Ok((order, user)),
        Err(why) => Err((user.id.clone(), user.kind.into(), why)),
    }
}

/// Who has to carry it out; or why nobody can.
fn decide_receiver(
    observed: &Observed,
    user: &UserOrder,
    order: &CheckedOrder,
) -> Result<InstanceId, (OrderReason, &'static str)> {
    let refused = |why: OrderRefusal| (OrderReason::Refused(why), why.message());
    if let Some(why) = find_hold(observed, &order.task) {
        return Err(why);
    }
    let record = observed.record().ok_or(refused(OrderRefusal::RecordUnknown))?;
    if order.term < record.term {
        return Err(refused(OrderRefusal::TermIsOver));
    }
    if order.term > record.term {
        return Err((
            OrderStage::TermUnknown.into(),
            "the order names a term that has not begun: see status.term",
        ));
    }
    let to = match (user.kind, user.instance) {
        (_, Some(instance)) => instance,
        (UserOrderKind::Promote, None) => record.primary.instance.peer(),
        (_, None) => record.primary.instance,
    };
    if let Task::Agent(OrderKind::Promote { dead }) = order.task
        && dead != record.primary.incarnation
    {
        return Err(refused(OrderRefusal::OtherIncarnation));
    }
    if let Task::RotatePassword(role) = &order.task
        && rotation::find(observed, role.as_deref()).is_none()
    {
        return Err((
            OrderStage::NoSuchPassword.into(),
            "the operator has made no password of that role: see status.passwords, and change yours in its Secret",
        ));
    }
    if let Task::RevokeCertificate(what, role) = &order.task {
        // Also while its agent does not answer: its node may be what was lost to somebody.
        return revocation::refusal(observed, *what, to, role.as_deref()).map_or(Ok(to), Err);
    }
    if observed.instance(to).report.fresh().is_none() {
        return Err((
            OrderStage::AgentUnreachable.into(),
            "the agent that has to carry it out does not answer: look at its pod and order again",
        ));
    }
    Ok(to)
}

/// Why nothing is ordered now. Of an invalid spec only what is built of the spec: the rest is between the agents.
fn find_hold(observed: &Observed, task: &Task) -> Option<(OrderReason, &'static str)> {
    if observed.paused {
        return Some((
            OrderStage::Paused.into(),
            "the pair is paused: set spec.paused to false and order again",
        ));
    }
    let builds = observed.invalid.is_some()
        && matches!(
            task,
            Task::Agent(OrderKind::Rebuild) | Task::RotatePassword(_) | Task::RevokeCertificate(..)
        );
    let message = "the spec cannot be carried out: correct it as condition Degraded says, and order again";
    builds.then_some((OrderStage::InvalidSpec.into(), message))
}

/// What is told before an order is sent; of a promotion, what it may lose.
fn build_announcement(observed: &Observed, to: InstanceId, task: &Task) -> (String, Option<Lag>) {
    match (task, observed.record()) {
        (Task::RotatePassword(_), _) => ("the Secret gets another password next".into(), None),
        (Task::RevokeCertificate(..), _) => ("the Secret gets another certificate next".into(), None),
        (Task::Agent(OrderKind::Promote { .. }), Some(record)) => {
            let loss = loss::estimate(observed, record, to);
            (format!("estimated loss: {}", loss.sentence(observed.now)), loss.amount())
        }
        _ => ("it is sent to the agent next".into(), None),
    }
}

fn decide_running(observed: &Observed, last: &OrderStatus) -> OrderPlan {
    let since = since_told(observed, last);
    let instance = last.instance.as_deref().and_then(instance_of);
    let Some(i) = instance else {
        return end(
            last,
            None,
            OrderState::Failed,
            OrderStage::Forgotten.into(),
            "who was to carry it out is not known",
        );
    };
    if last.kind.is(UserOrderKind::RotatePassword) {
        return rotation::decide_running(observed, last, i, since);
    }
    if last.kind.is(UserOrderKind::RevokeCertificate) {
        return revocation::decide_running(observed, last, i, since);
    }
    let reported = observed.instance(i).report.fresh();
    let reply = reported.and_then(|report| find_reply(report, &last.id));
    let is = |stage: OrderStage| last.reason.as_ref().is_some_and(|r| r.is(stage.into()));
    if let Some(report) = reported.filter(|r| reply.is_none() && r.preparing.contains(&last.id)) {
        return decide_preparing(last, report, since, is(OrderStage::Preparing));
    }
    match reply {
        None if is(OrderStage::Announced) => return decide_send(observed, last, i, since),
        Some(OrderReply::Accepted | OrderReply::Done)
            if is(OrderStage::Announced) || is(OrderStage::Preparing) =>
        {
            return reply.map_or(OrderPlan::None, |reply| taken_up(last, i, reply));
        }
        _ => {}
    }
    if last.kind.is(UserOrderKind::Rebuild) && !matches!(reply, Some(OrderReply::Refused(_))) {
        return decide_rebuild(observed, last, i, since);
    }
    match reply {
        Some(OrderReply::Done) => {
            end(last, instance, OrderState::Done, OrderStage::CarriedOut.into(), "it is carried out")
        }
        Some(OrderReply::Refused(why)) => {
            end(last, instance, OrderState::Refused, OrderReason::Refused(why), why.message())
        }
        Some(OrderReply::Accepted) | None if since > FOLLOW_FOR => {
            let message = "its end was not seen within 15 min: look at the pair";
            end(last, instance, OrderState::Failed, OrderStage::TimedOut.into(), message)
        }
        None if reported.is_some() && since > REPORT_LAG => {
            let message =
                "its agent was restarted meanwhile and does not know of it: look at the pair and order again";
            end(last, instance, OrderState::Failed, OrderStage::Forgotten.into(), message)
        }
        Some(OrderReply::Accepted) | None => OrderPlan::None,
    }
}

/// What a report says about the order `id`.
fn find_reply(report: &InstanceReport, id: &str) -> Option<OrderReply> {
    let is = |o: &&OrderReport| o.id == id;
    report.order.as_ref().filter(is).or(report.refused_order.as_ref().filter(is)).map(|o| o.reply)
}

/// The agent has it, also if it never answered: nothing is sent again, and nothing is given up before the agent's own limits.
fn decide_preparing(
    last: &OrderStatus,
    report: &InstanceReport,
    since: Duration,
    is_told: bool,
) -> OrderPlan {
    let instance = Some(report.instance);
    if is_told && since > FOLLOW_FOR {
        let message = "its agent prepares it for more than 15 min: look at the pair";
        return end(last, instance, OrderState::Failed, OrderStage::TimedOut.into(), message);
    }
    if is_told {
        return OrderPlan::None;
    }
    let stops =
        [UserOrderKind::Switchover, UserOrderKind::Restart].into_iter().any(|kind| last.kind.is(kind));
    let message = if stops && report.postgres.state == PostgresState::Primary {
        "the primary writes a checkpoint before it stops"
    } else {
        "the agent reads the record before it decides about it"
    };
    let state = OrderState::Running;
    let reason = OrderStage::Preparing.into();
    OrderPlan::Tell(OrderProgress { state, reason, message: message.into(), ..told(last, instance) })
}

/// The agent's report shows that it has judged an order of which no reply is known.
fn taken_up(last: &OrderStatus, i: InstanceId, reply: OrderReply) -> OrderPlan {
    let is_rebuild = last.kind.is(UserOrderKind::Rebuild);
    let (state, reason, message) = meaning(is_rebuild, reply);
    OrderPlan::Tell(OrderProgress { state, reason, message: message.into(), ..told(last, Some(i)) })
}

fn decide_send(observed: &Observed, last: &OrderStatus, to: InstanceId, since: Duration) -> OrderPlan {
    let order = match find_announced(observed, last, to) {
        Ok(order) => order,
        Err(withdrawn) => return withdrawn,
    };
    if since > SEND_FOR {
        let message =
            "the agent did not answer for a minute; whether it took the order is not known: look at the pair";
        return end(last, Some(to), OrderState::Failed, OrderStage::AgentUnreachable.into(), message);
    }
    order.for_agent().map_or(OrderPlan::None, |order| OrderPlan::Send { to, order })
}

/// The order that was announced, or its end: it was withdrawn, or nothing is ordered any more.
pub(super) fn find_announced(
    observed: &Observed,
    last: &OrderStatus,
    to: InstanceId,
) -> Result<CheckedOrder, OrderPlan> {
    let order = observed.order.as_deref().and_then(|annotation| parse_order(observed, annotation).ok());
    let Some((order, _)) = order.filter(|(order, _)| order.id == last.id) else {
        let message = "the order was changed or deleted before it was sent";
        return Err(end(last, Some(to), OrderState::Refused, OrderStage::Withdrawn.into(), message));
    };
    match find_hold(observed, &order.task) {
        Some((why, message)) => Err(end(last, Some(to), OrderState::Refused, why, message)),
        None => Ok(order),
    }
}

/// Why the copy of instance `i` that a person has ordered is not tried any more: it has failed for too long, and the volume
/// still holds what it held before. A copy that the instance itself has asked for is tried for ever: it has nothing else.
#[must_use]
pub(super) fn gives_up_copy(observed: &Observed, i: InstanceId) -> Option<&str> {
    let last = observed.last_order.as_ref()?;
    let is = |stage: OrderStage| last.reason.as_ref().is_some_and(|r| r.is(stage.into()));
    let since = since_told(observed, last);
    let is_over = (is(OrderStage::Copying) && since > COPY_FOR)
        // Told already, and the instance was not started then.
        || (is(OrderStage::CopyFailed) && since < UP_AFTER);
    let is_ours =
        last.kind.is(UserOrderKind::Rebuild) && last.instance.as_deref().and_then(instance_of) == Some(i);
    let failure = observed.instance(i).seed_failure().filter(|failure| is_ours && is_over && failure.kept)?;
    Some(&failure.why)
}

fn since_told(observed: &Observed, last: &OrderStatus) -> Duration {
    last.time.as_ref().map_or(Duration::ZERO, |t| observed.now.duration_since(t.0).unsigned_abs())
}

/// The instance goes down, is copied, and comes back as another agent process: its report alone cannot tell.
fn decide_rebuild(observed: &Observed, last: &OrderStatus, i: InstanceId, since: Duration) -> OrderPlan {
    let instance = observed.instance(i);
    if let Some(why) = gives_up_copy(observed, i) {
        let message = format!(
            "the copy failed again and again, and the instance goes on with the data that it had: {why}"
        );
        return end(last, Some(i), OrderState::Failed, OrderStage::CopyFailed.into(), &message);
    }
    let copying = last.reason.as_ref().is_some_and(|r| r.is(OrderStage::Copying.into()));
    let down = instance.set.is_some_and(|s| s.replicas == 0) || instance.is_seeding();
    let runs = instance.report.fresh().is_some_and(|r| r.postgres.state == PostgresState::Standby);
    match (copying, down) {
        (false, true) => OrderPlan::Tell(OrderProgress {
            state: OrderState::Running,
            reason: OrderStage::Copying.into(),
            message: "the instance is down and copied anew; condition Seeding shows how far".into(),
            ..told(last, Some(i))
        }),
        (true, false) if runs => {
            end(last, Some(i), OrderState::Done, OrderStage::CarriedOut.into(), "it is copied and runs")
        }
        (false, false) if since > FOLLOW_FOR => {
            let message = "its base backup did not begin within 15 min: see condition Degraded";
            end(last, Some(i), OrderState::Failed, OrderStage::TimedOut.into(), message)
        }
        _ => OrderPlan::None,
    }
}

/// What the agent's reply means.
#[must_use]
pub fn replied(
    order: &Order,
    to: InstanceId,
    last: Option<&OrderStatus>,
    reply: OrderReply,
) -> OrderProgress {
    let (state, reason, message) = meaning(order.kind == OrderKind::Rebuild, reply);
    let estimated_loss = last.and_then(|l| l.estimated_loss).and_then(lag_of);
    let (id, kind) = (order.id.clone(), UserOrderKind::of(order.kind).map(Word::from).unwrap_or_default());
    OrderProgress { id, kind, instance: Some(to), state, reason, message: message.into(), estimated_loss }
}

fn meaning(is_rebuild: bool, reply: OrderReply) -> (OrderState, OrderReason, &'static str) {
    match reply {
        OrderReply::Accepted => {
            (OrderState::Running, OrderStage::Accepted.into(), "the agent carries it out")
        }
        // A rebuild is done when the copy runs.
        OrderReply::Done if is_rebuild => {
            (OrderState::Running, OrderStage::Accepted.into(), "the agent asks for a base backup")
        }
        OrderReply::Done => (OrderState::Done, OrderStage::CarriedOut.into(), "it is carried out"),
        OrderReply::Refused(why) => (OrderState::Refused, OrderReason::Refused(why), why.message()),
    }
}

fn refuse(
    id: String,
    kind: Word<UserOrderKind>,
    instance: Option<InstanceId>,
    reason: OrderReason,
    message: String,
) -> OrderPlan {
    OrderPlan::Tell(OrderProgress {
        id,
        kind,
        instance,
        state: OrderState::Refused,
        reason,
        message,
        estimated_loss: None,
    })
}

pub(super) fn end(
    last: &OrderStatus,
    instance: Option<InstanceId>,
    state: OrderState,
    reason: OrderReason,
    message: &str,
) -> OrderPlan {
    OrderPlan::Tell(OrderProgress { state, reason, message: message.into(), ..told(last, instance) })
}

/// The same order in another state.
pub(super) fn told(last: &OrderStatus, instance: Option<InstanceId>) -> OrderProgress {
    OrderProgress {
        id: last.id.clone(),
        kind: last.kind.clone(),
        instance,
        state: OrderState::Running,
        reason: OrderStage::Announced.into(),
        message: String::new(),
        estimated_loss: last.estimated_loss.and_then(lag_of),
    }
}

/// The instance of a name such as `orders-a`.
fn instance_of(name: &str) -> Option<InstanceId> {
    name.rsplit_once('-')?.1.parse().ok()
}

/// FNV-1a: names a text that is no order, so that it is told once.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
