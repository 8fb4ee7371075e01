//! The tables of `docs/model.md`: made from the code, so that they cannot say anything else.

use std::fmt::Write as _;

use crate::bounds::{Bounds, Part};
use crate::claims::CLAIMS;
use crate::mutations::{MUTATIONS, STUCK};
use crate::pair::Pair;
use crate::runs::CI;
use crate::trouble::{SINGLE, Trouble, WITHOUT_API, endure};

/// Steps of a clock in one `ttl`, for the table of faults.
const GRAIN: u64 = 20;

/// The page with its tables made anew: each stands between `<!-- table NAME -->` and `<!-- end -->`.
///
/// # Errors
/// Names a table that there is not, or one without end, or a way that is not kept.
pub fn render(page: &str) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), page);
    while let Some((before, after)) = rest.split_once("<!-- table ") {
        let (name, after) = after.split_once(" -->").ok_or("a table without name")?;
        let (_, after) = after.split_once("<!-- end -->").ok_or(format!("table {name} has no end"))?;
        let _ = write!(out, "{before}<!-- table {name} -->\n{}<!-- end -->", table(name)?);
        rest = after;
    }
    Ok(out + rest)
}

fn table(name: &str) -> Result<String, String> {
    match name {
        "claims" => Ok(claims()),
        "runs" => Ok(runs()),
        "mutations" => mutations(),
        "stuck" => Ok(stuck()),
        "troubles" => Ok(troubles()),
        other => Err(format!("there is no table {other}")),
    }
}

fn claims() -> String {
    let rows = CLAIMS.iter().filter_map(|c| c.name.split_once(": "));
    rows.fold("| claim | in words |\n|---|---|\n".into(), |text, (name, words)| {
        format!("{text}| {name} | {words} |\n")
    })
}

fn runs() -> String {
    let mut text = String::from("| run | events in a row | unique states |\n|---|---|---|\n");
    for run in CI {
        let states = run.unique.map_or("not pinned".into(), grouped);
        let _ = writeln!(text, "| {} | {} | {states} |", run.name, run.depth);
    }
    let all: usize = CI.iter().filter_map(|run| run.unique).sum();
    let _ = writeln!(text, "| **all** | | **{}** |", grouped(all));
    text
}

/// 1234567 as 1,234,567.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

fn mutations() -> Result<String, String> {
    let mut text = String::from("| taken away | breaks | events | way |\n|---|---|---|---|\n");
    for m in &MUTATIONS {
        let way = m.way().map_err(|e| format!("{}: {e}", m.name()))?;
        let given =
            if m.before.is_empty() { String::new() } else { format!(", {} of them given", m.before.len()) };
        let (name, words, events) = (m.name(), m.words(), way.lines().count());
        let _ = writeln!(text, "| {words} | {} | {events}{given} | `{name}` |", m.breaks);
    }
    Ok(text)
}

fn stuck() -> String {
    let mut text = String::from("| taken away | the fault that then stops the pair for good |\n|---|---|\n");
    for s in &STUCK {
        let words: Vec<_> = s.clauses.iter().map(|c| c.words()).chain(s.part.map(Part::words)).collect();
        let _ = writeln!(text, "| {} | {} |", words.join(" And: "), s.trouble);
    }
    text
}

fn troubles() -> String {
    let bounds = Bounds { grain: GRAIN, ..Bounds::CALM };
    let calm = Pair::new(bounds, &[]).first;
    let mut text = String::from("| fault; a is the primary | commits again after |\n|---|---|\n");
    let told = |t: &Trouble| match endure(&calm, &bounds, t).0 {
        Some(0) => "at once".into(),
        Some(steps) => format!("{:.2} `ttl`", steps as f64 / GRAIN as f64),
        None => "never".into(),
    };
    for t in SINGLE.iter().chain(&WITHOUT_API) {
        let _ = writeln!(text, "| {} | {} |", t.name, told(t));
    }
    text
}
