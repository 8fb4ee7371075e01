//! Objects of other owners that have names which a pair needs.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use pgpair_api::status::{ConditionType, Reason};
use pgpair_e2e::harness::cluster::{Cluster, in_namespace};
use pgpair_e2e::harness::operator;
use pgpair_e2e::harness::pair::{Pair, apply, manifest};
use pgpair_e2e::harness::status::await_told;
use pgpair_e2e::harness::wait::await_condition;

use crate::Outcome;
use crate::context::Context;

/// For the operator to look at the names, and for objects to come to rest.
const SOON: Duration = Duration::from_secs(60);
/// How long the pair is watched afterwards: several looks of the operator.
const WATCHED: Duration = Duration::from_secs(10);
/// All kinds that a pair has, as kubectl takes them.
const KINDS: &str = "serviceaccounts,roles,rolebindings,poddisruptionbudgets,configmaps,services,persistentvolumeclaims,secrets,\
                     endpointslices,statefulsets,jobs,pods,leases";

/// Of an application that came first. Without a selector, replicas or data that a controller would look after: what is seen to
/// change was changed by the operator.
const FOREIGN: [(&str, &str, &str); 5] = [
    (
        "ConfigMap",
        "shop-config",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shop-config}\ndata: {colour: blue}\n",
    ),
    (
        "Secret",
        "shop-app",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: shop-app}\nstringData: {token: private}\n",
    ),
    ("ServiceAccount", "shop-agent", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: shop-agent}\n"),
    (
        "Service",
        "shop-rw",
        "apiVersion: v1\nkind: Service\nmetadata: {name: shop-rw}\nspec: {ports: [{port: 80, name: http}]}\n",
    ),
    (
        "StatefulSet",
        "shop-a",
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: shop-a}\nspec:\n  replicas: 0\n  serviceName: none\n  \
         selector: {matchLabels: {app: other}}\n  template:\n    metadata: {labels: {app: other}}\n    spec:\n      \
         containers: [{name: other, image: \"localhost/busybox:1\"}]\n",
    ),
];

/// The status names each of them; nothing of the pair is made, and nothing of theirs changes or goes with the pair.
pub async fn objects_of_other_owners_are_named_and_left_alone(c: &mut Context) -> anyhow::Result<Outcome> {
    let cluster = c.cluster()?;
    operator::await_available(&cluster).await?;
    in_namespace(&cluster, "pgpair-names", async |namespace| {
        for (kind, name, manifest) in FOREIGN {
            apply(&cluster, namespace, manifest).await.with_context(|| format!("making {kind} {name}"))?;
        }
        let before = at_rest(&cluster, namespace).await?;
        apply(&cluster, namespace, &manifest("shop", 17)).await?;
        let pair = Pair::new(&cluster, namespace, "shop");
        let named: Vec<String> = FOREIGN.iter().map(|(kind, name, _)| format!("{kind} {name}")).collect();
        let words: Vec<&str> =
            named.iter().map(String::as_str).chain(["do not belong to this pair"]).collect();
        println!("  {}", await_told(&pair, ConditionType::Degraded, Reason::NameTaken, &words, SOON).await?);
        // Long enough to make something, had it been allowed.
        tokio::time::sleep(WATCHED).await;
        let made =
            cluster.kubectl(&["-n", namespace, "get", KINDS, "-l=pgpair.dev/pair=shop", "-o=name"]).await?;
        ensure!(made.is_empty(), "the operator has made {made}");
        ensure!(objects(&cluster, namespace).await? == before, "an object of another owner was changed");

        cluster.kubectl(&["-n", namespace, "delete", "pgreplicapair", "shop", "--timeout=60s"]).await?;
        tokio::time::sleep(WATCHED).await;
        let after = objects(&cluster, namespace).await?;
        ensure!(after == before, "after the end of the pair there is {after}; before there was {before}");
        Ok(Outcome::Passed)
    })
    .await
}

/// Kind, name, uid and version of each object.
async fn objects(cluster: &Cluster, namespace: &str) -> anyhow::Result<String> {
    let names: Vec<String> =
        FOREIGN.iter().map(|(kind, name, _)| format!("{}/{name}", kind.to_lowercase())).collect();
    let output = "-o=jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid} {.metadata.resourceVersion}{\"\\n\"}{end}";
    let args: Vec<&str> =
        ["-n", namespace, "get", output].into_iter().chain(names.iter().map(String::as_str)).collect();
    cluster.kubectl(&args).await
}

/// When the StatefulSet's controller has written its status.
async fn at_rest(cluster: &Cluster, namespace: &str) -> anyhow::Result<String> {
    let observed =
        ["-n", namespace, "get", "statefulset", "shop-a", "-o=jsonpath={.status.observedGeneration}"];
    await_condition("a StatefulSet at rest", SOON, || async {
        let found = cluster.kubectl(&observed).await?;
        ensure!(found == "1", "observedGeneration is {found:?}");
        Ok(())
    })
    .await?;
    objects(cluster, namespace).await
}
