//! Events: what is worth telling once. Reasons are words of this enumeration, never free text.

mod queue;

use kube::runtime::events::{Event, EventType};
use pgpair_api::events::EventReason;
use pgpair_api::names::PairName;
use pgpair_api::order::UserOrderKind;
use pgpair_api::status::{
    ConditionType, DefinitionStage, DefinitionStatus, InstanceState, OrderState, PasswordStage,
    PasswordStatus, PgReplicaPairStatus, Reason,
};
use pgpair_api::word::Word;
use pgpair_core::authority::FailoverCause;
use pgpair_core::instance::PostgresState;

use crate::plan::{Notice, Pending, RollStep};
use crate::status::condition;

pub use queue::EventQueue;

/// One Event about a pair, before it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventDraft {
    /// Why.
    pub reason: EventReason,
    /// Whether a person should look.
    pub warning: bool,
    /// The reason as shown: that of the condition where there is one.
    pub shown: String,
    /// The sentence.
    pub note: String,
}

impl EventDraft {
    /// With that sentence, shown under its own reason.
    #[must_use]
    pub fn new(reason: EventReason, warning: bool, note: String) -> EventDraft {
        EventDraft { reason, warning, shown: reason.as_str().to_owned(), note }
    }

    /// As the API wants it: a note has at most 1 kB.
    #[must_use]
    pub fn event(&self) -> Event {
        Event {
            type_: if self.warning { EventType::Warning } else { EventType::Normal },
            reason: self.shown.clone(),
            note: Some(self.note.chars().take(900).collect()),
            action: self.reason.as_str().to_owned(),
            secondary: None,
        }
    }
}

/// Events for steps that were done.
#[must_use]
pub fn of_notice(name: &PairName, notice: &Notice) -> EventDraft {
    match notice {
        Notice::Bootstrapping => EventDraft::new(
            EventReason::Bootstrapping,
            false,
            format!(
                "created the record; {} makes the first data directory",
                name.instance(pgpair_core::ids::InstanceId::A)
            ),
        ),
        Notice::Adopted(i, term) => EventDraft::new(
            EventReason::Adopted,
            false,
            format!(
                "took up the volumes of an earlier pair: {} is the primary of term {}",
                name.instance(*i),
                term.0
            ),
        ),
        Notice::RecordDiscarded => EventDraft::new(
            EventReason::Adopted,
            true,
            format!(
                "deleted lease {}, to which no volume belongs: spec.bootstrap.adopt asks to take up the volumes",
                name.lease()
            ),
        ),
        Notice::SeedingStarted(i, n) => EventDraft::new(
            EventReason::SeedingStarted,
            false,
            format!("job {} copies the primary to {}", name.seed_job(*i, *n), name.instance(*i)),
        ),
        Notice::SeedingFinished(i, n) => EventDraft::new(
            EventReason::SeedingFinished,
            false,
            format!(
                "job {} is complete (100 %); {} starts as standby",
                name.seed_job(*i, *n),
                name.instance(*i)
            ),
        ),
        Notice::PodReleased(i, pod) => EventDraft::new(
            EventReason::PodReleased,
            true,
            format!(
                "node {} does not answer, and the pod and both claims of {} were deleted: the pod is let go of, and {} is made \
                 anew on another node; what may still run on the lost one can not take over",
                pod.node.as_deref().unwrap_or("(unknown)"),
                name.instance(*i),
                name.instance(*i)
            ),
        ),
        Notice::RebuildStarted(i, why) => EventDraft::new(
            EventReason::RebuildStarted,
            true,
            format!("{} is stopped and copied anew: {why}", name.instance(*i)),
        ),
        Notice::EndpointRepaired(i) => EventDraft::new(
            EventReason::EndpointRepaired,
            true,
            format!("service {} did not lead to the primary {}, now it does", name.rw(), name.instance(*i)),
        ),
        Notice::EvidenceSent(to, evidence) => EventDraft::new(
            EventReason::EvidenceSent,
            true,
            format!(
                "told the agent of {} that incarnation {} is dead ({})",
                name.instance(*to),
                evidence.incarnation,
                <&str>::from(evidence.kind)
            ),
        ),
        Notice::Rolling(step, what) => {
            EventDraft::new(EventReason::UpdateStarted, false, of_roll(name, step, what))
        }
    }
}

