//! Gives an order and follows it to its end.

use std::time::Duration;

use pgpair_api::PgReplicaPair;
use pgpair_api::order::UserOrder;
use pgpair_api::status::{OrderState, OrderStatus};
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, Given};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// How an order ended, as far as we know.
#[derive(Debug, Clone, PartialEq)]
pub enum OrderOutcome {
    /// `Done`, `Refused` or `Failed`.
    Ended(OrderStatus),
    /// The operator works on it; no outcome within the limit.
    Running(OrderStatus),
    /// Nobody has taken it up; it was taken back, so that it is not carried out at an hour when nobody expects it.
    Withdrawn,
    /// Nobody is known to have taken it up, and it could not be taken back; why.
    Unknown(String),
}

/// Follows `order` for at most `limit`. `tell` gets each new state on the way.
pub async fn follow(
    cluster: &Cluster,
    name: &str,
    order: &UserOrder,
    given: &Given,
    limit: Duration,
    mut tell: impl FnMut(&OrderStatus),
) -> OrderOutcome {
    let end = Instant::now() + limit;
    let mut seen: Option<OrderStatus> = None;
    loop {
        // An API server that is away for a moment is no outcome: the next look may find it again.
        if let Ok(pair) = cluster.pair(name).await
            && let Some(now) = order_of(&pair, &order.id)
        {
            if is_end(now) {
                return OrderOutcome::Ended(now.clone());
            }
            if seen.as_ref() != Some(now) {
                tell(now);
                seen = Some(now.clone());
            }
        }
        if Instant::now() >= end {
            break;
        }
        sleep(PAUSE).await;
    }
    match seen {
        Some(last) => OrderOutcome::Running(last),
        None => withdraw(cluster, name, order, given).await,
    }
}

async fn withdraw(cluster: &Cluster, name: &str, order: &UserOrder, given: &Given) -> OrderOutcome {
    let taken_back = cluster.withdraw(name, order, given).await;
    // The operator may have taken it up at this very moment: it has the last word.
    match cluster.pair(name).await {
        Ok(pair) => match (order_of(&pair, &order.id), taken_back) {
            (Some(now), _) if is_end(now) => OrderOutcome::Ended(now.clone()),
            (Some(now), _) => OrderOutcome::Running(now.clone()),
            (None, Ok(())) => OrderOutcome::Withdrawn,
            (None, Err(e)) => OrderOutcome::Unknown(format!("{e:#}")),
        },
        Err(e) => OrderOutcome::Unknown(format!("{e:#}")),
    }
}

/// What the status says of order `id`.
fn order_of<'a>(pair: &'a PgReplicaPair, id: &str) -> Option<&'a OrderStatus> {
    pair.status.as_ref()?.order.as_ref().filter(|order| order.id == id)
}

/// An order that the operator still works on.
#[must_use]
pub fn unfinished(pair: &PgReplicaPair) -> Option<&OrderStatus> {
    pair.status.as_ref()?.order.as_ref().filter(|order| !is_end(order))
}

