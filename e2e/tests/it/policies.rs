//! The admission policies of the chart: who may write a record and the endpoints of a pair, and that the pair works with them and without.
//! What is tried by others is a dry run of the API server, which asks the policies all the same.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use pgpair_core::ids::InstanceId;
use pgpair_e2e::harness::operator;
use pgpair_e2e::harness::pair::Pair;
use pgpair_e2e::harness::wait::await_condition;
use serde_json::{Value, json};

use crate::Outcome;
use crate::context::Context;

const WHOLE: Duration = Duration::from_secs(240);
/// For a change of a policy to come into effect, and for the operator to see and mend.
const SOON: Duration = Duration::from_secs(60);
/// Somebody with Kubernetes' ClusterRole `edit` in the namespace.
const DEVELOPER: &[&str] = &["--as=e2e-developer"];
/// What carries deletions out.
const COLLECTOR: &[&str] = &["--as=system:serviceaccount:kube-system:generic-garbage-collector"];
/// A cluster administrator.
const ADMINISTRATOR: &[&str] = &[];
/// A service account with every right: as far as the policies know, another operator.
const OPERATOR: &[&str] = &["--as=system:serviceaccount:default:e2e", "--as-group=system:masters"];

/// Whether the installation under test has the policies.
async fn are_installed(pair: &Pair) -> anyhow::Result<bool> {
    let args = [
        "get",
        "validatingadmissionpolicybinding",
        "-o=name",
        "-l=app.kubernetes.io/name=pgreplicapair-operator",
    ];
    Ok(pair.cluster.kubectl(&args).await?.lines().count() >= 2)
}

async fn kubectl(pair: &Pair, who: &[&str], what: &[&str]) -> anyhow::Result<String> {
    let args: Vec<&str> = ["-n", &pair.names.namespace]
        .iter()
        .chain(what)
        .chain(who)
        .chain(&["--dry-run=server"])
        .copied()
        .collect();
    pair.cluster.kubectl(&args).await
}

async fn refused(pair: &Pair, who: &[&str], what: &[&str], words: &str) -> anyhow::Result<()> {
    match kubectl(pair, who, what).await {
        Ok(_) => anyhow::bail!("{who:?} may {what:?}"),
        Err(error) => {
            let error = format!("{error:#}");
            ensure!(
                error.contains("ValidatingAdmissionPolicy") && error.contains(words),
                "{who:?} {what:?}: {error}"
            );
            Ok(())
        }
    }
}

async fn allowed(pair: &Pair, who: &[&str], what: &[&str]) -> anyhow::Result<()> {
    kubectl(pair, who, what).await.map(|_| ()).with_context(|| format!("{who:?} may not {what:?}"))
}

/// The agents of the pair by a token that names this pod; without a name: by one that names none.
fn agent(pair: &Pair, pod: Option<(&str, &str)>) -> Vec<String> {
    let mut who = vec![
        format!("--as=system:serviceaccount:{}:{}", pair.names.namespace, pair.names.agent()),
        // More rights than it has: what is refused here, the policy refuses.
        "--as-group=system:masters".to_owned(),
    ];
    for (key, value) in pod.into_iter().flat_map(|(name, uid)| [("pod-name", name), ("pod-uid", uid)]) {
        who.push(format!("--as-user-extra=authentication.kubernetes.io/{key}={value}"));
    }
    who
}

