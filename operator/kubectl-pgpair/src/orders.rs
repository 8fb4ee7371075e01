//! The verbs that give an order: what is said before, the order itself, what is said after.

use std::io::{self, IsTerminal};

use anyhow::bail;
use jiff::Timestamp;
use pgpair_api::PgReplicaPair;
use pgpair_api::loss::{self, KnownWal};
use pgpair_api::names::PairName;
use pgpair_api::order::{CertificateKind, UserOrder, UserOrderKind, order_id};
use pgpair_api::status::{OrderState, OrderStatus};
use pgpair_core::ids::InstanceId;
use pgpair_core::record::Record;

use crate::args::{self, Confirm, Follow, OneInstance, Output};
use crate::cluster::Cluster;
use crate::follow::{self, OrderOutcome};
use crate::order;

/// Hand over.
///
/// # Errors
/// It did not come to `Done`.
pub async fn switchover(cluster: &Cluster, name: &str, how: Follow) -> anyhow::Result<()> {
    let record = cluster.record(name).await?;
    let request = order::new(UserOrderKind::Switchover, None, &record, id())?;
    carry_out(cluster, name, &request, how).await
}

/// Another password for a role.
///
/// # Errors
/// It did not come to `Done`.
pub async fn rotate_password(
    cluster: &Cluster,
    name: &str,
    role: Option<String>,
    how: Follow,
) -> anyhow::Result<()> {
    let record = cluster.record(name).await?;
    let request = UserOrder { role, ..order::new(UserOrderKind::RotatePassword, None, &record, id())? };
    carry_out(cluster, name, &request, how).await
}

/// Another certificate in place of one that is revoked.
///
/// # Errors
/// It did not come to `Done`.
pub async fn revoke_certificate(
    cluster: &Cluster,
    name: &str,
    certificate: CertificateKind,
    (instance, role): (Option<InstanceId>, Option<String>),
    how: Follow,
) -> anyhow::Result<()> {
    let record = cluster.record(name).await?;
    let order = order::new(UserOrderKind::RevokeCertificate, instance, &record, id())?;
    carry_out(cluster, name, &UserOrder { certificate: Some(certificate), role, ..order }, how).await
}

/// Restart, fence, unfence.
///
/// # Errors
/// The instance is not this pair's, or it did not come to `Done`.
pub async fn simple(cluster: &Cluster, kind: UserOrderKind, one: &OneInstance) -> anyhow::Result<()> {
    let request = to_one(cluster, kind, one).await?.1;
    carry_out(cluster, &one.name, &request, one.follow).await
}

/// Copy the standby anew.
///
/// # Errors
/// It is the primary, nobody confirmed it, or it did not come to `Done`.
pub async fn rebuild(cluster: &Cluster, one: &OneInstance, confirm: Confirm) -> anyhow::Result<()> {
    let (record, request) = to_one(cluster, UserOrderKind::Rebuild, one).await?;
    if request.instance == Some(record.primary.instance) {
        bail!(
            "{}-{} is the primary: only a standby is copied anew; hand over first with `kubectl pgpair switchover {}`",
            one.name,
            record.primary.instance,
            one.name
        );
    }
    eprintln!(
        "REBUILD {}/{}: the standby stops and its data is copied anew from the primary; nobody can take over until it is done.",
        cluster.namespace, one.name
    );
    ask(&one.name, confirm)?;
    carry_out(cluster, &one.name, &request, one.follow).await
}

/// Make the standby primary.
///
/// # Errors
/// The record is unreadable, nobody confirmed it, or it did not come to `Done`.
pub async fn promote(
    cluster: &Cluster,
    name: &str,
    instance: Option<&str>,
    confirm: Confirm,
    how: Follow,
) -> anyhow::Result<()> {
    let instance = instance.map(|text| args::instance(name, text)).transpose()?;
    let record = cluster.record(name).await?;
    let request = order::new(UserOrderKind::Promote, instance, &record, id())?;
    let pair = cluster.pair(name).await?;
    eprint!("{}", before_promotion(&pair, &record, Timestamp::now()));
    ask(name, confirm)?;
    carry_out(cluster, name, &request, how).await
}

async fn to_one(
    cluster: &Cluster,
    kind: UserOrderKind,
    one: &OneInstance,
) -> anyhow::Result<(Record, UserOrder)> {
    let instance = args::instance(&one.name, &one.instance)?;
    let record = cluster.record(&one.name).await?;
    let request = order::new(kind, Some(instance), &record, id())?;
    Ok((record, request))
}

fn id() -> String {
    order_id(Timestamp::now().as_second(), &order::word(rand::random()))
}

