//! What keeps a pod from existing or from starting, in the words of the component that refuses. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Event, Pod};
use kube::ResourceExt;
use pgpair_api::status::Reason;

/// How much of another component's words is told.
const WORDS: usize = 600;
/// A container that ended so often, and has not started again properly, ends again and again.
const RESTARTS: i32 = 2;

/// Controllers try again, and warn again, at least this often.
const RECENT: SignedDuration = SignedDuration::from_mins(20);

/// What keeps the pod of an instance, or of its seeding Job, from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodTrouble {
    /// The scheduler finds no node.
    Unschedulable(String),
    /// The image of a container cannot be pulled.
    ImagePull(ContainerWords),
    /// A container cannot be created, for example because a Secret is missing.
    ConfigError(ContainerWords),
    /// A container ends again and again.
    CrashLoop(Crash),
    /// An init container fails.
    InitFailed(Crash),
    /// The pod exists and does not start, for example because a volume cannot be mounted.
    NotStarting(String),
    /// No pod is made: quota, LimitRange, Pod Security, a webhook.
    Refused(String),
    /// The pod of a seeding Job runs and gets no further; for how long.
    Stalled(Duration),
    /// The pod of a seeding Job was to end and does not; for how long.
    NotEnding(Duration),
}

/// What the kubelet says of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerWords {
    /// The container.
    pub container: String,
    /// The words.
    pub words: String,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crash {
    /// The container.
    pub container: String,
    /// Its exit code.
    pub exit: i32,
    /// The kubelet's reason, such as `OOMKilled`.
    pub reason: String,
    /// What it said last; empty: nothing.
    pub words: String,
}

impl PodTrouble {
    /// The reason of the condition.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            PodTrouble::Unschedulable(_) => Reason::PodUnschedulable,
            PodTrouble::ImagePull(_) => Reason::ImageNotPulled,
            PodTrouble::ConfigError(_) => Reason::ContainerNotCreated,
            PodTrouble::CrashLoop(_) | PodTrouble::InitFailed(_) => Reason::ContainerCrashes,
            PodTrouble::NotStarting(_) => Reason::PodNotStarting,
            PodTrouble::Refused(_) => Reason::PodRefused,
            PodTrouble::Stalled(_) | PodTrouble::NotEnding(_) => Reason::SeedingStalled,
        }
    }

    /// The sentence; `pod` is what the pod is called.
    #[must_use]
    pub fn sentence(&self, pod: &str) -> String {
        match self {
            PodTrouble::Unschedulable(words) => format!("no node takes {pod}: {words}"),
            PodTrouble::ImagePull(ContainerWords { container, words }) => {
                format!("the image of container {container} of {pod} cannot be pulled: {words}")
            }
            PodTrouble::ConfigError(ContainerWords { container, words }) => {
                format!("container {container} of {pod} cannot be created: {words}")
            }
            PodTrouble::CrashLoop(crash) => format!("container {crash} of {pod} ends again and again"),
            PodTrouble::InitFailed(crash) => format!("init container {crash} of {pod} fails"),
            PodTrouble::NotStarting(words) => format!("{pod} does not start: {words}"),
            PodTrouble::Refused(words) => format!("{pod} cannot be created: {words}"),
            PodTrouble::Stalled(lasting) => format!(
                "{pod} has got no further for {} min: see its log. Delete the job, and the copy begins again",
                lasting.as_secs() / 60
            ),
            PodTrouble::NotEnding(lasting) => format!(
                "{pod} was to end {} min ago and has not, so no other pod takes its place: is its node lost? Once the node is \
                 surely off, delete the pod with --force",
                lasting.as_secs() / 60
            ),
        }
    }
}

impl std::fmt::Display for Crash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Crash { container, exit, reason, words } = self;
        let said = if words.is_empty() { String::new() } else { format!(", last words: {words}") };
        write!(f, "{container} ({reason}, exit code {exit}{said})")
    }
}

