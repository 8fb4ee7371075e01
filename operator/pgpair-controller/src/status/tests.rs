use std::time::Duration;

use pgpair_api::order::UserOrderKind;
use pgpair_api::word::Word;
use pgpair_core::authority::messages::EvidenceKind;
use pgpair_core::authority::{FailoverCause, FailoverSignal};
use pgpair_core::ids::InstanceId::{A, B};
use pgpair_core::ids::Term;
use pgpair_core::lsn::Lsn;
use pgpair_core::record::Record;
use pgpair_wire::report::{FailoverReport, FailoverStep, Need, PasswordReport, RejoinKind};
use pgpair_wire::seed::SeedProgress;
use serde_json::json;

use super::*;
use crate::decide::decide;
use crate::events::of_change;
use crate::fixtures::{empty, lag as lag_of, name, now, report, steady};
use crate::observed::{LeaseView, SeedJob, SliceView};
use crate::trouble::PodTrouble;

mod adoption;
mod certificate;
mod pace;
mod roles;
mod trouble;

fn status_of(observed: &Observed) -> PgReplicaPairStatus {
    over(&PgReplicaPairStatus::default(), observed)
}

/// As the next reconcile sees it: written to the API server and read back.
fn over(old: &PgReplicaPairStatus, observed: &Observed) -> PgReplicaPairStatus {
    let status = compute(&name(), Some(3), observed, &decide(observed), None, old);
    serde_json::from_value(serde_json::to_value(status).unwrap()).unwrap()
}

fn later(mut observed: Observed, seconds: i64) -> Observed {
    observed.now = Timestamp::from_second(now().as_second() + seconds).unwrap();
    observed
}

fn with_primary(change: impl FnOnce(&mut InstanceReport)) -> Observed {
    let mut observed = steady();
    let mut primary = report(A, PostgresState::Primary);
    change(&mut primary);
    observed.a.report = ReportView::Fresh(Box::new(primary));
    observed
}

const LONG_AGO: Option<Duration> = Some(Duration::from_secs(3600));
const JUST_NOW: Option<Duration> = Some(Duration::from_millis(100));
const A_SECOND_AGO: Option<Duration> = Some(Duration::from_secs(1));

fn failover_of_term_3(report: &mut InstanceReport) {
    let at = now().as_millisecond();
    report.last_failover = Some(FailoverReport {
        evidence: None,
        term: Term(3),
        cause: FailoverCause::PromiseLapsed,
        signals: vec![FailoverSignal::Silent, FailoverSignal::StreamEnded],
        steps: vec![
            (FailoverStep::LastHeartbeat, at),
            (FailoverStep::CasWon, at + 5123),
            (FailoverStep::Promoted, at + 5301),
            (FailoverStep::Endpoint, at + 5320),
        ],
    });
}

#[test]
fn the_status_of_a_pair_as_it_should_be() {
    insta::assert_yaml_snapshot!(status_of(&steady()));
}

#[test]
fn one_missed_answer_is_not_news_and_silence_is() {
    let old = status_of(&steady());
    let mut missed = steady();
    missed.b.report = ReportView::Stale(Box::new(report(B, PostgresState::Standby)));
    assert!(!is_worth_a_write(&old, &over(&old, &missed), LONG_AGO));
    let mut missed = steady();
    missed.a.report = ReportView::Stale(Box::new(report(A, PostgresState::Primary)));
    missed.a.last_report = Some((Box::new(report(A, PostgresState::Primary)), Duration::from_millis(3900)));
    assert!(!is_worth_a_write(&old, &over(&old, &missed), LONG_AGO), "nor of the primary");
    missed.a.last_report = Some((Box::new(report(A, PostgresState::Primary)), Duration::from_secs(4)));
    assert_eq!(told(&missed, ConditionType::Ready).0, "False");
    let mut silent = steady();
    silent.b.report = ReportView::Unreachable;
    let new = over(&old, &silent);
    assert!(is_worth_a_write(&old, &new, A_SECOND_AGO));
    assert_eq!(new.instances[1].state.as_str(), "Unreachable");
    assert_eq!(new.instances[1].flush_lsn, old.instances[1].flush_lsn, "what was known is kept");
}

