//! Reads what there is to know about a pair: watch caches, the agents, and the record from the API server itself.

pub(crate) mod adoption;
mod hindrance;
mod server;
mod silence;
pub(crate) mod views;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use k8s_openapi::api::discovery::v1::Endpoint;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use pgpair_api::loss::KnownWal;
use pgpair_api::names::{ANNOTATION_ORDER, ANNOTATION_ROTATED_BY, PairName};
use pgpair_api::status::{InstanceStatus, PgReplicaPairStatus};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;
use pgpair_core::record::Record;
use pgpair_wire::certificates::REVOKED;
use pgpair_wire::config::PairConfig;
use pgpair_wire::paths;
use pgpair_wire::report::InstanceReport;
use rustls::ClientConfig;

use self::adoption::observe_adoption;
use self::hindrance::observe_hindrance;
use crate::agent_client::{AgentAddress, client_config};
use crate::api::Requests;
use crate::apply::is_outdated;
use crate::build::services::{build_slice, is_shaped};
use crate::cache::Caches;
use crate::context::Pass;
use crate::desired::DesiredPair;
use crate::error::Error;
use crate::hear::Pace;
use crate::memory::Memory;
use crate::observed::{
    AgentProcess, InstanceObserved, LeaseView, Mismatch, Observed, PasswordView, PodView, ReportView,
    SeedJob, SeedState, SetView, SliceView,
};
use crate::orders;
use crate::ownership::is_own;
use crate::rollout::Turn;
use crate::secrets;
use crate::secrets::Party;
use crate::secrets::passwords::{Keeper, Source, read_ledger};
use crate::secrets::place::Place;

pub use hindrance::Hindrance;

/// A report that is older than this no longer says anything.
const STALE_FOR: Duration = Duration::from_secs(10);
/// A report of a pair that is as it should be may be as old as this: an answer that was held back, and came late.
const CALM: Duration = Duration::from_secs(Pace::Calm.hold().as_secs() + 3);
/// One that is to be acted upon.
const NEW: Duration = Duration::from_secs(3);
/// Before something is acted upon, an agent is asked anew if its last answer is as old as this: one that is heard of each second, and
/// one answer late. What is not asked anew stays new until the plan is made.
const ASK_ANEW: Duration = Duration::from_millis(2_500);

/// How much of what is known may be some seconds old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing: the record is read now, and what was heard earlier counts as old.
    Now,
    /// What was heard of the agents.
    Look,
    /// The record too: it is that of the watch.
    Glance,
}

impl Freshness {
    fn of_reports(self) -> Duration {
        match self {
            Freshness::Now => NEW,
            Freshness::Look | Freshness::Glance => CALM,
        }
    }
}

