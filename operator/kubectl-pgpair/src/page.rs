//! The status of a pair as a page. Pure: `now` is an argument.

use std::fmt::Write as _;

use jiff::Timestamp;
use pgpair_api::PgReplicaPair;
use pgpair_api::convert::{self, ago, span};
use pgpair_api::status::{
    ArchiveStatus, CertificateStatus, FailoverStatus, InstanceStatus, LagStatus, LagValue, OrderStatus,
    PgReplicaPairStatus, RpoBasis, RpoStatus, RtoStatus, SeedingStatus, StorageStatus,
};

use crate::adopt;

/// The page. What is not known is shown as `-`.
#[must_use]
pub fn render(pair: &PgReplicaPair, now: Timestamp) -> String {
    let mut out = String::new();
    let name = pair.metadata.name.as_deref().unwrap_or("-");
    let namespace = pair.metadata.namespace.as_deref().unwrap_or("-");
    line(
        &mut out,
        &format!("{namespace}/{name}, PostgreSQL {}, {:?}", pair.spec.postgres.version, pair.spec.durability),
    );
    let Some(status) = &pair.status else {
        line(&mut out, "the operator has not written a status yet: does it run?");
        return out;
    };
    overview(&mut out, status);
    instances(&mut out, &status.instances);
    if let Some(lag) = &status.lag {
        lag_lines(&mut out, lag);
    }
    estimates(&mut out, status.rpo.as_ref(), status.rto.as_ref());
    archives(&mut out, &status.archive, now);
    volumes(&mut out, &status.storage);
    if let Some(seeding) = &status.seeding {
        seeding_line(&mut out, seeding);
    }
    if let Some(adoption) = &status.adoption {
        line(&mut out, &format!("\n{}", adopt::page(adoption).trim_end()));
    }
    expiring(&mut out, &status.certificates, pair.spec.tls.renew_before_days, now);
    if let Some(order) = &status.order {
        order_line(&mut out, order, now);
    }
    if let Some(failover) = &status.last_failover {
        failover_lines(&mut out, failover, now);
    }
    out
}

fn line(out: &mut String, text: &str) {
    // Writing into a String does not fail.
    let _ = writeln!(out, "{text}");
}

fn overview(out: &mut String, status: &PgReplicaPairStatus) {
    let dash = || "-".to_owned();
    line(
        out,
        &format!(
            "primary {}, term {}, mode {}, timeline {}",
            status.primary.as_deref().unwrap_or("-"),
            status.term.map_or_else(dash, |t| t.to_string()),
            status.mode.as_ref().map_or_else(dash, ToString::to_string),
            status.timeline.map_or_else(dash, |t| t.to_string()),
        ),
    );
    line(out, "");
    for condition in &status.conditions {
        let text = format!(
            "  {:<16} {:<8} {} {}",
            condition.type_, condition.status, condition.reason, condition.message
        );
        line(out, text.trim_end());
    }
}

fn instances(out: &mut String, instances: &[InstanceStatus]) {
    let wide = instances.iter().map(|i| i.name.len()).max().unwrap_or(0).max(8);
    let row = |out: &mut String, cells: [&str; 7]| {
        let [name, role, state, ready, node, flush, replay] = cells;
        let text =
            format!("{name:<wide$}  {role:<8}  {state:<11}  {ready:<5}  {node:<12}  {flush:<14}  {replay}");
        line(out, text.trim_end());
    };
    line(out, "");
    row(out, ["INSTANCE", "ROLE", "STATE", "READY", "NODE", "FLUSHED", "REPLAYED"]);
    for i in instances {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
        let ready = if i.ready { "yes" } else { "no" };
        row(
            out,
            [
                &i.name,
                i.role.as_str(),
                i.state.as_str(),
                ready,
                &text(&i.node),
                &text(&i.flush_lsn),
                &text(&i.replay_lsn),
            ],
        );
        if let Some(refusal) = &i.refusal {
            line(out, &format!("{:wide$}  waits: {refusal}", ""));
        }
        if !i.pending_restart.is_empty() {
            line(out, &format!("{:wide$}  needs a restart for: {}", "", i.pending_restart.join(", ")));
        }
    }
}

fn lag_lines(out: &mut String, lag: &LagStatus) {
    let value = |lag: Option<LagValue>| {
        lag.map_or_else(|| "-".to_owned(), |l| format!("{} in {:.1} s", bytes(l.bytes), l.seconds))
    };
    line(
        out,
        &format!(
            "\nLAG       receive {}, replay {}, total {}",
            value(lag.receive),
            value(lag.replay),
            value(lag.total)
        ),
    );
}

