//! Agents are heard by tasks of their own, one for each, beside the reconciles: a reconcile takes what was heard last, and never
//! waits for an agent that is silent.
//!
//! A task asks for a report newer than the one it has, and the agent holds its answer back until there is one (see
//! [`pgpair_wire::hold`]). What is new triggers a reconcile of the pair; that there is nothing new costs one small exchange every
//! some seconds. An agent that does not answer is asked more and more slowly, and from a pool of its own, so that a zone of silent
//! agents takes nobody else's turn.

mod listener;
mod seed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgpair_api::names::PairName;
use pgpair_core::ids::InstanceId;
use pgpair_wire::report::InstanceReport;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::listener::Listener;
pub use self::seed::SeedEar;
use crate::agent_client::AgentAddress;
use crate::triggers::Triggers;

/// Handshakes at once with agents of which nothing bad is known. An address that swallows everything gets none, and takes no place.
const GREETING: usize = 64;
/// Handshakes at once with agents that did not answer last: a process that is stopped accepts connections.
const GREETING_AGAIN: usize = 64;
/// Longest wait of a reconcile for agents that are asked anew.
const ASKED: Duration = Duration::from_secs(1);

/// How often an agent is heard of that has nothing new to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Something is under way with the pair.
    Brisk,
    /// The pair is as it should be.
    Calm,
}

impl Pace {
    /// How long an agent holds its answer back.
    #[must_use]
    pub const fn hold(self) -> Duration {
        match self {
            Pace::Brisk => Duration::from_secs(1),
            Pace::Calm => Duration::from_secs(8),
        }
    }
}

/// What all listeners share.
#[derive(Debug, Clone)]
pub struct Hearing {
    triggers: Triggers,
    greeting: Arc<Semaphore>,
    greeting_again: Arc<Semaphore>,
}

impl Hearing {
    /// Announces what is new to `triggers`.
    #[must_use]
    pub fn new(triggers: Triggers) -> Hearing {
        Hearing {
            triggers,
            greeting: Arc::new(Semaphore::new(GREETING)),
            greeting_again: Arc::new(Semaphore::new(GREETING_AGAIN)),
        }
    }
}

/// What was heard of one agent.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// Its last report, and when it last said that this is its report.
    pub report: Option<(Arc<InstanceReport>, Instant)>,
    /// It did not answer when it was asked last.
    pub is_silent: bool,
}

impl Heard {
    fn is_newer_than(&self, age: Duration) -> bool {
        self.report.as_ref().is_some_and(|(_, at)| at.elapsed() < age)
    }
}

/// Listens to the agent of one instance.
#[derive(Debug, Default)]
pub struct Ear(Option<Task>);

/// Between an ear and its listener.
#[derive(Debug, Default)]
struct Signals {
    /// The pace.
    calm: AtomicBool,
    /// The request under way may be held back by the agent.
    is_held_back: AtomicBool,
}

#[derive(Debug)]
struct Task {
    to: AgentAddress,
    signals: Arc<Signals>,
    asks: watch::Sender<()>,
    heard: watch::Receiver<Heard>,
    task: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ear {
    /// Listens to the agent `i` of `pair` at `to`; to nobody while it is not known where that is.
    pub fn listen(&mut self, hearing: &Hearing, pair: &PairName, i: InstanceId, to: Option<AgentAddress>) {
        let Some(to) = to else {
            self.0 = None;
            return;
        };
        if self.0.as_ref().is_some_and(|task| task.to.is(&to)) {
            return;
        }
        let (asks, asked) = watch::channel(());
        let (tell, heard) = watch::channel(Heard::default());
        let signals = Arc::<Signals>::default();
        let listener = Listener {
            hearing: hearing.clone(),
            pair: pair.clone(),
            i,
            to: to.clone(),
            signals: signals.clone(),
            tell,
            connection: None,
            failures: 0,
        };
        self.0 = Some(Task { to, signals, asks, heard, task: tokio::spawn(listener.run(asked)) });
    }

    /// What was heard.
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.0.as_ref().map(|task| task.heard.borrow().clone()).unwrap_or_default()
    }

    /// How often it is to be heard of from now on.
    pub fn set_pace(&self, pace: Pace) {
        if let Some(task) = &self.0 {
            task.signals.calm.store(pace == Pace::Calm, Ordering::Relaxed);
        }
    }

    /// Waits a moment for the first word of an agent; not for an agent that was heard before or is silent.
    async fn hear_first(&mut self) {
        let Some(task) = &mut self.0 else { return };
        // Without one by then, it is unknown.
        let _ = timeout(ASKED, task.heard.wait_for(|heard| heard.is_silent || heard.report.is_some())).await;
    }

    /// Asks anew if the last answer is as old as `age`, and waits a moment for the new one; not for an agent that is silent.
    async fn refresh(&mut self, age: Duration) {
        let Some(task) = &mut self.0 else { return };
        let newer = |heard: &Heard| heard.is_silent || heard.is_newer_than(age);
        if newer(&task.heard.borrow()) {
            return;
        }
        task.signals.calm.store(false, Ordering::Relaxed);
        if task.signals.is_held_back.load(Ordering::Relaxed) {
            task.asks.send_replace(());
        }
        // Without an answer by then, what is known counts as old.
        let _ = timeout(ASKED, task.heard.wait_for(newer)).await;
    }
}

/// Both ears of a pair.
#[derive(Debug, Default)]
pub struct Ears {
    a: Ear,
    b: Ear,
}

impl Ears {
    /// See [`Ear::listen`].
    pub fn listen(&mut self, hearing: &Hearing, pair: &PairName, i: InstanceId, to: Option<AgentAddress>) {
        let ear = match i {
            InstanceId::A => &mut self.a,
            InstanceId::B => &mut self.b,
        };
        ear.listen(hearing, pair, i, to);
    }

    /// What was heard of the agent of `i`.
    #[must_use]
    pub fn heard(&self, i: InstanceId) -> Heard {
        match i {
            InstanceId::A => self.a.heard(),
            InstanceId::B => self.b.heard(),
        }
    }

    /// How often both are to be heard of from now on.
    pub fn set_pace(&self, pace: Pace) {
        self.a.set_pace(pace);
        self.b.set_pace(pace);
    }

    /// See [`Ear::hear_first`]: both at once.
    pub async fn hear_first(&mut self) {
        tokio::join!(self.a.hear_first(), self.b.hear_first());
    }

    /// See [`Ear::refresh`]: both at once.
    pub async fn refresh(&mut self, age: Duration) {
        tokio::join!(self.a.refresh(age), self.b.refresh(age));
    }
}

#[cfg(test)]
mod tests;