/// Observes one pair.
///
/// # Errors
/// The record could not be read. That an agent does not answer is part of the observation.
pub async fn observe(
    pass: &Pass<'_>,
    memory: &mut Memory,
    desired: &DesiredPair,
    freshness: Freshness,
) -> Result<Observed, Error> {
    let Pass { ctx, pair, name, requests } = pass;
    let caches = &ctx.caches;
    let status = pair.status.clone().unwrap_or_default();
    let (lease, is_glance) = observe_record(pass, memory, freshness).await?;
    let [a, b] = observe_instances(pass, memory, &desired.pair, &status, freshness).await?;
    let config = observe_settings(requests, caches, memory, desired).await?;
    let mut observed = Observed {
        now: Timestamp::now(),
        config,
        paused: desired.pair.paused,
        apart_by: views::apart_by(&desired.pair.scheduling),
        invalid: desired.invalid.as_ref().map(ToString::to_string),
        order: orders::choose(
            pair.annotations().get(ANNOTATION_ORDER),
            status.order.as_ref(),
            &orders::of_pair(caches, name),
        ),
        last_order: status.order.clone(),
        known_wal: KnownWal::of_status(name, &status),
        system_identifier: status.system_identifier.clone(),
        lease,
        is_glance,
        a,
        b,
        rw: observe_slice(caches, &desired.pair, &name.rw()),
        ro: observe_slice(caches, &desired.pair, &name.ro()),
        any: observe_slice(caches, &desired.pair, &name.any()),
        rw_mismatch: memory
            .rw_mismatch
            .map_or_else(Mismatch::default, |(times, since)| Mismatch { times, lasting: since.elapsed() }),
        out_of_service: None,
        taken: memory.evidence.clone(),
        certificates: observe_certificates(caches, &desired.pair),
        turn: Turn::default(), // the caller knows
        refused_settings: since(&memory.refused_settings),
        passwords: observe_passwords(caches, &desired.pair),
        password_max_age_days: desired.pair.password_max_age_days,
        refused_passwords: memory.refused_passwords.iter().map(|(i, at)| (*i, at.elapsed())).collect(),
        server: None,
        certified: server::certified(caches, &desired.pair),
        operator_certified: server::party(caches, &desired.pair, Party::Operator),
        roles_certified: server::roles(caches, &desired.pair),
        authority: server::authority(caches, &desired.pair),
        refused_certificates: since(&memory.refused_certificates),
        given_certificates: since(&memory.given_certificates),
        rolled_ago: memory.rolled.map(|at| at.elapsed()),
        adoption: observe_adoption(caches, &desired.pair),
    };
    observed.server = server::observe_server(requests, memory, &desired.pair, &observed).await;
    observed.out_of_service = observe_out_of_service(requests, &observed).await;
    Ok(observed)
}

/// The record, and whether it is the watch's and was not read.
async fn observe_record(
    pass: &Pass<'_>,
    memory: &Memory,
    freshness: Freshness,
) -> Result<(LeaseView, bool), Error> {
    let Pass { ctx, name, requests, .. } = pass;
    let watched = || find_watched_record(&ctx.caches, memory, name);
    if let Some(record) = (freshness == Freshness::Glance).then(watched).flatten() {
        return Ok((LeaseView::Present(record), true));
    }
    Ok((views::lease_view(requests.get::<Lease>(name.lease()).await?.as_ref()), false))
}

/// What agents took or refused, and how long ago.
fn since<T: Clone>(told: &BTreeMap<InstanceId, (T, Instant)>) -> BTreeMap<InstanceId, (T, Duration)> {
    told.iter().map(|(i, (what, at))| (*i, (what.clone(), at.elapsed()))).collect()
}

/// The record as the watch has brought it; `None` if it has none, or one that is older than what was read before.
fn find_watched_record(caches: &Caches, memory: &Memory, name: &PairName) -> Option<Record> {
    let lease = caches.leases.get(&ObjectRef::new(name.lease()).within(&name.namespace))?;
    let LeaseView::Present(record) = views::lease_view(Some(&lease)) else { return None };
    memory.looked.allows(record.term).then_some(record)
}

async fn observe_instances(
    pass: &Pass<'_>,
    memory: &mut Memory,
    pair: &ValidatedPair,
    status: &PgReplicaPairStatus,
    freshness: Freshness,
) -> Result<[InstanceObserved; 2], Error> {
    let Pass { ctx, name, requests, .. } = pass;
    let caches = &ctx.caches;
    let tls = fetch_tls(requests, caches, memory, pair).await?;
    let mut a = observe_instance(caches, pair, InstanceId::A);
    let mut b = observe_instance(caches, pair, InstanceId::B);
    (a.set, a.update_revision) = observe_set(requests, caches, memory, pair, InstanceId::A).await?;
    (b.set, b.update_revision) = observe_set(requests, caches, memory, pair, InstanceId::B).await?;
    for (i, instance) in [(InstanceId::A, &a), (InstanceId::B, &b)] {
        let address = build_address(tls.as_ref(), name, i, instance.pod.as_ref());
        memory.lines.set_address(i, address.clone());
        memory.ears.listen(&ctx.hearing, name, i, address);
    }
    match freshness {
        Freshness::Now => memory.ears.refresh(ASK_ANEW).await,
        Freshness::Look | Freshness::Glance => memory.ears.hear_first().await,
    }
    note_report(memory, InstanceId::A, name, status, freshness, &mut a);
    note_report(memory, InstanceId::B, name, status, freshness, &mut b);
    observe_seed(caches, memory, pair, InstanceId::A, &mut a.jobs);
    observe_seed(caches, memory, pair, InstanceId::B, &mut b.jobs);
    a.is_given_up = observe_given_up(requests, caches, name, InstanceId::A, &a).await;
    b.is_given_up = observe_given_up(requests, caches, name, InstanceId::B, &b).await;
    a.trouble = observe_hindrance(requests, caches, memory, pair, InstanceId::A, status, &a).await;
    b.trouble = observe_hindrance(requests, caches, memory, pair, InstanceId::B, status, &b).await;
    Ok([a, b])
}

