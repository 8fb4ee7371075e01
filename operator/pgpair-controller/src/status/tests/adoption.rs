use pgpair_api::spec::AdoptChoice;
use pgpair_api::status::{AdoptionPhase, AdoptionStatus};
use pgpair_core::authority::Durable;
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_wire::adopt::{KeptVolume, Look};

use super::*;
use crate::fixtures::kept_volume;
use crate::observed::{AdoptJobs, AdoptionObserved, JobView, ReportView};

fn looked(id: u64, end: u64, written_s: u64) -> JobView<Look> {
    let volume = KeptVolume {
        written_ms: Some(written_s * 1000),
        state: Some(Durable { term: Term(4), primary: id == 2, ..Durable::default() }),
        ..kept_volume(id, end)
    };
    JobView::Done(now(), Look::Volume(volume))
}

/// b was copied from a, and then each wrote on the same timeline.
fn parted() -> Observed {
    let mut other = looked(2, 9000, 1_700_000_100);
    if let JobView::Done(_, Look::Volume(volume)) = &mut other {
        volume.history =
            TimelineHistory { timeline: TimelineId(2), ancestors: vec![(TimelineId(1), Lsn(3000))] };
    }
    let jobs = |look| AdoptJobs { look, release: JobView::Missing };
    let adoption = AdoptionObserved { choice: None, a: jobs(looked(1, 5000, 1_700_000_060)), b: jobs(other) };
    Observed { adoption: Some(adoption), ..empty() }
}

fn adoption(status: &PgReplicaPairStatus) -> &AdoptionStatus {
    status.adoption.as_ref().unwrap()
}

#[test]
fn a_question_says_what_each_choice_loses_and_how_it_is_made() {
    let status = status_of(&parted());
    let told = adoption(&status);
    assert!(told.phase.is(AdoptionPhase::Asking));
    let word = told.accept.clone().unwrap();
    let command = format!("Choose: kubectl pgpair adopt orders --primary=a|b --accept={word}");
    assert!(told.message.ends_with(&command), "{}", told.message);
    assert!(
        told.message.contains("orders-a loses up to 6000 bytes that only orders-b has"),
        "{}",
        told.message
    );
    let [a, b] = &told.volumes[..] else { panic!("{told:?}") };
    assert_eq!((a.loses_bytes, a.loses_seconds), (Some(6000), Some(40)));
    assert_eq!((b.loses_bytes, b.loses_seconds), (Some(2000), Some(0)));
    assert_eq!((b.term, b.primary, b.end_lsn.as_deref()), (Some(4), Some(true), Some("0/2328")));
    let degraded = condition(&status, ConditionType::Degraded).unwrap();
    assert_eq!((degraded.reason.as_str(), degraded.message == told.message), ("AdoptionAsks", true));
    assert_eq!(condition(&status, ConditionType::Ready).unwrap().reason, "Adopting");
}

#[test]
fn what_came_of_it_is_told_once_the_record_is_there_and_stays() {
    let mut observed = parted();
    let word = adoption(&status_of(&observed)).accept.clone().unwrap();
    observed.adoption.as_mut().unwrap().choice = Some(AdoptChoice { primary: B, accept: word });
    let releasing = status_of(&observed);
    assert!(adoption(&releasing).phase.is(AdoptionPhase::Releasing));
    assert!(adoption(&releasing).message.starts_with("orders-b becomes the primary: as a person has chosen"));
    // The Jobs are gone by then.
    let there = Observed { adoption: Some(AdoptionObserved::default()), ..later(steady(), 5) };
    let done = over(&releasing, &there);
    assert!(adoption(&done).phase.is(AdoptionPhase::Done));
    assert_eq!(adoption(&done).primary.as_deref(), Some("orders-a"), "by the record");
    assert_eq!(adoption(&done).volumes, adoption(&releasing).volumes);
    assert_eq!(over(&done, &later(there, 60)).adoption, done.adoption);
    assert_eq!(
        over(&done, &later(steady(), 60)).adoption,
        done.adoption,
        "also when nobody asks for it any more"
    );
}

#[test]
fn a_question_that_nobody_asks_any_more_is_not_told() {
    let asking = status_of(&parted());
    assert_eq!(over(&asking, &later(steady(), 5)).adoption, None);
    let there = Observed { adoption: Some(AdoptionObserved::default()), ..later(steady(), 5) };
    assert_eq!(over(&asking, &there).adoption, None, "the record is none of an adoption");
}

#[test]
fn a_pair_that_took_nothing_up_tells_of_nothing() {
    let asks = Observed { adoption: Some(AdoptionObserved::default()), ..steady() };
    assert_eq!(status_of(&asks).adoption, None);
}

#[test]
fn what_is_stopped_for_it_is_not_called_silent_and_the_pod_of_its_job_is_told() {
    let mut observed =
        Observed { lease: LeaseView::Missing, adoption: Some(AdoptionObserved::default()), ..steady() };
    (observed.a.report, observed.b.report) = (ReportView::Unreachable, ReportView::Unreachable);
    let degraded =
        |observed: &Observed| condition(&status_of(observed), ConditionType::Degraded).unwrap().clone();
    assert_eq!(degraded(&observed).reason, "AsExpected");
    observed.adoption.as_mut().unwrap().b.look = JobView::Running;
    observed.b.trouble = Some(PodTrouble::Unschedulable("no node is left".into()));
    let told = degraded(&observed);
    assert_eq!(told.reason, "PodUnschedulable");
    assert!(told.message.contains("the pod of job orders-b-adopt-look"), "{}", told.message);
    observed.adoption = None;
    observed.b.trouble = None;
    assert_eq!(degraded(&observed).reason, "RecordMissing");
}
