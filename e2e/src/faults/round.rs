//! One fault for one pair, or for several at once: each is made ready, then all are struck, then each is judged.

use futures::future::join_all;

use crate::bench::environment;
use crate::faults::load::Load;
use crate::faults::row::{Case, Row};
use crate::faults::stand::Stand;
use crate::faults::trial::{Trial, first_line};

/// How a case ended.
#[derive(Debug)]
pub struct Outcome {
    /// Which.
    pub case: Case,
    /// What is kept of it.
    pub row: Row,
    /// Whether the pair serves for another case.
    pub reusable: bool,
}

/// Runs a case, under a load that is ended before the verdict. What goes wrong is in the row; nothing is left broken.
pub async fn run_one(stand: &Stand, case: &Case, load: Option<Load>) -> Outcome {
    let mut part = Part::new(stand, *case);
    run(std::slice::from_mut(&mut part), load).await;
    part.outcome()
}

/// Runs cases of one kind, each on its own pair, whose primaries are on the same node.
pub async fn run_all(cases: Vec<(&Stand, Case)>) -> Vec<Outcome> {
    let mut parts: Vec<Part<'_>> = cases.into_iter().map(|(stand, case)| Part::new(stand, case)).collect();
    run(&mut parts, None).await;
    parts.into_iter().map(Part::outcome).collect()
}

async fn run(parts: &mut [Part<'_>], load: Option<Load>) {
    join_all(parts.iter_mut().map(Part::begin)).await;
    join_all(parts.iter_mut().map(Part::fault)).await;
    // What they had in common is mended when the last of them mends it.
    let ended_us = parts.iter().filter_map(|p| p.trial.as_ref()).map(|t| t.ended_us).max();
    for trial in parts.iter_mut().filter_map(|p| p.trial.as_mut()) {
        trial.ended_us = ended_us.unwrap_or(trial.ended_us);
    }
    join_all(parts.iter_mut().map(Part::await_whole)).await;
    if let Some(load) = load {
        load.stop().await;
    }
    join_all(parts.iter_mut().map(Part::judge)).await;
}

/// One pair in it.
struct Part<'a> {
    stand: &'a Stand,
    case: Case,
    row: Row,
    /// Present for as long as the case goes on.
    trial: Option<Trial>,
    reusable: bool,
}

impl<'a> Part<'a> {
    fn new(stand: &'a Stand, case: Case) -> Part<'a> {
        let row = Row {
            fault: case.entry.name.into(),
            durability: case.durability.as_str().into(),
            primary: case.primary.as_str().into(),
            seed: case.seed,
            commit: environment::commit(),
            began: jiff::Timestamp::now(),
            found: None,
            human: false,
            trouble: None,
        };
        Part { stand, case, row, trial: None, reusable: false }
    }

    fn outcome(self) -> Outcome {
        Outcome { case: self.case, row: self.row, reusable: self.reusable }
    }

    fn tell(&mut self, when: &str, error: &anyhow::Error) {
        self.row.trouble = Some(first_line(when, error));
    }

    async fn begin(&mut self) {
        let begun = async {
            self.stand.prepare(&self.case).await?;
            Trial::begin(self.stand, &self.case).await
        };
        match begun.await {
            Ok(trial) => (self.trial, self.row.began) = (Some(trial), jiff::Timestamp::now()),
            Err(error) => self.tell("before the fault", &error),
        }
    }

    async fn fault(&mut self) {
        let Some(trial) = &mut self.trial else { return };
        if let Err(error) = trial.fault(&self.case).await {
            self.tell("making the fault", &error);
        }
    }

    async fn await_whole(&mut self) {
        let Some(trial) = &self.trial else { return };
        if let Err(error) = trial.await_whole().await {
            // A status that tells it wrongly is a fault too, and needs nobody.
            self.row.human = trial.goes_on().await.is_err();
            self.tell("the pair is not whole again", &error);
            self.trial = None;
        }
    }

    async fn judge(&mut self) {
        let Some(trial) = &mut self.trial else { return };
        match trial.judge(&self.case).await {
            Ok(found) => (self.row.found, self.reusable) = (Some(found), true),
            Err(error) => self.tell("judging", &error),
        }
    }
}
