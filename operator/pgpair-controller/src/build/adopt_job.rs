//! The Jobs that look at the volumes of an earlier pair, and let go of them.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use pgpair_api::validate::ValidatedPair;

use super::owned;
use super::pod::build_adopt_pod;
use crate::plan::AdoptJob;

/// It is deleted when its end was seen; one that nobody waits for any more, after this many seconds.
const KEPT_SECONDS: i32 = 3600;
/// Tries before it counts as failed.
const TRIES: i32 = 2;

/// The Job for one step with the volumes of one instance.
#[must_use]
pub fn build_adopt_job(pair: &ValidatedPair, job: AdoptJob) -> Job {
    let (AdoptJob::Look(i) | AdoptJob::Release(i, _)) = job;
    let mut command = vec![format!("adopt-{}", job.step().as_str())];
    if let AdoptJob::Release(_, Some(volume)) = job {
        command.push(format!("--volume={volume}"));
    }
    Job {
        metadata: owned(pair, pair.name.adopt_job(i, job.step()), pair.name.instance_labels(i)),
        spec: Some(JobSpec {
            backoff_limit: Some(TRIES),
            completions: Some(1),
            parallelism: Some(1),
            // A second pod beside one that is still terminating would find the lock of the volume held.
            pod_replacement_policy: Some("Failed".into()),
            ttl_seconds_after_finished: Some(KEPT_SECONDS),
            template: build_adopt_pod(pair, i, command),
            ..JobSpec::default()
        }),
        status: None,
    }
}