/// What keeps this pod from running, as far as its own status says it.
#[must_use]
pub fn of_pod(pod: &Pod) -> Option<PodTrouble> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.iter().flatten();
    let mut unscheduled = conditions.filter(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unscheduled.next() {
        return Some(PodTrouble::Unschedulable(cut(condition.message.as_deref().unwrap_or_default())));
    }
    let init = status.init_container_statuses.iter().flatten();
    let init = init.filter_map(|c| waits(c).or_else(|| crash(c).map(PodTrouble::InitFailed)));
    let containers = status.container_statuses.iter().flatten();
    let containers = containers.filter_map(|c| waits(c).or_else(|| crash(c).map(PodTrouble::CrashLoop)));
    init.chain(containers).next()
}

fn waits(container: &ContainerStatus) -> Option<PodTrouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let message = waiting.message.as_deref().unwrap_or_default();
    let words = |words: &str| ContainerWords { container: container.name.clone(), words: cut(words) };
    match waiting.reason.as_deref()? {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "RegistryUnavailable"
        | "ImageInspectError" => {
            // While the kubelet waits it repeats the reason behind its own words: the same refusal reads the same each time.
            let why = message.split_once("ErrImagePull: ").map_or(message, |(_, why)| why);
            let why = if why.is_empty() { &container.image } else { why };
            Some(PodTrouble::ImagePull(words(why)))
        }
        reason @ ("CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PostStartHookError") => {
            Some(PodTrouble::ConfigError(words(if message.is_empty() { reason } else { message })))
        }
        _ => None,
    }
}

/// A container that does not stay. Between two runs it is waited for, and at the beginning of one it runs: none of this is news.
fn crash(container: &ContainerStatus) -> Option<Crash> {
    let state = container.state.as_ref()?;
    let waits = state.waiting.as_ref().is_some_and(|w| w.reason.as_deref() == Some("CrashLoopBackOff"));
    let begins = state.running.is_some() && container.started != Some(true);
    let ended = state.terminated.as_ref();
    let last = ended.or_else(|| container.last_state.as_ref()?.terminated.as_ref());
    let last = last.filter(|t| t.exit_code != 0)?;
    let again = container.restart_count >= RESTARTS && (begins || ended.is_some());
    (waits || again).then(|| Crash {
        container: container.name.clone(),
        exit: last.exit_code,
        reason: last.reason.clone().unwrap_or_else(|| "Error".into()),
        words: last_words(last),
    })
}

/// The termination message; without the name of an agent process, which is written there as a proof and says nothing to people.
fn last_words(ended: &ContainerStateTerminated) -> String {
    let words = ended.message.as_deref().unwrap_or_default().trim();
    let proof = words.len() == 16 && words.bytes().all(|b| b.is_ascii_hexdigit());
    if proof { String::new() } else { cut(words) }
}

/// The newest of these warnings, unless it is of long ago and its cause may be gone.
#[must_use]
pub fn newest(events: &[Event], now: Timestamp) -> Option<String> {
    let at = |e: &Event| {
        let last = e.last_timestamp.as_ref().map(|t| t.0);
        let series = e.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| t.0);
        let first = e.event_time.as_ref().map(|t| t.0).or(e.creation_timestamp().map(|t| t.0));
        last.max(series).max(first)
    };
    let newest = events.iter().max_by_key(|e| at(e))?;
    if at(newest).is_some_and(|at| now.duration_since(at) > RECENT) {
        return None;
    }
    let message = newest.message.as_deref().unwrap_or_default();
    // Names of the pod, which are other ones each time, and of the object, which the sentence tells.
    let after = ["is forbidden: ", "failed error: ", "Error creating: "];
    let words = after.iter().find_map(|before| Some(message.split_once(before)?.1)).unwrap_or(message);
    Some(cut(words)).filter(|words| !words.is_empty())
}

