//! What is told of an adoption.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pgpair_api::convert::number;
use pgpair_api::names::PairName;
use pgpair_api::status::{AdoptionPhase, AdoptionStatus, FoundVolumeStatus, FoundWord, PgReplicaPairStatus};
use pgpair_backup::adopt::{Doubt, Loss, Other, Refusal};
use pgpair_core::ids::InstanceId;
use pgpair_wire::adopt::{KeptVolume, Look};
use pgpair_wire::words::shown;

use crate::observed::{AdoptionObserved, JobView, Observed};
use crate::plan::{AdoptionPlan, Plan, Verdict};
use crate::status::whole_seconds;

/// Characters of the words of a Job's program.
const WORDS: usize = 300;

/// The status of an adoption. What came of one stays.
pub(super) fn adoption(
    name: &PairName,
    observed: &Observed,
    plan: &Plan,
    old: &PgReplicaPairStatus,
) -> Option<AdoptionStatus> {
    let before = old.adoption.as_ref();
    let (Some(seen), Some(plan)) = (&observed.adoption, &plan.adoption) else {
        // Nobody asks for it any more; while the pair is held, it is not known how it goes on.
        let stays =
            |before: &&AdoptionStatus| observed.adoption.is_some() || before.phase.is(AdoptionPhase::Done);
        return before.filter(stays).cloned();
    };
    if plan.phase == AdoptionPhase::Done {
        return done(name, observed, before?);
    }
    let mut status = AdoptionStatus {
        phase: plan.phase.into(),
        message: message(name, plan),
        accept: plan.accept.clone(),
        primary: None,
        volumes: volumes(name, seen, plan),
        time: None,
    };
    if status.volumes.is_empty() {
        status.volumes = before.map(|before| before.volumes.clone()).unwrap_or_default();
    }
    Some(since(status, before, observed.now))
}

/// With a record of its own, the pair is as any other.
fn done(name: &PairName, observed: &Observed, before: &AdoptionStatus) -> Option<AdoptionStatus> {
    if before.phase.is(AdoptionPhase::Done) {
        return Some(before.clone());
    }
    // One that never came so far is over: the record is of something else.
    let record = observed.record().filter(|_| before.phase.is(AdoptionPhase::Releasing))?;
    let status = AdoptionStatus {
        phase: AdoptionPhase::Done.into(),
        primary: Some(name.instance(record.primary.instance)),
        message: format!("{}; its record of term {} is there", before.message, record.term.0),
        ..before.clone()
    };
    Some(since(status, Some(before), observed.now))
}

fn since(status: AdoptionStatus, before: Option<&AdoptionStatus>, now: Timestamp) -> AdoptionStatus {
    let same = before.filter(|before| before.phase == status.phase).and_then(|before| before.time.clone());
    AdoptionStatus { time: Some(same.unwrap_or_else(|| whole_seconds(now))), ..status }
}

fn message(name: &PairName, plan: &AdoptionPlan) -> String {
    match (&plan.verdict, plan.phase) {
        (Some(Verdict::Refuse(why)), _) => refused(*why).to_owned(),
        (Some(Verdict::Ask { why, a, b }), _) => {
            question(name, *why, (*a, *b), plan.accept.as_deref().unwrap_or_default())
        }
        (Some(Verdict::Primary { instance, other, accepted }), _) => {
            answer(name, *instance, *other, *accepted)
        }
        (None, AdoptionPhase::Waiting) => "waits until no pod of the pair uses its volumes".to_owned(),
        (None, _) => "looks at the volumes of both instances; nothing on them is changed".to_owned(),
    }
}

fn answer(name: &PairName, primary: InstanceId, other: Option<Other>, accepted: Option<Loss>) -> String {
    let (me, peer) = (name.instance(primary), name.instance(primary.peer()));
    let why = match (other, accepted) {
        (_, Some(Loss::Nothing)) => format!("as a person has chosen; {peer} has nothing that it lacks"),
        (_, Some(Loss::Bytes(n))) => format!(
            "as a person has chosen; up to {n} bytes that only {peer} has are not in it (kept in lost/ on its archive volume)"
        ),
        (_, Some(Loss::Unknown)) => "as a person has chosen; what is lost by that is not known".to_owned(),
        (Some(Other::Follow), None) => format!("its WAL contains all of that of {peer}, which follows"),
        (Some(Other::Rewind), None) => {
            format!(
                "what {peer} has beyond it was never acknowledged, and is kept aside when that is rewound"
            )
        }
        (Some(Other::Rebuild), None) => format!("both were closed in order; {peer} is copied from it"),
        (None, None) => "it is the only one".to_owned(),
    };
    format!("{me} becomes the primary: {why}")
}

/// Why a person is asked.
fn doubt(why: Doubt) -> &'static str {
    match why {
        Doubt::BothMayHaveAcknowledged => {
            "each volume has WAL that the other one lacks, and either may have been acknowledged to clients"
        }
        Doubt::OtherNotThere => "only one volume is there, and what the other one had is not known",
        Doubt::OtherMayHaveBeenForced => {
            "only one volume is there: it was the primary without a standby and has all that it acknowledged, but whether a person has made the \
             other one primary since is not known"
        }
        Doubt::EndUnknown => "it is not known where the WAL of a volume ends",
        Doubt::TimelineWithTwoPasts => "one timeline number has two pasts",
    }
}

