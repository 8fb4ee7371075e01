//! Whether the standby may take over, and if not, what it lacks.

use pgpair_api::convert::bytes;
use pgpair_api::names::PairName;
use pgpair_api::status::{ConditionType, PgReplicaPairStatus, Reason};
use pgpair_core::authority::Refusal;
use pgpair_core::ids::{InstanceId, Term};
use pgpair_core::instance::PostgresState;
use pgpair_core::record::Mode;

use super::{Draft, draft, trouble};
use crate::observed::Observed;

pub(super) fn failover_ready(name: &PairName, observed: &Observed, status: &PgReplicaPairStatus) -> Draft {
    let type_ = ConditionType::FailoverReady;
    let Some(record) = observed.record() else {
        return draft(type_, None, Reason::Unknown, "the record cannot be read");
    };
    if status.mode.as_ref().is_some_and(|m| m.is(Mode::Paired)) {
        if let Some(why) = shut_out(name, observed, record.primary.instance.peer()) {
            return draft(type_, false, Reason::AgentShutOut, why);
        }
        if observed.config.automatic {
            let node = observed.shared_node();
            let node =
                node.map(|node| format!("; both instances run on node {node}, and its loss stops both"));
            let slots = lost_slots(observed, record.primary.instance);
            let but: String = node.into_iter().chain(slots).collect();
            return draft(type_, true, Reason::Paired, format!("the standby may take over{but}"));
        }
        let message = "spec.failover.automatic is false: the standby is as good as the primary, and takes over only when ordered to";
        return draft(type_, false, Reason::AutomaticOff, message);
    }
    if record.term == Term(0) {
        return draft(type_, false, Reason::Bootstrapping, "the first data directory is being made");
    }
    let (reason, why) = why_solo(name, observed, record.primary.instance);
    draft(type_, false, reason, format!("the primary goes on alone, and nobody takes over by himself: {why}"))
}

/// What a failover would take from consumers that the standby cannot serve.
fn lost_slots(observed: &Observed, primary: InstanceId) -> Option<String> {
    let slots = |i: InstanceId| Some(&observed.instance(i).report.recent()?.logical_slots);
    let (all, copies) = (slots(primary)?, slots(primary.peer())?);
    let lost: Vec<&str> = all.iter().filter(|slot| !copies.contains(slot)).map(String::as_str).collect();
    (!lost.is_empty()).then(|| {
        format!(
            "; a failover now loses these logical replication slots, of which the standby has no copy: {}. With wal_level: logical it \
             copies slots that were made with failover = true (PostgreSQL 17 or later), once their consumers have moved on",
            lost.join(", ")
        )
    })
}

/// A promotion ends with a write of the agent's, over a login that a person may have taken away.
fn shut_out(name: &PairName, observed: &Observed, standby: InstanceId) -> Option<String> {
    let why = login_refused(observed, standby)?;
    let me = name.instance(standby);
    Some(format!(
        "the agent of {me} cannot log in to its postgres, so a promotion could not be confirmed: {why}{}",
        hint(why)
    ))
}

fn login_refused(observed: &Observed, i: InstanceId) -> Option<&str> {
    observed.instance(i).report.recent()?.login_refused.as_deref()
}

/// What to do about it, where the words of PostgreSQL do not say so.
fn hint(refusal: &str) -> &'static str {
    if refusal.contains("too many clients") {
        "; superusers use the connections that are reserved for the agent: end some of them, and let applications log in as ordinary roles"
    } else {
        ""
    }
}

/// What the standby lacks, nearest cause first.
fn why_solo(name: &PairName, observed: &Observed, primary: InstanceId) -> (Reason, String) {
    let standby = observed.instance(primary.peer());
    let me = name.instance(primary.peer());
    if standby.is_seeding() || standby.set.is_some_and(|s| s.replicas == 0 && s.seed > 0) {
        return (Reason::StandbySeeding, format!("{me} is being copied or waits for it"));
    }
    let Some(report) = standby.report.recent() else {
        let why = trouble::of_instance(name, observed, primary.peer()).map(|(_, why)| format!(": {why}"));
        return (Reason::StandbyNotRunning, format!("{me} does not answer{}", why.unwrap_or_default()));
    };
    if report.authority.refusal.as_deref() == Some(Refusal::Fenced.as_str()) {
        return (Reason::Fenced, format!("{me} is fenced: kubectl pgpair unfence ends that"));
    }
    if report.postgres.state != PostgresState::Standby {
        let why = trouble::of_instance(name, observed, primary.peer()).map(|(_, why)| format!(": {why}"));
        let message = format!("no postgres of {me} runs as a standby{}", why.unwrap_or_default());
        return (Reason::StandbyNotRunning, message);
    }
    let lag = observed.served_lately().and_then(|(_, report)| report.standby.as_ref());
    let Some(lag) = lag else { return (Reason::Solo, "the primary does not report".to_owned()) };
    let no_stream = if lag.streaming { "" } else { ", and does not stream" };
    match lag.receive.map(|behind| behind.bytes) {
        // Also of one that does not stream: how much is missing is what a person needs to know.
        Some(behind) if behind > observed.config.max_lag_bytes => {
            let limit = bytes(observed.config.max_lag_bytes);
            (Reason::StandbyLags, format!("{me} lags {} over maxLag {limit}{no_stream}", bytes(behind)))
        }
        _ if !lag.streaming => (Reason::StandbyNotStreaming, format!("{me} does not stream")),
        _ => match login_refused(observed, primary) {
            Some(why) => {
                let agent = name.instance(primary);
                let why = format!(
                    "{me} streams and is close, but the agent of {agent} cannot log in to its postgres to pair with it: {why}{}",
                    hint(why)
                );
                (Reason::AgentShutOut, why)
            }
            None => (
                Reason::StandbyCatchesUp,
                format!("{me} streams and is close; the primary pairs with it soon"),
            ),
        },
    }
}
