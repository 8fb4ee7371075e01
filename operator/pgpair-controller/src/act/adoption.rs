//! The Jobs of an adoption, and the record that no volume belongs to.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use pgpair_api::validate::ValidatedPair;

use crate::api::Requests;
use crate::build::adopt_job::build_adopt_job;
use crate::error::Error;
use crate::ownership::{create, is_own};
use crate::plan::{Notice, Plan};

/// What of the plan is about Jobs and an old record. Gives the notices of what was done.
pub(super) async fn carry_out(
    requests: &Requests,
    pair: &ValidatedPair,
    plan: &Plan,
    done: Vec<Notice>,
) -> Result<Vec<Notice>, Error> {
    let Some(adoption) = &plan.adoption else { return Ok(done) };
    for (i, step) in &adoption.delete {
        requests.delete::<Job>(&pair.name.adopt_job(*i, *step)).await?;
    }
    for job in &adoption.create {
        create(requests, pair, &build_adopt_job(pair, *job)).await?;
    }
    if !adoption.discard_record {
        return Ok(done);
    }
    // Exactly the one that its agents refuse: it was read a moment ago, and one of this name that is made now is another.
    let lease = requests.get::<Lease>(pair.name.lease()).await?.map(|lease| lease.metadata);
    match lease.filter(|meta| is_own(pair, meta)).and_then(|meta| meta.uid) {
        Some(uid) => requests.delete_exactly::<Lease>(pair.name.lease(), &uid).await.map(|()| done),
        None => Ok(Vec::new()),
    }
}
