//! Carries a plan out. No choice is left to make here: everything may run twice, and may stop after any step.

pub mod agents;

use std::time::Instant;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;

use crate::api::{Created, Requests};
use crate::apply::apply;
use crate::build::services::build_slice;
use crate::build::stateful_set::build_stateful_set;
use crate::build::{record, seed_job};
use crate::cache::Caches;
use crate::children::{apply_children, build_children};
use crate::error::Error;
use crate::memory::Memory;
use crate::plan::{AnyPlan, EndpointTarget, Notice, Plan, RoPlan, RwPlan};
use crate::secrets::{self, Extent};

/// Carries `plan` out; returns the notices of what was really done.
///
/// # Errors
/// The first request that failed. The steps before it stand.
pub async fn execute(
    requests: &Requests,
    caches: &Caches,
    memory: &mut Memory,
    pair: &ValidatedPair,
    plan: &Plan,
) -> Result<Vec<Notice>, Error> {
    let mut done = plan.notices.clone();
    apply_children(requests, caches, memory, &build_children(pair)?).await?;
    ensure_secrets(requests, caches, pair, Extent::Spec).await?;
    if plan.create_lease
        && requests.create::<Lease>(&record::build_lease(pair)).await? == Created::AlreadyExists
    {
        done.retain(|n| *n != Notice::Bootstrapping);
    }
    execute_slices(requests, memory, pair, plan).await?;
    for (i, number) in &plan.delete_jobs {
        requests.delete::<Job>(&pair.name.seed_job(*i, *number)).await?;
    }
    agents::configure(memory, plan, pair.config()).await;
    for (i, instance) in [(InstanceId::A, &plan.a), (InstanceId::B, &plan.b)] {
        if let Some(instance) = instance {
            let set = build_stateful_set(pair, i, instance);
            apply(requests, memory, &caches.stateful_sets, &set).await?;
        }
    }
    if let Some((i, number)) = plan.create_job
        && requests.create(&seed_job::build_seed_job(pair, i, number)).await? == Created::AlreadyExists
    {
        done.retain(|n| *n != Notice::SeedingStarted(i, number));
    }
    if let (Some(step), Some((_, what))) = (&plan.roll.step, plan.roll.pending.first())
        && agents::roll(requests, memory, step).await?
    {
        done.push(Notice::Rolling(step.clone(), what.clone()));
    }
    Ok(done)
}

/// Carries out what of `plan` keeps a pair that is held going as it is: its certificates, and where its Services lead. Nothing that
/// a person could notice changes, and nothing comes into being that the spec speaks of.
///
/// # Errors
/// The first request that failed. The steps before it stand.
pub async fn upkeep(
    requests: &Requests,
    caches: &Caches,
    memory: &mut Memory,
    pair: &ValidatedPair,
    plan: &Plan,
) -> Result<Vec<Notice>, Error> {
    execute_slices(requests, memory, pair, plan).await?;
    ensure_secrets(requests, caches, pair, Extent::Upkeep).await?;
    let done = plan.notices.iter().filter(|n| matches!(n, Notice::EndpointRepaired(_)));
    Ok(done.cloned().collect())
}

async fn ensure_secrets(
    requests: &Requests,
    caches: &Caches,
    pair: &ValidatedPair,
    extent: Extent,
) -> Result<(), Error> {
    let known = |name: &str| {
        let secret = caches.secrets.get(&ObjectRef::new(name).within(&pair.name.namespace))?;
        Some(secret.annotations().clone())
    };
    secrets::ensure(requests, pair, extent, known, jiff::Timestamp::now()).await
}

async fn execute_slices(
    requests: &Requests,
    memory: &mut Memory,
    pair: &ValidatedPair,
    plan: &Plan,
) -> Result<(), Error> {
    memory.rw_mismatch = match &plan.rw {
        RwPlan::Suspect => {
            Some(memory.rw_mismatch.map_or((1, Instant::now()), |(times, since)| (times + 1, since)))
        }
        RwPlan::Keep | RwPlan::Create | RwPlan::Repair(..) => None,
    };
    match &plan.rw {
        RwPlan::Keep | RwPlan::Suspect => {}
        RwPlan::Create => {
            requests.create(&build_slice(pair, &pair.name.rw(), [])).await?;
        }
        RwPlan::Repair(_, target) => {
            replace_slice(requests, pair, &pair.name.rw(), std::slice::from_ref(target)).await?;
        }
    }
    if let RoPlan::Set(target) = &plan.ro {
        replace_slice(requests, pair, &pair.name.ro(), target.as_slice()).await?;
    }
    if let AnyPlan::Set(targets) = &plan.any {
        replace_slice(requests, pair, &pair.name.any(), targets).await?;
    }
    Ok(())
}

/// Writes a slice on the version that was just read, so that an agent's newer write is never undone unseen.
async fn replace_slice(
    requests: &Requests,
    pair: &ValidatedPair,
    name: &str,
    targets: &[EndpointTarget],
) -> Result<(), Error> {
    let mut slice = build_slice(pair, name, targets);
    match requests.get::<EndpointSlice>(name).await? {
        None => {
            requests.create(&slice).await?;
        }
        Some(current) if current.endpoints == slice.endpoints => {}
        Some(current) => {
            slice.metadata.resource_version = current.resource_version();
            requests.replace(&slice).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