/// The question for a person, with what each choice loses and how it is made.
pub(crate) fn question(
    name: &PairName,
    why: Doubt,
    (a, b): (Option<Loss>, Option<Loss>),
    accept: &str,
) -> String {
    let choice = |i: InstanceId, loss: Option<Loss>| {
        let (me, peer) = (name.instance(i), name.instance(i.peer()));
        loss.map(|loss| match loss {
            Loss::Nothing => format!("{me} loses nothing"),
            Loss::Bytes(n) => format!("{me} loses up to {n} bytes that only {peer} has"),
            Loss::Unknown => format!("{me} loses what is not known"),
        })
    };
    let choices: Vec<String> =
        [choice(InstanceId::A, a), choice(InstanceId::B, b)].into_iter().flatten().collect();
    format!(
        "{}. A choice of {}. Choose: kubectl pgpair adopt {} --primary=a|b --accept={accept}",
        doubt(why),
        choices.join(", of "),
        name.name
    )
}

/// Why nothing is done.
pub(crate) fn refused(why: Refusal) -> &'static str {
    match why {
        Refusal::Nothing => {
            "the volumes hold no data to take up: remove spec.bootstrap.adopt to make a new pair, or restore the claims of the earlier one"
        }
        Refusal::InUse => "a process uses one of the volumes: it is looked at again when that has ended",
        Refusal::OtherSystem => {
            "the volumes are of two clusters (system identifiers): delete the claims of the instance that is not wanted"
        }
        Refusal::OtherLineage => {
            "the volumes are of two pairs that were recovered from one: delete the claims of the instance that is not wanted"
        }
        Refusal::OtherVersion => {
            "the volumes are of two major versions of PostgreSQL: delete the claims of the instance that is not wanted"
        }
        Refusal::SameVolume => {
            "one volume is a copy of the other: delete the claims of the instance that has the older one"
        }
    }
}

fn volumes(name: &PairName, seen: &AdoptionObserved, plan: &AdoptionPlan) -> Vec<FoundVolumeStatus> {
    let looked = |i: InstanceId| match &seen.instance(i).look {
        JobView::Done(_, look) => Some(look),
        JobView::Missing | JobView::Running | JobView::Failed(..) => None,
    };
    let loss = |i: InstanceId| match plan.verdict {
        Some(Verdict::Ask { a, b, .. }) => {
            if i == InstanceId::A {
                a
            } else {
                b
            }
        }
        Some(Verdict::Primary { instance, other: Some(_), accepted: None }) if i == instance => {
            Some(Loss::Nothing)
        }
        Some(Verdict::Primary { instance, accepted, .. }) if i == instance => accepted,
        Some(Verdict::Primary { .. } | Verdict::Refuse(_)) | None => None,
    };
    let status = |i: InstanceId| Some(volume(name, i, looked(i)?, looked(i.peer()), loss(i)));
    InstanceId::ALL.into_iter().filter_map(status).collect()
}

fn volume(
    name: &PairName,
    i: InstanceId,
    look: &Look,
    other: Option<&Look>,
    loss: Option<Loss>,
) -> FoundVolumeStatus {
    let found = match look {
        Look::Nothing => FoundWord::Nothing,
        Look::InUse => FoundWord::InUse,
        Look::Unreadable { .. } => FoundWord::Unreadable,
        Look::Volume(_) => FoundWord::Data,
    };
    let why = match look {
        Look::Unreadable { why } => Some(shown(why, WORDS)),
        Look::Volume(volume) => volume.end_unknown.as_deref().map(|why| shown(why, WORDS)),
        Look::Nothing | Look::InUse => None,
    };
    let status = FoundVolumeStatus {
        instance: name.instance(i),
        found: found.into(),
        why,
        ..FoundVolumeStatus::default()
    };
    let Look::Volume(volume) = look else { return status };
    let seconds = other.and_then(|other| seconds_behind(volume, other)).filter(|_| loss.is_some());
    FoundVolumeStatus {
        volume: Some(volume.volume_id.to_string()),
        system_identifier: Some(volume.system_identifier.to_string()),
        term: volume.state.map(|state| i64::from(state.term.0)),
        primary: volume.state.map(|state| state.primary),
        timeline: Some(i64::from(volume.history.timeline.0)),
        end_lsn: volume.end.map(|end| end.to_string()),
        written_time: volume.written_ms.and_then(written),
        loses_bytes: match loss {
            Some(Loss::Nothing) => Some(0),
            Some(Loss::Bytes(n)) => Some(number(n)),
            Some(Loss::Unknown) | None => None,
        },
        loses_seconds: seconds,
        ..status
    }
}

/// For how long the other one was written to after this one.
fn seconds_behind(volume: &KeptVolume, other: &Look) -> Option<i64> {
    let Look::Volume(other) = other else { return None };
    let behind = other.written_ms?.saturating_sub(volume.written_ms?);
    Some(number(behind / 1000))
}

fn written(ms: u64) -> Option<Time> {
    Timestamp::from_second(i64::try_from(ms / 1000).ok()?).ok().map(Time)
}
