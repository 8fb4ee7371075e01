//! What keeps an instance from running, and what else of the two is not as the spec wants it.

use pgpair_api::names::PairName;
use pgpair_api::status::Reason;
use pgpair_core::ids::InstanceId;

use crate::observed::{Observed, ReportView};

/// `server_version_num` is the major version times this, plus the minor one.
const MINOR: u32 = 10_000;

/// The most important of what is wrong with the instances.
pub(super) fn of_pair(name: &PairName, observed: &Observed) -> Option<(Reason, String)> {
    let each = |of: fn(&PairName, &Observed, InstanceId) -> Option<(Reason, String)>| {
        InstanceId::ALL.into_iter().find_map(|i| of(name, observed, i))
    };
    each(of_instance).or_else(|| each(of_version)).or_else(|| each(of_silence)).or_else(|| of_nodes(observed))
}

/// What keeps an instance from running, in the words of the component that refuses: the pod comes before its agent.
pub(super) fn of_instance(name: &PairName, observed: &Observed, i: InstanceId) -> Option<(Reason, String)> {
    let instance = observed.instance(i);
    if let Some(trouble) = &instance.trouble {
        return Some((trouble.reason(), trouble.sentence(&pod_of(name, observed, i))));
    }
    let trouble = instance.report.recent()?.trouble.as_ref()?;
    let first = observed.system_identifier.is_none() && instance.report.recent()?.system_identifier.is_none();
    let again = if first {
        ". Nothing is stored yet: if a field of the spec that cannot change is the cause, delete the pair and its claims, and \
         create it again"
    } else {
        ""
    };
    Some((Reason::InstanceInTrouble, format!("{}: {trouble}{again}", name.instance(i))))
}

fn pod_of(name: &PairName, observed: &Observed, i: InstanceId) -> String {
    let instance = observed.instance(i);
    let seeds =
        instance.jobs.last().filter(|_| instance.is_seeding()).map(|job| name.seed_job(i, job.number));
    let adopts = || Some(name.adopt_job(i, observed.adoption.as_ref()?.instance(i).running()?));
    seeds
        .or_else(adopts)
        .map_or_else(|| format!("pod {}", name.pod(i)), |job| format!("the pod of job {job}"))
}

fn of_version(name: &PairName, observed: &Observed, i: InstanceId) -> Option<(Reason, String)> {
    let wanted = observed.config.bootstrap.version?;
    let runs = observed.instance(i).report.recent()?.postgres.version_num? / MINOR;
    (runs != wanted).then(|| {
        let message = format!(
            "{} runs PostgreSQL {runs}, and spec.postgres.version is {wanted}: the image in spec.postgres.image does not fit. Set \
             an image of PostgreSQL {wanted} if the data directory is of that version; else create a new pair with version \
             {runs} and move the data",
            name.instance(i)
        );
        (Reason::VersionMismatch, message)
    })
}

fn of_silence(name: &PairName, observed: &Observed, i: InstanceId) -> Option<(Reason, String)> {
    let is_stopped = observed.adoption.is_some() && observed.record().is_none();
    let silent = observed.instance(i).report == ReportView::Unreachable && !is_stopped;
    silent.then(|| (Reason::InstanceUnreachable, format!("{} does not answer", name.instance(i))))
}

fn of_nodes(observed: &Observed) -> Option<(Reason, String)> {
    let (key, node) = (observed.apart_by.as_ref()?, observed.shared_node()?);
    let message = format!(
        "both instances run on node {node}, although spec.scheduling.antiAffinity is Required: the loss of that node stops both. \
         Check that the nodes have the label {key} (spec.scheduling.topologyKey), then delete the pod of the standby"
    );
    Some((Reason::SameNode, message))
}
