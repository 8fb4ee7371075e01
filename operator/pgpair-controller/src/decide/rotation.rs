//! Passwords that are made anew: by the order of a person, or because they are old.
//!
//! Flow: the order is announced; the Secret gets another password, and with it the word by which it was made; the verifier follows, the agents
//! get it, and the primary proves it. Guarantee: for one order, or one age, one password.

use std::time::Duration;

use jiff::SignedDuration;
use pgpair_api::order::{OrderReason, OrderStage, Task};
use pgpair_api::status::{OrderState, OrderStatus};
use pgpair_core::ids::InstanceId;
use pgpair_wire::report::{PasswordReport, PasswordState};

use super::orders::{end, find_announced, told};
use crate::observed::{Observed, PasswordView};
use crate::plan::{OrderPlan, OrderProgress, Rotation};
use crate::secrets::passwords::{Found, Keeper};

/// A password that was not in effect by then is given up on: the primary has proven it in seconds, or has refused it.
const FOLLOW_FOR: Duration = Duration::from_secs(300);

/// The password of that role, or of the owner of the application's database, if the operator has made it.
pub(super) fn find<'a>(observed: &'a Observed, role: Option<&str>) -> Option<&'a PasswordView> {
    // The owner's is the first.
    observed.passwords.iter().filter(is_made).find(|view| role.is_none_or(|role| view.role == role))
}

/// Whether the operator makes it.
fn is_made(view: &&PasswordView) -> bool {
    matches!(view.keeper, Keeper::Operator(_))
}

/// An order that was announced, to its end.
pub(super) fn decide_running(
    observed: &Observed,
    last: &OrderStatus,
    i: InstanceId,
    since: Duration,
) -> OrderPlan {
    let is_announced = last.reason.as_ref().is_some_and(|r| r.is(OrderStage::Announced.into()));
    let made = observed.passwords.iter().find(|view| view.rotated_by.as_deref() == Some(&last.id));
    let failed = |stage: OrderStage, message: &str| {
        end(last, Some(i), OrderState::Failed, OrderReason::from(stage), message)
    };
    match made {
        None if is_announced => match find_announced(observed, last, i) {
            Err(withdrawn) => withdrawn,
            Ok(_) if since > FOLLOW_FOR => {
                failed(OrderStage::TimedOut, "the Secret could not be changed: see condition Degraded")
            }
            Ok(order) => match order.task {
                Task::RotatePassword(role) => rotate(observed, role.as_deref(), last),
                Task::Agent(_) | Task::RevokeCertificate(..) => OrderPlan::None,
            },
        },
        Some(view) if is_announced => {
            let message =
                format!("Secret {} has another password, which the primary proves next", view.secret);
            let reason = OrderStage::Rotating.into();
            OrderPlan::Tell(OrderProgress { reason, message, ..told(last, Some(i)) })
        }
        Some(view) => match report_of(observed, view).map(|told| (told.state, told.why.clone())) {
            Some((PasswordState::InEffect, _)) => {
                let message =
                    format!("the password in Secret {} is in effect: a login with it worked", view.secret);
                end(last, Some(i), OrderState::Done, OrderStage::CarriedOut.into(), &message)
            }
            Some((PasswordState::Refused, why)) => {
                let why = why.unwrap_or_default();
                failed(OrderStage::PasswordRefused, &format!("role {} keeps its password: {why}", view.role))
            }
            _ if since > FOLLOW_FOR => failed(
                OrderStage::TimedOut,
                "no primary has told within 5 min that it is in effect: see condition RolesHealthy",
            ),
            _ => OrderPlan::None,
        },
        None if since > FOLLOW_FOR => {
            failed(OrderStage::Forgotten, "the Secret was replaced meanwhile: look at status.passwords")
        }
        None => OrderPlan::None,
    }
}

fn rotate(observed: &Observed, role: Option<&str>, last: &OrderStatus) -> OrderPlan {
    let rotation = |view: &PasswordView| Rotation { role: view.role.clone(), word: last.id.clone() };
    find(observed, role).map_or(OrderPlan::None, |view| OrderPlan::Rotate(rotation(view)))
}

/// A password that is too old, if it works and the pair does as well. One at a time.
pub(super) fn by_age(observed: &Observed) -> Option<Rotation> {
    let days = observed.password_max_age_days?;
    let max_age = SignedDuration::from_hours(24 * i64::from(days));
    let is_old = |view: &&PasswordView| {
        let works = report_of(observed, view).is_some_and(|told| told.state == PasswordState::InEffect);
        let since = view.entry.since.filter(|_| works && view.entry.found == Found::Password);
        since.is_some_and(|since| observed.now.duration_since(since) >= max_age)
    };
    let view = observed.passwords.iter().filter(is_made).find(is_old).filter(|_| !observed.is_held())?;
    let since = view.entry.since?.as_second();
    Some(Rotation { role: view.role.clone(), word: format!("age-{since}") })
}

