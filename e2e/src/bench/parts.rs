//! Where the time of a gap goes: how long each step of a change of primary took, by the steps that the status tells.

use std::fmt::Write as _;

use pgpair_api::status::FailoverStatus;
use pgpair_wire::report::FailoverStep;
use serde::{Deserialize, Serialize};

use crate::bench::gaps::{Gaps, Row};

/// The steps that follow each other, and what is done until each of them.
const STEPS: [(FailoverStep, &str); 5] = [
    (FailoverStep::Noticed, "the standby decides"),
    (FailoverStep::CasWon, "the record is written"),
    (FailoverStep::TriggerFile, "the trigger file is there"),
    (FailoverStep::Promoted, "the first write is on disk"),
    (FailoverStep::Endpoint, "the Service is written"),
];
/// What comes after them.
const LAST: &str = "the client is acknowledged";

/// How long it took from the step before until this one, over the rounds of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// What is done by then.
    pub until: String,
    /// In milliseconds.
    pub ms: Gaps,
}

/// The parts of one gap in milliseconds: from the old primary's last acknowledgement over each step to the new one's first, both in
/// microseconds since 1970. `None` if a step is not told.
#[must_use]
pub fn of_round(failover: &FailoverStatus, from_us: i64, to_us: i64) -> Option<Vec<f64>> {
    let at =
        |step: FailoverStep| failover.steps.iter().find(|s| s.step.is(step)).map(|s| s.at.0.as_microsecond());
    let mut points = vec![from_us];
    for (step, _) in STEPS {
        points.push(at(step)?);
    }
    points.push(to_us);
    Some(points.windows(2).map(|pair| ms(pair[1] - pair[0])).collect())
}

#[expect(clippy::cast_precision_loss, reason = "for people; 2^52 microseconds are 142 years")]
fn ms(us: i64) -> f64 {
    us as f64 / 1000.0
}

/// The parts of a row.
#[must_use]
pub fn of_rounds(rounds: &[Vec<f64>]) -> Vec<Part> {
    let names = STEPS.iter().map(|(_, until)| *until).chain([LAST]);
    let part = |(i, until): (usize, &str)| {
        let all: Vec<f64> = rounds.iter().filter_map(|round| round.get(i).copied()).collect();
        Some(Part { until: until.to_owned(), ms: Gaps::of(&all)? })
    };
    names.enumerate().filter_map(part).collect()
}

/// As a table; empty without a row that has parts.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| !row.parts.is_empty()).collect();
    let Some(first) = rows.first() else { return String::new() };
    let names = first.parts.iter().map(|part| part.until.as_str());
    let mut out =
        format!("| fault | postgres | load | {} |\n|---|---|---|", names.collect::<Vec<_>>().join(" | "));
    out += &"---|".repeat(first.parts.len());
    out.push('\n');
    for row in rows {
        let load = if row.load { "pgbench" } else { "-" };
        let cells = row.parts.iter().map(|part| format!("{:.0} ({:.0})", part.ms.p50, part.ms.p99));
        let _ = writeln!(
            out,
            "| {} | {} | {load} | {} |",
            row.fault,
            row.postgres,
            cells.collect::<Vec<_>>().join(" | ")
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn failover(steps: &[(&str, &str)]) -> FailoverStatus {
        let steps: Vec<_> = steps
            .iter()
            .map(
                |(step, ms)| json!({"step": step, "at": format!("2026-01-01T00:00:00.{ms}Z"), "offsetMs": 0}),
            )
            .collect();
        let status = json!({"term": 2, "cause": "Resigned", "from": "a", "to": "b", "steps": steps});
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn the_parts_of_a_gap_add_up_to_it() {
        let told = [
            ("Noticed", "030000"),
            ("CasSent", "030000"),
            ("CasWon", "042000"),
            ("TriggerFile", "047000"),
            ("Promoted", "100000"),
            ("Endpoint", "120000"),
        ];
        let start = "2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_microsecond();
        let parts = of_round(&failover(&told), start, start + 222_000).unwrap();
        assert_eq!(parts, [30.0, 12.0, 5.0, 53.0, 20.0, 102.0]);
        assert_eq!(of_round(&failover(&told[..5]), start, start + 222_000), None, "a step is not told");
        let all = of_rounds(&[parts.clone(), parts]);
        assert_eq!(all.iter().map(|part| part.ms.p50).sum::<f64>(), 222.0);
    }
}
