//! An API server that refuses what the operator writes, one kind of object after the other and all at once: the status says so in
//! the server's words, the rest goes on, and what was refused is done when it may be.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use pgpair_api::status::{ConditionType, OrderState, Reason};
use pgpair_core::ids::InstanceId;
use pgpair_e2e::harness::cluster::in_namespace;
use pgpair_e2e::harness::operator;
use pgpair_e2e::harness::pair::{Pair, apply, manifest};
use pgpair_e2e::harness::refusal::{Kind, Refusal, SENTENCE};
use pgpair_e2e::harness::status::{await_settled, await_told, stays_told};
use pgpair_e2e::harness::wait::await_condition;
use serde_json::{Value, json};

use crate::Outcome;
use crate::context::Context;
use crate::orders::ordered;

/// For a pair from nothing to `Paired`.
const BRING_UP: Duration = Duration::from_secs(240);
/// For a refused write to be tried and told.
const TOLD: Duration = Duration::from_secs(30);
/// For a step that failed to be tried again: it waits for at most a minute.
const AGAIN: Duration = Duration::from_secs(90);
/// For so long a refusal is watched: several looks of the operator, with and without another try.
const WATCHED: Duration = Duration::from_secs(8);
/// Label that each object of the operator has.
const LABEL: &str = "app.kubernetes.io/name";

