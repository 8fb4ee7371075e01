//! Orders of people as objects (`PgPairOrder`): which order is next, what is told of each, and when they go. Pure.
//!
//! Flow: one order at a time, the oldest first, whether it is an object or the annotation. What is decided about it stands in the
//! pair's `status.order`, and is told in the object from there. Guarantees: no other order is taken up before the end of the last one is
//! told in its object, and an object that has come to its end is never taken up again.

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt};
use pgpair_api::PgPairOrder;
use pgpair_api::names::PairName;
use pgpair_api::order::{UserOrder, time_of};
use pgpair_api::pair_order::PgPairOrderStatus;
use pgpair_api::status::{OrderState, OrderStatus};

use crate::cache::Caches;

pub mod orphans;

/// An order that has come to its end is kept for so long.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(1);
/// So many ended orders of a pair are kept at most.
const KEPT: usize = 20;

/// What is to be done about an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Follow {
    /// Write its status.
    Tell(Box<PgPairOrder>),
    /// Delete it; by name and uid.
    Delete(String, String),
}

/// The orders of a pair, the oldest first.
#[must_use]
pub fn of_pair(caches: &Caches, name: &PairName) -> Vec<PgPairOrder> {
    let mut orders = caches.orders.beginning_with(&name.namespace, &format!("{}-", name.name));
    orders.retain(|order| order.spec.pair == name.name && order.meta().deletion_timestamp.is_none());
    orders.sort_by_key(|order| (order.creation_timestamp().map(|t| t.0), order.name_any()));
    orders
}

/// The order that is next, or under way, in the form of the annotation.
#[must_use]
pub fn choose(
    annotation: Option<&String>,
    last: Option<&OrderStatus>,
    orders: &[PgPairOrder],
) -> Option<String> {
    let is_last =
        |order: &&PgPairOrder| last.is_some_and(|last| order.id().as_deref() == Some(last.id.as_str()));
    let of_last = orders.iter().find(is_last);
    if last.is_some_and(|last| last.state.is(OrderState::Running)) {
        // Of an order that was given by the annotation, the annotation still has to say so.
        return of_last.map_or_else(|| annotation.cloned(), PgPairOrder::to_annotation);
    }
    if of_last.is_some_and(|order| !order.is_ended()) {
        return None; // its end is told first
    }
    let next = orders.iter().filter(|order| !order.is_ended()).find_map(|order| {
        let id = order.id()?;
        Some((time_of(&id)?, order.to_annotation()?))
    });
    let of_object = last.is_some_and(|last| is_id_of_object(&last.id));
    let Some((time, next)) = next else {
        // An annotation stays after its order has ended. After an order that was an object, only a newer one is news.
        return annotation.filter(|text| !of_object || is_new(text, last)).cloned();
    };
    match annotation.filter(|text| is_new(text, last)) {
        Some(text) if UserOrder::parse(text).is_ok_and(|order| time_of(&order.id) <= Some(time)) => {
            Some(text.clone())
        }
        _ => Some(next),
    }
}

/// Whether an id was made of the uid of an object.
fn is_id_of_object(id: &str) -> bool {
    const UID: usize = 36;
    id.rsplit_once('-').is_some_and(|(word, _)| {
        word.len() == UID && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
    })
}

/// Whether an annotation is an order that has not been told of yet.
fn is_new(annotation: &str, last: Option<&OrderStatus>) -> bool {
    UserOrder::parse(annotation).is_ok_and(|order| {
        last.is_none_or(|last| last.id != order.id && time_of(&last.id) <= time_of(&order.id))
    })
}

/// What is to be done about the objects after the pair's status says `last` of an order.
#[must_use]
pub fn follow(orders: &[PgPairOrder], last: Option<&OrderStatus>, now: Timestamp) -> Vec<Follow> {
    let told = orders.iter().filter_map(|order| tell(order, last?, now)).map(Follow::Tell);
    let mut ended: Vec<_> =
        orders.iter().filter(|order| order.is_ended()).map(|order| (ended_at(order, now), order)).collect();
    ended.sort_by_key(|(end, _)| Reverse(*end));
    let goes = ended.iter().enumerate().filter(|(n, (_, order))| *n >= KEPT || is_due_to_go(order, now));
    let deleted = goes.filter_map(|(_, (_, order))| Some(Follow::Delete(order.name_any(), order.uid()?)));
    told.chain(deleted).collect()
}

