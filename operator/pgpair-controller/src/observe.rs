//! Reads what there is to know about a pair: watch caches, the agents, and the record from the API server itself.

mod hindrance;
mod silence;
pub(crate) mod views;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use pgpair_api::PgReplicaPair;
use pgpair_api::loss::KnownWal;
use pgpair_api::names::{ANNOTATION_ORDER, PairName};
use pgpair_api::status::{InstanceStatus, PgReplicaPairStatus};
use pgpair_core::ids::InstanceId;
use pgpair_wire::config::PairConfig;
use pgpair_wire::paths;
use pgpair_wire::report::InstanceReport;
use rustls::ClientConfig;

use self::hindrance::observe_hindrance;
use crate::agent_client::{AgentAddress, AgentLine, client_config, fetch_seed_progress};
use crate::api::Requests;
use crate::apply::is_outdated;
use crate::cache::Caches;
use crate::desired::DesiredPair;
use crate::error::Error;
use crate::memory::{AgentLines, Memory};
use crate::observed::{
    AgentProcess, InstanceObserved, Mismatch, Observed, PodView, ReportView, SeedJob, SeedState, SetView,
    SliceView,
};
use crate::rollout::Turn;
use crate::secrets;

pub use hindrance::Hindrance;

/// A report that is older than this no longer says anything.
const STALE_FOR: Duration = Duration::from_secs(10);
/// The record of a settled pair is read again when it is as old as this; in between, only agents are asked.
const RECENT: Duration = Duration::from_secs(5);

/// How old the record of an observation may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It is read now.
    Now,
    /// That of a settled pair may be some seconds old.
    SomeSeconds,
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
    desired: &DesiredPair,
    freshness: Freshness,
) -> Result<Observed, Error> {
    let name = &desired.pair.name;
    let status = pair.status.clone().unwrap_or_default();
    let recent =
        memory.lease.clone().filter(|(_, at)| freshness == Freshness::SomeSeconds && at.elapsed() < RECENT);
    let lease_is_recent = recent.is_some();
    let lease = match recent {
        Some((lease, _)) => lease,
        None => views::lease_view(requests.get::<Lease>(name.lease()).await?.as_ref()),
    };
    let [a, b] = observe_instances(requests, caches, memory, name, &status).await?;
    let mut observed = Observed {
        now: Timestamp::now(),
        config: observe_settings(caches, desired),
        paused: desired.pair.paused,
        apart_by: views::apart_by(&desired.pair.scheduling),
        invalid: desired.invalid.as_ref().map(ToString::to_string),
        order: pair.annotations().get(ANNOTATION_ORDER).cloned(),
        last_order: status.order.clone(),
        known_wal: KnownWal::of_status(name, &status),
        system_identifier: status.system_identifier.clone(),
        lease,
        lease_is_recent,
        a,
        b,
        rw: observe_slice(caches, name, &name.rw()),
        ro: observe_slice(caches, name, &name.ro()),
        any: observe_slice(caches, name, &name.any()),
        rw_mismatch: memory
            .rw_mismatch
            .map_or_else(Mismatch::default, |(times, since)| Mismatch { times, lasting: since.elapsed() }),
        out_of_service: None,
        taken: memory.evidence.clone(),
        certificates: observe_certificates(caches, name),
        turn: Turn::default(), // the caller knows
        refused_settings: memory
            .refused_settings
            .iter()
            .map(|(i, (refusal, at))| (*i, (refusal.clone(), at.elapsed())))
            .collect(),
        rolled_ago: memory.rolled.map(|at| at.elapsed()),
    };
    observed.out_of_service = observe_out_of_service(requests, &observed).await;
    Ok(observed)
}

