//! What a drain of a node may take from a pair: evictions under its disruption budget.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{Api, ResourceExt as _};
use pgpair_core::ids::InstanceId;
use pgpair_e2e::harness::eviction::{Answer, drain, evict};
use pgpair_e2e::harness::failover::Failover;
use pgpair_e2e::harness::pair::{Pair, is_ready};
use pgpair_e2e::harness::wait::await_condition;

use crate::Outcome;
use crate::context::Context;

/// For the controller of budgets to have counted a pair that is whole.
const COUNTED: Duration = Duration::from_secs(60);
/// For a pair to be whole again.
const WHOLE: Duration = Duration::from_secs(240);

/// The standby goes at once. Until the next one is ready the primary stays, so a second node cannot be drained too early; and then
/// the budget allows one again, so a drain comes to its end.
pub async fn a_budget_lets_one_instance_go_and_keeps_the_other(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let mut failover = Failover::begin(&pair, "evict_standby").await?;
    let (primary, standby) = (failover.old, failover.old.peer());
    allows_one(&pair).await?;
    let before = pair.pod(standby).await?.uid();
    drain(&pair, standby).await?;
    match evict(&pair, primary).await? {
        Answer::Refused(why) => println!("  the primary's pod, while the standby's is away: {why}"),
        Answer::Granted => bail!("the primary's pod may go while the standby's is away"),
    }
    let next = await_condition("the next pod of the standby", WHOLE, || async {
        let pod = pair.pod(standby).await?;
        ensure!(pod.uid() != before, "it is the old one");
        ensure!(is_ready(&pod), "it is not ready");
        Ok(())
    });
    let next = next.await;
    pair.explain(next).await?;
    let status = pair.await_paired(failover.term, WHOLE).await?;
    allows_one(&pair).await?;
    let judgement = failover.judge().await?;
    println!("  evict_standby: {}", judgement.verdict);
    ensure!(status.term == Some(failover.term), "the term went from {} to {:?}", failover.term, status.term);
    ensure!(judgement.verdict.holds(), "{}", judgement.verdict);
    Ok(Outcome::Passed)
}

/// One instance of a whole pair may go.
async fn allows_one(pair: &Pair) -> anyhow::Result<()> {
    let budgets: Api<PodDisruptionBudget> =
        Api::namespaced(pair.cluster.client.clone(), &pair.names.namespace);
    let name = pair.names.budget();
    let allowed = await_condition("a budget that allows one to go", COUNTED, || async {
        let budget =
            budgets.get(&name).await.with_context(|| format!("reading PodDisruptionBudget {name}"))?;
        let status = budget.status.context("it has no status yet")?;
        ensure!(status.disruptions_allowed == 1, "it is {status:?}");
        ensure!(status.expected_pods == i32::try_from(InstanceId::ALL.len())?, "it is {status:?}");
        Ok(())
    });
    let allowed = allowed.await;
    pair.explain(allowed).await
}
