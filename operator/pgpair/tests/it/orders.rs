//! What agents do with orders.

use std::time::{Duration, Instant};

use pgpair_core::ids::InstanceId;
use pgpair_core::order::{OrderKind, OrderRefusal, OrderReply};
use pgpair_wire::config::PairConfig;
use pgpair_wire::order::Order;
use pgpair_wire::paths;
use rustix::process::{Pid, Signal, kill_process};

use crate::failover::{back_as_standby, table, taken_over};
use crate::pair::{LIMIT, Pair, eventually};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;

pub async fn order(pair: &Pair, to: InstanceId, id: &str, kind: OrderKind) -> OrderReply {
    let term = pair.api.record().term;
    let order = serde_json::to_string(&Order { id: id.to_owned(), term, kind }).unwrap();
    let (status, body) = pair.ask(to, "POST", paths::ORDER, &order).await.unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_is_carried_out_once_and_a_second_order_meanwhile_is_refused() {
    let pair = Pair::up().await;
    table(&pair, A).await;
    assert_eq!(order(&pair, A, "first", OrderKind::Switchover).await, OrderReply::Accepted);
    let second = order(&pair, A, "second", OrderKind::Restart).await;
    assert!(matches!(second, OrderReply::Refused(_)), "{second:?}");
    taken_over(&pair, B, "1000").await;
    back_as_standby(&pair, A).await;
    let told = pair.report(A).await.and_then(|r| r.order).unwrap();
    assert_eq!((told.id.as_str(), told.reply), ("first", OrderReply::Done));
    assert_eq!(order(&pair, A, "first", OrderKind::Switchover).await, OrderReply::Done);
    assert_eq!(pair.api.record().primary.instance, B);
}

/// Nobody would serve until the standby has replayed what it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_waits_for_replay_and_is_refused_when_the_standby_stays_behind() {
    let pair = Pair::up().await;
    table(&pair, A).await;
    pair.sql(B, "SELECT pg_wal_replay_pause()").await.unwrap();
    let write = "SELECT count(pg_logical_emit_message(false, 'it', repeat('x', 1000000))) FROM generate_series(1, 80)";
    pair.sql(A, write).await.unwrap();
    assert_eq!(order(&pair, A, "behind", OrderKind::Switchover).await, OrderReply::Accepted);
    let refused = eventually("the order is judged", LIMIT, async || {
        pair.report(A).await?.order.filter(|o| o.id == "behind").map(|o| o.reply)
    });
    assert_eq!(refused.await, OrderReply::Refused(OrderRefusal::ReplayBehind));
    assert!(pair.is_writable(A).await);
    // One that catches up meanwhile is not refused.
    assert_eq!(order(&pair, A, "waits", OrderKind::Switchover).await, OrderReply::Accepted);
    assert!(pair.report(A).await.unwrap().preparing.contains(&"waits".to_owned()));
    pair.sql(B, "SELECT pg_wal_replay_resume()").await.unwrap();
    taken_over(&pair, B, "1000").await;
}

/// The checkpointer of a, stopped: no checkpoint ends.
pub async fn hold_checkpoints(pair: &Pair) -> Pid {
    let ask = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
    let checkpointer = pair.sql(A, ask).await.unwrap().parse().ok().and_then(Pid::from_raw).unwrap();
    kill_process(checkpointer, Signal::STOP).unwrap();
    checkpointer
}

