//! Reads what there is to know about a pair: watch caches, the agents, and the record from the API server itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use pgpair_api::PgReplicaPair;
use pgpair_api::names::{
    ANNOTATION_SEED, ANNOTATION_SEED_FAILURES, COMPONENT_SEED, LABEL_COMPONENT, LABEL_INSTANCE, LABEL_PAIR,
    PairName,
};
use pgpair_core::ids::InstanceId;
use pgpair_core::record::Record;
use pgpair_core::report::InstanceReport;
use rustls::ClientConfig;

use crate::agent_client::{client_config, fetch_report, fetch_seed_progress};
use crate::api::Requests;
use crate::cache::Caches;
use crate::error::Error;
use crate::observed::{
    InstanceObserved, LeaseView, Observed, PodView, ReportView, SeedJob, SeedState, SetView, SliceView,
};
use crate::secrets;

/// A report that is older than this no longer says anything.
const STALE_FOR: Duration = Duration::from_secs(10);

/// What this process remembers of a pair between two observations. Losing it costs some reads and no-op writes.
#[derive(Debug, Default)]
pub struct Memory {
    /// Last report of each instance, and when it came.
    reports: BTreeMap<InstanceId, (InstanceReport, Instant)>,
    /// Certificates, and the resource version of the Secret that they come from.
    tls: Option<(String, Arc<ClientConfig>)>,
    /// Observations in a row that found `NAME-rw` leading elsewhere.
    pub rw_mismatches: u32,
    /// What was applied last: see [`crate::execute`].
    pub applied: BTreeMap<String, crate::execute::Applied>,
    /// When the status was written last.
    pub status_written: Option<Instant>,
}

/// Observes one pair.
///
/// # Errors
/// The record could not be read. That an agent does not answer is part of the observation.
pub async fn observe(
    requests: &Requests,
    caches: &Caches,
    memory: &mut Memory,
    pair: &PgReplicaPair,
    name: &PairName,
) -> Result<Observed, Error> {
    let lease = read_lease(requests.get::<Lease>(name.lease()).await?.as_ref());
    let tls = agent_tls(requests, caches, memory, name).await?;
    let mut a = from_caches(caches, name, InstanceId::A);
    let mut b = from_caches(caches, name, InstanceId::B);
    a.set = observe_set(requests, caches, memory, name, InstanceId::A).await?;
    b.set = observe_set(requests, caches, memory, name, InstanceId::B).await?;
    let (report_a, report_b, (), ()) = tokio::join!(
        ask(tls.clone(), name, InstanceId::A, a.pod.as_ref()),
        ask(tls, name, InstanceId::B, b.pod.as_ref()),
        ask_seed(caches, name, InstanceId::A, &mut a.jobs),
        ask_seed(caches, name, InstanceId::B, &mut b.jobs),
    );
    a.report = remember(memory, InstanceId::A, report_a);
    b.report = remember(memory, InstanceId::B, report_b);
    Ok(Observed {
        now: Timestamp::now(),
        system_identifier: pair.status.as_ref().and_then(|s| s.system_identifier.clone()),
        lease,
        a,
        b,
        rw: slice(caches, name, &name.rw()),
        ro: slice(caches, name, &name.ro()),
        rw_mismatches: memory.rw_mismatches,
    })
}

fn read_lease(lease: Option<&Lease>) -> LeaseView {
    let Some(lease) = lease else { return LeaseView::Missing };
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|s| s.holder_identity.as_deref());
    match Record::from_lease(holder, spec.and_then(|s| s.lease_transitions), lease.annotations()) {
        Ok(record) => LeaseView::Present(record),
        Err(why) => LeaseView::Unreadable(why.to_string()),
    }
}

async fn agent_tls(
    requests: &Requests,
    caches: &Caches,
    memory: &mut Memory,
    name: &PairName,
) -> Result<Option<Arc<ClientConfig>>, Error> {
    let secret_name = name.operator_tls_secret();
    let key = ObjectRef::new(&secret_name).within(&name.namespace);
    let Some(version) = caches.secrets.get(&key).and_then(|s| s.resource_version()) else { return Ok(None) };
    if let Some((known, config)) = &memory.tls
        && *known == version
    {
        return Ok(Some(config.clone()));
    }
    let Some(secret) = requests.get::<Secret>(&secret_name).await? else { return Ok(None) };
    let read = |key| secrets::text(&secret, &secret_name, key);
    let config =
        client_config(read("ca.crt")?.as_bytes(), read("tls.crt")?.as_bytes(), read("tls.key")?.as_bytes())
            .map_err(|_| Error::Secret { name: secret_name.clone(), key: "tls.crt" })?;
    memory.tls = Some((version, config.clone()));
    Ok(Some(config))
}