fn cut(words: &str) -> String {
    words.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(WORDS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Option<String> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "orders-a-0"}, "status": status})).unwrap();
        of_pod(&pod).map(|trouble| trouble.sentence("pod orders-a-0"))
    }

    fn container(name: &str, restarts: i32, state: Value, last: Value) -> Value {
        json!({"name": name, "ready": false, "restartCount": restarts, "image": "registry.test/pg:17", "imageID": "",
               "state": state, "lastState": last})
    }

    fn of_container(restarts: i32, state: Value, last: Value) -> Option<String> {
        pod(json!({"containerStatuses": [container("postgres", restarts, state, last)]}))
    }

    #[test]
    fn a_pod_without_a_node_is_told_in_the_words_of_the_scheduler() {
        let conditions = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                                 "message": "0/3 nodes are available: 3 Insufficient memory."}]);
        let told = pod(json!({"phase": "Pending", "conditions": conditions})).unwrap();
        assert_eq!(told, "no node takes pod orders-a-0: 0/3 nodes are available: 3 Insufficient memory.");
    }

    #[test]
    fn an_image_that_cannot_be_pulled_reads_the_same_while_the_kubelet_pulls_and_while_it_waits() {
        let waiting = |reason: &str, message: &str| {
            of_container(0, json!({"waiting": {"reason": reason, "message": message}}), json!({}))
        };
        let pulls = waiting("ErrImagePull", "failed to pull image: not found");
        let waits = waiting(
            "ImagePullBackOff",
            "Back-off pulling image \"registry.test/pg:17\": ErrImagePull: failed to pull image: not found",
        );
        assert_eq!(pulls, waits);
        let told = "the image of container postgres of pod orders-a-0 cannot be pulled: failed to pull image: not found";
        assert_eq!(pulls.as_deref(), Some(told));
        let config = waiting("CreateContainerConfigError", "secret \"orders-app\" not found");
        assert!(config.unwrap().contains("cannot be created: secret \"orders-app\" not found"));
        assert_eq!(waiting("ContainerCreating", ""), None);
        assert_eq!(waiting("PodInitializing", ""), None);
    }

    #[test]
    fn a_container_that_ends_again_and_again_is_told_with_its_exit_code_and_its_last_words() {
        let ended = |code: i32, message: &str| json!({"terminated": {"exitCode": code, "reason": "Error", "message": message}});
        let waits = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}});
        let told = "container postgres (Error, exit code 2, last words: no volume) of pod orders-a-0 ends again and again";
        assert_eq!(of_container(1, waits.clone(), ended(2, "no volume\n")).as_deref(), Some(told));
        let runs = json!({"running": {"startedAt": "2026-05-01T12:00:00Z"}});
        assert_eq!(
            of_container(3, runs.clone(), ended(2, "no volume")).as_deref(),
            Some(told),
            "for a moment"
        );
        assert_eq!(of_container(1, runs.clone(), ended(137, "")), None, "once is not again and again");
        assert_eq!(of_container(3, runs, json!({})), None);
        let proof = of_container(3, waits, ended(137, "00000000000000aa")).unwrap();
        assert!(proof.contains("(Error, exit code 137)"), "{proof}");
        let init =
            json!({"initContainerStatuses": [container("install", 4, ended(1, "no space"), json!({}))]});
        assert!(
            pod(init)
                .unwrap()
                .starts_with("init container install (Error, exit code 1, last words: no space)")
        );
    }

    #[test]
    fn a_healthy_pod_has_no_trouble() {
        let mut healthy =
            container("postgres", 7, json!({"running": {}}), json!({"terminated": {"exitCode": 137}}));
        healthy["started"] = json!(true);
        let scheduled = json!([{"type": "PodScheduled", "status": "True"}]);
        assert_eq!(
            pod(json!({"phase": "Running", "conditions": scheduled, "containerStatuses": [healthy]})),
            None
        );
        assert_eq!(pod(json!({})), None);
    }

    #[test]
    fn the_newest_warning_counts_without_names_that_change() {
        let event = |at: &str, message: &str| -> Event {
            serde_json::from_value(
                json!({"metadata": {"name": "e"}, "involvedObject": {}, "lastTimestamp": at,
                                          "message": message}),
            )
            .unwrap()
        };
        let quota = "create Pod orders-a-0 in StatefulSet orders-a failed error: pods \"orders-a-0\" is forbidden: failed quota: team";
        let events = [
            event("2026-05-01T12:00:05Z", quota),
            event("2026-05-01T12:00:01Z", "Error creating: no PriorityClass with name high was found"),
        ];
        let at = |time: &str| -> Timestamp { time.parse().unwrap() };
        let soon = at("2026-05-01T12:10:00Z");
        assert_eq!(newest(&events, soon).as_deref(), Some("failed quota: team"));
        assert_eq!(newest(&events[1..], soon).as_deref(), Some("no PriorityClass with name high was found"));
        assert_eq!(newest(&[], soon), None);
        assert_eq!(newest(&events, at("2026-05-01T12:30:00Z")), None, "its cause may be gone");
    }
}