/// A switchover waits for its checkpoint, is answered all the same, and the report of a names it.
async fn order_and_see_it_prepared(pair: &Pair) {
    let begin = Instant::now();
    assert_eq!(order(pair, A, "slow", OrderKind::Switchover).await, OrderReply::Accepted);
    assert!(begin.elapsed() < Duration::from_secs(10), "answered after {:?}", begin.elapsed());
    let report = pair.report(A).await.unwrap();
    assert_eq!((report.preparing, report.order), (vec!["slow".to_owned()], None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_that_waits_for_its_checkpoint_is_in_the_report_until_it_is_judged() {
    let pair = Pair::up().await;
    table(&pair, A).await;
    let checkpointer = hold_checkpoints(&pair).await;
    order_and_see_it_prepared(&pair).await;
    assert_eq!(order(&pair, A, "slow", OrderKind::Switchover).await, OrderReply::Accepted, "sent again");
    let busy = OrderReply::Refused(OrderRefusal::Busy);
    assert_eq!(order(&pair, A, "other", OrderKind::Restart).await, busy, "one stop at a time");
    let report = pair.report(A).await.unwrap();
    assert_eq!(report.preparing, ["slow"]);
    assert_eq!(report.refused_order.map(|o| (o.id, o.reply)), Some(("other".to_owned(), busy)));
    kill_process(checkpointer, Signal::CONT).unwrap();
    taken_over(&pair, B, "1000").await;
    back_as_standby(&pair, A).await;
    let report = pair.report(A).await.unwrap();
    assert_eq!(report.order.map(|o| (o.id, o.reply)), Some(("slow".to_owned(), OrderReply::Done)));
    assert_eq!(report.preparing, Vec::<String>::new());
}

/// Whether it counts as carried out by the hand-over of the dead primary, or as too late, depends on what is noticed first.
#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_whose_primary_dies_while_it_waits_for_its_checkpoint_comes_to_an_end() {
    let pair = Pair::up().await;
    table(&pair, A).await;
    hold_checkpoints(&pair).await;
    order_and_see_it_prepared(&pair).await;
    kill_process(pair.postmaster_pid(A), Signal::KILL).unwrap();
    taken_over(&pair, B, "1000").await;
    let ended = eventually("the order has come to an end", LIMIT, async || {
        pair.report(A).await?.order.filter(|o| o.reply != OrderReply::Accepted)
    })
    .await;
    assert!(ended.id == "slow" && ended.kind == OrderKind::Switchover, "{ended:?}");
    back_as_standby(&pair, A).await;
    assert_eq!(pair.report(A).await.unwrap().preparing, Vec::<String>::new());
    assert_eq!(pair.api.record().primary.instance, B);
}

/// What the peer and the operator may ask for, each with what the other may not; an instance has no reason to ask itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_may_ask_for_what_is_for_its_name_and_for_nothing_else() {
    let pair = Pair::up().await;
    let of = |kind| {
        let term = pair.api.record().term;
        serde_json::to_string(&Order { id: "x-1".to_owned(), term, kind }).unwrap()
    };
    let config = PairConfig { generation: 2, ttl_ms: 2_000, ..PairConfig::default() };
    let config = serde_json::to_string(&config).unwrap();
    let evidence = |kind: &str| format!(r#"{{"incarnation":"00000000000000aa","kind":"{kind}"}}"#);
    let cells = [
        ("GET", paths::REPORT, String::new(), true, true),
        ("PUT", paths::CONFIG, config, false, true),
        ("PUT", paths::PASSWORDS, "{}".to_owned(), false, true),
        ("POST", paths::ORDER, of(OrderKind::Fence), false, true),
        ("POST", paths::EVIDENCE, evidence("VolumeLock"), true, false),
        ("POST", paths::EVIDENCE, evidence("KubeletTerminated"), false, true),
        ("POST", paths::EVIDENCE, evidence("Person"), false, false),
        ("GET", paths::NEEDS, String::new(), true, false),
        ("GET", paths::WAL, String::new(), true, false),
        ("POST", paths::HEARTBEAT, String::new(), true, false),
        ("POST", paths::CAN_TAKE, String::new(), true, false),
        ("POST", paths::RESIGN, String::new(), true, false),
    ];
    assert_eq!(
        pair.probe(B, paths::REPORT).await,
        404,
        "the report names what evidence of a death must name"
    );
    assert_eq!(pair.probe(B, "/livez").await, 200);
    for (method, path, body, peer, operator) in cells {
        let may =
            async |tls: &std::path::Path| pair.ask_as(tls, B, method, path, &body).await.unwrap().0 != 403;
        assert_eq!(may(&pair.tls(A)).await, peer, "the peer: {method} {path} {body}");
        let itself = pair.ask_as(&pair.tls(B), B, method, path, &body).await;
        assert!(!itself.is_ok_and(|(status, _)| status != 0), "itself: {method} {path} {body}");
        // Last: an order of the operator is carried out.
        let status = pair.ask(B, method, path, &body).await.unwrap().0;
        assert_eq!(status != 403, operator, "the operator: {method} {path} {body}");
    }
    let large = "x".repeat(3_000_000);
    let answer = pair.ask_as(&pair.tls(A), B, "PUT", paths::CONFIG, &large).await;
    // The connection may end before all of it is written.
    assert!(answer.as_ref().map_or(true, |(status, _)| *status == 413), "{answer:?}");
}

/// The checkpoint before it may take minutes on a slow volume: until then the primary serves.
#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_waits_for_a_checkpoint_that_takes_long() {
    let pair = Pair::up().await;
    table(&pair, A).await;
    let checkpointer = hold_checkpoints(&pair).await;
    order_and_see_it_prepared(&pair).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(35) {
        assert_eq!(pair.report(A).await.unwrap().preparing, ["slow"]);
        assert!(pair.sql(A, "SELECT 1").await.is_ok(), "the primary serves meanwhile");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    kill_process(checkpointer, Signal::CONT).unwrap();
    taken_over(&pair, B, "1000").await;
}