/// What the loss of the primary would cost now.
fn estimates(out: &mut String, rpo: Option<&RpoStatus>, rto: Option<&RtoStatus>) {
    if rpo.is_none() && rto.is_none() {
        return;
    }
    line(out, "");
    if let Some(rpo) = rpo {
        let number = || {
            let bytes = rpo.bytes.map(bytes);
            let seconds = rpo.seconds.map(|s| format!("{s:.1} s"));
            let known: Vec<_> = [bytes, seconds].into_iter().flatten().collect();
            if known.is_empty() { "not known".into() } else { known.join(", ") }
        };
        let text = match rpo.basis.known() {
            Some(RpoBasis::Synchronous) => "nothing acknowledged".to_owned(),
            Some(RpoBasis::Lag) => number(),
            Some(RpoBasis::NotProtected) => {
                format!("nothing while its volume exists; a forced promotion: {}", number())
            }
            Some(RpoBasis::Unknown) | None => "not known".to_owned(),
        };
        line(out, &format!("LOSS      if the primary were lost now: {text}"));
    }
    if let Some(rto) = rto {
        let all: Vec<_> = rto.estimates.iter().map(|e| format!("{} {:.1} s", e.cause, e.seconds)).collect();
        let text = if all.is_empty() { "nobody takes over by himself".to_owned() } else { all.join(", ") };
        line(out, &format!("GAP       {text}"));
    }
}

fn volumes(out: &mut String, volumes: &[StorageStatus]) {
    if volumes.is_empty() {
        return;
    }
    line(out, "");
    for volume in volumes {
        let left = |free: Option<i64>, all: Option<i64>| match (free, all) {
            (Some(free), Some(all)) => format!("{} of {} free", bytes(free), bytes(all)),
            _ => "-".to_owned(),
        };
        let mut text = format!(
            "VOLUMES   {}: data {}, archive {}",
            volume.instance,
            left(volume.data_free_bytes, volume.data_bytes),
            left(volume.archive_free_bytes, volume.archive_bytes)
        );
        if let Some(seconds) = volume.full_in_seconds {
            let _ = write!(text, ", full in {}", span(seconds));
        }
        line(out, &text);
    }
}

fn seeding_line(out: &mut String, seeding: &SeedingStatus) {
    let percent = seeding.percent.map_or_else(|| "-".to_owned(), |p| format!("{p} %"));
    let size = match (seeding.done_bytes, seeding.total_bytes) {
        (Some(done), Some(total)) => format!(" ({} of {})", bytes(done), bytes(total)),
        _ => String::new(),
    };
    line(out, &format!("\nSEEDING   {} by Job {}: {percent}{size}", seeding.instance, seeding.job));
}

/// Only what should have been renewed long ago: `certs` shows all.
fn expiring(out: &mut String, certificates: &[CertificateStatus], renew_before_days: i32, now: Timestamp) {
    // With half of that time gone, something keeps the operator from it.
    let late = i64::from(renew_before_days) * 86_400 / 2;
    for c in certificates {
        let left = c.not_after.0.as_second() - now.as_second();
        if left < late {
            line(
                out,
                &format!(
                    "\nCERTIFICATE  {} ends {}: the operator should have renewed it",
                    c.secret,
                    until(left)
                ),
            );
        }
    }
}

fn order_line(out: &mut String, order: &OrderStatus, now: Timestamp) {
    let when = order.time.as_ref().map_or_else(|| "-".to_owned(), |t| ago(t.0, now));
    let to = order.instance.as_ref().map(|i| format!(" of {i}")).unwrap_or_default();
    let reason = order.reason.as_ref().map(|r| format!(" ({r})")).unwrap_or_default();
    let message = order.message.as_ref().map(|m| format!(": {m}")).unwrap_or_default();
    line(out, &format!("\nLAST ORDER  {}{to}, {}{reason}, {when}{message}", order.kind, order.state));
}

fn archives(out: &mut String, archives: &[ArchiveStatus], now: Timestamp) {
    if archives.is_empty() {
        return;
    }
    line(out, "");
    for archive in archives {
        // The age of now, not the one that was true when the status was written.
        let age = archive.last_archived_time.as_ref().map_or_else(|| "-".to_owned(), |t| ago(t.0, now));
        let mut text = format!(
            "ARCHIVE   {}: {}, {age}",
            archive.instance,
            archive.last_segment.as_deref().unwrap_or("-")
        );
        if let Some(backlog) = archive.backlog_segments.filter(|b| *b > 0) {
            let _ = write!(text, ", {backlog} waiting");
        }
        if let Some(failures) = archive.failures.filter(|f| *f > 0) {
            let _ = write!(text, ", {failures} failures: {}", archive.last_failure.as_deref().unwrap_or("-"));
        }
        line(out, &text);
    }
}

fn failover_lines(out: &mut String, failover: &FailoverStatus, now: Timestamp) {
    let when = failover.started_at.as_ref().map_or_else(|| "-".to_owned(), |t| ago(t.0, now));
    line(
        out,
        &format!(
            "\nLAST FAILOVER  {} -> {}, term {}, cause {}, {when}",
            failover.from,
            failover.to,
            failover.term,
            cause(failover),
        ),
    );
    for step in &failover.steps {
        line(out, &format!("  {:>+7} ms  {}", step.offset_ms, step.step));
    }
    if let Some(rejoin) = &failover.rejoin {
        let kept = match failover.bytes_lost {
            Some(0) => ", nothing lost".to_owned(),
            Some(lost) => format!(", {} of its log are kept in lost/ ({})", bytes(lost), range(failover)),
            None => String::new(),
        };
        line(out, &format!("  {} came back: {rejoin}{kept}", failover.from));
    }
}