fn of_roll(name: &PairName, step: &RollStep, what: &Pending) -> String {
    let why = match what {
        Pending::Pod => "the template of its pod has changed".to_owned(),
        Pending::Restart(parameters) => format!("{} need a restart", parameters.join(", ")),
    };
    match step {
        RollStep::Recreate { instance, pod, .. } => {
            format!("pod {pod} of {} is made anew: {why}", name.instance(*instance))
        }
        RollStep::Send { to, order } => {
            format!("{} is ordered: {} ({why})", name.instance(*to), order.kind.as_str())
        }
    }
}

/// Events for what changed between two written states.
#[must_use]
pub fn of_change(old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) -> Vec<EventDraft> {
    let mut told = Vec::new();
    let rose = |t: ConditionType| !holds(old, t) && holds(new, t);
    if rose(ConditionType::FailoverReady) {
        let primary = new.primary.clone().unwrap_or_default();
        told.push(EventDraft::new(
            EventReason::PairReady,
            false,
            format!("{primary} is primary, and its standby may take over"),
        ));
    }
    if holds(old, ConditionType::FailoverReady) && !holds(new, ConditionType::FailoverReady) {
        let why = condition(new, ConditionType::FailoverReady).map(|c| c.message.clone()).unwrap_or_default();
        told.push(EventDraft::new(EventReason::FailoverNotReady, true, why));
    }
    told.extend(of_failover(old, new));
    told.extend(of_rejoin(old, new));
    told.extend(of_loss(old, new));
    told.extend(of_order(old, new));
    told.extend(of_refused_settings(old, new));
    told.extend(of_seeding(old, new));
    told.extend(of_health(old, new, ConditionType::StorageHealthy, EventReason::StorageLow));
    told.extend(of_health(old, new, ConditionType::ArchiveHealthy, EventReason::ArchiveFailing));
    told.extend(of_health(old, new, ConditionType::RolesHealthy, EventReason::RolesUnhealthy));
    let type_ = ConditionType::ServerCertificate;
    told.extend(of_health(old, new, type_, EventReason::ServerCertificateUnusable));
    told.extend(of_passwords(old, new));
    told.extend(of_released("role", &old.roles, &new.roles));
    told.extend(of_released("database", &old.databases, &new.databases));
    if let Some(now) = condition(new, ConditionType::Degraded).filter(|c| c.status == "True")
        && condition(old, ConditionType::Degraded)
            .is_none_or(|c| c.status != "True" || c.reason != now.reason)
    {
        let reason =
            if now.reason == "SeedFailed" { EventReason::SeedingFailed } else { EventReason::Degraded };
        told.push(EventDraft { reason, warning: true, shown: now.reason.clone(), note: now.message.clone() });
    }
    told
}

fn of_failover(old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) -> Option<EventDraft> {
    let failover = new.last_failover.as_ref()?;
    if old.last_failover.as_ref().is_some_and(|f| f.term >= failover.term) {
        return None;
    }
    let steps: Vec<String> =
        failover.steps.iter().map(|s| format!("{} +{} ms", s.step, s.offset_ms)).collect();
    let gap = failover.gap_estimate_seconds.map(|s| format!(", gap about {s:.1} s")).unwrap_or_default();
    Some(EventDraft::new(
        EventReason::FailoverObserved,
        !failover.cause.is(FailoverCause::Switchover), // that one was ordered
        format!(
            "{} took over from {} in term {} ({}{gap}): {}",
            failover.to,
            failover.from,
            failover.term,
            failover.cause,
            steps.join(", ")
        ),
    ))
}

/// The instance that lost the primary's place in the last failover now runs as standby.
fn of_rejoin(old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) -> Option<EventDraft> {
    let former = &new.last_failover.as_ref()?.from;
    let follows = |status: &PgReplicaPairStatus| {
        let instance = status.instances.iter().find(|i| i.name == *former);
        instance.is_some_and(|i| i.state.is(InstanceState::Reported(PostgresState::Standby)))
    };
    let rejoined = !follows(old) && follows(new) && new.primary.as_ref() != Some(former);
    rejoined.then(|| {
        EventDraft::new(
            EventReason::RejoinedAsStandby,
            false,
            format!("{former} follows {}", new.primary.clone().unwrap_or_default()),
        )
    })
}

/// What the last failover lost, as soon as its old primary has told.
fn of_loss(old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) -> Option<EventDraft> {
    let failover = new.last_failover.as_ref()?;
    let lost = failover.bytes_lost?;
    let before = old.last_failover.as_ref().filter(|f| f.term == failover.term);
    if before.is_some_and(|f| f.bytes_lost.is_some()) {
        return None;
    }
    let range = failover.lost_from.as_ref().zip(failover.lost_to.as_ref());
    let range = range.map(|(from, to)| format!(", {from} to {to}, kept in lost/ on its archive volume"));
    Some(EventDraft::new(
        EventReason::LossMeasured,
        lost > 0,
        format!(
            "{} had {lost} bytes of log that the failover of term {} left behind{}",
            failover.from,
            failover.term,
            range.unwrap_or_default()
        ),
    ))
}

