//! A second installation of the operator in the same cluster.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use pgpair_e2e::harness::audit::{AuditLog, Write};
use pgpair_e2e::harness::cluster::{Cluster, in_namespace};
use pgpair_e2e::harness::operator::{self, Installation};
use pgpair_e2e::harness::pair::{Pair, apply, manifest};
use pgpair_e2e::harness::status::await_settled;
use pgpair_e2e::harness::wait::await_condition;
use pgpair_e2e::repository;
use serde_json::json;

use crate::Outcome;
use crate::context::Context;

/// For a pair from nothing to `Paired`.
const BRING_UP: Duration = Duration::from_secs(240);
/// For the second operator to start, and to find the first one.
const STARTS: Duration = Duration::from_secs(90);
/// For the first one to carry out a change.
const SOON: Duration = Duration::from_secs(60);
/// How long two of them are watched beside each other.
const WATCHED: Duration = Duration::from_secs(20);
/// Name of the second release.
const SECOND: &str = "pgpair-second";
/// Where the pairs are that become its own.
const WATCHED_BY_SECOND: &str = "pgpair-watched";
/// Their class.
const CLASS: &str = "e2e-second";

/// It writes nothing for pairs that another one looks after, and says so. With a class and a namespace of its own, and rights in that namespace
/// only, it looks after its own pair, and each leaves the other's alone.
pub async fn a_second_operator_stands_aside_until_it_has_a_class_of_its_own(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let Some(audit) = AuditLog::of(&pair.cluster) else {
        return Ok(Outcome::Skipped("the API server's audit log is not to be had".into()));
    };
    await_settled(&pair, BRING_UP).await?;
    let (cluster, first) = (pair.cluster.clone(), operator::installation(&pair.cluster).await?);
    in_namespace(&cluster, SECOND, async |namespace| {
        let done = in_namespace(&cluster, WATCHED_BY_SECOND, async |watched| {
            install(&cluster, namespace, &first, &[]).await?;
            it_stands_aside(&pair, namespace, &first, &audit).await?;
            let values = [format!("class={CLASS}"), format!("watchNamespaces={{{watched}}}")];
            install(&cluster, namespace, &first, &values).await?;
            it_may_see_no_secrets_elsewhere(&cluster, namespace, watched).await?;
            it_looks_after_its_own(&pair, (namespace, watched), &first, &audit).await
        });
        let done = done.await;
        let done = pair.explain(done).await;
        // Rights in the whole cluster do not go with the namespace.
        cluster.helm(&["uninstall", SECOND, "-n", namespace]).await?;
        done.map(|()| Outcome::Passed)
    })
    .await
}

async fn install(
    cluster: &Cluster,
    namespace: &str,
    first: &Installation,
    more: &[String],
) -> anyhow::Result<()> {
    let chart = repository::root().join("charts/pgreplicapair-operator");
    let values = [first.image_values(), more.to_vec(), vec!["replicas=1".to_owned()]].concat();
    let template = format!("postgresImageTemplate={}", first.postgres_image);
    let chart = chart.to_str().context("the path of the chart is no text")?;
    let mut args = vec!["upgrade", "--install", SECOND, chart, "-n", namespace, "--skip-crds"];
    args.extend(values.iter().flat_map(|value| ["--set", value]));
    args.extend(["--set-literal", &template]);
    cluster.helm(&args).await.map(|_| ())
}

async fn it_may_see_no_secrets_elsewhere(
    cluster: &Cluster,
    namespace: &str,
    watched: &str,
) -> anyhow::Result<()> {
    let account = user(namespace);
    let may = async |where_: &str| {
        // "no" is an exit status, too.
        let command = format!("auth can-i list secrets {where_} --as={account}");
        let args: Vec<&str> = command.split_whitespace().collect();
        cluster.kubectl(&args).await.is_ok()
    };
    ensure!(!may("--all-namespaces").await, "it may list all Secrets");
    ensure!(may(&format!("-n {watched}")).await, "it may not list those of its pairs");
    ensure!(may(&format!("-n {namespace}")).await, "it may not list its own");
    Ok(())
}

