use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pgpair_core::ids::InstanceId::{A, B};
use pgpair_core::ids::Term;
use pgpair_wire::order::OrderReport;
use rstest::rstest;

use super::*;
use crate::fixtures::{lag, now, report, steady};
use crate::observed::{ReportView, SeedFailure, SeedState};

fn id(word: &str, seconds_ago: i64) -> String {
    format!("{word}-{}", now().as_second() - seconds_ago)
}

fn annotated(observed: Observed, fields: &str) -> Observed {
    let order = format!(r#"{{"id":"{}","term":3,{fields}}}"#, id("x", 5));
    Observed { order: Some(order), ..observed }
}

fn told_of(plan: &OrderPlan) -> (OrderState, &'static str) {
    match plan {
        OrderPlan::Tell(told) => (told.state, told.reason.as_str()),
        other => panic!("nothing is told: {other:?}"),
    }
}

fn word<T: std::str::FromStr>(text: &str) -> Word<T> {
    text.parse().map_or(Word::Other(text.to_owned()), Word::Known)
}

/// The status of order x, in a state since some seconds ago.
fn last(kind: &str, instance: &str, state: OrderState, reason: &str, seconds_ago: i64) -> OrderStatus {
    let at = jiff::Timestamp::from_second(now().as_second() - seconds_ago).unwrap();
    OrderStatus {
        id: id("x", 5),
        kind: word(kind),
        instance: Some(format!("orders-{instance}")),
        state: state.into(),
        reason: Some(word(reason)),
        message: None,
        time: Some(Time(at)),
        estimated_loss: None,
        last_sent: Some(id("x", 5)),
    }
}

fn running(reason: &str, seconds_ago: i64) -> Observed {
    let observed = annotated(steady(), r#""kind":"Switchover""#);
    Observed {
        last_order: Some(last("Switchover", "a", OrderState::Running, reason, seconds_ago)),
        ..observed
    }
}

fn reporting(mut observed: Observed, id: &str, reply: OrderReply) -> Observed {
    let mut primary = report(A, PostgresState::Primary);
    primary.order = Some(OrderReport { id: id.into(), kind: OrderKind::Switchover, reply });
    observed.a.report = ReportView::Fresh(Box::new(primary));
    observed
}

#[test]
fn a_pair_without_orders_is_left_alone() {
    assert_eq!(decide_order(&steady()), OrderPlan::None);
}

#[rstest]
#[case::switchover(r#""kind":"Switchover""#, A)]
#[case::promote(r#""kind":"Promote","dead":"0000000000000007""#, B)]
#[case::promote_elsewhere(r#""kind":"Promote","instance":"a","dead":"0000000000000007""#, A)]
#[case::restart(r#""kind":"Restart","instance":"a""#, A)]
#[case::fence(r#""kind":"Fence","instance":"b""#, B)]
#[case::rebuild(r#""kind":"Rebuild","instance":"b""#, B)]
fn an_order_is_announced_and_then_sent_to_whom_it_concerns(#[case] fields: &str, #[case] to: InstanceId) {
    let observed = annotated(steady(), fields);
    let OrderPlan::Tell(told) = decide_order(&observed) else { panic!("not announced") };
    assert_eq!(
        (told.state, told.reason, told.instance),
        (OrderState::Running, OrderStage::Announced.into(), Some(to))
    );
    let announced = last(told.kind.as_str(), to.as_str(), OrderState::Running, "Announced", 0);
    let OrderPlan::Send { to: sent_to, order } =
        decide_order(&Observed { last_order: Some(announced), ..observed })
    else {
        panic!("not sent")
    };
    assert_eq!(
        (sent_to, order.id, order.term, order.kind.as_str()),
        (to, id("x", 5), Term(3), told.kind.as_str())
    );
}

#[rstest]
#[case::no_json("{", "Malformed")]
#[case::earlier_term(r#"{"id":"ID","kind":"Switchover","term":2}"#, "TermIsOver")]
#[case::later_term(r#"{"id":"ID","kind":"Switchover","term":4}"#, "TermUnknown")]
#[case::other_dead(r#"{"id":"ID","kind":"Promote","term":3,"dead":"0000000000000001"}"#, "OtherIncarnation")]
#[case::no_instance(r#"{"id":"ID","kind":"Restart","term":3}"#, "InstanceMissing")]
#[case::old(r#"{"id":"x-1700000000","kind":"Switchover","term":3}"#, "TooOld")]
fn what_cannot_be_ordered_is_refused_once_and_nothing_is_sent(
    #[case] annotation: &str,
    #[case] reason: &str,
) {
    let order = annotation.replace("ID", &id("x", 5));
    let observed = Observed { order: Some(order), ..steady() };
    let plan = decide_order(&observed);
    assert_eq!(told_of(&plan), (OrderState::Refused, reason));
    let OrderPlan::Tell(told) = plan else { panic!() };
    let status = OrderStatus { id: told.id, ..last("", "a", OrderState::Refused, reason, 0) };
    assert_eq!(decide_order(&Observed { last_order: Some(status), ..observed }), OrderPlan::None);
}

#[test]
fn nobody_to_carry_it_out_is_a_refusal() {
    let silent = annotated(steady().a_silent(), r#""kind":"Switchover""#);
    assert_eq!(told_of(&decide_order(&silent)), (OrderState::Refused, "AgentUnreachable"));
    let paused = Observed { paused: true, ..annotated(steady(), r#""kind":"Switchover""#) };
    assert_eq!(told_of(&decide_order(&paused)), (OrderState::Refused, "Paused"));
}

#[test]
fn an_invalid_spec_holds_back_a_copy_and_no_other_order() {
    let invalid = |observed: Observed| Observed { invalid: Some("why".into()), ..observed };
    let promote = annotated(steady().a_silent(), r#""kind":"Promote","dead":"0000000000000007""#);
    assert_eq!(told_of(&decide_order(&invalid(promote))), (OrderState::Running, "Announced"));
    let rebuild = invalid(annotated(steady(), r#""kind":"Rebuild","instance":"b""#));
    assert_eq!(told_of(&decide_order(&rebuild)), (OrderState::Refused, "InvalidSpec"));
    let announced = Some(last("Rebuild", "b", OrderState::Running, "Announced", 1));
    let meanwhile = decide_order(&Observed { last_order: announced, ..rebuild });
    assert_eq!(told_of(&meanwhile), (OrderState::Refused, "InvalidSpec"));
}

#[test]
fn an_order_that_was_announced_is_never_taken_up_again() {
    let observed = annotated(steady(), r#""kind":"Switchover""#);
    for state in [OrderState::Done, OrderState::Refused, OrderState::Failed] {
        let told = Some(last("Switchover", "a", state, "CarriedOut", 1));
        assert_eq!(decide_order(&Observed { last_order: told, ..observed.clone() }), OrderPlan::None);
    }
    // Another annotation came and went meanwhile; the old one is put back.
    let between = OrderStatus { id: id("y", 1), ..last("", "a", OrderState::Refused, "TooOld", 1) };
    let back = Observed { last_order: Some(between), ..observed.clone() };
    assert_eq!(told_of(&decide_order(&back)), (OrderState::Refused, "Repeated"));
    let newer = OrderStatus {
        id: id("z", 2),
        last_sent: Some(id("z", 2)),
        ..last("Fence", "a", OrderState::Done, "CarriedOut", 1)
    };
    let older = Observed { last_order: Some(newer), ..observed };
    assert_eq!(
        told_of(&decide_order(&older)),
        (OrderState::Refused, "Repeated"),
        "older than one that was sent"
    );
}

#[test]
fn what_the_agent_reports_is_followed_to_its_end() {
    let x = id("x", 5);
    assert_eq!(decide_order(&reporting(running("Accepted", 2), &x, OrderReply::Accepted)), OrderPlan::None);
    let done = decide_order(&reporting(running("Accepted", 2), &x, OrderReply::Done));
    assert_eq!(told_of(&done), (OrderState::Done, "CarriedOut"));
    let refused = OrderReply::Refused(OrderRefusal::StandbyCannot);
    let refused = decide_order(&reporting(running("Accepted", 2), &x, refused));
    assert_eq!(told_of(&refused), (OrderState::Refused, "StandbyCannot"));
}

#[test]
fn an_order_whose_end_is_not_seen_does_not_run_for_ever() {
    assert_eq!(
        decide_order(&running("Accepted", 5)),
        OrderPlan::None,
        "the report may be older than the reply"
    );
    assert_eq!(told_of(&decide_order(&running("Accepted", 6))), (OrderState::Failed, "Forgotten"));
    let silent = |seconds| decide_order(&running("Accepted", seconds).a_silent());
    assert_eq!(silent(900), OrderPlan::None);
    assert_eq!(told_of(&silent(901)), (OrderState::Failed, "TimedOut"));
    assert!(matches!(decide_order(&running("Announced", 60)), OrderPlan::Send { .. }));
    assert_eq!(told_of(&decide_order(&running("Announced", 61))), (OrderState::Failed, "AgentUnreachable"));
}

/// Instance a, the primary, reports that it prepares order x.
fn preparing(mut observed: Observed) -> Observed {
    let mut primary = report(A, PostgresState::Primary);
    primary.preparing = vec![id("x", 5)];
    observed.a.report = ReportView::Fresh(Box::new(primary));
    observed
}

#[test]
fn an_order_that_its_agent_prepares_is_running_and_not_forgotten() {
    for (reason, seconds) in [("Announced", 1), ("Announced", 61), ("Accepted", 6), ("Accepted", 600)] {
        let OrderPlan::Tell(told) = decide_order(&preparing(running(reason, seconds))) else {
            panic!("nothing is told of an order that was {reason}")
        };
        assert_eq!((told.state, told.reason), (OrderState::Running, OrderStage::Preparing.into()));
        assert_eq!(told.message, "the primary writes a checkpoint before it stops");
    }
    let prepared = |seconds| preparing(running("Preparing", seconds));
    assert_eq!(decide_order(&prepared(60)), OrderPlan::None, "it is told once");
    assert_eq!(told_of(&decide_order(&prepared(901))), (OrderState::Failed, "TimedOut"));
    let withdrawn = Observed { order: None, ..prepared(1) };
    assert_eq!(decide_order(&withdrawn), OrderPlan::None, "the agent has it");
}

/// Instance b is copied by order of a person, and the copy has failed.
fn copy_failed(reason: &str, seconds: i64, kept: bool) -> Observed {
    let mut observed = steady()
        .solo()
        .b_waits_for(1, &[(1, SeedState::Failed { at: steady().now, message: String::new() })]);
    let words = "pg_basebackup failed: checksum verification failed in file \"base/5/16384\"".into();
    observed.b.jobs[0].failure = Some(SeedFailure { why: words, kept });
    let state = if reason == "Copying" { OrderState::Running } else { OrderState::Failed };
    observed.last_order = Some(last("Rebuild", "b", state, reason, seconds));
    observed
}

#[test]
fn an_ordered_copy_that_keeps_failing_is_given_up_when_the_old_data_is_still_there() {
    let up = |observed: &Observed| crate::decide::decide(observed).b.unwrap().replicas == 1;
    let tried = copy_failed("Copying", 360, true);
    assert_eq!((decide_order(&tried), up(&tried)), (OrderPlan::None, false));
    let long = copy_failed("Copying", 361, true);
    let OrderPlan::Tell(told) = decide_order(&long) else { panic!("nothing is told") };
    assert_eq!((told.state, told.reason), (OrderState::Failed, OrderStage::CopyFailed.into()));
    assert!(told.message.contains("checksum verification failed"), "{}", told.message);
    assert!(up(&long) && up(&copy_failed("CopyFailed", 10, true)), "also if the start was refused at first");
    assert!(!up(&copy_failed("CopyFailed", 300, true)), "a later copy is not that of the order");
    let nothing_left = copy_failed("Copying", 900, false);
    assert_eq!((decide_order(&nothing_left), up(&nothing_left)), (OrderPlan::None, false));
}

#[test]
fn an_order_that_was_prepared_is_followed_to_its_end() {
    let x = id("x", 5);
    let judged = |reply| told_of(&decide_order(&reporting(running("Preparing", 30), &x, reply)));
    assert_eq!(judged(OrderReply::Accepted), (OrderState::Running, "Accepted"));
    assert_eq!(judged(OrderReply::Done), (OrderState::Done, "CarriedOut"));
    let over = OrderReply::Refused(OrderRefusal::TermIsOver);
    assert_eq!(judged(over), (OrderState::Refused, "TermIsOver"), "the term ended meanwhile");
    let lost = decide_order(&running("Preparing", 6));
    assert_eq!(told_of(&lost), (OrderState::Failed, "Forgotten"), "the agent was restarted");
}

#[test]
fn an_order_that_another_one_kept_from_being_carried_out_is_refused_and_not_forgotten() {
    let mut observed = reporting(running("Preparing", 30), "y-1777636800", OrderReply::Accepted);
    let ReportView::Fresh(primary) = &mut observed.a.report else { panic!() };
    let reply = OrderReply::Refused(OrderRefusal::Busy);
    primary.refused_order = Some(OrderReport { id: id("x", 5), kind: OrderKind::Switchover, reply });
    assert_eq!(told_of(&decide_order(&observed)), (OrderState::Refused, "Busy"));
}

#[test]
fn an_order_that_is_prepared_is_under_way() {
    assert!(!is_under_way(&steady(), &OrderPlan::None));
    assert!(is_under_way(&preparing(steady()), &OrderPlan::None));
}

#[test]
fn an_announced_order_can_be_withdrawn_and_a_sent_one_cannot() {
    let withdrawn = |reason| decide_order(&Observed { order: None, ..running(reason, 1) });
    assert_eq!(told_of(&withdrawn("Announced")), (OrderState::Refused, "Withdrawn"));
    assert_eq!(withdrawn("Accepted"), OrderPlan::None);
    let other = Observed {
        order: Some(r#"{"id":"y-1777636800","kind":"Fence","instance":"b","term":3}"#.into()),
        ..running("Accepted", 1)
    };
    assert_eq!(decide_order(&other), OrderPlan::None, "the next one waits");
}

#[test]
fn a_rebuild_is_done_when_the_copy_runs() {
    let with = |observed: Observed, reason: &str| {
        let last = last("Rebuild", "b", OrderState::Running, reason, 2);
        decide_order(&Observed {
            last_order: Some(last),
            ..annotated(observed, r#""kind":"Rebuild","instance":"b""#)
        })
    };
    assert_eq!(with(steady(), "Accepted"), OrderPlan::None, "not down yet");
    let copying = steady().solo().b_waits_for(2, &[(2, SeedState::Running)]);
    assert_eq!(told_of(&with(copying.clone(), "Accepted")), (OrderState::Running, "Copying"));
    assert_eq!(with(copying, "Copying"), OrderPlan::None);
    assert_eq!(told_of(&with(steady(), "Copying")), (OrderState::Done, "CarriedOut"));
}

#[test]
fn a_promotion_first_tells_what_it_may_lose() {
    let promote = |observed: Observed| {
        let OrderPlan::Tell(told) =
            decide_order(&annotated(observed, r#""kind":"Promote","dead":"0000000000000007""#))
        else {
            panic!("not announced")
        };
        (told.estimated_loss, told.message)
    };
    let (loss, message) = promote(steady().a_silent());
    assert_eq!(loss, Some(Lag { bytes: 0, millis: 0 }), "{message}");
    let mut solo = steady().solo().a_silent();
    let mut primary = report(A, PostgresState::Primary);
    primary.standby = Some(lag(48 << 20));
    solo.a.last_report = Some((Box::new(primary), Duration::from_secs(12)));
    let (loss, message) = promote(solo.clone());
    assert_eq!(loss, Some(Lag { bytes: 48 << 20, millis: 12_000 }));
    assert!(message.contains("48 MiB of WAL") && message.contains("12 s ago"), "{message}");
    solo.a.last_report = None;
    assert_eq!(promote(solo).0, None, "what is not known is not zero");
}

#[test]
fn a_reply_is_told_as_what_it_means() {
    let order = |kind| Order { id: id("x", 5), term: Term(3), kind };
    let state = |kind, reply| {
        let told = replied(&order(kind), A, None, reply);
        (told.state, told.reason.as_str())
    };
    assert_eq!(state(OrderKind::Switchover, OrderReply::Accepted), (OrderState::Running, "Accepted"));
    assert_eq!(state(OrderKind::Fence, OrderReply::Done), (OrderState::Done, "CarriedOut"));
    assert_eq!(state(OrderKind::Rebuild, OrderReply::Done), (OrderState::Running, "Accepted"));
    let busy = OrderReply::Refused(OrderRefusal::Busy);
    assert_eq!(state(OrderKind::Restart, busy), (OrderState::Refused, "Busy"));
}
