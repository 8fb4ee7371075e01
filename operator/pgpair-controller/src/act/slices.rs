//! The EndpointSlices of the Services without selector.

use std::time::Instant;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use pgpair_api::validate::ValidatedPair;

use crate::api::{Created, Requests};
use crate::apply::replace;
use crate::build::services::{build_slice, is_shaped};
use crate::error::Error;
use crate::memory::Memory;
use crate::ownership::create;
use crate::plan::{AnyPlan, EndpointTarget, Plan, RoPlan, RwPlan};

/// Leads the Services where they belong.
///
/// # Errors
/// The first request that failed. What was written before stands.
pub(super) async fn apply_slices(
    requests: &Requests,
    memory: &mut Memory,
    pair: &ValidatedPair,
    plan: &Plan,
) -> Result<(), Error> {
    memory.rw_mismatch = match &plan.rw {
        RwPlan::Suspect => {
            Some(memory.rw_mismatch.map_or((1, Instant::now()), |(times, since)| (times + 1, since)))
        }
        RwPlan::Keep | RwPlan::Create(_) | RwPlan::Mend | RwPlan::Repair(..) => None,
    };
    match &plan.rw {
        RwPlan::Keep | RwPlan::Suspect => {}
        RwPlan::Create(target) => {
            let slice = build_slice(pair, &pair.name.rw(), target.as_slice());
            // It is there and not in the cache: somebody took its label away, or the cache is behind.
            if create(requests, pair, &slice).await? == Created::AlreadyExists {
                mend_slice(requests, pair, &pair.name.rw()).await?;
            }
        }
        RwPlan::Mend => mend_slice(requests, pair, &pair.name.rw()).await?,
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

async fn replace_slice(
    requests: &Requests,
    pair: &ValidatedPair,
    name: &str,
    targets: &[EndpointTarget],
) -> Result<(), Error> {
    let leads_there = |current: &EndpointSlice, slice: &EndpointSlice| {
        current.endpoints == slice.endpoints && is_shaped(current, slice)
    };
    replace(requests, pair, build_slice(pair, name, targets), leads_there).await
}

/// Gives a slice its ports and labels again. Where it leads is the agents' own.
async fn mend_slice(requests: &Requests, pair: &ValidatedPair, name: &str) -> Result<(), Error> {
    let Some(current) = requests.get::<EndpointSlice>(name).await? else { return Ok(()) };
    let shaped = EndpointSlice { endpoints: current.endpoints, ..build_slice(pair, name, []) };
    // Read once more there: a write in between meets a conflict, and the next look mends again.
    let leads_as_read = |now: &EndpointSlice, slice: &EndpointSlice| {
        now.endpoints != slice.endpoints || is_shaped(now, slice)
    };
    replace(requests, pair, shaped, leads_as_read).await
}
