//! What keeps an expected pod from existing or running. A healthy pair costs no request: only while a pod that should exist is
//! missing or does not start are the warnings about it read, and not often.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use pgpair_api::status::{ConditionType, PgReplicaPairStatus};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;

use super::views;
use crate::api::Requests;
use crate::cache::Caches;
use crate::memory::Memory;
use crate::observed::{InstanceObserved, SeedJob, SeedState};
use crate::status::condition;
use crate::trouble::{PodTrouble, newest, of_pod};

/// A pod may lack a node, an image or a volume for so long before it is told.
const PATIENCE: Duration = Duration::from_secs(10);
/// A pod is made within milliseconds of its StatefulSet or Job. One that is missing for so long was refused.
const UNMADE: Duration = Duration::from_secs(5);
/// Pulling an image and attaching a volume may take so long before the warnings about the pod are read.
const UNSTARTED: Duration = Duration::from_secs(30);
/// The seeding program gives up when its copy stands still for 10 min. What has got no further for so long hangs elsewhere.
const STALLED: Duration = Duration::from_secs(1200);
/// A pod that is deleted gets 30 s to end.
const NOT_ENDING: Duration = Duration::from_secs(300);
/// Warnings of a pair are read at most so often.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// What is waited for, since when, and what the warnings about it said last.
#[derive(Debug)]
pub struct Hindrance {
    subject: String,
    since: Instant,
    words: Option<String>,
}

/// What may keep a pod from running.
enum Suspect {
    /// Its own status says it.
    Told(PodTrouble),
    /// It is trouble when it lasts so long.
    Lasting(PodTrouble, Duration),
    /// There is no pod: the warnings about its maker say why.
    Unmade,
    /// It does not start: the warnings about it say why.
    Unstarted,
}

/// Looks for what keeps the pod of an instance, or of its seeding Job, from running.
pub(super) async fn observe_hindrance(
    requests: &Requests,
    caches: &Caches,
    memory: &mut Memory,
    pair: &ValidatedPair,
    i: InstanceId,
    status: &PgReplicaPairStatus,
    instance: &InstanceObserved,
) -> Option<PodTrouble> {
    let Some((subject, suspect)) = suspect(caches, pair, i, instance) else {
        memory.hindrances.remove(&i);
        return None;
    };
    let lasting = {
        let known = memory.hindrances.entry(i).or_insert_with(|| Hindrance::new(&subject));
        if known.subject != subject {
            *known = Hindrance::new(&subject);
        }
        known.since.elapsed()
    };
    let (patience, unmade) = match suspect {
        Suspect::Told(trouble) => {
            // After a change of the operator's leader it is no news.
            let told = condition(status, ConditionType::Degraded)
                .is_some_and(|c| c.reason == trouble.reason().as_str());
            return (told || lasting >= PATIENCE).then_some(trouble);
        }
        Suspect::Lasting(trouble, patience) => return (lasting >= patience).then_some(trouble),
        Suspect::Unmade => (UNMADE, true),
        Suspect::Unstarted => (UNSTARTED, false),
    };
    if lasting >= patience && memory.warnings_read.is_none_or(|at| at.elapsed() >= READ_AGAIN) {
        memory.warnings_read = Some(Instant::now());
        match requests.warnings_about(&subject).await {
            Ok(events) => {
                let words = newest(&events, jiff::Timestamp::now());
                if let Some(known) = memory.hindrances.get_mut(&i).filter(|_| words.is_some()) {
                    known.words = words;
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the warnings about a pod are not readable"
                );
            }
        }
    }
    let words = memory.hindrances.get(&i)?.words.clone()?;
    Some(if unmade { PodTrouble::Refused(words) } else { PodTrouble::NotStarting(words) })
}

impl Hindrance {
    fn new(subject: &str) -> Hindrance {
        Hindrance { subject: subject.to_owned(), since: Instant::now(), words: None }
    }
}

/// What to look at, and the uid of what it is about.
fn suspect(
    caches: &Caches,
    pair: &ValidatedPair,
    i: InstanceId,
    instance: &InstanceObserved,
) -> Option<(String, Suspect)> {
    if instance.set.is_some_and(|set| set.replicas == 1) {
        let pod = views::instance_pod(caches, pair, i);
        return of_pods(pod.iter(), None, || views::instance_set(caches, pair, i)?.uid());
    }
    let job_view = instance.jobs.iter().rev().find(|job| job.state == SeedState::Running);
    let job_name = match job_view {
        Some(job) => pair.name.seed_job(i, job.number),
        None => super::adoption::running_job(caches, pair, i)?,
    };
    let pods = views::job_pods(caches, pair, i, &job_name);
    of_pods(pods.iter(), job_view, || views::own_job(caches, pair, &job_name)?.uid())
}

fn of_pods<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    seeds: Option<&SeedJob>,
    maker: impl Fn() -> Option<String>,
) -> Option<(String, Suspect)> {
    let Some(pod) = pods.max_by_key(|pod| pod.creation_timestamp().map(|t| t.0)) else {
        return Some((maker()?, Suspect::Unmade));
    };
    let (uid, view) = (pod.uid()?, views::pod_view(pod));
    if view.deleting {
        // Another one follows; that of a Job only when this one has gone.
        return seeds.map(|_| (uid, Suspect::Lasting(PodTrouble::NotEnding(NOT_ENDING), NOT_ENDING)));
    }
    match of_pod(pod) {
        Some(trouble) => Some((uid, Suspect::Told(trouble))),
        None if !view.started && view.node.is_some() => Some((uid, Suspect::Unstarted)),
        None => {
            // With each byte it is about something else.
            let done = seeds?.progress.as_ref().map(|progress| progress.done_bytes);
            Some((format!("{uid} {done:?}"), Suspect::Lasting(PodTrouble::Stalled(STALLED), STALLED)))
        }
    }
}

#[cfg(test)]
mod tests;
