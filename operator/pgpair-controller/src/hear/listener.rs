//! The task that listens to one agent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgpair_api::names::PairName;
use pgpair_core::ids::InstanceId;
use pgpair_wire::client::{self, MAX_ANSWER, RequestError};
use pgpair_wire::paths;
use pgpair_wire::report::InstanceReport;
use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use super::{Heard, Hearing, Pace, Signals};
use crate::agent_client::{AgentAddress, AgentPoll};

/// Longest wait for an answer, beyond the time for which it is held back.
const ANSWER: Duration = Duration::from_secs(2);
/// Shortest time between two requests to one agent: one that always has something new must not keep this process busy.
const GAP: Duration = Duration::from_millis(100);
/// The same for an agent that does not hold its answers back, because it is older than this operator.
const GAP_OLDER: Duration = Duration::from_secs(1);
/// Before an agent that did not answer is asked again, doubled with each time in a row.
const AGAIN_FIRST: Duration = Duration::from_millis(500);
/// Longest such wait.
const AGAIN_LONGEST: Duration = Duration::from_secs(5);

/// Listens to one agent.
pub(super) struct Listener {
    pub(super) hearing: Hearing,
    pub(super) pair: PairName,
    pub(super) i: InstanceId,
    pub(super) to: AgentAddress,
    pub(super) signals: Arc<Signals>,
    pub(super) tell: watch::Sender<Heard>,
    pub(super) connection: Option<Box<AgentPoll>>,
    /// Requests without a usable answer in a row.
    pub(super) failures: u32,
}

impl Listener {
    /// Listens until `asked` has nobody any more. What comes from there cuts a request off that is held back.
    pub(super) async fn run(mut self, mut asked: watch::Receiver<()>) {
        loop {
            let begun = Instant::now();
            let answer = tokio::select! {
                answer = self.ask() => answer,
                more = asked.changed() => {
                    self.signals.is_held_back.store(false, Ordering::Relaxed);
                    match more {
                        Ok(()) => continue,
                        Err(_) => return,
                    }
                }
            };
            let pause = self.note(answer);
            tokio::select! {
                () = sleep_until((begun + pause).into()) => {}
                more = asked.changed() => if more.is_err() { return },
            }
        }
    }

    /// The next report; `None`: the last one still stands. Over the connection that is open, or over a new one: the agent at its
    /// other end may have been replaced meanwhile, and the last report says nothing about the new one.
    async fn ask(&mut self) -> Result<Option<InstanceReport>, RequestError> {
        let version = self.tell.borrow().report.as_ref().and_then(|(report, _)| report.version);
        // Taken out while it is used: whoever cuts a request off ends its connection.
        if let (Some(mut connection), Some(version)) = (self.connection.take(), version) {
            let calm = self.signals.calm.load(Ordering::Relaxed);
            let hold = if calm { Pace::Calm } else { Pace::Brisk }.hold();
            let path = paths::report_after(version, hold);
            self.signals.is_held_back.store(true, Ordering::Relaxed);
            let answer = within(hold + ANSWER, connection.get(&path, MAX_ANSWER)).await;
            self.signals.is_held_back.store(false, Ordering::Relaxed);
            match answer {
                Err(RequestError::Broken(_)) => {}
                answer => return self.read(connection, &answer?),
            }
        }
        // On the heap, for the moment: it is several times as large as all that is kept while an answer is waited for.
        let (connection, answer) = Box::pin(self.greet()).await?;
        self.read(connection, &answer)
    }

    /// A report over a new connection.
    async fn greet(&self) -> Result<(Box<AgentPoll>, Vec<u8>), RequestError> {
        let stream = within(ANSWER, self.to.connect()).await?;
        let pool = if self.failures == 0 { &self.hearing.greeting } else { &self.hearing.greeting_again };
        let _permit = pool.acquire().await; // never closed
        let fetch = async {
            let mut connection = Box::new(self.to.secure(stream).await?);
            let answer = connection.get(paths::REPORT, MAX_ANSWER).await?;
            Ok((connection, answer))
        };
        within(ANSWER, fetch).await
    }

    fn read(
        &mut self,
        connection: Box<AgentPoll>,
        answer: &[u8],
    ) -> Result<Option<InstanceReport>, RequestError> {
        let report = match answer {
            [] => None,
            answer => Some(client::parse::<InstanceReport>(answer)?.bounded()),
        };
        self.connection = Some(connection);
        Ok(report)
    }

    /// Takes an answer down, announces what is new, and gives the time until the next request, counted from the last one.
    fn note(&mut self, answer: Result<Option<InstanceReport>, RequestError>) -> Duration {
        let before = self.tell.borrow().clone();
        let report = match answer {
            Ok(Some(report)) if report.instance != self.i => {
                tracing::warn!(namespace = self.pair.namespace, pair = self.pair.name, instance = %self.i, answered = %report.instance, "another instance answered");
                return self.failed(&before);
            }
            Err(error) => {
                tracing::debug!(namespace = self.pair.namespace, pair = self.pair.name, instance = %self.i, error = &error as &dyn std::error::Error, "no report");
                return self.failed(&before);
            }
            Ok(Some(report)) => Some(Arc::new(report)),
            Ok(None) => before.report.as_ref().map(|(report, _)| report.clone()),
        };
        self.failures = 0;
        let Some(report) = report else { return GAP };
        let is_new = before.is_silent || before.report.as_ref().is_none_or(|(last, _)| *last != report);
        let gap = if report.version.is_some() { GAP } else { GAP_OLDER };
        self.tell.send_replace(Heard { report: Some((report, Instant::now())), is_silent: false });
        if is_new {
            self.hearing.triggers.announce(&self.pair);
        }
        gap
    }

    fn failed(&mut self, before: &Heard) -> Duration {
        self.connection = None;
        self.failures = self.failures.saturating_add(1);
        if !before.is_silent {
            self.tell.send_replace(Heard { is_silent: true, ..before.clone() });
            self.hearing.triggers.announce(&self.pair);
        }
        let pause = AGAIN_FIRST.saturating_mul(1 << (self.failures - 1).min(8)).min(AGAIN_LONGEST);
        // Of a whole zone that came back, not all at once.
        pause.mul_f64(1.0 + rand::rng().random_range(0.0..0.2))
    }
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, RequestError>>,
) -> Result<T, RequestError> {
    timeout(limit, answer).await.unwrap_or(Err(RequestError::Late(limit)))
}