fn is_end(order: &OrderStatus) -> bool {
    match order.state.known() {
        // A state that is not known is none of the ends.
        Some(OrderState::Running) | None => false,
        Some(OrderState::Done | OrderState::Refused | OrderState::Failed) => true,
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};
    use serde_json::{Value, json};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::mock::{self, Seen};

    const ID: &str = "000000ab-1795262400";
    const TEXT: &str = r#"{"id":"000000ab-1795262400","kind":"Switchover","term":3}"#;

    fn ordered() -> UserOrder {
        UserOrder::parse(TEXT).unwrap()
    }

    fn order(id: &str, state: &str) -> Value {
        json!({"order": {"id": id, "kind": "Switchover", "state": state, "reason": "NotPaired", "message": state}})
    }

    /// What is said on the way, how it ends, what was asked for. The nth look at the pair gets the nth status, the later
    /// looks the last.
    async fn followed(looks: Vec<(StatusCode, Value)>) -> (Vec<String>, OrderOutcome, Vec<Seen>) {
        let (cluster, server) = mock::cluster(move |now, before| {
            if now.method != Method::GET {
                return (StatusCode::OK, mock::pair(json!({})));
            }
            let n = before.iter().filter(|s| s.method == Method::GET).count();
            let (code, status) = looks[n.min(looks.len() - 1)].clone();
            if code == StatusCode::OK { (code, mock::pair(status)) } else { mock::error(code) }
        });
        let mut told = Vec::new();
        let tell = |o: &OrderStatus| told.push(o.message.clone().unwrap_or_default());
        let outcome =
            follow(&cluster, "orders", &ordered(), &Given::Annotation, Duration::from_secs(120), tell).await;
        drop(cluster);
        (told, outcome, seen(server).await)
    }

    async fn seen(server: JoinHandle<Vec<Seen>>) -> Vec<Seen> {
        tokio::time::timeout(Duration::from_secs(5), server).await.expect("a client is alive").unwrap()
    }

    fn ok(status: Value) -> (StatusCode, Value) {
        (StatusCode::OK, status)
    }

    fn writes(seen: &[Seen]) -> Vec<&Seen> {
        seen.iter().filter(|s| s.method != Method::GET).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_is_followed_to_its_end_and_each_state_is_told_once() {
        let looks = vec![
            ok(Value::Null),
            ok(order("older", "Done")),
            ok(order(ID, "Running")),
            ok(order(ID, "Running")),
            ok(order(ID, "Done")),
        ];
        let (told, outcome, seen) = followed(looks).await;
        assert_eq!(told, ["Running"]);
        assert!(matches!(outcome, OrderOutcome::Ended(o) if o.state.is(OrderState::Done) && o.id == ID));
        assert_eq!(writes(&seen), Vec::<&Seen>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_is_away_for_a_moment_is_no_outcome() {
        let away = (StatusCode::INTERNAL_SERVER_ERROR, Value::Null);
        let (_, outcome, _) = followed(vec![away.clone(), away, ok(order(ID, "Refused"))]).await;
        assert!(matches!(outcome, OrderOutcome::Ended(o) if o.state.is(OrderState::Refused)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_that_nobody_takes_up_is_taken_back_and_only_that_one() {
        let (told, outcome, seen) = followed(vec![ok(order("older", "Done"))]).await;
        assert_eq!((told.len(), outcome), (0, OrderOutcome::Withdrawn));
        let patches = writes(&seen);
        let expected = json!([
            {"op": "test", "path": "/metadata/annotations/pgpair.dev~1order", "value": TEXT},
            {"op": "remove", "path": "/metadata/annotations/pgpair.dev~1order"},
        ]);
        assert_eq!(patches.iter().map(|s| s.body.clone()).collect::<Vec<_>>(), [expected]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_under_way_is_not_taken_back_at_the_end_of_patience() {
        let (told, outcome, seen) = followed(vec![ok(order(ID, "Running"))]).await;
        assert_eq!(told, ["Running"]);
        assert!(matches!(outcome, OrderOutcome::Running(_)));
        assert_eq!(writes(&seen), Vec::<&Seen>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_that_takes_the_order_up_at_the_last_moment_has_the_last_word() {
        // Nothing is seen for two minutes; after the patch was sent the order is there.
        let (cluster, server) = mock::cluster(|now, before| {
            let patched = before.iter().any(|s| s.method == Method::PATCH);
            match (&now.method, patched) {
                (&Method::PATCH, _) => mock::error(StatusCode::UNPROCESSABLE_ENTITY),
                (_, false) => (StatusCode::OK, mock::pair(Value::Null)),
                (_, true) => (StatusCode::OK, mock::pair(order(ID, "Running"))),
            }
        });
        let outcome =
            follow(&cluster, "orders", &ordered(), &Given::Annotation, Duration::from_secs(120), |_| {})
                .await;
        assert!(matches!(outcome, OrderOutcome::Running(_)), "{outcome:?}");
        drop(cluster);
        assert_eq!(seen(server).await.last().map(|s| s.method.clone()), Some(Method::GET));
    }
}