#[test]
fn the_transition_time_moves_only_with_the_status() {
    let old = status_of(&steady());
    let new = over(&old, &later(steady().solo(), 60));
    let since = |s: &PgReplicaPairStatus, t| condition(s, t).unwrap().last_transition_time.0;
    assert_eq!(since(&new, ConditionType::Ready), since(&old, ConditionType::Ready));
    assert_eq!(since(&new, ConditionType::FailoverReady).as_second(), now().as_second() + 60);
}

#[test]
fn problems_become_degraded_with_what_to_do() {
    let mut gone = steady();
    gone.lease = crate::observed::LeaseView::Missing;
    let status = status_of(&gone);
    let degraded = condition(&status, ConditionType::Degraded).unwrap();
    assert_eq!((degraded.status.as_str(), degraded.reason.as_str()), ("True", "RecordMissing"));
    assert!(degraded.message.contains("Set spec.bootstrap.adopt to {}"));
    let blocked = status_of(&steady().b_needs(Need::Seed));
    assert_eq!(condition(&blocked, ConditionType::Degraded).unwrap().reason, "RebuildBlocked");
}

#[test]
fn a_failover_is_told_once_with_cause_steps_and_gap() {
    let old = status_of(&steady());
    let new = over(&old, &with_primary(failover_of_term_3));
    let told = of_change(&old, &new);
    assert_eq!(told.len(), 1);
    assert_eq!(
        told[0].note,
        "orders-a took over from orders-b in term 3 (PromiseLapsed, gap about 5.3 s): \
         LastHeartbeat +0 ms, CasWon +5123 ms, Promoted +5301 ms, Endpoint +5320 ms"
    );
    assert!(of_change(&new, &new).is_empty());
}

#[test]
fn pairing_and_its_loss_are_told() {
    let reasons = |old: &Observed, new: &Observed| {
        of_change(&status_of(old), &over(&status_of(old), new))
            .into_iter()
            .map(|t| t.shown)
            .collect::<Vec<_>>()
    };
    assert_eq!(reasons(&steady().solo(), &steady()), ["PairReady"]);
    assert_eq!(reasons(&steady(), &steady().solo()), ["FailoverNotReady"]);
    assert_eq!(reasons(&empty(), &empty()), Vec::<String>::new());
}

#[test]
fn a_status_without_a_report_has_no_zeros() {
    let status = serde_json::to_value(status_of(&empty())).unwrap();
    assert_eq!(
        status["instances"][0],
        json!({"name": "orders-a", "role": "Unknown", "ready": false, "state": "NeverSeen"})
    );
    assert!(status.get("lag").is_none() && status.get("term").is_none());
}

fn told(observed: &Observed, type_: ConditionType) -> (String, String) {
    let status = status_of(observed);
    let condition = condition(&status, type_).unwrap();
    (condition.status.clone(), condition.reason.clone())
}

#[test]
fn why_the_standby_may_not_take_over_is_told_with_its_number() {
    let lagging = |bytes| {
        let mut observed = with_primary(|r| r.standby = Some(lag_of(bytes))).solo();
        observed.config.max_lag_bytes = 16 << 20;
        observed
    };
    let status = status_of(&lagging(48 << 20));
    let far = condition(&status, ConditionType::FailoverReady).unwrap();
    assert_eq!((far.status.as_str(), far.reason.as_str()), ("False", "StandbyLags"));
    assert!(far.message.contains("orders-b lags 48 MiB over maxLag 16 MiB"), "{}", far.message);
    let mut cut = lagging(48 << 20);
    if let ReportView::Fresh(report) = &mut cut.a.report {
        report.standby.as_mut().unwrap().streaming = false;
    }
    let cut = status_of(&cut);
    let message = &condition(&cut, ConditionType::FailoverReady).unwrap().message;
    assert!(message.contains("lags 48 MiB over maxLag 16 MiB, and does not stream"), "{message}");
    let reason = |observed: &Observed| told(observed, ConditionType::FailoverReady).1;
    assert_eq!(reason(&lagging(1 << 20)), "StandbyCatchesUp");
    assert_eq!(
        reason(&with_primary(|r| r.standby.as_mut().unwrap().streaming = false).solo()),
        "StandbyNotStreaming"
    );
    let seeding = steady().solo().b_waits_for(1, &[(1, SeedState::Running)]);
    assert_eq!(reason(&seeding), "StandbySeeding");
    let mut gone = steady().solo();
    gone.b.report = ReportView::Unreachable;
    assert_eq!(reason(&gone), "StandbyNotRunning");
    let mut fenced = steady().solo();
    let mut down = report(B, PostgresState::Down);
    down.authority.refusal = Some("Fenced".into());
    fenced.b.report = ReportView::Fresh(Box::new(down));
    assert_eq!(reason(&fenced), "Fenced");
    let mut by_hand = steady();
    by_hand.config.automatic = false;
    assert_eq!(told(&by_hand, ConditionType::FailoverReady), ("False".into(), "AutomaticOff".into()));
    let mut shut_out = steady();
    let ReportView::Fresh(standby) = &mut shut_out.b.report else { panic!() };
    standby.login_refused = Some("role \"postgres\" is not permitted to log in".into());
    assert_eq!(told(&shut_out, ConditionType::FailoverReady), ("False".into(), "AgentShutOut".into()));
    let mut full = with_primary(|r| r.login_refused = Some("sorry, too many clients already".into())).solo();
    let ReportView::Fresh(standby) = &mut full.b.report else { panic!() };
    standby.login_refused = None;
    assert_eq!(told(&full, ConditionType::FailoverReady), ("False".into(), "AgentShutOut".into()));
}

