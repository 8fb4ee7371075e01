//! What a person would look at first when something did not come.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt as _};
use tokio::time::timeout;

use crate::harness::cluster::Cluster;
use crate::harness::pair::CONTAINER;

/// For each request; a node that is cut off gives no logs.
const LIMIT: Duration = Duration::from_secs(5);
/// Lines of each log.
const TAIL: i64 = 25;
/// Latest events shown.
const EVENTS: usize = 30;

/// Pods, the latest events, and the ends of the logs of the pair's pods and of the operator's.
pub async fn describe(cluster: &Cluster, namespace: &str) -> String {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let mut out = String::new();
    let found = match timeout(LIMIT, pods.list(&ListParams::default())).await {
        Ok(Ok(pods)) => pods.items,
        Ok(Err(error)) => return format!("  pods of {namespace} cannot be listed: {error}\n"),
        Err(_) => return format!("  pods of {namespace} cannot be listed: no answer\n"),
    };
    found.iter().for_each(|pod| out.push_str(&describe_pod(pod)));
    events(cluster, namespace, &mut out).await;
    for pod in found.iter().filter(|pod| pod.labels().contains_key("pgpair.dev/component")) {
        log_tail(&pods, &pod.name_any(), Some(CONTAINER), &mut out).await;
    }
    let all: Api<Pod> = Api::all(cluster.client.clone());
    let operators = ListParams::default().labels("app.kubernetes.io/name=pgreplicapair-operator");
    if let Ok(Ok(operators)) = timeout(LIMIT, all.list(&operators)).await {
        for pod in operators {
            let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &pod.namespace().unwrap_or_default());
            log_tail(&api, &pod.name_any(), None, &mut out).await;
        }
    }
    out
}

async fn events(cluster: &Cluster, namespace: &str, out: &mut String) {
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), namespace);
    let Ok(Ok(events)) = timeout(LIMIT, events.list(&ListParams::default())).await else { return };
    let mut events = events.items;
    events.sort_by_key(|e| e.last_timestamp.as_ref().map(|t| t.0).or(e.event_time.as_ref().map(|t| t.0)));
    for event in events.iter().skip(events.len().saturating_sub(EVENTS)) {
        let object = &event.involved_object;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        out.push_str(&format!(
            "  event {}/{} {}: {}\n",
            text(&object.kind),
            text(&object.name),
            text(&event.reason),
            text(&event.message)
        ));
    }
}

async fn log_tail(pods: &Api<Pod>, pod: &str, container: Option<&str>, out: &mut String) {
    let container = container.map(str::to_owned);
    let params = LogParams { tail_lines: Some(TAIL), container, ..LogParams::default() };
    if let Ok(Ok(log)) = timeout(LIMIT, pods.logs(pod, &params)).await {
        out.push_str(&format!("  log of {pod}:\n"));
        log.lines().for_each(|line| out.push_str(&format!("    {line}\n")));
    }
}

fn describe_pod(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let containers =
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let states: Vec<String> = containers
        .map(|c| {
            let state = c.state.clone().unwrap_or_default();
            let waiting = state.waiting.and_then(|w| w.reason).unwrap_or_default();
            let ended = state.terminated.map(|t| format!("exit {}", t.exit_code)).unwrap_or_default();
            format!("{} ready={} restarts={} {waiting}{ended}", c.name, c.ready, c.restart_count)
        })
        .collect();
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("no node");
    format!(
        "  pod {} {} on {node}: {}\n",
        pod.name_any(),
        status.phase.unwrap_or_default(),
        states.join("; ")
    )
}