/// What the agents are to follow. Of a pair that is held, what they were given last: what the spec says since then is not in effect.
async fn observe_settings(
    requests: &Requests,
    caches: &Caches,
    memory: &mut Memory,
    desired: &DesiredPair,
) -> Result<PairConfig, Error> {
    let of_spec = desired.pair.config();
    let given =
        if desired.is_held() { fetch_given(requests, caches, memory, &desired.pair).await? } else { None };
    Ok(match given {
        Some(given) => PairConfig { generation: of_spec.generation, ..given },
        None => of_spec.clone(),
    })
}

/// The settings in ConfigMap `NAME-config`, read once for each version of it.
async fn fetch_given(
    requests: &Requests,
    caches: &Caches,
    memory: &mut Memory,
    pair: &ValidatedPair,
) -> Result<Option<PairConfig>, Error> {
    let map = pair.name.config();
    let cached = caches.config_maps.get(&ObjectRef::new(&map).within(&pair.name.namespace));
    let Some(version) = cached.filter(|map| is_own(pair, &map.metadata)).and_then(|m| m.resource_version())
    else {
        return Ok(None);
    };
    if let Some((known, given)) = &memory.given
        && *known == version
    {
        return Ok(given.clone());
    }
    let found = requests.get::<ConfigMap>(&map).await?.filter(|map| is_own(pair, &map.metadata));
    let given = found.as_ref().and_then(views::settings);
    memory.given = Some((version, given.clone()));
    Ok(given)
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

/// Whether a person has given up an instance, and its pod cannot end because its node does not answer. The node is asked for only when
/// the rest holds.
async fn observe_given_up(
    requests: &Requests,
    caches: &Caches,
    name: &PairName,
    i: InstanceId,
    instance: &InstanceObserved,
) -> bool {
    let goes = |claim: &str| {
        let key = ObjectRef::<PersistentVolumeClaim>::new(claim).within(&name.namespace);
        caches.claims.get(&key).is_none_or(|claim| claim.metadata.deletion_timestamp.is_some())
    };
    let node = instance.pod.as_ref().filter(|pod| pod.deleting).and_then(|pod| pod.node.as_ref());
    let Some(node) = node.filter(|_| goes(&name.data_claim(i)) && goes(&name.archive_claim(i))) else {
        return false;
    };
    match requests.get_node(node).await {
        Ok(found) => found.is_none_or(|node| !views::is_ready(&node)),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(node, error, "a node is not readable");
            false
        }
    }
}

async fn fetch_tls(
    requests: &Requests,
    caches: &Caches,
    memory: &mut Memory,
    pair: &ValidatedPair,
) -> Result<Option<Arc<ClientConfig>>, Error> {
    // Until the operator has its own, that of an earlier version, which the agents know.
    let [_, former] = Place::former(pair);
    let find = |place: Place| {
        let meta = place.cached(caches, pair).filter(|meta| is_own(pair, meta))?;
        Some((meta.resource_version?, place))
    };
    let found = [Place::of(Party::Operator, pair), former].into_iter().find_map(find);
    let Some((version, place)) = found else { return Ok(None) };
    if let Some((known, config)) = &memory.tls
        && *known == version
    {
        return Ok(Some(config.clone()));
    }
    let there = place.requests(requests, pair);
    let Some(secret) = there.get::<Secret>(place.name()).await? else { return Ok(None) };
    let name = place.told(pair);
    let read = |key| secrets::text(&secret, &name, key);
    let (ca, certificate, key) = (read("ca.crt")?, read("tls.crt")?, read("tls.key")?);
    let with = |revoked: &str| {
        client_config(ca.as_bytes(), revoked.as_bytes(), certificate.as_bytes(), key.as_bytes())
    };
    let revoked = read(REVOKED).unwrap_or_default();
    // A list that cannot be read must not keep the operator from its agents; they refuse what is revoked themselves.
    let config = with(&revoked).or_else(|error| {
        tracing::error!(%error, secret = name, "the revocation lists are not used");
        with("")
    });
    let config = config.map_err(|_| Error::Secret { name: name.clone(), key: "tls.crt" })?;
    memory.tls = Some((version, config.clone()));
    Ok(Some(config))
}

