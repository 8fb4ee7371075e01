//! The Jobs of an adoption.

use pgpair_api::names::AdoptStep;
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;
use pgpair_wire::words::shown;

use super::views::{job_pods, job_view, own_job, pod_view};
use crate::cache::Caches;
use crate::observed::{AdoptJobs, AdoptionObserved, JobView, PodView};

/// Characters of the last words of a program.
const WORDS: usize = 500;

/// The Jobs, and what a person has chosen.
pub(crate) fn observe_adoption(caches: &Caches, pair: &ValidatedPair) -> Option<AdoptionObserved> {
    let choice = pair.adopt.as_ref()?.choice();
    let [a, b] = InstanceId::ALL.map(|i| adopt_jobs(caches, pair, i));
    Some(AdoptionObserved { choice, a, b })
}

/// The Jobs of an adoption of an instance.
fn adopt_jobs(caches: &Caches, pair: &ValidatedPair, i: InstanceId) -> AdoptJobs {
    let (look, pods) = adopt_job(caches, pair, i, AdoptStep::Look);
    let (release, of_release) = adopt_job(caches, pair, i, AdoptStep::Release);
    let said =
        pods.iter().flat_map(|pod| &pod.ended).find_map(|ended| serde_json::from_str(&ended.message).ok());
    let look = match (look, said) {
        (JobView::Done(at, ()), Some(look)) => JobView::Done(at, look),
        (JobView::Done(at, ()), None) if pods.is_empty() => {
            JobView::Failed(at, "its pod, which knew what it had found, is gone".into())
        }
        (JobView::Done(at, ()), None) if pods.iter().any(has_completed) => JobView::Failed(
            at,
            "what its pod says is not understood: is its image of another version?".into(),
        ),
        // The Job may be known to have ended before its pod is.
        (JobView::Done(..), None) => JobView::Running,
        (JobView::Failed(at, why), _) => JobView::Failed(at, in_its_words(&pods).unwrap_or(why)),
        (JobView::Running, _) => JobView::Running,
        (JobView::Missing, _) => JobView::Missing,
    };
    let release = match release {
        JobView::Failed(at, why) => JobView::Failed(at, in_its_words(&of_release).unwrap_or(why)),
        other => other,
    };
    AdoptJobs { look, release }
}

fn adopt_job(
    caches: &Caches,
    pair: &ValidatedPair,
    i: InstanceId,
    step: AdoptStep,
) -> (JobView<()>, Vec<PodView>) {
    let name = pair.name.adopt_job(i, step);
    // One that is being deleted has nothing more to say, and its name is not free yet.
    match own_job(caches, pair, &name) {
        None => (JobView::Missing, Vec::new()),
        Some(job) if job.metadata.deletion_timestamp.is_some() => (JobView::Running, Vec::new()),
        Some(job) => (job_view(&job), job_pods(caches, pair, i, &name).iter().map(pod_view).collect()),
    }
}

fn has_completed(pod: &PodView) -> bool {
    pod.ended.iter().any(|ended| ended.reason == "Completed")
}

/// The last words of a program that has failed.
fn in_its_words(pods: &[PodView]) -> Option<String> {
    let mut ended = pods.iter().flat_map(|pod| &pod.ended).filter(|ended| ended.reason != "Completed");
    ended.find(|ended| !ended.message.is_empty()).map(|ended| shown(&ended.message, WORDS))
}

/// The name of the Job of an adoption that runs for an instance.
pub(super) fn running_job(caches: &Caches, pair: &ValidatedPair, i: InstanceId) -> Option<String> {
    let names = AdoptStep::ALL.map(|step| pair.name.adopt_job(i, step));
    names
        .into_iter()
        .find(|name| own_job(caches, pair, name).is_some_and(|job| job_view(&job) == JobView::Running))
}