async fn observe_instances(
    requests: &Requests,
    caches: &Caches,
    memory: &mut Memory,
    name: &PairName,
    status: &PgReplicaPairStatus,
) -> Result<[InstanceObserved; 2], Error> {
    let tls = fetch_tls(requests, caches, memory, name).await?;
    let mut a = observe_instance(caches, name, InstanceId::A);
    let mut b = observe_instance(caches, name, InstanceId::B);
    (a.set, a.update_revision) = observe_set(requests, caches, memory, name, InstanceId::A).await?;
    (b.set, b.update_revision) = observe_set(requests, caches, memory, name, InstanceId::B).await?;
    let AgentLines { a: line_a, b: line_b } = &mut memory.lines;
    line_a.1 = build_address(tls.as_ref(), name, InstanceId::A, a.pod.as_ref());
    line_b.1 = build_address(tls.as_ref(), name, InstanceId::B, b.pod.as_ref());
    let (report_a, report_b, (), ()) = tokio::join!(
        fetch_report(line_a, InstanceId::A),
        fetch_report(line_b, InstanceId::B),
        observe_seed(caches, name, InstanceId::A, &mut a.jobs),
        observe_seed(caches, name, InstanceId::B, &mut b.jobs),
    );
    note_report(memory, InstanceId::A, report_a, name, status, &mut a);
    note_report(memory, InstanceId::B, report_b, name, status, &mut b);
    a.trouble = observe_hindrance(requests, caches, memory, name, InstanceId::A, status, &a).await;
    b.trouble = observe_hindrance(requests, caches, memory, name, InstanceId::B, status, &b).await;
    Ok([a, b])
}

/// What the agents are to follow. Of a pair that is held, what they were given last: what the spec says since then is not in effect.
fn observe_settings(caches: &Caches, desired: &DesiredPair) -> PairConfig {
    let (name, of_spec) = (&desired.pair.name, desired.pair.config());
    let given = caches.config_maps.get(&ObjectRef::new(&name.config()).within(&name.namespace));
    match given.filter(|_| desired.is_held()).and_then(|map| views::settings(&map)) {
        Some(given) => PairConfig { generation: of_spec.generation, ..given },
        None => of_spec.clone(),
    }
}

/// The node on which the primary's agent ran, if it carries the taint. Asked only while no primary serves: that costs a
/// healthy pair nothing, and needs no watch of all nodes.
async fn observe_out_of_service(requests: &Requests, observed: &Observed) -> Option<String> {
    let primary = observed.instance(observed.record()?.primary.instance);
    let known = primary.known.as_ref().filter(|_| primary.report.fresh().is_none())?;
    match requests.get_node(&known.node).await {
        Ok(node) => node.filter(views::is_out_of_service).map(|_| known.node.clone()),
        Err(error) => {
            // Evidence is an addition: without it, everything else still goes on.
            tracing::warn!(
                node = known.node,
                error = &error as &dyn std::error::Error,
                "a node is not readable"
            );
            None
        }
    }
}

