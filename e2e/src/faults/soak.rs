//! Faults at random for minutes, under load.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pgpair_core::authority::Durability;

use crate::faults::dice::Dice;
use crate::faults::kind::{Entry, Kind};
use crate::faults::load::{self, BESIDE_FAULTS, Load};
use crate::faults::round;
use crate::faults::row::{Case, Row, Rows};
use crate::faults::stand::{Stand, folder};
use crate::harness::cluster::Cluster;
use crate::harness::record;

const DURABILITIES: [Durability; 3] = [Durability::Sync, Durability::SyncStrict, Durability::Async];

/// Draws faults until `length` has passed or `stop` says so; returns every row. Each is stored behind the `earlier` ones.
///
/// # Errors
/// When no pair comes up, or the rows cannot be written. Bad verdicts are no error.
pub async fn soak(
    cluster: &Cluster,
    length: Duration,
    seed: u64,
    earlier: Rows,
    out: &Path,
    stop: impl Fn() -> bool,
) -> anyhow::Result<Rows> {
    println!("soak of {} minutes with seed {seed}", length.as_secs() / 60);
    let (mut dice, begin) = (Dice::new(seed), Instant::now());
    let kinds: Vec<&Entry> = Kind::all().collect();
    let (known, mut rows) = (earlier.0.len(), earlier);
    let mut stand = fresh(Stand::bring_up(cluster).await?).await?;
    while begin.elapsed() < length && !stop() {
        // Drawn before anything can fail: the same seed draws the same faults.
        let entry = *dice.one_of(&kinds).context("no kinds")?;
        let durability = *dice.one_of(&DURABILITIES).context("no durabilities")?;
        let seed = dice.draw();
        let primary = record::read(&stand.pair).await?.primary.instance;
        let case = Case { entry, durability, primary, seed };
        let load = Load::start(&stand.pair, BESIDE_FAULTS);
        // The tables are compared at rest.
        let outcome = round::run_one(&stand, &case, Some(load)).await;
        println!("[{:4} s] {}", begin.elapsed().as_secs(), outcome.row);
        if !outcome.reusable {
            stand = fresh(stand.replace(&folder(out, &case)).await?).await?;
        }
        // Every one counts, the same case twice too.
        rows.0.push(outcome.row);
        rows.store(&out.join("soak.json"))?;
    }
    stand.tear_down().await?;
    Ok(Rows(rows.0.split_off(known)))
}

async fn fresh(stand: Stand) -> anyhow::Result<Stand> {
    let primary = record::read(&stand.pair).await?.primary.instance;
    match load::prepare(&stand.pair, primary).await {
        Ok(()) => Ok(stand),
        Err(error) => {
            stand.tear_down().await?;
            Err(error)
        }
    }
}

/// For people: what the whole soak says.
#[must_use]
pub fn verdict(rows: &[Row]) -> String {
    let found = || rows.iter().filter_map(|row| row.found.as_ref());
    let bad = rows.iter().filter(|row| !row.holds()).count();
    format!(
        "{} faults, {bad} of them not as they should be: {} acknowledged, {} lost in the sync modes, {} lost in Async, {} late, {} \
         times a person",
        rows.len(),
        found().map(|f| f.acknowledged).sum::<usize>(),
        lost(rows, |durability| durability != "Async"),
        lost(rows, |durability| durability == "Async"),
        found().map(|f| f.late_acks).sum::<usize>(),
        rows.iter().filter(|row| row.human).count()
    )
}

fn lost(rows: &[Row], which: impl Fn(&str) -> bool) -> usize {
    rows.iter().filter(|r| which(&r.durability)).filter_map(|r| r.found.as_ref()).map(|f| f.rows_lost).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::row::tests::row;

    #[test]
    fn losses_are_told_apart_by_what_was_promised() {
        let mut rows = vec![row("agent-kill", "Sync", "a"), row("agent-kill", "Async", "a")];
        rows[1].found.iter_mut().for_each(|f| f.rows_lost = 2);
        let told = verdict(&rows);
        assert_eq!(
            told,
            "2 faults, 0 of them not as they should be: 1000 acknowledged, 0 lost in the sync modes, 2 lost in Async, 0 late, 0 \
             times a person"
        );
    }
}
