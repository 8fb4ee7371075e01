//! Events on their way to the API server. They are for people, so no work waits for them: a task of its own sends one after the other.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::Recorder;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::EventDraft;
use crate::metrics::Metrics;

/// Events that may wait. While the API server is away one more comes with each change of a pair.
const WAITING: usize = 1024;
/// Longest wait for an Event to be taken.
const TAKEN_WITHIN: Duration = Duration::from_secs(3);
/// Longest wait for those that are on their way when leadership ends.
const DRAINED_WITHIN: Duration = Duration::from_secs(2);

/// Where Events are handed in. Clones share the queue.
#[derive(Debug, Clone)]
pub struct EventQueue {
    waiting: mpsc::Sender<Waiting>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
enum Waiting {
    Event(Box<(ObjectReference, EventDraft)>),
    /// All before it have been sent.
    Mark(oneshot::Sender<()>),
}

impl EventQueue {
    /// Starts the task that sends them through `recorder`; it ends after the last clone of the queue, when all have been sent.
    #[must_use]
    pub fn start(recorder: Recorder, metrics: Arc<Metrics>) -> EventQueue {
        EventQueue::with_room(WAITING, recorder, metrics)
    }

    fn with_room(room: usize, recorder: Recorder, metrics: Arc<Metrics>) -> EventQueue {
        let (waiting, mut next) = mpsc::channel(room);
        let counts = metrics.clone();
        tokio::spawn(async move {
            while let Some(waiting) = next.recv().await {
                match waiting {
                    Waiting::Event(event) => send(&recorder, &counts, &event.0, &event.1).await,
                    Waiting::Mark(reached) => drop(reached.send(())), // it may no longer be waited for
                }
            }
        });
        EventQueue { waiting, metrics }
    }

    /// Hands in an Event about `about`. One too many is dropped and counted.
    pub fn publish(&self, about: &ObjectReference, draft: EventDraft) {
        let reason = draft.reason.as_str();
        if self.waiting.try_send(Waiting::Event(Box::new((about.clone(), draft)))).is_err() {
            self.metrics.events_dropped.inc();
            tracing::warn!(reason, "an event was dropped: too many wait for the API server");
        }
    }

    /// Waits until what was handed in has been sent, but not long.
    pub async fn drain(&self) {
        let (reached, sent) = oneshot::channel();
        let drained = async {
            if self.waiting.send(Waiting::Mark(reached)).await.is_ok() {
                let _ = sent.await; // an error: the task has ended, and nothing waits
            }
        };
        if timeout(DRAINED_WITHIN, drained).await.is_err() {
            tracing::warn!("events still wait for the API server");
        }
    }
}

/// Sends one. That it is not taken is logged, and no more.
async fn send(recorder: &Recorder, metrics: &Metrics, about: &ObjectReference, draft: &EventDraft) {
    metrics.wrote("Event", "event");
    match timeout(TAKEN_WITHIN, recorder.publish(&draft.event(), about)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, reason = draft.shown, "an event was refused"),
        Err(_) => tracing::warn!(reason = draft.shown, "an event was not taken in time"),
    }
}

#[cfg(test)]
mod tests {
    use kube::Resource;
    use kube::runtime::events::Reporter;
    use pgpair_api::events::EventReason;
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::fixtures::pair;
    use crate::mock_api::{Answers, mock_api, seen};

    fn queue(client: kube::Client, room: usize) -> EventQueue {
        let recorder = Recorder::new(client, Reporter { controller: "test".into(), instance: None });
        EventQueue::with_room(room, recorder, Arc::default())
    }

    fn publish(queue: &EventQueue, notes: impl IntoIterator<Item = u32>) {
        for note in notes {
            // Of one object they would be one series, with one note.
            let about = ObjectReference { name: Some(format!("p{note}")), ..pair(json!({})).object_ref(&()) };
            queue.publish(&about, EventDraft::new(EventReason::OrderDone, false, note.to_string()));
        }
    }

    fn dropped(queue: &EventQueue) -> u64 {
        queue.metrics.events_dropped.get()
    }

    #[tokio::test]
    async fn events_are_sent_in_their_order_and_all_of_them_before_a_drain_ends() {
        let (client, server) = mock_api(Answers::Empty);
        let queue = queue(client, 100);
        publish(&queue, 1..=20);
        queue.drain().await;
        assert_eq!(dropped(&queue), 0);
        assert!(queue.metrics.render().contains(r#"api_writes_total{kind="Event",verb="event"} 20"#));
        drop(queue);
        let notes: Vec<u32> =
            seen(server).await.iter().map(|s| s.body["note"].as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(notes, (1..=20).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_answer_holds_nobody_up_and_what_is_too_much_is_counted() {
        let (client, _server) = mock_api(Answers::Silent("events"));
        let queue = queue(client, 4);
        let begun = Instant::now();
        publish(&queue, 1..=10);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(dropped(&queue), 6);
        queue.drain().await;
        assert_eq!(begun.elapsed(), DRAINED_WITHIN, "leadership ends all the same");
    }
}