#[test]
fn what_a_loss_would_cost_is_told_honestly() {
    use pgpair_api::status::RpoBasis::{Lag, NotProtected, Synchronous, Unknown};
    let rpo =
        |observed: &Observed| status_of(observed).rpo.map(|r| (r.basis.known().unwrap(), r.bytes)).unwrap();
    assert_eq!(rpo(&steady()), (Synchronous, Some(0)));
    let behind = with_primary(|r| r.standby = Some(lag_of(4096)));
    let mut asynchronous = behind.clone();
    if let crate::observed::LeaseView::Present(record) = &mut asynchronous.lease {
        record.durability = pgpair_core::authority::Durability::Async;
    }
    assert_eq!(rpo(&asynchronous), (Lag, Some(4096)));
    assert_eq!(rpo(&behind.clone().solo()), (NotProtected, Some(4096)));
    assert_eq!(rpo(&steady().a_silent()), (Unknown, None));
    let causes = |observed: &Observed| {
        let rto = status_of(observed).rto.unwrap_or_default();
        rto.estimates.into_iter().map(|e| (e.cause.to_string(), e.seconds)).collect::<Vec<_>>()
    };
    let expected =
        [("PostgresKilled", 0.5), ("PodDeleted", 1.0), ("ContainerKilled", 0.7), ("NodeLost", 5.6)];
    assert_eq!(causes(&steady()), expected.map(|(c, s)| (c.to_owned(), s)));
    assert_eq!(causes(&steady().solo()), []);
    let mut by_hand = steady();
    by_hand.config.automatic = false;
    assert_eq!(causes(&by_hand), []);
}

#[test]
fn the_lag_outlives_its_primarys_silence_and_nothing_else() {
    let behind = with_primary(|r| r.standby = Some(lag_of(48 << 20)));
    let told = status_of(&behind.clone().solo());
    let kept = over(&told, &later(steady().solo().a_silent(), 60));
    assert_eq!(kept.lag, told.lag);
    let alone = over(&status_of(&behind), &later(steady().solo().a_silent(), 60));
    assert_eq!(alone.lag, None, "what was written since it went on alone is not in it");
    let mut successor = steady().solo();
    if let crate::observed::LeaseView::Present(record) = &mut successor.lease {
        (record.term, record.primary.instance) = (Term(4), B);
    }
    assert_eq!(over(&told, &successor).lag, None, "of another primary");
}

fn rejoined(mut observed: Observed, term: u32, bytes: u64) -> Observed {
    let mut standby = report(B, PostgresState::Standby);
    standby.rejoin = Some(pgpair_wire::report::RejoinReport {
        term: Term(term),
        how: RejoinKind::Rewound,
        branch_bytes: bytes,
        branch: Some((Lsn(0x500_0000), Lsn(0x500_0000 + bytes))),
    });
    observed.b.report = ReportView::Fresh(Box::new(standby));
    observed
}