fn words(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

async fn a_developer(pair: &Pair) -> anyhow::Result<()> {
    let role = ["create", "rolebinding", "e2e-developer", "--clusterrole=edit", "--user=e2e-developer"];
    let args: Vec<&str> = ["-n", &pair.names.namespace].iter().chain(&role).copied().collect();
    match pair.cluster.kubectl(&args).await {
        Err(error) if !format!("{error:#}").contains("already exists") => Err(error),
        _ => Ok(()),
    }
}

/// Each kind of write, by everybody who is not to make it; and those that must go through.
pub async fn nobody_but_its_agents_writes_a_record(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    if !are_installed(&pair).await? {
        return Ok(Outcome::Skipped("the chart was installed without admissionPolicy.enabled".into()));
    }
    let status = pair.await_paired(1, WHOLE).await?;
    let (primary, term) = (pair.primary_of(&status)?, status.term.context("no term")?);
    a_developer(&pair).await?;
    let name = pair.names.lease();
    let patch = |patch: &Value| patch.to_string();
    let holder = |i: InstanceId, term: i64| {
        patch(&json!({"spec": {"holderIdentity": format!("{i}/00000000000000aa"), "leaseTransitions": term}}))
    };
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "00000000-0000-0000-0000-000000000001"}]);
    let others = [
        patch(&json!({"metadata": {"annotations": {"a": "b"}}})),
        patch(&json!({"metadata": {"labels": {"pgpair.dev/pair": null}}})),
        patch(&json!({"metadata": {"ownerReferences": owner}})),
        patch(&json!({"metadata": {"finalizers": ["example.com/stay"]}})),
        holder(primary.peer(), term + 1),
    ];
    for who in [DEVELOPER, ADMINISTRATOR, OPERATOR] {
        for change in &others {
            refused(&pair, who, &["patch", "lease", name, "--type=merge", "-p", change], "kubectl pgpair")
                .await?;
        }
        refused(&pair, who, &["delete", "lease", name], "delete the pair instead").await?;
        refused(&pair, who, &["delete", "lease", "--all"], "delete the pair instead").await?;
    }
    allowed(&pair, COLLECTOR, &["delete", "lease", name]).await?;

    let uid = |pod: &k8s_openapi::api::core::v1::Pod| pod.metadata.uid.clone().unwrap_or_default();
    let (own, other) = (pair.pod(primary).await?, pair.pod(primary.peer()).await?);
    let (own_name, other_name) = (pair.names.pod(primary), pair.names.pod(primary.peer()));
    let writer = agent(&pair, Some((&own_name, &uid(&own))));
    let standby = agent(&pair, Some((&other_name, &uid(&other))));
    let seed = format!("{}-seed-1-x", pair.names.instance(primary));
    let strangers = [agent(&pair, None), agent(&pair, Some((&seed, "u")))];
    let write = async |who: &[String], change: &str, refusal: Option<&str>| {
        let what = ["patch", "lease", name, "--type=merge", "-p", change];
        match refusal {
            None => allowed(&pair, &words(who), &what).await,
            Some(why) => refused(&pair, &words(who), &what, why).await,
        }
    };
    write(&writer, &holder(primary, term), None).await?;
    write(&standby, &holder(primary.peer(), term + 1), None).await?;
    write(&standby, &holder(primary.peer(), term), Some("only in a higher term")).await?;
    write(&standby, &holder(primary, term + 1), Some("cannot name the other instance")).await?;
    write(&writer, &holder(primary, term - 1), Some("never falls")).await?;
    let nonsense = json!({"metadata": {"annotations": {"pgpair.dev/mode": "Alone"}},
                          "spec": {"holderIdentity": format!("{primary}/00000000000000aa")}});
    write(&writer, &patch(&nonsense), Some("Paired or Solo")).await?;
    for who in &strangers {
        write(who, &holder(primary, term), Some("only the agents in the pods of that pair")).await?;
    }
    Ok(Outcome::Passed)
}

