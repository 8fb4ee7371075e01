//! `docs/scale.md` and its pictures: what was measured, for people. Pure.

use std::fmt::Write as _;

use crate::scale::busy;
use crate::scale::chart::{Curve, draw};
use crate::scale::row::{Row, Rows, Times, goals};

/// The page and its pictures, by their path from the top of the repository.
#[must_use]
pub fn files(rows: &Rows) -> Vec<(String, String)> {
    let pictures = pictures(rows);
    let page = render(rows, &pictures);
    let pictures = pictures.into_iter().map(|p| (format!("docs/numbers/{}.svg", p.file), p.svg));
    std::iter::once(("docs/scale.md".to_owned(), page)).chain(pictures).collect()
}

struct Picture {
    file: &'static str,
    title: &'static str,
    svg: String,
}

fn render(rows: &Rows, pictures: &[Picture]) -> String {
    let mut out = String::from(
        "# Many pairs\n\n\
         Written by `make bench-scale` from `docs/numbers/scale.json`; do not edit. The operator is the real program; etcd and the API server are real; \
         pods and agents are simulated by the benchmark: their reports are those of pairs at rest, each agent has the certificate that the operator \
         made for it, and answers over mTLS. Services have no address of the cluster: for each that it gives out, an API server walks over all of them. \
         Operator, etcd, API server and all agents share one machine. \
         Times are times that were measured (nearest rank), seen by the agents and the API server, not by the operator.\n\n\
         ## Goals\n\n",
    );
    let judged: Vec<&Row> = rows.newest().into_iter().filter(|row| !goals(row).is_empty()).collect();
    if judged.is_empty() {
        out += "The numbers of pairs that have goals (1,000 and 10,000) were not measured yet.\n";
    } else {
        out += "| pairs | measure | goal | found | met |\n|---|---|---|---|---|\n";
    }
    for row in judged {
        for goal in goals(row) {
            let found = goal.found.unwrap_or_else(|| "not measured".into());
            let met = if goal.met { "yes" } else { "**no**" };
            let _ = writeln!(out, "| {} | {} | {} | {found} | {met} |", row.pairs, goal.what, goal.limit);
        }
    }
    out += "\n## Measured\n\n";
    out += &table(&rows.0);
    for row in rows.0.iter().filter(|row| !row.failed.is_empty()) {
        let _ = writeln!(out, "\n{} pairs, commit {}, did not come to its end:\n", row.pairs, commit(row));
        for what in &row.failed {
            let _ = writeln!(out, "- {what}");
        }
    }
    let busy = busy::table(&rows.newest());
    if !busy.is_empty() {
        let _ = write!(out, "\n## Who had the processors\n\n{busy}");
    }
    for picture in pictures {
        let _ = write!(out, "\n![{}](numbers/{}.svg)\n", picture.title, picture.file);
    }
    out += "\n## What the columns mean\n\n";
    for (what, meaning) in MEANINGS {
        let _ = writeln!(out, "- *{what}*: {meaning}");
    }
    out += "\n## Machines\n\n";
    let mut machines: Vec<&str> = rows.0.iter().map(|row| row.machine.as_str()).collect();
    machines.dedup();
    for machine in machines {
        let _ = writeln!(out, "- {machine}");
    }
    out + "\nAgain: `make bench-scale`; `N=\"100 1000\"` chooses the numbers of pairs, `IDLE=60` the seconds of rest.\n"
}

const MEANINGS: [(&str, &str); 11] = [
    (
        "built",
        "from the start of the operator, with all pairs and no other object there, until every agent had been heard and nothing was written for 15 s",
    ),
    ("memory", "resident memory of the operator after the rest, and the most it ever had"),
    (
        "cores",
        "CPU seconds of the operator per second of rest; in parentheses what the machine did meanwhile that was not the benchmark",
    ),
    ("reports", "reports that agents gave per second of rest"),
    (
        "API reads, writes",
        "requests of the operator to the API server at rest, from the audit log; those of its election are left out",
    ),
    (
        "change applied",
        "from a change of a parameter in a spec until both agents of the pair had the new settings",
    ),
    ("order taken", "from an order in the annotation of a pair until its agent had it"),
    (
        "order beside silence",
        "the same while so many agents did not answer for more than 20 s (what is sent to them is dropped), orders to other pairs",
    ),
    (
        "leader",
        "from SIGKILL of the leading operator, with a second one standing by, until that was elected, and until it had heard every agent",
    ),
    ("leader's writes", "writes of the second one until half a minute later"),
    ("metrics", "series, and the best of three times until all of them had come"),
];

fn table(rows: &[Row]) -> String {
    let mut out = String::from(
        "| pairs | commit | built | memory (most) | cores (others) | reports | API reads | API writes | change applied p50, p99 | order taken p50, p99 | order beside silence p50, p99 | leader elected, all heard | leader's writes | metrics |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let cells = [
            row.pairs.to_string(),
            commit(row),
            known(row.built_s, " s"),
            format!("{} ({})", known(row.rss_mib, " MiB"), known(row.rss_peak_mib, " MiB")),
            format!("{} ({})", known(row.cores, ""), known(row.other_cores, "")),
            known(row.reports_per_s, "/s"),
            known(row.api_reads_per_s, "/s"),
            format!("{} in {}", known(row.api_writes_idle_10min, ""), known(row.idle_s, " s")),
            times(row.change_applied_ms),
            times(row.order_taken_ms),
            format!(
                "{} ({} silent)",
                times(row.order_taken_with_silent_zone_ms),
                known(row.silent_agents, "")
            ),
            format!("{}, {}", known(row.leader_elected_s, " s"), known(row.leader_change_all_seen_s, " s")),
            known(row.leader_change_api_writes, ""),
            format!("{}, {}", known(row.series, ""), known(row.scrape_ms, " ms")),
        ];
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out
}

