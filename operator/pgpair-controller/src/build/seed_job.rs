//! The Job that copies the primary into an instance's volume.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;

use super::owned;
use super::pod::build_seed_pod;

/// How often the Job's pod is tried before the Job counts as failed.
pub const BACKOFF_LIMIT: i32 = 3;

/// Seeding Job number `n` of instance `i`.
#[must_use]
pub fn build_seed_job(pair: &ValidatedPair, i: InstanceId, n: u32) -> Job {
    Job {
        metadata: owned(pair, pair.name.seed_job(i, n), pair.name.instance_labels(i)),
        spec: Some(JobSpec {
            // No deadline: a copy takes as long as the data is large, and the program itself gives up when nothing moves.
            backoff_limit: Some(BACKOFF_LIMIT),
            completions: Some(1),
            parallelism: Some(1),
            // A second pod beside one that is still terminating would wait for the volume's lock for nothing.
            pod_replacement_policy: Some("Failed".into()),
            template: build_seed_pod(pair, i),
            ..JobSpec::default()
        }),
        status: None,
    }
}
