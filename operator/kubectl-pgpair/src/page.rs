//! The status of a pair as a page. Pure: `now` is an argument.

use std::fmt::Write as _;

use jiff::Timestamp;
use pgpair_api::PgReplicaPair;
use pgpair_api::status::{
    ArchiveStatus, FailoverStatus, InstanceStatus, LagStatus, LagValue, PgReplicaPairStatus,
};

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
    archives(&mut out, &status.archive, now);
    if let Some(seeding) = &status.seeding {
        let percent = seeding.percent.map_or_else(|| "-".to_owned(), |p| format!("{p} %"));
        line(&mut out, &format!("\nSEEDING   {} by Job {}: {percent}", seeding.instance, seeding.job));
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
            status.mode.map_or_else(dash, |m| format!("{m:?}")),
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
            [&i.name, &i.role, &i.state, ready, &text(&i.node), &text(&i.flush_lsn), &text(&i.replay_lsn)],
        );
        if let Some(refusal) = &i.refusal {
            line(out, &format!("{:wide$}  waits: {refusal}", ""));
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
            failover.from, failover.to, failover.term, failover.cause
        ),
    );
    for step in &failover.steps {
        line(out, &format!("  {:>+7} ms  {}", step.offset_ms, step.step));
    }
}

fn bytes(bytes: i64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let unit = (0..3).take_while(|u| bytes >> (10 * (u + 1)) > 0).count();
    format!("{} {}", bytes >> (10 * unit), UNITS[unit])
}

fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    match seconds {
        ..0 => "by a clock ahead of this one".into(),
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(status: serde_json::Value) -> PgReplicaPair {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "pgpair.dev/v1alpha1", "kind": "PgReplicaPair",
            "metadata": {"name": "orders", "namespace": "shop"}, "spec": {}, "status": status,
        }))
        .unwrap()
    }

    fn full() -> PgReplicaPair {
        pair(serde_json::json!({
            "primary": "orders-b", "term": 2, "mode": "Paired", "timeline": 2,
            "conditions": [{"type": "Ready", "status": "True", "reason": "PrimaryAcceptsWrites", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "instances": [
                {"name": "orders-a", "role": "Standby", "ready": true, "node": "n1", "state": "Standby",
                 "flushLsn": "0/5000060", "replayLsn": "0/5000060"},
                {"name": "orders-b", "role": "Primary", "ready": true, "node": "n2", "state": "Primary",
                 "flushLsn": "0/5000060", "refusal": "ApiUnreachable"}],
            "lag": {"summary": "48 MiB, 3 s", "receive": {"bytes": 0, "seconds": 0.0},
                "total": {"bytes": 50331648, "seconds": 3.25}},
            "archive": [{"instance": "orders-a", "lastSegment": "000000020000000000000004",
                "lastArchivedTime": "2026-01-01T00:00:30Z", "failures": 2, "lastFailure": "no space"}],
            "lastFailover": {"term": 2, "cause": "Resigned", "from": "orders-a", "to": "orders-b",
                "startedAt": "2026-01-01T00:00:00Z",
                "steps": [{"step": "Noticed", "at": "2026-01-01T00:00:00Z", "offsetMs": 0},
                          {"step": "Endpoint", "at": "2026-01-01T00:00:00.310Z", "offsetMs": 310}]},
        }))
    }

    #[test]
    fn a_page_tells_roles_lag_archive_and_the_last_failover() {
        let page = render(&full(), "2026-01-01T00:01:00Z".parse().unwrap());
        let expected = "\
shop/orders, PostgreSQL 17, Sync
primary orders-b, term 2, mode Paired, timeline 2

  Ready            True     PrimaryAcceptsWrites

INSTANCE  ROLE      STATE        READY  NODE          FLUSHED         REPLAYED
orders-a  Standby   Standby      yes    n1            0/5000060       0/5000060
orders-b  Primary   Primary      yes    n2            0/5000060       -
          waits: ApiUnreachable

LAG       receive 0 B in 0.0 s, replay -, total 48 MiB in 3.2 s

ARCHIVE   orders-a: 000000020000000000000004, 30 s ago, 2 failures: no space

LAST FAILOVER  orders-a -> orders-b, term 2, cause Resigned, 60 s ago
       +0 ms  Noticed
     +310 ms  Endpoint
";
        assert_eq!(page, expected);
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