fn observe_instance(caches: &Caches, pair: &ValidatedPair, i: InstanceId) -> InstanceObserved {
    let pod = views::instance_pod(caches, pair, i).map(|p| views::pod_view(&p));
    let mut jobs = views::seed_jobs(caches, pair, i);
    jobs.sort_by_key(|job| job.number);
    InstanceObserved { pod, jobs, ..InstanceObserved::default() }
}

/// The cache may be behind our own write: deciding on it could undo a scale-down that has just been made.
async fn observe_set(
    requests: &Requests,
    caches: &Caches,
    memory: &Memory,
    pair: &ValidatedPair,
    i: InstanceId,
) -> Result<(Option<SetView>, Option<String>), Error> {
    let name = pair.name.instance(i);
    let cached = views::instance_set(caches, pair, i);
    let view = |set: StatefulSet| (Some(views::set_view(&set)), views::update_revision(&set));
    if is_outdated::<StatefulSet>(memory, &name, cached.as_ref().map(|s| &s.metadata)) {
        let read = requests.get::<StatefulSet>(&name).await?.filter(|set| is_own(pair, &set.metadata));
        return Ok(read.map(view).unwrap_or_default());
    }
    Ok(cached.map(view).unwrap_or_default())
}

fn observe_slice(caches: &Caches, pair: &ValidatedPair, slice: &str) -> SliceView {
    let found = caches.slices.get(&ObjectRef::new(slice).within(&pair.name.namespace));
    let Some(found) = found.filter(|slice| is_own(pair, &slice.metadata)) else { return SliceView::Missing };
    // A Service leads to no endpoint that is not ready.
    let ready = |e: &&Endpoint| e.conditions.as_ref().and_then(|c| c.ready) != Some(false);
    let addresses = found.endpoints.iter().filter(ready).flat_map(|e| e.addresses.clone()).collect();
    if is_shaped(&found, &build_slice(pair, slice, [])) {
        SliceView::Present(addresses)
    } else {
        SliceView::Altered(addresses)
    }
}

/// What is known of the passwords, by the annotation of the Secret with their verifiers.
fn observe_passwords(caches: &Caches, pair: &ValidatedPair) -> Vec<PasswordView> {
    let key = ObjectRef::new(&pair.name.verifiers_secret()).within(&pair.name.namespace);
    let kept = caches.secrets.get(&key).filter(|secret| is_own(pair, &secret.metadata));
    let mut ledger = kept.map(|secret| read_ledger(&secret.metadata)).unwrap_or_default();
    let view = |source: Source| {
        let entry = ledger.remove(&source.role)?;
        let key = ObjectRef::new(&source.secret).within(&pair.name.namespace);
        let secret = caches.secrets.get(&key).filter(|secret| is_own(pair, &secret.metadata));
        let rotated_by = secret.as_ref().and_then(|s| s.annotations().get(ANNOTATION_ROTATED_BY).cloned());
        Some(PasswordView {
            is_read: source.keeper == Keeper::Person
                || entry.is_of(&source.secret, secret.as_ref().map(|secret| &secret.metadata)),
            keeper: source.keeper,
            role: source.role,
            secret: source.secret,
            entry,
            rotated_by,
        })
    };
    Source::of(pair).into_iter().filter_map(view).collect()
}