/// The same for the slices.
pub async fn endpoints_are_led_nowhere_else(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    if !are_installed(&pair).await? {
        return Ok(Outcome::Skipped("the chart was installed without admissionPolicy.enabled".into()));
    }
    let status = pair.await_paired(1, WHOLE).await?;
    let primary = pair.primary_of(&status)?;
    a_developer(&pair).await?;
    let (rw, ro) = (pair.names.rw(), pair.names.ro());
    for slice in [&rw, &ro, &pair.names.any()] {
        for change in [
            json!({"ports": [{"name": "postgres", "port": 1}]}),
            json!({"metadata": {"labels": {"pgpair.dev/pair": null}}}),
        ] {
            let change = change.to_string();
            let what = ["patch", "endpointslice", slice, "--type=merge", "-p", &change];
            refused(&pair, ADMINISTRATOR, &what, "only the operator writes it").await?;
            allowed(&pair, OPERATOR, &what).await?;
        }
        refused(&pair, ADMINISTRATOR, &["delete", "endpointslice", slice], "delete the pair instead").await?;
    }
    let pod = pair.pod(primary).await?;
    let uid = pod.metadata.uid.context("no uid")?;
    let name = pair.names.pod(primary);
    let to = |pod: &str, uid: &str| {
        let target = json!({"kind": "Pod", "name": pod, "namespace": pair.names.namespace, "uid": uid});
        json!({"endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "targetRef": target}]})
    };
    let other = pair.names.pod(primary.peer());
    let mut port = to(&name, &uid);
    port["ports"] = json!([{"name": "postgres", "port": 1, "protocol": "TCP"}]);
    // With the rights of an administrator the account of the agents would count as an operator: its own rights are enough here.
    let own: Vec<String> =
        agent(&pair, Some((&name, &uid))).into_iter().filter(|word| !word.contains("as-group")).collect();
    let replace = async |change: Value| {
        let get = ["-n", &pair.names.namespace, "get", "endpointslice", &rw, "-o=json"];
        let mut slice: Value = serde_json::from_str(&pair.cluster.kubectl(&get).await?)?;
        for (field, value) in change.as_object().context("no change")? {
            slice[field] = value.clone();
        }
        let mut args = vec!["-n", &pair.names.namespace, "replace", "--dry-run=server", "-f", "-"];
        args.extend(words(&own));
        pair.cluster.kubectl_with_input(&args, &slice.to_string()).await
    };
    replace(to(&name, &uid)).await.context("the agent leads to its own pod")?;
    for (change, why) in [
        (to(&other, &uid), "to its own pod only"),
        (to(&name, "another"), "to its own pod only"),
        (json!({"endpoints": [{"addresses": ["10.0.0.1"]}]}), "to its own pod only"),
        (port, "port 5432"),
    ] {
        let error = replace(change.clone()).await.err().with_context(|| format!("{change} was taken"))?;
        ensure!(format!("{error:#}").contains(why), "{change}: {error:#}");
    }
    Ok(Outcome::Passed)
}

/// As before Kubernetes had policies: the operator finds what was changed, and puts it right.
pub async fn a_changed_slice_is_put_right_without_the_policies(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let status = pair.await_paired(1, WHOLE).await?;
    let primary = pair.primary_of(&status)?;
    let changes = [
        json!({"ports": [{"name": "postgres", "port": 1, "protocol": "TCP"}]}),
        json!({"metadata": {"labels": {"pgpair.dev/pair": null}}}),
        json!({"metadata": {"labels": {"kubernetes.io/service-name": "another"}}}),
    ];
    for slice in [pair.names.rw(), pair.names.ro(), pair.names.any()] {
        for change in &changes {
            let change = change.to_string();
            let args: Vec<&str> = [
                "-n",
                &pair.names.namespace,
                "patch",
                "endpointslice",
                &slice,
                "--type=merge",
                "-p",
                &change,
            ]
            .into_iter()
            .chain(OPERATOR.iter().copied())
            .collect();
            pair.cluster.kubectl(&args).await?;
            let output = "-o=jsonpath={.ports[*].port} {.metadata.labels.pgpair\\.dev/pair} {.metadata.labels.kubernetes\\.io/service-name}";
            let get = ["-n", &pair.names.namespace, "get", "endpointslice", &slice, output];
            let right = format!("5432 {} {slice}", pair.names.name);
            await_condition(&format!("{slice} as the operator made it, after {change}"), SOON, || async {
                let found = pair.cluster.kubectl(&get).await?;
                ensure!(found == right, "{found:?}");
                Ok(())
            })
            .await?;
        }
    }
    pair.rw_leads_to(primary).await?;
    Ok(Outcome::Passed)
}

/// The ClusterRole for people on call is enough for a switchover, and not for a change of the pair.
pub async fn who_may_only_order_can_switch_over(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let status = pair.await_paired(1, WHOLE).await?;
    let (primary, term) = (pair.primary_of(&status)?, status.term.context("no term")?);
    let installed = operator::installation(&pair.cluster).await?;
    let role = format!("--clusterrole={}-{}-oncall", installed.namespace, installed.release);
    let namespace = &pair.names.namespace;
    pair.cluster
        .kubectl(&["-n", namespace, "create", "rolebinding", "e2e-oncall", &role, "--user=e2e-oncall"])
        .await?;
    let who = "--as=e2e-oncall";
    let name = &pair.names.name;
    let patch = [
        "-n",
        namespace,
        "patch",
        "pgreplicapair",
        name,
        "--type=merge",
        "-p",
        "{\"metadata\":{\"annotations\":{\"a\":\"b\"}}}",
        who,
    ];
    ensure!(pair.cluster.kubectl(&patch).await.is_err(), "the pair may be changed");
    let order = format!(
        "apiVersion: pgpair.dev/v1alpha1\nkind: PgPairOrder\nmetadata: {{name: {name}-e2e-{term}}}\nspec: {{pair: {name}, kind: Switchover, term: {term}}}\n"
    );
    pair.cluster.kubectl_with_input(&["-n", namespace, "create", "-f", "-", who], &order).await?;
    let object = format!("{name}-e2e-{term}");
    let get =
        ["-n", namespace, "get", "pgpairorder", &object, "-o=jsonpath={.status.phase} {.status.endTime}"];
    let done = await_condition("the end of the order", WHOLE, || async {
        let found = pair.cluster.kubectl(&get).await?;
        ensure!(found.starts_with("Done 20"), "{found:?}");
        Ok(())
    });
    let done = done.await;
    pair.explain(done).await?;
    let change =
        ["-n", namespace, "patch", "pgpairorder", &object, "--type=merge", "-p", "{\"spec\":{\"term\":99}}"];
    let error = pair.cluster.kubectl(&change).await.err().context("an order was changed")?;
    ensure!(format!("{error:#}").contains("never changes"), "{error:#}");
    let status = pair.await_paired(term + 1, WHOLE).await?;
    ensure!(pair.primary_of(&status)? == primary.peer(), "the primary is {:?}", status.primary);
    Ok(Outcome::Passed)
}
