//! The journal of decisions: what the loop hands to the state machine goes into a file of the volatile directory, for
//! `pgpair explain`. The loop never waits for the disk: what the writing thread does not take at once is left out, and a
//! snapshot of the state follows as soon as there is room, so that the replay stays right.

mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pgpair_core::authority::timing::Ms;
use pgpair_core::authority::{Authority, Command, Desired, Event, Gate};
use pgpair_core::journal::{FORMAT, Line, Snapshot, VERSION};
use tokio::sync::{mpsc, oneshot};

use crate::fence::clock;
use writer::Writer;

/// Lines on their way to the disk: some seconds of a healthy pair.
const QUEUE: usize = 256;

/// The file that is written.
#[must_use]
pub fn current(dir: &Path) -> PathBuf {
    dir.join("current.jsonl")
}

/// The one before; it is replaced when the current one is full.
#[must_use]
pub fn previous(dir: &Path) -> PathBuf {
    dir.join("previous.jsonl")
}

/// The end of the state machine at which the journal is fed.
#[derive(Debug)]
pub struct Journal {
    lines: mpsc::Sender<Line>,
    /// Set by the writer: its file begins, is full, or has a gap.
    wanted: Arc<AtomicBool>,
    number: u64,
    /// Events that were left out since the last snapshot.
    lost: u64,
    /// What the last event that was told came to: time alone can change it.
    seen: Option<(Gate, Desired)>,
}

impl Journal {
    /// Begins with the state as it is, and writes into `dir` from a thread of its own. What is returned besides comes to
    /// an end when everything is written and the journal is gone.
    #[must_use]
    pub fn start(dir: PathBuf, authority: &Authority) -> (Journal, oneshot::Receiver<()>) {
        let (mut journal, queue) = Journal::new(QUEUE);
        let (written, end) = oneshot::channel();
        let writer = Writer::new(dir, journal.wanted.clone());
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || {
            writer.run(queue);
            let _ = written.send(()); // nobody may be waiting
        });
        if let Err(e) = thread {
            tracing::warn!(error = %e, "no journal of decisions is written");
        }
        journal.snapshot(clock::now(), authority);
        (journal, end)
    }

    fn new(queue: usize) -> (Journal, mpsc::Receiver<Line>) {
        let (lines, queue) = mpsc::channel(queue);
        (Journal { lines, wanted: Arc::default(), number: 0, lost: 0, seen: None }, queue)
    }

    /// [`Authority::handle`], told to the journal. What changes nothing is not told: the replay is the same without it.
    pub fn handle(&mut self, authority: &mut Authority, now: Ms, event: Event) -> Vec<Command> {
        let often = matches!(event, Event::Tick | Event::Postgres(_));
        let before = often.then(|| authority.clone());
        let told = event.clone();
        let commands = authority.handle(now, event);
        let seen = Some((authority.gate(now), authority.desired(now)));
        if commands.is_empty() && seen == self.seen && before.is_some_and(|b| b == *authority) {
            return commands;
        }
        self.seen = seen;
        self.tell(now, told, authority);
        commands
    }

    fn tell(&mut self, now: Ms, event: Event, authority: &Authority) {
        self.number += 1;
        match self.lines.try_reserve() {
            Ok(room) if self.lost == 0 => room.send(Line::Event(now, clock::unix_ms(), event)),
            _ => self.lost += 1,
        }
        if self.lost > 0 || self.wanted.load(Ordering::Relaxed) {
            self.snapshot(now, authority);
        }
    }

    fn snapshot(&mut self, now: Ms, authority: &Authority) {
        let Ok(room) = self.lines.try_reserve() else { return };
        self.wanted.store(false, Ordering::Relaxed);
        room.send(Line::Snapshot(Box::new(Snapshot {
            journal: FORMAT,
            pgpair: VERSION.to_owned(),
            at: now,
            unix_ms: clock::unix_ms(),
            number: self.number,
            lost: std::mem::take(&mut self.lost),
            authority: authority.clone(),
        })));
    }
}

#[cfg(test)]
mod tests;