fn of_order(old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) -> Option<EventDraft> {
    let order = new.order.as_ref()?;
    let before = old.order.as_ref().filter(|o| o.id == order.id).map(|o| &o.state);
    if before == Some(&order.state) {
        return None;
    }
    let (reason, warning) = match order.state.known()? {
        OrderState::Running => (EventReason::OrderAnnounced, order.kind.is(UserOrderKind::Promote)),
        OrderState::Done => (EventReason::OrderDone, false),
        OrderState::Refused => (EventReason::OrderRefused, true),
        OrderState::Failed => (EventReason::OrderFailed, true),
    };
    let to = order.instance.as_ref().map(|i| format!(" to {i}")).unwrap_or_default();
    let why = order.reason.as_ref().map(Word::as_str).unwrap_or_default();
    let message = order.message.as_deref().unwrap_or_default();
    Some(EventDraft::new(reason, warning, format!("order {} {}{to}: {why}: {message}", order.kind, order.id)))
}

/// Once for each generation, and again if the words change.
fn of_refused_settings(old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) -> Option<EventDraft> {
    let refused = |status| {
        condition(status, ConditionType::UpdatePending)
            .filter(|c| c.reason == Reason::SettingsRefused.as_str())
    };
    let now = refused(new)?;
    let is_news = refused(old).is_none_or(|before| before.message != now.message);
    is_news.then(|| EventDraft::new(EventReason::SettingsRefused, true, now.message.clone()))
}

/// Each quarter of a base backup. Its beginning and its end are told by the steps themselves.
fn of_seeding(old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) -> Option<EventDraft> {
    let seeding = new.seeding.as_ref()?;
    let before = old.seeding.as_ref().filter(|s| s.job == seeding.job).and_then(|s| s.percent).unwrap_or(0);
    let percent = seeding.percent.filter(|p| p / 25 > before / 25 && *p < 100)?;
    let done = seeding.done_bytes.map(|n| format!(", {n} bytes")).unwrap_or_default();
    Some(EventDraft::new(
        EventReason::SeedingProgress,
        false,
        format!("job {} has copied {percent} %{done} to {}", seeding.job, seeding.instance),
    ))
}

/// A condition that is good when it is true has become false.
/// Passwords that came into effect in place of others.
fn of_passwords(old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) -> Vec<EventDraft> {
    let now = new.passwords.iter().filter(|one| one.state.is(PasswordStage::InEffect));
    let is_news = |one: &&PasswordStatus| {
        let before = old.passwords.iter().find(|before| before.role == one.role);
        before.is_some_and(|before| before.state != one.state)
    };
    let tell = |one: &PasswordStatus| {
        let note = format!(
            "role {} has the password of Secret {}: a login with it worked on the primary",
            one.role, one.secret
        );
        EventDraft::new(EventReason::PasswordChanged, false, note)
    };
    now.filter(is_news).map(tell).collect()
}

/// What is no longer in the spec, once.
fn of_released(kind: &str, old: &[DefinitionStatus], new: &[DefinitionStatus]) -> Vec<EventDraft> {
    let is_released = |one: &&DefinitionStatus| one.state.is(DefinitionStage::Released);
    let was = |one: &&DefinitionStatus| old.iter().filter(is_released).any(|old| old.name == one.name);
    let tell = |one: &DefinitionStatus| {
        let note = format!("{kind} {} is no longer in the spec: it stays in the database as it is", one.name);
        EventDraft::new(EventReason::DefinitionReleased, false, note)
    };
    new.iter().filter(is_released).filter(|one| !was(one)).map(tell).collect()
}

fn of_health(
    old: &PgReplicaPairStatus,
    new: &PgReplicaPairStatus,
    type_: ConditionType,
    reason: EventReason,
) -> Option<EventDraft> {
    let now = condition(new, type_).filter(|c| c.status == "False")?;
    let before = condition(old, type_);
    if before.is_some_and(|c| c.status == "False" && c.reason == now.reason) {
        return None;
    }
    Some(EventDraft { reason, warning: true, shown: now.reason.clone(), note: now.message.clone() })
}

fn holds(status: &PgReplicaPairStatus, type_: ConditionType) -> bool {
    condition(status, type_).is_some_and(|c| c.status == "True")
}