async fn fetch_tls(
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

fn observe_instance(caches: &Caches, name: &PairName, i: InstanceId) -> InstanceObserved {
    let pod_key = ObjectRef::new(&name.pod(i)).within(&name.namespace);
    let pod = caches.pods.get(&pod_key).map(|p| views::pod_view(&p));
    let mut jobs = views::seed_jobs(caches, name, i);
    jobs.sort_by_key(|job| job.number);
    InstanceObserved { pod, jobs, ..InstanceObserved::default() }
}

/// The cache may be behind our own write: deciding on it could undo a scale-down that has just been made.
async fn observe_set(
    requests: &Requests,
    caches: &Caches,
    memory: &Memory,
    name: &PairName,
    i: InstanceId,
) -> Result<(Option<SetView>, Option<String>), Error> {
    let set = name.instance(i);
    let cached = caches.stateful_sets.get(&ObjectRef::new(&set).within(&name.namespace));
    let view = |set: &StatefulSet| (Some(views::set_view(set)), views::update_revision(set));
    if is_outdated::<StatefulSet>(memory, &set, cached.as_ref().map(|s| &s.metadata)) {
        return Ok(requests.get::<StatefulSet>(&set).await?.as_ref().map(view).unwrap_or_default());
    }
    Ok(cached.map(|s| view(&s)).unwrap_or_default())
}

fn observe_slice(caches: &Caches, name: &PairName, slice: &str) -> SliceView {
    match caches.slices.get(&ObjectRef::new(slice).within(&name.namespace)) {
        None => SliceView::Missing,
        Some(slice) => SliceView::Present(slice.endpoints.iter().flat_map(|e| e.addresses.clone()).collect()),
    }
}

/// The pair's certificates and their ends, by the annotations of their Secrets.
fn observe_certificates(caches: &Caches, name: &PairName) -> Vec<(String, Timestamp)> {
    secrets::read_ends(name, |secret| {
        let found = caches.secrets.get(&ObjectRef::new(secret).within(&name.namespace))?;
        Some(found.annotations().clone())
    })
}

fn build_address(
    tls: Option<&Arc<ClientConfig>>,
    name: &PairName,
    i: InstanceId,
    pod: Option<&PodView>,
) -> Option<AgentAddress> {
    let ip = pod.filter(|p| p.running).and_then(|p| p.ip.clone())?;
    Some(AgentAddress { config: tls?.clone(), ip, port: paths::PEER_PORT, dns: name.pod_dns(i) })
}

async fn fetch_report(
    (line, target): &mut (AgentLine, Option<AgentAddress>),
    i: InstanceId,
) -> Option<InstanceReport> {
    match line.get::<InstanceReport>(target.as_ref()?, paths::REPORT).await {
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

/// What the pods of the newest seeding Job say: how far they are, or why they failed.
async fn observe_seed(caches: &Caches, name: &PairName, i: InstanceId, jobs: &mut [SeedJob]) {
    let Some(job) = jobs.last_mut().filter(|j| j.state != SeedState::Complete) else { return };
    let job_name = name.seed_job(i, job.number);
    let pods = views::seed_pods(caches, name, i, &job_name);
    if job.state == SeedState::Running {
        // A container beside the program keeps its pod, and with it the Job, from ever failing.
        job.state =
            pods.iter().find_map(|pod| views::stuck(pod, Timestamp::now())).unwrap_or(SeedState::Running);
    }
    let pods: Vec<PodView> = pods.iter().map(|pod| views::pod_view(pod)).collect();
    job.failure = pods.iter().find_map(views::seed_failure);
    // The Job says so some seconds later than its pod.
    if job.state == SeedState::Running && pods.iter().any(views::has_seeded) {
        job.state = SeedState::Complete;
    }
    let running = pods.into_iter().find(|p| p.running && !p.deleting);
    if let (SeedState::Running, Some(ip)) = (&job.state, running.and_then(|p| p.ip)) {
        job.progress = fetch_seed_progress(&ip).await.ok();
    }
}

fn note_report(
    memory: &mut Memory,
    i: InstanceId,
    report: Option<InstanceReport>,
    name: &PairName,
    status: &PgReplicaPairStatus,
    instance: &mut InstanceObserved,
) {
    let told = status.instances.iter().find(|s| s.name == name.instance(i));
    instance.known = match (&report, instance.pod.as_ref().and_then(|p| p.node.clone())) {
        (Some(report), Some(node)) => Some(AgentProcess { incarnation: report.incarnation, node }),
        _ => told.and_then(parse_process),
    };
    let expected = memory.expected(i, instance.set.is_some_and(|set| set.replicas == 1));
    if let Some(report) = report {
        memory.reports.insert(i, (report.clone(), Instant::now()));
        instance.last_report = Some((Box::new(report.clone()), Duration::ZERO));
        instance.report = ReportView::Fresh(Box::new(report));
        return;
    }
    let last = memory.reports.get(&i).map(|(report, at)| (Box::new(report.clone()), at.elapsed()));
    instance.report = match &last {
        None => {
            let silence = silence::of(expected, instance, status, told);
            instance.silent_for = silence.lasting;
            silence.view()
        }
        Some((report, age)) if *age < STALE_FOR => ReportView::Stale(report.clone()),
        Some(_) => ReportView::Unreachable,
    };
    instance.last_report = last;
}

fn parse_process(status: &InstanceStatus) -> Option<AgentProcess> {
    let incarnation = status.incarnation.as_ref()?.parse().ok()?;
    Some(AgentProcess { incarnation, node: status.incarnation_node.clone()? })
}

#[cfg(test)]
mod tests;