/// When it came to its end; of one that has not, when it was created.
fn ended_at(order: &PgPairOrder, now: Timestamp) -> Timestamp {
    let end = order.status.as_ref().and_then(|status| status.end_time.as_ref()).map(|end| end.0);
    end.or(order.creation_timestamp().map(|t| t.0)).unwrap_or(now)
}

/// Whether it is as old as an order becomes.
fn is_due_to_go(order: &PgPairOrder, now: Timestamp) -> bool {
    now.duration_since(ended_at(order, now)) >= KEPT_FOR
}

/// The object with the status that it should have, if that is another one.
fn tell(order: &PgPairOrder, last: &OrderStatus, now: Timestamp) -> Option<Box<PgPairOrder>> {
    if order.is_ended() || order.id().as_deref() != Some(last.id.as_str()) {
        return None;
    }
    let old = order.status.clone().unwrap_or_default();
    let new = PgPairOrderStatus {
        phase: last.state.clone(),
        reason: last.reason.clone(),
        message: last.message.clone(),
        instance: last.instance.clone(),
        start_time: old.start_time.clone().or(Some(Time(now))),
        end_time: (!last.state.is(OrderState::Running)).then(|| last.time.clone().unwrap_or(Time(now))),
    };
    (new != old).then(|| Box::new(PgPairOrder { status: Some(new), ..order.clone() }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_777_636_800 + seconds).unwrap()
    }

    /// The order that was given at that second.
    fn order(n: i64, phase: Option<&str>) -> PgPairOrder {
        let status = phase.map(|phase| json!({"phase": phase, "endTime": at(n).to_string()}));
        serde_json::from_value(json!({
            "apiVersion": "pgpair.dev/v1alpha1", "kind": "PgPairOrder",
            "metadata": {"name": format!("orders-{n}"), "namespace": "shop", "uid": format!("6f1d5a0e-5a3c-4ec1-8a53-{n:012}"), "creationTimestamp": at(n).to_string()},
            "spec": {"pair": "orders", "kind": "Switchover", "term": 3}, "status": status,
        }))
        .unwrap()
    }

    fn last(id: &str, state: &str) -> Option<OrderStatus> {
        let order: Value = json!({"id": id, "kind": "Switchover", "state": state, "reason": "Accepted", "message": "m", "time": at(90).to_string()});
        serde_json::from_value(order).unwrap()
    }

    fn id(n: i64) -> String {
        order(n, None).id().unwrap()
    }

    fn annotation(n: i64) -> String {
        json!({"id": format!("x-{}", at(n).as_second()), "kind": "Switchover", "term": 3}).to_string()
    }

    /// The id of what is chosen.
    fn chosen(text: Option<&String>, last: Option<&OrderStatus>, orders: &[PgPairOrder]) -> Option<String> {
        choose(text, last, orders).map(|text| UserOrder::parse(&text).unwrap().id)
    }

    #[test]
    fn one_order_at_a_time_the_oldest_first_whether_object_or_annotation() {
        let two = [order(10, None), order(20, None)];
        assert_eq!(chosen(None, None, &two), Some(id(10)));
        assert_eq!(chosen(Some(&annotation(5)), None, &two), Some(format!("x-{}", at(5).as_second())));
        assert_eq!(chosen(Some(&annotation(15)), None, &two), Some(id(10)));
        let carried_out = last(&format!("x-{}", at(5).as_second()), "Done");
        assert_eq!(chosen(Some(&annotation(5)), carried_out.as_ref(), &two), Some(id(10)), "it was told of");
        let running = last(&id(10), "Running");
        assert_eq!(chosen(Some(&annotation(5)), running.as_ref(), &two), Some(id(10)), "to its end");
        assert_eq!(chosen(None, running.as_ref(), &two[1..]), None, "it was deleted: the annotation is none");
        let by_annotation = last(&format!("x-{}", at(5).as_second()), "Running");
        assert_eq!(choose(Some(&annotation(5)), by_annotation.as_ref(), &two), Some(annotation(5)));
    }

    #[test]
    fn an_annotation_that_stays_is_not_taken_for_a_new_order_after_an_object() {
        let by_object = last(&id(10), "Done");
        let told = [order(10, Some("Done"))];
        assert_eq!(choose(Some(&annotation(5)), by_object.as_ref(), &told), None);
        assert_eq!(choose(Some(&"no order".to_owned()), by_object.as_ref(), &told), None);
        assert_eq!(choose(Some(&annotation(15)), by_object.as_ref(), &told), Some(annotation(15)));
        let by_annotation = last(&format!("x-{}", at(10).as_second()), "Done");
        assert_eq!(
            choose(Some(&annotation(5)), by_annotation.as_ref(), &[]),
            Some(annotation(5)),
            "it is told as older"
        );
    }

    #[test]
    fn the_next_order_waits_until_the_end_of_the_last_one_is_told_in_its_object() {
        let done = last(&id(10), "Done");
        assert_eq!(chosen(None, done.as_ref(), &[order(10, None), order(20, None)]), None);
        let told = [order(10, Some("Done")), order(20, None)];
        assert_eq!(chosen(None, done.as_ref(), &told), Some(id(20)));
        assert_eq!(chosen(None, None, &told[..1]), None, "never again");
        assert_eq!(
            choose(Some(&"no order".to_owned()), None, &[]),
            Some("no order".into()),
            "it is told as such"
        );
    }

    #[test]
    fn what_becomes_of_an_order_is_told_in_its_object_and_once() {
        let one = [order(10, None), order(20, None)];
        assert_eq!(follow(&one, None, at(30)), [], "it waits for its turn");
        let [Follow::Tell(told)] = &follow(&one, last(&id(10), "Running").as_ref(), at(30))[..] else {
            panic!("one")
        };
        let status = told.status.clone().unwrap();
        assert_eq!(
            (status.phase.as_str(), status.start_time, status.end_time),
            ("Running", Some(Time(at(30))), None)
        );
        let again = [PgPairOrder::clone(told)];
        assert_eq!(
            follow(&again, last(&id(10), "Running").as_ref(), at(40)),
            [],
            "an idle pair writes nothing"
        );
        let [Follow::Tell(told)] = &follow(&again, last(&id(10), "Done").as_ref(), at(95))[..] else {
            panic!("one")
        };
        let status = told.status.clone().unwrap();
        assert_eq!((status.start_time, status.end_time), (Some(Time(at(30))), Some(Time(at(90)))));
        assert_eq!(follow(&[PgPairOrder::clone(told)], last(&id(10), "Done").as_ref(), at(99)), []);
    }

    #[test]
    fn ended_orders_go_after_an_hour_and_the_oldest_of_too_many_at_once() {
        let deleted = |orders: &[PgPairOrder], now: i64| -> Vec<String> {
            let name = |follow| match follow {
                Follow::Delete(name, _) => name,
                Follow::Tell(_) => panic!("nothing is to be told"),
            };
            follow(orders, None, at(now)).into_iter().map(name).collect()
        };
        let orders = [order(1, Some("Done")), order(2, Some("Refused")), order(3, None)];
        assert_eq!(deleted(&orders, 3600), Vec::<String>::new());
        assert_eq!(deleted(&orders, 3601), ["orders-1"]);
        assert_eq!(deleted(&orders, 9000), ["orders-2", "orders-1"], "one that has not ended stays");
        let many: Vec<_> = (0..23).map(|n| order(n, Some("Done"))).collect();
        assert_eq!(deleted(&many, 60), ["orders-2", "orders-1", "orders-0"]);
    }
}
