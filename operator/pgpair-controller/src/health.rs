//! Whether this replica can do its work: what `/readyz` answers.
//!
//! A watch that is open and quiet gives no sign of life. So a watch counts as broken while its errors repeat, and as open again
//! when something comes, or when no further error comes for longer than the longest pause between two attempts.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::runtime::watcher;
use tokio::time::Instant;

use crate::error::chain;
use crate::metrics::Metrics;

/// An API server that has not answered for so long cannot be reached. The election asks it every 2 s.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// Errors that repeat for so long are no accident: a watch that was cut off once has been opened again by then.
const REPEATED_FOR: Duration = Duration::from_secs(10);
/// A watch without an error for so long is open: kube waits at most 30 s, and as much again by chance, between two attempts.
const OPEN_AFTER: Duration = Duration::from_secs(90);

/// What this replica is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It has not taken part in the election yet.
    Starting,
    /// It waits to lead, and would at once.
    Waiting,
    /// It leads, and its watch caches are being filled.
    Filling,
    /// It leads and works.
    Working,
}

/// Errors of one watch.
#[derive(Debug)]
struct Broken {
    first: Instant,
    last: Instant,
    cause: String,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    answered: Option<Instant>,
    broken: BTreeMap<String, Broken>,
}

/// What is known of this replica's connection to the API server.
#[derive(Debug)]
pub struct Health(Mutex<State>);

impl Default for Health {
    fn default() -> Self {
        Health(Mutex::new(State { phase: Phase::Starting, answered: None, broken: BTreeMap::new() }))
    }
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what this replica is doing. Watches of an earlier phase are over.
    pub fn enter(&self, phase: Phase) {
        let mut state = self.state();
        state.phase = phase;
        if phase != Phase::Working {
            state.broken.clear();
        }
    }

    /// Notes that the API server has answered, whatever it said.
    pub fn note_answer(&self) {
        self.state().answered = Some(Instant::now());
    }

    /// Notes what came from a watch; an error is logged and counted.
    pub fn note_watch<K>(&self, metrics: &Metrics, kind: &str, item: &watcher::Result<watcher::Event<K>>) {
        match item {
            Ok(_) => {
                let mut state = self.state();
                state.broken.remove(kind);
            }
            Err(error) => {
                let cause = chain(error);
                tracing::warn!(kind, error = cause, "the watch of this kind broke and is opened again");
                metrics.watch_broke(kind);
                self.note_error(kind, cause);
            }
        }
    }

    fn note_error(&self, kind: &str, cause: String) {
        let now = Instant::now();
        let mut state = self.state();
        let before = state.broken.get(kind).filter(|b| now - b.last < OPEN_AFTER).map(|b| b.first);
        state.broken.insert(kind.to_owned(), Broken { first: before.unwrap_or(now), last: now, cause });
    }

    /// Whether this replica can do its work, or could at once.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn readiness(&self) -> Result<&'static str, String> {
        let (state, now) = (self.state(), Instant::now());
        match state.answered {
            None => return Err("the API server has not answered yet".into()),
            Some(at) if now - at >= ANSWERS_WITHIN => {
                return Err(format!("the API server has not answered for {} s", (now - at).as_secs()));
            }
            Some(_) => {}
        }
        match state.phase {
            Phase::Starting => Err("the operator is starting".into()),
            Phase::Waiting => Ok("ok: this replica waits to lead"),
            Phase::Filling => Err("the watch caches are being filled".into()),
            Phase::Working => match state.broken.iter().find(|(_, b)| is_down(b, now)) {
                Some((kind, broken)) => Err(format!("the watch of {kind} is down: {}", broken.cause)),
                None => Ok("ok: this replica leads"),
            },
        }
    }
}

fn is_down(broken: &Broken, now: Instant) -> bool {
    now - broken.last < OPEN_AFTER && broken.last - broken.first >= REPEATED_FOR
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn failed() -> watcher::Result<watcher::Event<()>> {
        Err(watcher::Error::NoResourceVersion)
    }

    fn working() -> (Health, Metrics) {
        let health = Health::default();
        health.enter(Phase::Working);
        health.note_answer();
        (health, Metrics::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_is_ready_as_long_as_the_api_server_answers() {
        let health = Health::default();
        assert!(health.readiness().is_err());
        health.note_answer();
        assert!(health.readiness().is_err(), "it has not taken part yet");
        health.enter(Phase::Waiting);
        assert!(health.readiness().is_ok());
        advance(ANSWERS_WITHIN).await;
        assert_eq!(health.readiness(), Err("the API server has not answered for 20 s".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_whose_caches_are_being_filled_is_not_ready() {
        let (health, _) = working();
        health.enter(Phase::Filling);
        assert!(health.readiness().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_again_and_again_makes_a_leader_unready_until_something_comes() {
        let (health, metrics) = working();
        health.note_watch(&metrics, "Pod", &failed());
        assert!(health.readiness().is_ok(), "one error is an accident");
        advance(REPEATED_FOR).await;
        health.note_watch(&metrics, "Pod", &failed());
        health.note_answer();
        assert!(
            health.readiness().unwrap_err().contains("watch of Pod is down: no metadata.resourceVersion")
        );
        health.note_watch(&metrics, "Pod", &Ok(watcher::Event::<()>::Init));
        assert!(health.readiness().is_ok());
        assert!(metrics.render().contains(r#"watch_errors_total{kind="Pod"} 2"#), "{}", metrics.render());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_without_further_errors_counts_as_open() {
        let (health, metrics) = working();
        health.note_watch(&metrics, "Pod", &failed());
        advance(REPEATED_FOR).await;
        health.note_watch(&metrics, "Pod", &failed());
        advance(OPEN_AFTER).await;
        health.note_answer();
        assert!(health.readiness().is_ok());
    }
}