#[test]
fn what_a_failover_lost_is_not_known_until_the_old_primary_tells_it() {
    let before = over(&status_of(&steady()), &with_primary(failover_of_term_3));
    assert_eq!(before.last_failover.as_ref().unwrap().bytes_lost, None);
    let other = over(&before, &rejoined(with_primary(failover_of_term_3), 2, 96));
    assert_eq!(other.last_failover.as_ref().unwrap().bytes_lost, None, "that was another failover");
    let after = over(&before, &rejoined(with_primary(failover_of_term_3), 3, 96));
    let failover = after.last_failover.clone().unwrap();
    assert_eq!((failover.bytes_lost, failover.rejoin), (Some(96), Some(RejoinKind::Rewound.into())));
    assert_eq!(
        (failover.lost_from.as_deref(), failover.lost_to.as_deref()),
        (Some("0/5000000"), Some("0/5000060"))
    );
    assert_eq!(after.rpo.as_ref().unwrap().last_measured_bytes, Some(96));
    let told: Vec<_> = of_change(&before, &after).into_iter().map(|t| t.shown).collect();
    assert_eq!(told, ["LossMeasured"]);
    let later = over(&after, &steady());
    assert_eq!(later.last_failover, after.last_failover, "known once, known for good");
}

#[test]
fn the_proof_that_opened_a_failover_is_what_the_agent_says() {
    for told in [Some(EvidenceKind::VolumeLock), None] {
        let mut observed = with_primary(|r| {
            failover_of_term_3(r);
            if let Some(f) = &mut r.last_failover {
                (f.cause, f.evidence) = (FailoverCause::Evidence, told);
            }
        });
        // One that the operator has given proves nothing: it may have come second, or have named another process.
        let (by, dead) = (pgpair_core::ids::Incarnation(7), pgpair_core::ids::Incarnation(1));
        observed.taken.insert(crate::observed::Taken::new(by, dead, EvidenceKind::OutOfServiceTaint));
        let failover = status_of(&observed).last_failover.unwrap();
        let expected = (FailoverCause::Evidence.into(), told.map(Word::from));
        assert_eq!((failover.cause, failover.evidence), expected);
    }
}

fn with_space(free: u64, full_in: Option<u64>) -> Observed {
    with_primary(|r| (r.space.data_free, r.space.full_in_seconds) = (Some(free << 20), full_in))
}

#[test]
fn space_is_told_before_it_ends_and_does_not_flap() {
    let health = |old: &PgReplicaPairStatus, observed: &Observed| {
        let status = over(old, observed);
        let told =
            condition(&status, ConditionType::StorageHealthy).map(|c| (c.status.clone(), c.reason.clone()));
        (told.unwrap().1, status)
    };
    let fresh = PgReplicaPairStatus::default();
    assert_eq!(health(&fresh, &with_space(6000, None)).0, "SpaceLeft");
    let (reason, low) = health(&fresh, &with_space(1023, None));
    assert_eq!(reason, "SpaceLow", "below a tenth of 10 GiB");
    assert_eq!(health(&low, &with_space(1100, None)).0, "SpaceLow", "not enough yet");
    assert_eq!(health(&low, &with_space(1500, None)).0, "SpaceLeft");
    let (reason, filling) = health(&fresh, &with_space(6000, Some(30 * 60)));
    assert_eq!(reason, "FillingUp");
    assert_eq!(health(&filling, &with_space(6000, Some(60 * 60))).0, "FillingUp");
    assert_eq!(health(&fresh, &with_space(6000, Some(60 * 60))).0, "SpaceLeft");
    assert_eq!(of_change(&fresh, &low).iter().filter(|t| t.shown == "SpaceLow").count(), 1);
}

#[test]
fn what_of_the_spec_is_not_in_effect_is_told() {
    assert_eq!(told(&steady(), ConditionType::UpdatePending), ("False".into(), "UpToDate".into()));
    let mut configured = steady();
    configured.config.generation = 4;
    assert_eq!(told(&configured, ConditionType::UpdatePending), ("True".into(), "ConfigPending".into()));
    let restart = with_primary(|r| r.pending_restart = vec!["shared_buffers".into()]).solo();
    let status = status_of(&restart);
    let pending = condition(&status, ConditionType::UpdatePending).unwrap();
    assert_eq!(pending.reason, "RestartPending");
    assert!(
        pending.message.contains("shared_buffers")
            && pending.message.contains("waits until the pair is Paired")
    );
    assert_eq!(status.instances[0].pending_restart, ["shared_buffers"]);
}