/// What the primary tells of the password that is in the Secret now.
fn report_of<'a>(observed: &'a Observed, view: &PasswordView) -> Option<&'a PasswordReport> {
    let told = observed.served_lately()?.1.passwords.get(&view.role)?;
    (view.is_read && Some(&told.mark) == view.entry.mark.as_ref()).then_some(told)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pgpair_api::order::UserOrderKind;
    use serde_json::json;

    use super::*;
    use crate::decide::decide;
    use crate::decide::tests::told_of;
    use crate::fixtures::{now, password_told, report, steady};
    use crate::observed::ReportView;
    use pgpair_core::instance::PostgresState;

    const ID: &str = "x-1777636795";

    /// An order for the password of `app`, so far.
    fn ordered(reason: &str, seconds_ago: i64) -> Observed {
        let at = Timestamp::from_second(now().as_second() - seconds_ago).unwrap();
        let status = json!({"id": ID, "kind": "RotatePassword", "instance": "orders-a", "state": "Running", "reason": reason, "time": at});
        Observed {
            order: Some(json!({"id": ID, "kind": "RotatePassword", "term": 3}).to_string()),
            last_order: serde_json::from_value(status).unwrap(),
            ..steady()
        }
    }

    /// The Secret has the password of the order, and its primary tells this.
    fn made(mut observed: Observed, state: PasswordState, why: Option<&str>) -> Observed {
        observed.passwords[0].rotated_by = Some(ID.into());
        let mut primary = report(InstanceId::A, PostgresState::Primary);
        let told = PasswordReport { why: why.map(Into::into), ..password_told(state) };
        primary.passwords.insert("app".into(), told);
        observed.a.report = ReportView::Fresh(Box::new(primary));
        observed
    }

    #[test]
    fn an_order_is_announced_carried_out_once_and_done_when_the_primary_has_proven_the_password() {
        let new = Observed { last_order: None, ..ordered("", 0) };
        assert_eq!(told_of(&new), (OrderState::Running, "Announced"));
        let announced = ordered("Announced", 1);
        let plan = decide(&announced);
        let rotation = Rotation { role: "app".into(), word: ID.into() };
        assert_eq!(plan.order, OrderPlan::Rotate(rotation.clone()));
        assert_eq!(plan.rotation(), Some(&rotation));
        let changed = made(announced, PasswordState::InEffect, None);
        assert_eq!(told_of(&changed), (OrderState::Running, "Rotating"));
        assert_eq!(decide(&changed).rotation(), None, "one password for one order");
        let mut behind = made(ordered("Rotating", 1), PasswordState::InEffect, None);
        behind.passwords[0].is_read = false;
        assert_eq!(decide(&behind).order, OrderPlan::None, "what is told is of the old password");
        let done = made(ordered("Rotating", 2), PasswordState::InEffect, None);
        assert_eq!(told_of(&done), (OrderState::Done, "CarriedOut"));
    }

    #[test]
    fn a_password_that_is_refused_or_never_proven_ends_the_order() {
        let refused = made(ordered("Rotating", 2), PasswordState::Refused, Some("NOLOGIN"));
        assert_eq!(told_of(&refused), (OrderState::Failed, "PasswordRefused"));
        let awaited = |seconds| made(ordered("Rotating", seconds), PasswordState::Awaited, None);
        assert_eq!(decide(&awaited(300)).order, OrderPlan::None);
        assert_eq!(told_of(&awaited(301)), (OrderState::Failed, "TimedOut"));
        assert_eq!(told_of(&ordered("Announced", 301)), (OrderState::Failed, "TimedOut"));
        assert_eq!(told_of(&ordered("Rotating", 301)), (OrderState::Failed, "Forgotten"));
    }

    #[test]
    fn an_order_for_a_password_that_is_not_the_operators_or_of_a_pair_that_is_held_is_refused() {
        let new = Observed { last_order: None, ..ordered("", 0) };
        let order = json!({"id": ID, "kind": "RotatePassword", "term": 3, "role": "nobody"}).to_string();
        assert_eq!(
            told_of(&Observed { order: Some(order), ..new.clone() }),
            (OrderState::Refused, "NoSuchPassword")
        );
        let mut theirs = new.clone();
        theirs.passwords[0].keeper = Keeper::Person;
        assert_eq!(told_of(&theirs), (OrderState::Refused, "NoSuchPassword"));
        assert_eq!(told_of(&Observed { paused: true, ..new.clone() }), (OrderState::Refused, "Paused"));
        let invalid = Observed { invalid: Some("why".into()), ..new };
        assert_eq!(told_of(&invalid), (OrderState::Refused, "InvalidSpec"));
        let withdrawn = Observed { order: None, ..ordered("Announced", 1) };
        assert_eq!(told_of(&withdrawn), (OrderState::Refused, "Withdrawn"));
        assert!(withdrawn.last_order.unwrap().kind.is(UserOrderKind::RotatePassword));
    }

    #[test]
    fn a_password_is_made_anew_when_it_is_too_old_and_works_and_the_pair_is_not_held() {
        let aged = |days: i64, max: Option<i32>| {
            let mut observed = steady();
            observed.now = now() + SignedDuration::from_hours(24 * days);
            observed.password_max_age_days = max;
            observed
        };
        assert_eq!(decide(&aged(1000, None)).rotation(), None, "off by default");
        assert_eq!(decide(&aged(29, Some(30))).rotation(), None);
        let due = aged(30, Some(30));
        let word = format!("age-{}", now().as_second());
        assert_eq!(decide(&due).rotation(), Some(&Rotation { role: "app".into(), word }));
        assert!(!decide(&due).is_idle());
        assert_eq!(decide(&Observed { paused: true, ..due.clone() }).rotation(), None);
        assert_eq!(decide(&due.clone().a_silent()).rotation(), None, "whether it works is not known");
        let mut theirs = due.clone();
        theirs.passwords[0].keeper = Keeper::Person;
        assert_eq!(decide(&theirs).rotation(), None, "it is a person's");
        let mut changed = due;
        changed.passwords[0].is_read = false;
        assert_eq!(decide(&changed).rotation(), None, "it is another one by now");
    }
}