async fn it_stands_aside(
    pair: &Pair,
    namespace: &str,
    first: &Installation,
    audit: &AuditLog,
) -> anyhow::Result<()> {
    let events: Api<Event> = Api::namespaced(pair.cluster.client.clone(), namespace);
    let told = await_condition("the word of the second operator", STARTS, || async {
        let found = events.list(&ListParams::default()).await?;
        let conflict = found.into_iter().find(|e| e.reason.as_deref() == Some("OperatorConflict"));
        conflict.and_then(|e| e.note).context("no Event OperatorConflict")
    });
    let told = told.await?;
    println!("  {told}");
    for word in [&first.release, &first.namespace, "does nothing", "class"] {
        ensure!(told.contains(word), "{word:?} is not in: {told}");
    }
    let begin = audit.position()?;
    // Something to write, for whoever looks after the pair.
    pair.set(&json!({"service": {"labels": {"e2e": "two"}}})).await?;
    let carried = await_condition("the new label of the Service", SOON, || async {
        let args = [
            "-n",
            &pair.names.namespace,
            "get",
            "service",
            &pair.names.ro(),
            "-o=jsonpath={.metadata.labels.e2e}",
        ];
        let found = pair.cluster.kubectl(&args).await?;
        ensure!(found == "two", "it is {found:?}");
        Ok(())
    });
    let carried = carried.await;
    tokio::time::sleep(WATCHED).await;
    pair.set(&json!({"service": {"labels": {"e2e": null}}})).await?;
    carried?;
    let writes = audit.since(begin)?;
    ensure!(
        writes.iter().any(|w| w.user == first.user),
        "the first operator wrote nothing: {}",
        tell(&writes)
    );
    let second: Vec<Write> = writes.into_iter().filter(|w| w.user == user(namespace)).collect();
    ensure!(!second.is_empty(), "the second operator did not even renew its own Lease");
    let foreign: Vec<Write> = second.into_iter().filter(|w| w.namespace != namespace).collect();
    ensure!(foreign.is_empty(), "the second operator wrote: {}", tell(&foreign));
    Ok(())
}

async fn it_looks_after_its_own(
    shared: &Pair,
    (namespace, watched): (&str, &str),
    first: &Installation,
    audit: &AuditLog,
) -> anyhow::Result<()> {
    let begin = audit.position()?;
    let class = format!("  operatorClassName: {CLASS}\n");
    apply(&shared.cluster, watched, &(manifest("own", 17) + &class)).await?;
    let own = Pair::new(&shared.cluster, watched, "own");
    own.await_paired(1, BRING_UP).await?;
    // What it keeps of the pair is in its own namespace, and the agents answer to it.
    own.order(&json!({"kind": "Switchover"})).await?;
    own.await_paired(2, BRING_UP).await?;
    await_settled(shared, SOON).await?;
    let writes = audit.since(begin)?;
    let by = |user: &str, pair: &Pair| -> Vec<Write> {
        writes.iter().filter(|w| w.user == user && w.is_for(&pair.names)).cloned().collect()
    };
    ensure!(!by(&user(namespace), &own).is_empty(), "the second operator wrote nothing for its pair");
    let (crossed, back) = (by(&first.user, &own), by(&user(namespace), shared));
    ensure!(crossed.is_empty(), "the first operator wrote for the other's pair: {}", tell(&crossed));
    ensure!(back.is_empty(), "the second operator wrote for the other's pair: {}", tell(&back));
    let delete = ["-n", watched, "delete", "pgreplicapair", "own", "--timeout=60s"];
    shared.cluster.kubectl(&delete).await.map(|_| ())
}

fn user(namespace: &str) -> String {
    format!("system:serviceaccount:{namespace}:{SECOND}")
}

fn tell(writes: &[Write]) -> String {
    writes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
