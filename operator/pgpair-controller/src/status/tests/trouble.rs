//! What keeps a pair from running, and when it is ready.

use pgpair_core::timeline::TimelineId;
use pgpair_wire::report::{ArchiveReport, HistoryPlace, TwoPasts};

use super::*;

#[test]
fn a_pair_is_ready_only_if_its_write_service_leads_to_the_primary() {
    let ready = |rw: SliceView| told(&Observed { rw, ..steady() }, ConditionType::Ready);
    let not_yet = ("False".to_owned(), "EndpointPending".to_owned());
    assert_eq!(ready(SliceView::Missing), not_yet);
    assert_eq!(ready(SliceView::Present(Vec::new())), not_yet);
    assert_eq!(ready(SliceView::Present(vec!["10.0.0.2".into()])), not_yet, "it leads to the standby");
    assert_eq!(ready(SliceView::Present(vec!["10.0.0.1".into()])).0, "True");
    let mut missed = steady();
    (missed.a.pod, missed.a.report) = (None, ReportView::Stale(Box::new(report(A, PostgresState::Primary))));
    assert_eq!(
        told(&missed, ConditionType::Ready).0,
        "True",
        "a pod that is not seen for a moment is not news"
    );
}

#[test]
fn what_keeps_a_pod_from_running_is_in_the_status() {
    let refused = Some(PodTrouble::Refused("exceeded quota: team".into()));
    let mut new = Observed { lease: LeaseView::Present(Record::initial()), ..empty() };
    new.a.trouble.clone_from(&refused);
    let status = status_of(&new);
    let ready = condition(&status, ConditionType::Ready).unwrap();
    assert_eq!(ready.reason, "Bootstrapping");
    assert!(
        ready.message.ends_with("being made: pod orders-a-0 cannot be created: exceeded quota: team"),
        "{}",
        ready.message
    );
    assert_eq!(told(&new, ConditionType::Degraded), ("True".into(), "PodRefused".into()));
    let mut standby = steady().solo();
    (standby.b.trouble, standby.b.report) = (refused, ReportView::Unreachable);
    let status = status_of(&standby);
    let failover = condition(&status, ConditionType::FailoverReady).unwrap();
    assert!(
        failover.message.contains("orders-b does not answer: pod orders-b-0 cannot be created"),
        "{}",
        failover.message
    );
    assert_eq!(
        told(&standby, ConditionType::Degraded).1,
        "PodRefused",
        "it comes before the silence that it causes"
    );
}

#[test]
fn what_an_agent_cannot_do_before_there_is_data_says_what_is_left_to_do() {
    let mut new = Observed { lease: LeaseView::Present(Record::initial()), ..empty() };
    let mut report = report(A, PostgresState::Down);
    (report.trouble, report.system_identifier) =
        (Some("no data directory can be made: initdb: error: locale".into()), None);
    new.a.report = ReportView::Fresh(Box::new(report));
    let status = status_of(&new);
    let degraded = condition(&status, ConditionType::Degraded).unwrap();
    assert_eq!(degraded.reason, "InstanceInTrouble");
    assert!(
        degraded.message.contains("initdb: error: locale") && degraded.message.contains("create it again"),
        "{}",
        degraded.message
    );
    assert!(condition(&status, ConditionType::Ready).unwrap().message.contains("initdb: error: locale"));
}

#[test]
fn an_image_of_another_major_version_than_the_spec_names_is_told() {
    let spec = |version| {
        let mut observed = steady();
        observed.config.bootstrap.version = version;
        told(&observed, ConditionType::Degraded)
    };
    assert_eq!(spec(Some(16)), ("True".into(), "VersionMismatch".into()));
    assert_eq!(spec(Some(17)).0, "False");
    assert_eq!(spec(None).0, "False");
}

#[test]
fn slots_that_a_failover_would_lose_are_told_beside_that_the_standby_may_take_over() {
    let mut observed = steady();
    if let ReportView::Fresh(report) = &mut observed.a.report {
        report.logical_slots = vec!["audit".into(), "copied".into(), "search".into()];
    }
    if let ReportView::Fresh(report) = &mut observed.b.report {
        report.logical_slots = vec!["copied".into()];
    }
    assert_eq!(told(&observed, ConditionType::FailoverReady), ("True".into(), "Paired".into()));
    let message = condition(&status_of(&observed), ConditionType::FailoverReady).unwrap().message.clone();
    assert!(message.contains("no copy: audit, search.") && message.contains("failover = true"), "{message}");
}

#[test]
fn two_instances_on_one_node_are_told() {
    let mut shared = steady();
    if let Some(pod) = &mut shared.b.pod {
        pod.node = Some("node-a".into());
    }
    let failover = |observed: &Observed| {
        condition(&status_of(observed), ConditionType::FailoverReady).unwrap().message.clone()
    };
    assert_eq!(told(&shared, ConditionType::Degraded), ("True".into(), "SameNode".into()));
    assert!(failover(&shared).contains("both instances run on node node-a"));
    let preferred = Observed { apart_by: None, ..shared };
    assert_eq!(told(&preferred, ConditionType::Degraded).0, "False");
    assert!(failover(&preferred).contains("both instances run on node node-a"));
    assert!(!failover(&steady()).contains("node"));
}

#[test]
fn an_archive_volume_that_does_not_answer_is_told_and_its_numbers_are_not() {
    let silent = ArchiveReport {
        failures: Some(0),
        unknown: Some("the archive volume has not answered for more than 5s".into()),
        ..ArchiveReport::default()
    };
    let status = over(&status_of(&steady()), &with_primary(|r| r.archive = silent));
    let told = condition(&status, ConditionType::ArchiveHealthy).unwrap();
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", "ArchiveFailing"));
    assert!(told.message.ends_with("cannot archive: the archive volume has not answered for more than 5s"));
    let archive = status.archive.iter().find(|a| told.message.starts_with(&a.instance)).unwrap();
    assert_eq!((archive.last_segment.as_ref(), archive.backlog_segments), (None, None));
}

#[test]
fn a_timeline_with_two_pasts_is_told_before_what_else_is_wrong_with_an_archive() {
    let used_twice = ArchiveReport {
        failures: Some(3),
        two_pasts: Some(TwoPasts {
            timeline: TimelineId(4),
            one: HistoryPlace::InUse,
            other: HistoryPlace::PeersArchive,
        }),
        ..ArchiveReport::default()
    };
    let status = over(&status_of(&steady()), &with_primary(|r| r.archive = used_twice));
    let told = condition(&status, ConditionType::ArchiveHealthy).unwrap();
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", "TimelineUsedTwice"));
    let expected = "timeline 4 has one past in the history in use of orders-a and another one in the archive of the other instance: ";
    assert!(told.message.starts_with(expected), "{}", told.message);
}

#[test]
fn an_archiver_that_hangs_is_told_of_the_standby_too() {
    let stalled = || ArchiveReport {
        failures: Some(0),
        stalled: Some("000000010000000000000007".into()),
        ..ArchiveReport::default()
    };
    let of_standby = || {
        let mut observed = steady();
        if let ReportView::Fresh(report) = &mut observed.b.report {
            report.archive = stalled();
        }
        observed
    };
    for (observed, instance) in
        [(with_primary(|r| r.archive = stalled()), "orders-a"), (of_standby(), "orders-b")]
    {
        let status = over(&status_of(&steady()), &observed);
        let told = condition(&status, ConditionType::ArchiveHealthy).unwrap();
        assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", "ArchiveBacklog"));
        assert!(
            told.message.contains(&format!("000000010000000000000007 of {instance}")),
            "{}",
            told.message
        );
    }
}
