//! Events: what is worth telling once. Reasons are words of this enumeration, never free text.

use kube::runtime::events::{Event, EventType};
use pgpair_api::names::PairName;
use pgpair_api::status::{ConditionType, PgReplicaPairStatus};

use crate::decide::Notice;
use crate::status::condition;

/// Why an Event is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventReason {
    /// The record of term 0 was created.
    Bootstrapping,
    /// A base backup began.
    SeedingStarted,
    /// A base backup is complete.
    SeedingFinished,
    /// A base backup failed.
    SeedingFailed,
    /// A primary takes writes and the standby may take over.
    PairReady,
    /// The standby may no longer take over.
    FailoverNotReady,
    /// Another instance became primary.
    FailoverObserved,
    /// The former primary follows the new one.
    RejoinedAsStandby,
    /// An instance is to be copied anew.
    RebuildStarted,
    /// The read-write Service was put right.
    EndpointRepaired,
    /// Something needs a person.
    Degraded,
}

impl EventReason {
    /// Value of `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            EventReason::Bootstrapping => "Bootstrapping",
            EventReason::SeedingStarted => "SeedingStarted",
            EventReason::SeedingFinished => "SeedingFinished",
            EventReason::SeedingFailed => "SeedingFailed",
            EventReason::PairReady => "PairReady",
            EventReason::FailoverNotReady => "FailoverNotReady",
            EventReason::FailoverObserved => "FailoverObserved",
            EventReason::RejoinedAsStandby => "RejoinedAsStandby",
            EventReason::RebuildStarted => "RebuildStarted",
            EventReason::EndpointRepaired => "EndpointRepaired",
            EventReason::Degraded => "Degraded",
        }
    }
}

/// One Event about a pair, before it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Why.
    pub reason: EventReason,
    /// Whether a person should look.
    pub warning: bool,
    /// The reason as shown: that of the condition where there is one.
    pub shown: String,
    /// The sentence.
    pub note: String,
}

impl Told {
    fn new(reason: EventReason, warning: bool, note: String) -> Told {
        Told { reason, warning, shown: reason.as_str().to_owned(), note }
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
pub fn of_notice(name: &PairName, notice: &Notice) -> Told {
    match notice {
        Notice::Bootstrapping => Told::new(
            EventReason::Bootstrapping,
            false,
            format!(
                "created the record; {} makes the first data directory",
                name.instance(pgpair_core::ids::InstanceId::A)
            ),
        ),
        Notice::SeedingStarted(i, n) => Told::new(
            EventReason::SeedingStarted,
            false,
            format!("job {} copies the primary to {}", name.seed_job(*i, *n), name.instance(*i)),
        ),
        Notice::SeedingFinished(i, n) => Told::new(
            EventReason::SeedingFinished,
            false,
            format!(
                "job {} is complete (100 %); {} starts as standby",
                name.seed_job(*i, *n),
                name.instance(*i)
            ),
        ),
        Notice::RebuildStarted(i, why) => Told::new(
            EventReason::RebuildStarted,
            true,
            format!("{} is stopped and copied anew: {why}", name.instance(*i)),
        ),
        Notice::EndpointRepaired(i) => Told::new(
            EventReason::EndpointRepaired,
            true,
            format!("service {} did not lead to the primary {}, now it does", name.rw(), name.instance(*i)),
        ),
    }
}

/// Events for what changed between two written states.
#[must_use]
pub fn of_change(old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) -> Vec<Told> {
    let mut told = Vec::new();
    let rose = |t: ConditionType| !holds(old, t) && holds(new, t);
    if rose(ConditionType::FailoverReady) {
        let primary = new.primary.clone().unwrap_or_default();
        told.push(Told::new(
            EventReason::PairReady,
            false,
            format!("{primary} is primary, and its standby may take over"),
        ));
    }
    if holds(old, ConditionType::FailoverReady) && !holds(new, ConditionType::FailoverReady) {
        let why = condition(new, ConditionType::FailoverReady).map(|c| c.message.clone()).unwrap_or_default();
        told.push(Told::new(EventReason::FailoverNotReady, true, why));
    }
    told.extend(of_failover(old, new));
    told.extend(of_rejoin(old, new));
    if let Some(now) = condition(new, ConditionType::Degraded).filter(|c| c.status == "True")
        && condition(old, ConditionType::Degraded)
            .is_none_or(|c| c.status != "True" || c.reason != now.reason)
    {
        let reason =
            if now.reason == "SeedFailed" { EventReason::SeedingFailed } else { EventReason::Degraded };
        told.push(Told { reason, warning: true, shown: now.reason.clone(), note: now.message.clone() });
    }
    told
}

fn of_failover(old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) -> Option<Told> {
    let failover = new.last_failover.as_ref()?;
    if old.last_failover.as_ref().is_some_and(|f| f.term >= failover.term) {
        return None;
    }
    let steps: Vec<String> =
        failover.steps.iter().map(|s| format!("{} +{} ms", s.step, s.offset_ms)).collect();
    let gap = failover.gap_estimate_seconds.map(|s| format!(", gap about {s:.1} s")).unwrap_or_default();
    Some(Told::new(
        EventReason::FailoverObserved,
        true,
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
fn of_rejoin(old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) -> Option<Told> {
    let former = &new.last_failover.as_ref()?.from;
    let state = |status: &PgReplicaPairStatus| {
        status.instances.iter().find(|i| i.name == *former).map(|i| i.state.clone()).unwrap_or_default()
    };
    let rejoined = state(old) != "Standby" && state(new) == "Standby" && new.primary.as_ref() != Some(former);
    rejoined.then(|| {
        Told::new(
            EventReason::RejoinedAsStandby,
            false,
            format!("{former} follows {}", new.primary.clone().unwrap_or_default()),
        )
    })
}

fn holds(status: &PgReplicaPairStatus, type_: ConditionType) -> bool {
    condition(status, type_).is_some_and(|c| c.status == "True")
}