/// The cause, and the proof for it if there is one.
fn cause(failover: &FailoverStatus) -> String {
    let evidence = failover.evidence.as_ref().map(|kind| format!("/{kind}")).unwrap_or_default();
    format!("{}{evidence}", failover.cause)
}

fn range(failover: &FailoverStatus) -> String {
    let dash = |lsn: &Option<String>| lsn.clone().unwrap_or_else(|| "-".into());
    format!("{} to {}", dash(&failover.lost_from), dash(&failover.lost_to))
}

fn bytes(n: i64) -> String {
    convert::bytes(n.unsigned_abs())
}

/// A time that is still to come, by its distance in seconds.
pub(crate) fn until(seconds: i64) -> String {
    if seconds < 0 { format!("{} ago", span(-seconds)) } else { format!("in {}", span(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock;

    fn pair(status: serde_json::Value) -> PgReplicaPair {
        serde_json::from_value(mock::pair(status)).unwrap()
    }

    fn full() -> serde_json::Value {
        serde_json::json!({
            "primary": "orders-b", "term": 2, "mode": "Paired", "timeline": 2,
            "conditions": [{"type": "Ready", "status": "True", "reason": "PrimaryAcceptsWrites", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "instances": [
                {"name": "orders-a", "role": "Standby", "ready": true, "node": "n1", "state": "Standby",
                 "flushLsn": "0/5000060", "replayLsn": "0/5000060", "pendingRestart": ["shared_buffers"]},
                {"name": "orders-b", "role": "Primary", "ready": true, "node": "n2", "state": "Primary",
                 "flushLsn": "0/5000060", "refusal": "ApiUnreachable"}],
            "lag": {"summary": "48 MiB, 3 s", "receive": {"bytes": 0, "seconds": 0.0},
                "total": {"bytes": 50331648, "seconds": 3.25}},
            "rpo": {"basis": "Synchronous"},
            "rto": {"estimates": [{"cause": "PostgresKilled", "seconds": 0.5}, {"cause": "NodeLost", "seconds": 6.5}]},
            "archive": [{"instance": "orders-a", "lastSegment": "000000020000000000000004",
                "lastArchivedTime": "2026-01-01T00:00:30Z", "failures": 2, "lastFailure": "no space"}],
            "storage": [{"instance": "orders-a", "dataBytes": 10737418240_i64, "dataFreeBytes": 2147483648_i64,
                "archiveBytes": 10737418240_i64, "archiveFreeBytes": 1048576, "fullInSeconds": 7200}],
            "seeding": {"instance": "orders-a", "job": "orders-a-seed-2", "doneBytes": 1048576, "totalBytes": 4194304,
                "percent": 25},
            "certificates": [{"secret": "orders-a-tls", "notAfter": "2026-03-01T00:00:00Z"},
                {"secret": "orders-b-tls", "notAfter": "2026-01-11T00:01:00Z"}],
            "order": {"id": "x-1", "kind": "Restart", "instance": "orders-a", "state": "Refused", "reason": "Busy",
                "message": "another order is under way", "time": "2026-01-01T00:00:50Z"},
            "lastFailover": {"term": 2, "cause": "Evidence", "evidence": "VolumeLock", "from": "orders-a",
                "to": "orders-b", "startedAt": "2026-01-01T00:00:00Z", "rejoin": "Rewound", "bytesLost": 4096,
                "lostFrom": "0/4000000", "lostTo": "0/4001000",
                "steps": [{"step": "Noticed", "at": "2026-01-01T00:00:00Z", "offsetMs": 0},
                          {"step": "Endpoint", "at": "2026-01-01T00:00:00.310Z", "offsetMs": 310}]},
        })
    }

    #[test]
    fn a_page_tells_everything_that_the_status_knows() {
        insta::assert_snapshot!(render(&pair(full()), "2026-01-01T00:01:00Z".parse().unwrap()));
    }

    #[test]
    fn a_pair_that_is_solo_is_told_what_is_at_stake() {
        let status = serde_json::json!({
            "primary": "orders-a", "term": 2, "mode": "Solo", "rto": {},
            "rpo": {"basis": "NotProtected", "bytes": 2048},
            "lastFailover": {"term": 2, "cause": "Resigned", "from": "orders-b", "to": "orders-a",
                "rejoin": "Followed", "bytesLost": 0},
        });
        insta::assert_snapshot!(render(&pair(status), "2026-01-01T00:01:00Z".parse().unwrap()));
    }

    #[test]
    fn a_pair_without_status_says_who_is_missing() {
        assert!(render(&pair(serde_json::Value::Null), Timestamp::UNIX_EPOCH).contains("does it run?"));
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_not_a_zero() {
        let page = render(&pair(serde_json::json!({})), Timestamp::UNIX_EPOCH);
        assert!(page.contains("primary -, term -, mode -, timeline -"), "{page}");
    }
}