fn commit(row: &Row) -> String {
    let commit = row.commit.clone().unwrap_or_else(|| "not known".into());
    row.note.as_ref().map_or(commit.clone(), |note| format!("{commit} ({note})"))
}

fn known(value: Option<impl std::fmt::Display>, unit: &str) -> String {
    value.map_or_else(|| "not measured".into(), |value| format!("{value}{unit}"))
}

fn times(times: Option<Times>) -> String {
    let Some(Times { lost, p50, p99, .. }) = times else { return "not measured".into() };
    let lost = if lost > 0 { format!(", {lost} lost") } else { String::new() };
    format!("{p50}, {p99} ms{lost}")
}

type Value = fn(&Row) -> Option<f64>;

/// What a picture shows.
struct Subject {
    file: &'static str,
    title: &'static str,
    values: &'static [(&'static str, Value)],
    /// The goal for 10,000 pairs.
    limit: f64,
}

const SUBJECTS: [Subject; 4] = [
    Subject {
        file: "scale-memory",
        title: "Memory of the operator at rest, MiB",
        values: &[("memory", |r| r.rss_mib)],
        limit: 1024.0,
    },
    Subject {
        file: "scale-cores",
        title: "Cores that the operator takes at rest",
        values: &[("cores", |r| r.cores)],
        limit: 1.0,
    },
    Subject {
        file: "scale-times",
        title: "Milliseconds (p99)",
        values: &[
            ("change applied", |r| r.change_applied_ms.map(|t| t.p99)),
            ("order taken", |r| r.order_taken_ms.map(|t| t.p99)),
            ("beside silence", |r| r.order_taken_with_silent_zone_ms.map(|t| t.p99)),
        ],
        limit: 1000.0,
    },
    Subject {
        file: "scale-leader",
        title: "Seconds from the leader's death until all agents are heard",
        values: &[("all heard", |r| r.leader_change_all_seen_s)],
        limit: 60.0,
    },
];

fn pictures(rows: &Rows) -> Vec<Picture> {
    let picture = |subject: &Subject| {
        let mut curves = curves(rows, subject.values);
        let across: Vec<f64> = curves.iter().flat_map(|c| c.points.iter().map(|p| p.0)).collect();
        let ends =
            [across.iter().copied().min_by(f64::total_cmp)?, across.iter().copied().max_by(f64::total_cmp)?];
        let points = ends.map(|x| (x, subject.limit)).to_vec();
        curves.push(Curve { name: "goal at 10,000".into(), points, is_limit: true });
        Some(Picture { file: subject.file, title: subject.title, svg: draw(subject.title, &curves)? })
    };
    SUBJECTS.iter().filter_map(picture).collect()
}

/// A curve for each value, and again for the rows with a note of their own.
fn curves(rows: &Rows, values: &[(&str, Value)]) -> Vec<Curve> {
    let mut notes: Vec<Option<&str>> = vec![None];
    for row in &rows.0 {
        if !notes.contains(&row.note.as_deref()) {
            notes.push(row.note.as_deref());
        }
    }
    let mut out = Vec::new();
    for note in notes {
        let of_note = Rows(rows.0.iter().filter(|row| row.note.as_deref() == note).cloned().collect());
        for (name, value) in values {
            let points: Vec<(f64, f64)> = of_note
                .newest()
                .into_iter()
                .filter_map(|row| Some((row.pairs as f64, value(row)?)))
                .collect();
            let name = note.map_or_else(|| (*name).to_owned(), |note| format!("{name}, {note}"));
            if !points.is_empty() {
                out.push(Curve { name, points, is_limit: false });
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_its_pictures_are_what_the_kept_rows_say() {
        let rows = Rows::load(&crate::results::kept("scale.json")).unwrap();
        for (path, text) in files(&rows) {
            let file = crate::repository::root().join(&path);
            let is = std::fs::read_to_string(&file).unwrap_or_default();
            assert_eq!(is, text, "{path}: make scale-page");
        }
    }

    #[test]
    fn a_goal_that_is_missed_and_what_did_not_come_to_its_end_are_told_plainly() {
        let row = Row {
            pairs: 1000,
            commit: Some("0123abc".into()),
            note: Some("before".into()),
            rss_mib: Some(250.5),
            failed: vec!["orders: not calm".into()],
            ..Row::default()
        };
        let page = render(&Rows(vec![row]), &[]);
        for words in [
            "| 1000 | memory at rest | < 200 MiB | 250.5 MiB | **no** |",
            "| 1000 | 0123abc (before) | not measured | 250.5 MiB (not measured) |",
            "1000 pairs, commit 0123abc (before), did not come to its end:\n\n- orders: not calm",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
    }

    #[test]
    fn rows_with_a_note_have_curves_of_their_own() {
        let row = |pairs, note: Option<&str>, mib| Row {
            pairs,
            note: note.map(Into::into),
            rss_mib: Some(mib),
            ..Row::default()
        };
        let rows =
            Rows(vec![row(100, Some("before"), 20.0), row(100, None, 15.0), row(1000, Some("before"), 90.0)]);
        let curves = curves(&rows, &[("memory", |r| r.rss_mib)]);
        let found: Vec<(&str, usize)> = curves.iter().map(|c| (c.name.as_str(), c.points.len())).collect();
        assert_eq!(found, [("memory", 1), ("memory, before", 2)]);
        assert_eq!(pictures(&rows).len(), 1, "only of what was measured");
    }
}