#[test]
fn an_invalid_spec_is_told_and_everything_else_too() {
    let invalid = Observed { invalid: Some("spec.readLag is wrong".into()), ..steady().a_silent() };
    let status = over(&status_of(&steady()), &invalid);
    let degraded = condition(&status, ConditionType::Degraded).unwrap();
    assert_eq!(
        (degraded.reason.as_str(), degraded.message.as_str()),
        ("InvalidSpec", "spec.readLag is wrong")
    );
    assert_eq!(condition(&status, ConditionType::Ready).unwrap().status, "False");
    let shown: Vec<_> = of_change(&status_of(&steady()), &status).into_iter().map(|t| t.shown).collect();
    assert_eq!(shown, ["InvalidSpec"]);
}

#[test]
fn what_an_agent_tries_again_and_again_is_told() {
    let refused = "cannot run spec.bootstrap.postInitSQL: ERROR: syntax error";
    let status = status_of(&with_primary(|r| r.trouble = Some(refused.into())));
    let degraded = condition(&status, ConditionType::Degraded).unwrap();
    assert_eq!((degraded.status.as_str(), degraded.reason.as_str()), ("True", "InstanceInTrouble"));
    assert_eq!(degraded.message, format!("orders-a: {refused}"));
}

#[test]
fn data_of_an_earlier_pair_is_told_with_what_to_do() {
    let observed = with_primary(|r| {
        r.postgres.state = PostgresState::Down;
        r.authority.refusal = Some("ForeignRecord".into());
    });
    let status = status_of(&observed);
    let degraded = condition(&status, ConditionType::Degraded).unwrap();
    assert_eq!(degraded.reason, "ForeignData");
    for words in ["data-orders-a-0", "archive-orders-a-0", "system identifier 99", "nothing is done with it"]
    {
        assert!(degraded.message.contains(words), "{words}: {}", degraded.message);
    }
}

#[test]
fn the_words_of_a_failed_copy_are_shown() {
    let failed = SeedState::Failed { at: now(), message: "BackoffLimitExceeded".into() };
    let mut observed = steady().solo().b_waits_for(1, &[(1, failed)]);
    let why = "the data directory belongs to the cluster 98".into();
    observed.b.jobs[0].failure = Some(crate::observed::SeedFailure { why, kept: true });
    let status = status_of(&observed);
    let seeding = condition(&status, ConditionType::Seeding).unwrap();
    assert!(seeding.message.contains("belongs to the cluster 98"), "{}", seeding.message);
}

#[test]
fn an_order_is_told_step_by_step_and_counts_as_sent_when_it_is_announced() {
    let told = |reason, state| crate::plan::OrderProgress {
        id: "x-1777636795".into(),
        kind: UserOrderKind::Switchover.into(),
        instance: Some(A),
        state,
        reason,
        message: "m".into(),
        estimated_loss: None,
    };
    use pgpair_api::status::OrderState::{Done, Running};
    let write = |old: &PgReplicaPairStatus, told| {
        compute(&name(), Some(3), &steady(), &decide(&steady()), Some(&told), old)
    };
    let old = status_of(&steady());
    let announced = write(&old, told(OrderStage::Announced.into(), Running));
    assert_eq!(announced.order.as_ref().unwrap().last_sent.as_deref(), Some("x-1777636795"));
    let accepted = write(&announced, told(OrderStage::Accepted.into(), Running));
    let done = write(&accepted, told(OrderStage::CarriedOut.into(), Done));
    assert_eq!(done.order.as_ref().unwrap().last_sent.as_deref(), Some("x-1777636795"));
    let events = |a, b| of_change(a, b).into_iter().map(|t| t.shown).collect::<Vec<_>>();
    assert_eq!(events(&old, &announced), ["OrderAnnounced"]);
    assert_eq!(events(&announced, &accepted), Vec::<String>::new());
    assert_eq!(events(&accepted, &done), ["OrderDone"]);
    assert!(is_worth_a_write(&announced, &accepted, JUST_NOW));
}

#[test]
fn each_quarter_of_a_copy_is_told() {
    let at = |percent: i64| PgReplicaPairStatus {
        seeding: Some(SeedingStatus { job: "j".into(), percent: Some(percent), ..SeedingStatus::default() }),
        ..PgReplicaPairStatus::default()
    };
    let told = |a, b| of_change(&at(a), &at(b)).len();
    assert_eq!([told(0, 24), told(24, 25), told(25, 49), told(30, 80), told(80, 100)], [0, 1, 0, 1, 0]);
}