fn ask(name: &str, confirm: Confirm) -> anyhow::Result<()> {
    if confirm.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        bail!("there is no terminal to ask on, so nothing was ordered: give --yes if you mean it");
    }
    order::confirm(name, &mut io::stdin().lock(), &mut io::stderr())
}

/// What a person has to know before the word is given.
fn before_promotion(pair: &PgReplicaPair, record: &Record, now: Timestamp) -> String {
    let name = pair.metadata.name.as_deref().unwrap_or("-");
    let namespace = pair.metadata.namespace.as_deref().unwrap_or("-");
    let (old, new) = (record.primary.instance, record.primary.instance.peer());
    let full = PairName { namespace: namespace.to_owned(), name: name.to_owned() };
    let known = pair.status.as_ref().map(|status| KnownWal::of_status(&full, status)).unwrap_or_default();
    format!(
        "PROMOTE {namespace}/{name}: {name}-{new} becomes the primary in place of {name}-{old}.
  dead by your word  {name}-{old}, incarnation {}, term {}, mode {}
  estimated loss     {}
  If it is alive after all, it takes writes until it sees the record; those are lost too.
",
        record.primary.incarnation,
        record.term,
        record.mode,
        loss::estimate(record, new, &known).sentence(now),
    )
}

async fn carry_out(cluster: &Cluster, name: &str, request: &UserOrder, how: Follow) -> anyhow::Result<()> {
    let pair = cluster.pair(name).await?;
    if let Some(other) = follow::unfinished(&pair) {
        bail!(
            "order {} ({}) is under way: watch it with `kubectl pgpair status {name} --watch`, then order again",
            other.id,
            other.kind
        );
    }
    let (request, given) = &cluster.order(&pair, request, how.by_annotation).await?;
    eprintln!("{} of {}/{name} ordered, id {}", request.kind.as_str(), cluster.namespace, request.id);
    let tell = |now: &OrderStatus| {
        eprintln!("{}", now.message.as_deref().unwrap_or("under way"));
    };
    let outcome = follow::follow(cluster, name, request, given, how.limit(), tell).await;
    conclude(name, request, &outcome, how)?;
    let changes = matches!(request.kind, UserOrderKind::Switchover | UserOrderKind::Promote);
    if changes && how.output == Output::Page {
        // The order is done: that it cannot be shown is no failure of it.
        match cluster.record(name).await {
            Ok(record) => println!("{}", now_primary(name, &record)),
            Err(e) => eprintln!("who is primary now is not known: {e:#}"),
        }
    }
    Ok(())
}

fn now_primary(name: &str, record: &Record) -> String {
    format!("primary {name}-{}, term {}, mode {}", record.primary.instance, record.term, record.mode)
}

fn conclude(name: &str, request: &UserOrder, outcome: &OrderOutcome, how: Follow) -> anyhow::Result<()> {
    let what = format!("{} of {name}", request.kind.as_str());
    if how.output == Output::Json
        && let OrderOutcome::Ended(order) | OrderOutcome::Running(order) = outcome
    {
        println!("{}", serde_json::to_string_pretty(order)?);
    }
    let text = sentence(&what, name, outcome, how.timeout);
    match outcome {
        OrderOutcome::Ended(order) if order.state.is(OrderState::Done) => {
            if how.output == Output::Page {
                println!("{text}");
            }
            Ok(())
        }
        _ => bail!("{text}"),
    }
}

