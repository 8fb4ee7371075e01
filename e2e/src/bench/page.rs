//! `docs/failover-numbers.md`: what was measured, for people.

use std::fmt::Write as _;

use serde_json::Value;

use crate::bench::gaps::Table;
use crate::bench::parts;

/// The page. `report` is the content of `environment.json`.
#[must_use]
pub fn page(table: &Table, report: &Value) -> String {
    let text = |key: &str| report.get(key).and_then(Value::as_str).unwrap_or("not known").to_owned();
    let number = |key: &str| report.get(key).and_then(Value::as_u64);
    let mut out = String::from(
        "# Failover in numbers\n\n\
         Written by `make bench`; do not edit. A gap is the time from the last acknowledgement of the old primary to the first one of the \
         new primary, as a client sees it that writes row by row through Service `NAME-rw` and connects anew when its connection breaks. \
         Percentiles are gaps that were measured (nearest rank). *Rows lost*: acknowledged numbers that were gone afterwards. *Late acks*: \
         acknowledgements by the old primary after the new one's first. *Load*: what else ran on the pair; pgbench has four clients. *Failed*: \
         rounds besides the *n* that did not come to their end. Where the primary goes on (standby-loss, api-outage, \
         operator-outage, each for 15 s), the gap is its longest time without an acknowledgement.\n\n",
    );
    let _ = writeln!(
        out,
        "Machine: {} processors, {} GiB, Linux {}, which runs all three nodes, the control plane and the clients; Kubernetes {}; \
         commit {}, {}.\n",
        number("cores").map_or("?".into(), |n| n.to_string()),
        number("memory_bytes").map_or("?".into(), |n| (n >> 30).to_string()),
        text("kernel"),
        text("kubernetes"),
        text("commit"),
        text("began").get(..10).unwrap_or_default(),
    );
    let _ = writeln!(out, "{table}");
    let parts = parts::table(&table.0);
    if !parts.is_empty() {
        let _ = writeln!(
            out,
            "## Where the time goes\n\nMilliseconds from one step to the next, p50 (p99), beginning with the old primary's last \
             acknowledgement. *The standby decides*: the primary's agent has seen the death of its postgres, has asked the standby, and has \
             handed over the end of the log; or the promise has lapsed. *The first write is on disk*: postgres has ended its recovery. *The \
             client is acknowledged*: kube-proxy has seen the Service change, and the client has connected again.\n\n{parts}"
        );
    }
    out += "## A pair at rest\n\n| | |\n|---|---|\n";
    for (what, found) in at_rest(report) {
        let _ = writeln!(out, "| {what} | {found} |");
    }
    out + "\nThe pairs of one run are there at once, on the same two nodes. A fault of one pair is made on them in turn; a node, the API server and the operator \
         are lost for all of them at the same moment. Before each fault no Service of theirs has changed for 1.5 s: kube-proxy carries changes out a second apart at \
         least, and a failover within the second after another change waits for the rest of it (seen: half a second more in three of eight).\n\n\
         Again: `make bench`, about an hour and a half; `B=\"--pairs=16/5 --add\"` for another version, `B=\"--n=100 --pairs=17/5 --durability=Async --faults=postmaster-kill --load --idle-minutes=0 --add\"` \
         for crashes under load in `Async`, `B=\"--n=5 --pairs=17/5 --faults=pod-delete\"` for less; `--add` keeps rows of other pairs and faults.\n"
}

fn at_rest(report: &Value) -> Vec<(&'static str, String)> {
    let memory = |key: &str| {
        let found = report.get(key).filter(|m| !m.is_null())?;
        let mib = |of: &str| found.get(of).and_then(Value::as_f64).map(|bytes| bytes / f64::from(1 << 20));
        let processes = found.get("processes").and_then(Value::as_u64)?;
        Some(format!(
            "{:.1} MiB (PSS; {:.1} MiB RSS) in {processes} processes",
            mib("pss_bytes")?,
            mib("rss_bytes")?
        ))
    };
    let ready = report.get("apply_to_ready_s").and_then(Value::as_array).map(|all| {
        all.iter().filter_map(Value::as_f64).map(|s| format!("{s} s")).collect::<Vec<_>>().join(", ")
    });
    let idle = report.get("idle").filter(|i| !i.is_null()).map(|idle| {
        let n = |key: &str| idle.get(key).and_then(Value::as_u64).unwrap_or_default();
        format!("{} in {} minutes", n("writes"), n("minutes"))
    });
    let cpu = report.get("idle").and_then(|idle| idle.get("agent_cpu_percent")?.as_array()).map(|all| {
        let percent = all.iter().filter_map(Value::as_f64).map(|p| format!("{p} %"));
        percent.collect::<Vec<_>>().join(", ")
    });
    let all = [
        ("from `kubectl apply` to both instances ready, images present", ready.filter(|r| !r.is_empty())),
        ("memory of the operator", memory("operator_memory")),
        ("memory of the primary's agent with its helpers", memory("primary_agent_memory")),
        ("memory of the standby's agent with its helpers", memory("standby_agent_memory")),
        ("writes to the API server for an idle pair, by operator and agents", idle),
        (
            "processor time of each agent with its helpers meanwhile, of one core",
            cpu.filter(|c| !c.is_empty()),
        ),
    ];
    all.into_iter().map(|(what, found)| (what, found.unwrap_or_else(|| "not measured".into()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_not_measured_is_not_told_as_zero() {
        let report = json!({
            "cores": 2, "apply_to_ready_s": [18.5, 17.0], "operator_memory": null,
            "primary_agent_memory": {"pss_bytes": 1_048_576, "rss_bytes": 2_097_152, "processes": 4},
            "idle": {"minutes": 10, "writes": 0, "leader_lease_writes": 300, "agent_cpu_percent": [0.71, 0.4]},
        });
        let page = page(&Table::default(), &report);
        for words in [
            "2 processors, ? GiB",
            "18.5 s, 17 s",
            "memory of the operator | not measured",
            "1.0 MiB (PSS; 2.0 MiB RSS) in 4 processes",
            "0 in 10 minutes",
            "0.71 %, 0.4 %",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
    }
}