/// The pair's certificates and their ends, by the annotations of their Secrets.
fn observe_certificates(caches: &Caches, pair: &ValidatedPair) -> Vec<(String, Timestamp)> {
    secrets::read_ends(pair, |place| place.cached(caches, pair)?.annotations)
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

/// What the pods of the newest seeding Job say: how far they are, or why they failed.
fn observe_seed(
    caches: &Caches,
    memory: &mut Memory,
    pair: &ValidatedPair,
    i: InstanceId,
    jobs: &mut [SeedJob],
) {
    let Some(job) = jobs.last_mut().filter(|j| j.state != SeedState::Complete) else {
        memory.seeds.remove(&i);
        return;
    };
    let job_name = pair.name.seed_job(i, job.number);
    let pods = views::job_pods(caches, pair, i, &job_name);
    if job.state == SeedState::Running {
        // A container beside the program keeps its pod, and with it the Job, from ever failing.
        job.state =
            pods.iter().find_map(|pod| views::stuck(pod, Timestamp::now())).unwrap_or(SeedState::Running);
    }
    let pods: Vec<PodView> = pods.iter().map(views::pod_view).collect();
    job.failure = pods.iter().find_map(views::seed_failure);
    // The Job says so some seconds later than its pod.
    if job.state == SeedState::Running && pods.iter().any(views::has_seeded) {
        job.state = SeedState::Complete;
    }
    let running = pods.into_iter().find(|p| p.running && !p.deleting);
    if let (SeedState::Running, Some(ip)) = (&job.state, running.and_then(|p| p.ip)) {
        job.progress = memory.seeds.entry(i).or_default().hear(&ip);
    }
}

fn note_report(
    memory: &mut Memory,
    i: InstanceId,
    name: &PairName,
    status: &PgReplicaPairStatus,
    freshness: Freshness,
    instance: &mut InstanceObserved,
) {
    let heard = memory.ears.heard(i);
    if let Some((report, at)) = heard.report {
        memory.reports.insert(i, (report, at));
    }
    let last = memory.reports.get(&i).map(|(report, at)| (report.clone(), at.elapsed()));
    let is_heard = instance.pod.as_ref().is_some_and(|pod| pod.running) && !heard.is_silent;
    let fresh = last.as_ref().filter(|(_, age)| is_heard && *age < freshness.of_reports());
    let told = status.instances.iter().find(|s| s.name == name.instance(i));
    instance.known = find_process(fresh.map(|(report, _)| &**report), told);
    let expected = memory.expected(i, instance.set.is_some_and(|set| set.replicas == 1));
    instance.report = match (&fresh, &last) {
        (Some((report, _)), _) => ReportView::Fresh(Box::new((**report).clone())),
        (None, Some((report, age))) if *age < STALE_FOR => ReportView::Stale(Box::new((**report).clone())),
        (None, Some(_)) => ReportView::Unreachable,
        (None, None) => {
            let silence = silence::of(expected, instance, status, told);
            instance.silent_for = silence.lasting;
            silence.view()
        }
    };
    instance.last_report = last.map(|(report, age)| (Box::new((*report).clone()), age));
}

/// The agent process that reported last, and its node, both by its own word: the pod that a cache has may be another one by now, and the
/// taint of its node would prove the death of a process that lives elsewhere. An older agent does not tell its node.
fn find_process(report: Option<&InstanceReport>, told: Option<&InstanceStatus>) -> Option<AgentProcess> {
    let told = told.and_then(parse_process);
    let Some(report) = report else { return told };
    match report.node.clone() {
        Some(node) => Some(AgentProcess { incarnation: report.incarnation, node }),
        None => told.filter(|told| told.incarnation == report.incarnation),
    }
}

fn parse_process(status: &InstanceStatus) -> Option<AgentProcess> {
    let incarnation = status.incarnation.as_ref()?.parse().ok()?;
    Some(AgentProcess { incarnation, node: status.incarnation_node.clone()? })
}

#[cfg(test)]
mod tests;