/// The outcome for people.
fn sentence(what: &str, name: &str, outcome: &OrderOutcome, limit: u64) -> String {
    match outcome {
        OrderOutcome::Ended(order) => {
            let state = match order.state.known() {
                Some(OrderState::Done) => "done",
                Some(OrderState::Refused) => "refused",
                Some(OrderState::Failed) => "failed",
                Some(OrderState::Running) => "under way",
                None => order.state.as_str(),
            };
            let mut text = format!("{what}: {state}");
            if !order.state.is(OrderState::Done)
                && let Some(reason) = &order.reason
            {
                text += &format!(" ({reason})");
            }
            if let Some(message) = &order.message {
                text += &format!(": {message}");
            }
            let next = order.reason.as_ref().and_then(|reason| order::next_step(name, reason.known()?));
            if !order.state.is(OrderState::Done)
                && let Some(next) = next
            {
                text += &format!("\nwhat to do: {next}");
            }
            text
        }
        OrderOutcome::Running(order) => format!(
            "{what}: no outcome within {limit} s, it is still under way (order {})\nwhat to do: watch it with `kubectl pgpair status {name} --watch`",
            order.id
        ),
        OrderOutcome::Withdrawn => format!(
            "{what}: no operator took the order up within {limit} s, so it was taken back and will not be carried out\nwhat to do: look whether the operator runs: kubectl get pods -A -l app.kubernetes.io/name=pgreplicapair-operator"
        ),
        OrderOutcome::Unknown(why) => format!(
            "{what}: no operator took the order up within {limit} s, and it could not be taken back: {why}\nwhat to do: look at `kubectl pgpair status {name}`; the order may still be carried out in this term"
        ),
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};
    use serde_json::{Value, json};

    use super::*;
    use crate::mock::{self, Seen};

    const HOW: Follow = Follow { timeout: 120, output: Output::Page, by_annotation: false };
    const YES: Confirm = Confirm { yes: true };

    /// An operator that ends every order at once.
    fn server(
        state: &'static str,
        reason: Option<&'static str>,
    ) -> (Cluster, tokio::task::JoinHandle<Vec<Seen>>) {
        mock::cluster(move |now, before| {
            if now.path.contains("/leases/") {
                return (StatusCode::OK, mock::lease());
            }
            let order = before.iter().find(|s| s.method == Method::PATCH).map(given);
            let status = order.map_or(Value::Null, |o| {
                json!({"order": {"id": o["id"], "kind": o["kind"], "state": state, "reason": reason, "message": "said"}})
            });
            (StatusCode::OK, mock::pair(status))
        })
    }

    /// The order in the annotation of a patch.
    fn given(patch: &Seen) -> Value {
        let text = patch.body["metadata"]["annotations"]["pgpair.dev/order"].as_str().unwrap();
        serde_json::from_str(text).unwrap()
    }

    async fn orders(server: tokio::task::JoinHandle<Vec<Seen>>) -> Vec<Value> {
        let seen = tokio::time::timeout(std::time::Duration::from_secs(5), server).await.unwrap().unwrap();
        seen.iter().filter(|s| s.method == Method::PATCH).map(given).collect()
    }

    fn one(instance: &str) -> OneInstance {
        OneInstance { name: "orders".into(), instance: instance.into(), follow: HOW }
    }

    #[tokio::test(start_paused = true)]
    async fn a_promotion_names_the_incarnation_and_the_term_that_the_lease_shows() {
        let (cluster, server) = server("Done", None);
        promote(&cluster, "orders", None, YES, HOW).await.unwrap();
        drop(cluster);
        let orders = orders(server).await;
        assert_eq!(orders.len(), 1);
        assert_eq!(orders[0]["kind"], "Promote");
        assert_eq!((&orders[0]["term"], &orders[0]["dead"]), (&json!(3), &json!("00000000000000aa")));
        assert_eq!(orders[0]["instance"], Value::Null);
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_to_one_instance_names_it() {
        let (cluster, server) = server("Done", None);
        simple(&cluster, UserOrderKind::Fence, &one("orders-b")).await.unwrap();
        drop(cluster);
        let orders = orders(server).await;
        assert_eq!((&orders[0]["kind"], &orders[0]["instance"]), (&json!("Fence"), &json!("b")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_is_revoked_of_the_instance_that_is_named() {
        for (certificate, instance, role) in [
            (CertificateKind::Agent, Some(InstanceId::B), None),
            (CertificateKind::Operator, None, None),
            (CertificateKind::Role, None, Some("report")),
        ] {
            let (cluster, server) = server("Done", None);
            let whose = (instance, role.map(str::to_owned));
            revoke_certificate(&cluster, "orders", certificate, whose, HOW).await.unwrap();
            drop(cluster);
            let orders = orders(server).await;
            assert_eq!(
                (&orders[0]["kind"], &orders[0]["certificate"]),
                (&json!("RevokeCertificate"), &json!(certificate))
            );
            assert_eq!(orders[0]["instance"].as_str(), instance.map(|i| i.as_str()));
            assert_eq!(orders[0]["role"].as_str(), role);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_password_is_ordered_for_the_role_that_is_named() {
        for role in [None, Some("report")] {
            let (cluster, server) = server("Done", None);
            rotate_password(&cluster, "orders", role.map(Into::into), HOW).await.unwrap();
            drop(cluster);
            let orders = orders(server).await;
            assert_eq!((&orders[0]["kind"], orders[0]["role"].as_str()), (&json!("RotatePassword"), role));
            assert_eq!(orders[0]["instance"], Value::Null);
        }
    }

    /// What is asked for where orders are objects.
    async fn with_objects(how: Follow) -> Vec<(Method, String)> {
        let (cluster, server) = mock::cluster_with_orders(|now, before| {
            if now.path.contains("/leases/") {
                return (StatusCode::OK, mock::lease());
            }
            if now.path.ends_with("/pgpairorders") {
                let mut made = now.body.clone();
                let meta = made["metadata"].as_object_mut().unwrap();
                assert_eq!(meta["generateName"], "orders-");
                meta.extend([
                    ("name".into(), json!("orders-x7k2p")),
                    ("uid".into(), json!("u-1")),
                    ("creationTimestamp".into(), json!("2026-05-01T12:00:00Z")),
                ]);
                assert_eq!(
                    made["spec"],
                    json!({"pair": "orders", "kind": "Fence", "instance": "b", "term": 3})
                );
                return (StatusCode::OK, made);
            }
            let id = match before.iter().find(|s| s.method == Method::PATCH) {
                Some(patch) => given(patch)["id"].clone(),
                None => json!("u-1-1777636800"),
            };
            (StatusCode::OK, mock::pair(json!({"order": {"id": id, "kind": "Fence", "state": "Done"}})))
        });
        simple(&cluster, UserOrderKind::Fence, &OneInstance { follow: how, ..one("b") }).await.unwrap();
        drop(cluster);
        let seen = tokio::time::timeout(std::time::Duration::from_secs(5), server).await.unwrap().unwrap();
        let written = seen.into_iter().filter(|s| s.method != Method::GET);
        written.map(|s| (s.method, s.path.rsplit('/').next().unwrap().to_owned())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_is_an_object_where_that_may_be_and_the_annotation_where_that_is_asked_for() {
        assert_eq!(with_objects(HOW).await, [(Method::POST, "pgpairorders".to_owned())]);
        let by_annotation = Follow { by_annotation: true, ..HOW };
        assert_eq!(with_objects(by_annotation).await, [(Method::PATCH, "orders".to_owned())]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_done_is_a_success_and_a_refusal_says_what_to_do() {
        for (state, reason) in [("Refused", "NotPaired"), ("Failed", "TimedOut")] {
            let (cluster, _server) = server(state, Some(reason));
            let error = switchover(&cluster, "orders", HOW).await.unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("said"), "{error}");
            assert!(error.contains("what to do: "), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_primary_is_never_rebuilt() {
        let (cluster, server) = server("Done", None);
        let error = rebuild(&cluster, &one("a"), YES).await.unwrap_err().to_string();
        assert!(error.contains("switchover orders"), "{error}");
        drop(cluster);
        assert_eq!(orders(server).await, Vec::<Value>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn no_order_is_given_while_another_one_is_under_way() {
        let (cluster, server) = mock::cluster(|now, _| {
            let running = json!({"order": {"id": "x", "kind": "Restart", "state": "Running"}});
            let answer = if now.path.contains("/leases/") { mock::lease() } else { mock::pair(running) };
            (StatusCode::OK, answer)
        });
        let error = switchover(&cluster, "orders", HOW).await.unwrap_err().to_string();
        assert!(error.contains("order x (Restart) is under way"), "{error}");
        drop(cluster);
        assert_eq!(orders(server).await, Vec::<Value>::new());
    }

    #[test]
    fn before_a_promotion_a_person_reads_who_is_said_to_be_dead_and_what_is_lost() {
        let status = json!({"term": 3, "mode": "Solo", "lag": {"summary": "", "receive": {"bytes": 2048, "seconds": 1.5}},
            "conditions": [{"type": "FailoverReady", "status": "False", "reason": "Solo", "message": "",
                            "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        let pair = serde_json::from_value(mock::pair(status)).unwrap();
        let record = Record {
            term: pgpair_core::ids::Term(3),
            primary: pgpair_core::record::Holder {
                instance: pgpair_core::ids::InstanceId::A,
                incarnation: pgpair_core::ids::Incarnation(0xaa),
            },
            ..Record::initial()
        };
        insta::assert_snapshot!(before_promotion(&pair, &record, "2026-01-01T01:00:00Z".parse().unwrap()));
    }

    #[test]
    fn every_outcome_is_a_sentence_with_what_to_do() {
        let order = |state: OrderState, reason: Option<&str>| -> OrderStatus {
            serde_json::from_value(
                json!({"id": "000000ab-1", "kind": "Switchover", "state": <&str>::from(state),
                "reason": reason, "message": "the operator's words"}),
            )
            .unwrap()
        };
        let text = |outcome: &OrderOutcome| sentence("Switchover of orders", "orders", outcome, 120);
        let all = [
            OrderOutcome::Ended(order(OrderState::Done, None)),
            OrderOutcome::Ended(order(OrderState::Refused, Some("NotPaired"))),
            OrderOutcome::Ended(order(OrderState::Failed, Some("Other"))),
            OrderOutcome::Running(order(OrderState::Running, None)),
            OrderOutcome::Withdrawn,
            OrderOutcome::Unknown("no answer".into()),
        ];
        insta::assert_snapshot!(all.iter().map(text).collect::<Vec<_>>().join("\n\n"));
    }
}