/// One object that is changed under the operator's hands, so that it has to write it.
struct Case {
    kind: Kind,
    /// As the API server and the operator name the kind.
    word: &'static str,
    name: String,
    /// A merge patch by which a person changes the object.
    patch: Value,
    /// A JSON path, and what must be there when the operator has put it right.
    right: (&'static str, Right),
}

/// How it is seen that the operator has written the object.
enum Right {
    Is(&'static str),
    IsNot(&'static str),
}

/// Each kind by itself: told with its name and in the words of the policy, and put right when the policy is gone.
pub async fn a_refused_write_of_each_kind_is_told_and_made_good(c: &mut Context) -> anyhow::Result<Outcome> {
    let cluster = c.cluster()?;
    let user = operator::installation(&cluster).await?.user;
    in_namespace(&cluster, "pgpair-refused", async |namespace| {
        apply(&cluster, namespace, &manifest("guarded", 17)).await?;
        let pair = Pair::new(&cluster, namespace, "guarded");
        pair.await_paired(1, BRING_UP).await?;
        await_settled(&pair, AGAIN).await?;
        for case in cases(&pair) {
            one_kind(&pair, &user, &case).await.with_context(|| format!("{} {}", case.word, case.name))?;
        }
        a_volume_that_may_not_grow(&pair, &user).await.context("PersistentVolumeClaim")?;
        all_kinds_at_once(&pair, &user).await.context("all kinds at once")?;
        a_copy_that_may_not_begin(&pair, &user).await.context("Job")?;
        Ok(Outcome::Passed)
    })
    .await
}

fn cases(pair: &Pair) -> Vec<Case> {
    let names = &pair.names;
    let labelled = |group, resource, word, name: String| Case {
        kind: Kind { group, resource },
        word,
        name,
        patch: json!({"metadata": {"labels": {LABEL: "another"}}}),
        right: (".metadata.labels.app\\.kubernetes\\.io/name", Right::Is("pgreplicapair")),
    };
    let rbac = "rbac.authorization.k8s.io";
    let kind = |group, resource| Kind { group, resource };
    vec![
        labelled("", "serviceaccounts", "ServiceAccount", names.agent()),
        labelled(rbac, "roles", "Role", names.agent()),
        labelled(rbac, "rolebindings", "RoleBinding", names.agent()),
        labelled("", "configmaps", "ConfigMap", names.config()),
        labelled("", "services", "Service", names.any()),
        Case {
            kind: kind("policy", "poddisruptionbudgets"),
            word: "PodDisruptionBudget",
            name: names.budget(),
            patch: json!({"spec": {"minAvailable": 2}}),
            right: (".spec.minAvailable", Right::Is("1")),
        },
        Case {
            kind: kind("", "secrets"),
            word: "Secret",
            name: names.tls_secret(InstanceId::A),
            // It is said to be at its end, and is not.
            patch: json!({"metadata": {"annotations": {"pgpair.dev/not-after": "2001-01-01T00:00:00Z"}}}),
            right: (".metadata.annotations.pgpair\\.dev/not-after", Right::IsNot("2001-01-01T00:00:00Z")),
        },
        Case {
            kind: kind("discovery.k8s.io", "endpointslices"),
            word: "EndpointSlice",
            name: names.ro(),
            patch: json!({"endpoints": []}),
            right: (".endpoints[*].addresses[*]", Right::IsNot("")),
        },
        Case {
            kind: kind("apps", "statefulsets"),
            word: "StatefulSet",
            name: names.instance(InstanceId::B),
            patch: json!({"spec": {"revisionHistoryLimit": 7}}),
            right: (".spec.revisionHistoryLimit", Right::Is("3")),
        },
    ]
}

async fn one_kind(pair: &Pair, user: &str, case: &Case) -> anyhow::Result<()> {
    let refusal = refuse(pair, user, &[case.kind], case).await?;
    let told = async {
        disturb(pair, case).await?;
        is_told(pair, &[case.word, case.name.as_str(), SENTENCE]).await
    };
    let told = told.await;
    refusal.withdraw().await?;
    println!("  {}", told?);
    is_put_right(pair, case).await?;
    await_settled(pair, AGAIN).await.map(|_| ())
}

/// A change that clients never see must not need what is refused: a switchover is carried out and told, and the Services follow as
/// far as the operator may write.
async fn all_kinds_at_once(pair: &Pair, user: &str) -> anyhow::Result<()> {
    let cases = cases(pair);
    let kinds: Vec<Kind> = cases.iter().map(|case| case.kind).collect();
    let before = pair.await_paired(1, BRING_UP).await?;
    let (old, term) = (pair.primary_of(&before)?, before.term.context("no term")?);
    let last = cases.last().context("no case")?;
    let refusal = refuse(pair, user, &kinds, last).await?;
    let walked = async {
        for case in &cases {
            disturb(pair, case).await?;
        }
        let words = [SENTENCE, "; also: "];
        await_told(pair, ConditionType::Degraded, Reason::ApplyFailed, &words, TOLD).await?;
        is_switched_over(pair).await?;
        let told = await_condition("the switchover in the status", TOLD, || async {
            let status = pair.paired_now(term + 1).await?;
            ensure!(pair.primary_of(&status)? == old.peer(), "the primary is {:?}", status.primary);
            pair.rw_leads_to(old.peer()).await
        });
        let told = told.await;
        pair.explain(told).await?;
        await_told(pair, ConditionType::Degraded, Reason::ApplyFailed, &words, TOLD).await
    };
    let walked = walked.await;
    refusal.withdraw().await?;
    println!("  {}", walked?);
    for case in &cases {
        is_put_right(pair, case).await?;
    }
    let reads = await_condition("the read Service at the standby", AGAIN, || pair.ro_leads_to(old));
    reads.await?;
    await_settled(pair, AGAIN).await.map(|_| ())
}

/// A standby that cannot read the record within a second, on a machine that is busy, says no; then it is ordered again.
async fn is_switched_over(pair: &Pair) -> anyhow::Result<()> {
    let mut order = ordered(pair, json!({"kind": "Switchover"})).await?;
    if order.state.is(OrderState::Refused) {
        order = ordered(pair, json!({"kind": "Switchover"})).await?;
    }
    ensure!(order.state.is(OrderState::Done), "{order:?}");
    Ok(())
}

/// The claim cannot be changed by hand in a way that the operator undoes: the spec asks for more.
async fn a_volume_that_may_not_grow(pair: &Pair, user: &str) -> anyhow::Result<()> {
    let claim = pair.names.data_claim(InstanceId::A);
    let case = Case {
        kind: Kind { group: "", resource: "persistentvolumeclaims" },
        word: "volume",
        name: claim.clone(),
        patch: Value::Null,
        right: ("", Right::Is("")),
    };
    let refusal = refuse(pair, user, &[case.kind], &case).await?;
    let size = |size: &str| json!({"storage": {"data": {"size": size}}});
    let told = async {
        pair.set(&size("2Gi")).await?;
        // Where the class does not allow it, the API server says so before it asks the policy.
        is_told(pair, &[claim.as_str(), "cannot have 2Gi", "is forbidden", "spec.storage.data.size"]).await
    };
    let told = told.await;
    refusal.withdraw().await?;
    println!("  {}", told?);
    // The way back that the message names.
    pair.set(&size("1Gi")).await?;
    await_settled(pair, AGAIN).await.map(|_| ())
}

/// The standby waits for its copy; the primary goes on, and the order comes to its end when the Job may be made.
async fn a_copy_that_may_not_begin(pair: &Pair, user: &str) -> anyhow::Result<()> {
    let status = await_settled(pair, AGAIN).await?;
    let primary = pair.primary_of(&status)?;
    let namespace = &pair.names.namespace;
    let kind = Kind { group: "batch", resource: "jobs" };
    let probe = ["create", "job", "probe", "--image=localhost/busybox:1"];
    let refusal = Refusal::impose(&pair.cluster, namespace, user, &[kind], &probe).await?;
    let told = async {
        pair.order(&json!({"kind": "Rebuild", "instance": primary.peer().as_str()})).await?;
        let job = format!("Job {}-seed-", pair.names.instance(primary.peer()));
        let words = [job.as_str(), SENTENCE];
        let told = await_told(pair, ConditionType::Degraded, Reason::ApplyFailed, &words, 2 * TOLD).await?;
        let wrote = await_condition("a primary that writes meanwhile", TOLD, || {
            pair.psql(primary, "CREATE TABLE IF NOT EXISTS meanwhile AS SELECT 1 AS n")
        });
        wrote.await?;
        anyhow::Ok(told)
    };
    let told = told.await;
    refusal.withdraw().await?;
    println!("  {}", told?);
    let done = await_condition("the end of the rebuild", BRING_UP, || async {
        let order = pair.status().await?.order.context("the status tells of no order")?;
        ensure!(order.state.is(OrderState::Done), "{order:?}");
        Ok(())
    });
    let done = done.await;
    pair.explain(done).await?;
    await_settled(pair, AGAIN).await.map(|_| ())
}

/// Told with these words, and as long as it lasts.
async fn is_told(pair: &Pair, words: &[&str]) -> anyhow::Result<String> {
    let (type_, reason) = (ConditionType::Degraded, Reason::ApplyFailed);
    let told = await_told(pair, type_, reason, words, TOLD).await?;
    stays_told(pair, type_, reason, WATCHED).await.map(|()| told)
}

async fn refuse(pair: &Pair, user: &str, kinds: &[Kind], probe: &Case) -> anyhow::Result<Refusal> {
    let label = ["label", probe.kind.resource, &probe.name, "probe=e2e"];
    Refusal::impose(&pair.cluster, &pair.names.namespace, user, kinds, &label).await
}

/// As another operator, whom neither the refusal nor the chart's own policies concern.
async fn disturb(pair: &Pair, case: &Case) -> anyhow::Result<()> {
    let patch = case.patch.to_string();
    let who = ["--as=system:serviceaccount:default:e2e", "--as-group=system:masters"];
    let what =
        ["-n", &pair.names.namespace, "patch", case.kind.resource, &case.name, "--type=merge", "-p", &patch];
    let args: Vec<&str> = what.into_iter().chain(who).collect();
    pair.cluster.kubectl(&args).await.map(|_| ())
}

async fn is_put_right(pair: &Pair, case: &Case) -> anyhow::Result<()> {
    let (path, right) = &case.right;
    let output = format!("-o=jsonpath={{{path}}}");
    let args = ["-n", &pair.names.namespace, "get", case.kind.resource, &case.name, &output];
    let what = format!("{} {} as the operator writes it", case.word, case.name);
    let put = await_condition(&what, AGAIN, || async {
        let found = pair.cluster.kubectl(&args).await?;
        match right {
            Right::Is(wanted) if found == *wanted => Ok(()),
            Right::IsNot(wrong) if found != *wrong => Ok(()),
            Right::Is(_) | Right::IsNot(_) => bail!("{path} is {found:?}"),
        }
    });
    let put = put.await;
    pair.explain(put).await
}