fn from_caches(caches: &Caches, name: &PairName, i: InstanceId) -> InstanceObserved {
    let pod_key = ObjectRef::new(&name.pod(i)).within(&name.namespace);
    let pod = caches.pods.get(&pod_key).map(|p| pod_view(&p));
    let mut jobs: Vec<SeedJob> = caches
        .jobs
        .state_filter(|job| is_of(job, name, i))
        .iter()
        .filter_map(|job| seed_job(job, name, i))
        .collect();
    jobs.sort_by_key(|job| job.number);
    InstanceObserved { set: None, pod, report: ReportView::NeverSeen, jobs }
}

/// The cache may be behind our own write: deciding on it could undo a scale-down that has just been made.
async fn observe_set(
    requests: &Requests,
    caches: &Caches,
    memory: &Memory,
    name: &PairName,
    i: InstanceId,
) -> Result<Option<SetView>, Error> {
    let set = name.instance(i);
    let cached = caches.stateful_sets.get(&ObjectRef::new(&set).within(&name.namespace));
    let written = memory.applied.get(&format!("StatefulSet/{set}"));
    if written.is_some_and(|w| w.outdates(cached.as_ref().map(|s| &s.metadata))) {
        return Ok(requests.get::<StatefulSet>(&set).await?.as_ref().map(set_view));
    }
    Ok(cached.map(|s| set_view(&s)))
}

fn is_of<K: ResourceExt>(object: &K, name: &PairName, i: InstanceId) -> bool {
    object.namespace().as_deref() == Some(&name.namespace)
        && object.labels().get(LABEL_PAIR) == Some(&name.name)
        && object.labels().get(LABEL_INSTANCE).map(String::as_str) == Some(i.as_str())
}

fn set_view(set: &StatefulSet) -> SetView {
    let number = |key: &str| set.annotations().get(key).and_then(|text| text.parse().ok()).unwrap_or(0);
    SetView {
        replicas: set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1),
        running: set.status.as_ref().map_or(0, |s| s.replicas),
        seed: number(ANNOTATION_SEED),
        seed_failures: number(ANNOTATION_SEED_FAILURES),
    }
}

fn pod_view(pod: &Pod) -> PodView {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_ref());
    PodView {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        ip: status.and_then(|s| s.pod_ip.clone()),
        node: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        ready: conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True")),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        running: status.and_then(|s| s.phase.as_deref()) == Some("Running"),
    }
}

fn seed_job(job: &Job, name: &PairName, i: InstanceId) -> Option<SeedJob> {
    let number =
        job.name_any().strip_prefix(&name.seed_job(i, 0)[..name.seed_job(i, 0).len() - 1])?.parse().ok()?;
    let conditions = job.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let holds = |type_: &str| conditions.iter().find(|c| c.type_ == type_ && c.status == "True");
    let state = if let Some(failed) = holds("Failed") {
        let at = failed.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
        SeedState::Failed { at, message: failed.message.clone().unwrap_or_default() }
    } else if holds("Complete").is_some() {
        SeedState::Complete
    } else {
        SeedState::Running
    };
    Some(SeedJob { number, state, progress: None })
}

fn slice(caches: &Caches, name: &PairName, slice: &str) -> SliceView {
    match caches.slices.get(&ObjectRef::new(slice).within(&name.namespace)) {
        None => SliceView::Missing,
        Some(slice) => SliceView::Present(slice.endpoints.iter().flat_map(|e| e.addresses.clone()).collect()),
    }
}

async fn ask(
    tls: Option<Arc<ClientConfig>>,
    name: &PairName,
    i: InstanceId,
    pod: Option<&PodView>,
) -> Option<InstanceReport> {
    let ip = pod.filter(|p| p.running).and_then(|p| p.ip.as_deref())?;
    match fetch_report(tls?, ip, &name.pod_dns(i)).await {
        Ok(report) if report.instance == i => Some(report),
        Ok(report) => {
            tracing::warn!(instance = %i, answered = %report.instance, "another instance answered");
            None
        }
        Err(error) => {
            tracing::debug!(instance = %i, error = &error as &dyn std::error::Error, "no report");
            None
        }
    }
}

async fn ask_seed(caches: &Caches, name: &PairName, i: InstanceId, jobs: &mut [SeedJob]) {
    let Some(job) = jobs.iter_mut().find(|j| j.state == SeedState::Running) else { return };
    let pods = caches.pods.state_filter(|pod| {
        is_of(pod, name, i) && pod.labels().get(LABEL_COMPONENT).map(String::as_str) == Some(COMPONENT_SEED)
    });
    let running = pods.iter().map(|p| pod_view(p)).find(|p| p.running && !p.deleting);
    if let Some(ip) = running.and_then(|p| p.ip) {
        job.progress = fetch_seed_progress(&ip).await.ok();
    }
}

fn remember(memory: &mut Memory, i: InstanceId, report: Option<InstanceReport>) -> ReportView {
    if let Some(report) = report {
        memory.reports.insert(i, (report.clone(), Instant::now()));
        return ReportView::Fresh(Box::new(report));
    }
    match memory.reports.get(&i) {
        None => ReportView::NeverSeen,
        Some((report, at)) if at.elapsed() < STALE_FOR => ReportView::Stale(Box::new(report.clone())),
        Some(_) => ReportView::Unreachable,
    }
}
