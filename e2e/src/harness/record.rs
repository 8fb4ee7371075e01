//! What the record of a pair said, version by version, while something happened to the pair.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::WatchParams;
use kube::core::WatchEvent;
use kube::{Api, ResourceExt as _};
use pgpair_core::authority::Durability;
use pgpair_core::record::{Mode, Record};
use pgpair_wire::lease;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::harness::pair::Pair;
use crate::harness::wait::await_condition;
use crate::oracle::writer::now_us;

/// One watch; the API server ends it then, and a new one goes on.
const WATCH_S: u32 = 60;
/// Without an event and without an end for so long, the connection is dead.
const SILENCE: Duration = Duration::from_secs(70);
/// The API server has forgotten the version to begin from.
const GONE: u16 = 410;
/// After an error.
const RETRY: Duration = Duration::from_millis(200);

/// One version of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// When it was seen, microseconds since 1970. While the API server is away nothing is seen, and nothing is written.
    pub at_us: i64,
    /// Its content.
    pub record: Record,
}

/// Follows the record until dropped.
#[derive(Debug)]
pub struct RecordLog {
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for RecordLog {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RecordLog {
    /// Begins.
    #[must_use]
    pub fn start(pair: &Pair) -> RecordLog {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(follow(pair.clone(), Arc::clone(&seen)));
        RecordLog { seen, task }
    }

    /// Every version so far.
    #[must_use]
    pub fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The latest version.
    #[must_use]
    pub fn last(&self) -> Option<Seen> {
        self.all().pop()
    }
}

/// The record as it is now.
///
/// # Errors
/// When there is none, or it cannot be read.
pub async fn read(pair: &Pair) -> anyhow::Result<Record> {
    let lease = leases(pair).get(pair.names.lease()).await.context("reading the record")?;
    parse(&lease)
}

/// Waits until the record says that durability, and `Paired`.
///
/// # Errors
/// After `limit`, with what it says instead.
pub async fn await_durability(pair: &Pair, wanted: Durability, limit: Duration) -> anyhow::Result<()> {
    let what = format!("durability {} in the record", wanted.as_str());
    let reached = await_condition(&what, limit, || async {
        let record = read(pair).await?;
        ensure!(record.durability.as_str() == wanted.as_str(), "it says {}", record.durability.as_str());
        ensure!(record.mode == Mode::Paired, "it says {}", record.mode);
        Ok(())
    });
    let reached = reached.await;
    pair.explain(reached).await
}

fn leases(pair: &Pair) -> Api<Lease> {
    Api::namespaced(pair.cluster.client.clone(), &pair.names.namespace)
}

fn parse(lease: &Lease) -> anyhow::Result<Record> {
    let spec = lease.spec.clone().unwrap_or_default();
    let annotations = lease.metadata.annotations.clone().unwrap_or_default();
    lease::read(spec.holder_identity.as_deref(), spec.lease_transitions, &annotations)
        .context("reading the record")
}

async fn follow(pair: Pair, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut version = None;
    loop {
        // What the API server cannot tell any more is begun anew; versions in between are then missed.
        if watch(&pair, &seen, &mut version).await.is_err() {
            sleep(RETRY).await;
        }
    }
}

async fn watch(pair: &Pair, seen: &Mutex<Vec<Seen>>, version: &mut Option<String>) -> anyhow::Result<()> {
    let api = leases(pair);
    let from = match version.take() {
        Some(version) => version,
        None => {
            let lease = timeout(SILENCE, api.get(pair.names.lease())).await??;
            note(seen, parse(&lease)?);
            lease.resource_version().context("the Lease has no version")?
        }
    };
    *version = Some(from.clone());
    let params =
        WatchParams::default().fields(&format!("metadata.name={}", pair.names.lease())).timeout(WATCH_S);
    let answer = timeout(SILENCE, api.watch(&params, &from)).await?;
    if matches!(&answer, Err(kube::Error::Api(status)) if status.code == GONE) {
        *version = None;
    }
    let mut events = pin!(answer?);
    while let Some(event) = timeout(SILENCE, events.next()).await? {
        match event? {
            WatchEvent::Added(lease) | WatchEvent::Modified(lease) => {
                *version = lease.resource_version();
                note(seen, parse(&lease)?);
            }
            WatchEvent::Error(error) => {
                *version = None;
                bail!("the watch ended: {error:?}");
            }
            WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => {}
        }
    }
    Ok(())
}

fn note(seen: &Mutex<Vec<Seen>>, record: Record) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.last().map(|s| s.record) != Some(record) {
        seen.push(Seen { at_us: now_us(), record });
    }
}

/// Changes of the term: somebody took over, or the primary took the next term itself.
#[must_use]
pub fn failovers(seen: &[Seen]) -> usize {
    seen.windows(2).filter(|two| two[0].record.term != two[1].record.term).count()
}

/// Times that a primary left `Paired` within its term.
#[must_use]
pub fn excursions(seen: &[Seen]) -> usize {
    let left = |two: &&[Seen]| {
        let (before, after) = (two[0].record, two[1].record);
        before.term == after.term && before.mode == Mode::Paired && after.mode == Mode::Solo
    };
    seen.windows(2).filter(left).count()
}

/// When the last version came that said `Paired` after another mode or term; `None` when the record has said so all along.
#[must_use]
pub fn paired_again_us(seen: &[Seen]) -> Option<i64> {
    let again = |two: &&[Seen]| {
        let (before, after) = (two[0].record, two[1].record);
        after.mode == Mode::Paired && (before.mode != Mode::Paired || before.term != after.term)
    };
    seen.windows(2).rev().find(again).map(|two| two[1].at_us)
}

/// For people: `Paired 3 a, Solo 3 a, Paired 3 a`.
#[must_use]
pub fn tell(seen: &[Seen]) -> String {
    let one = |s: &Seen| format!("{} {} {}", s.record.mode, s.record.term.0, s.record.primary.instance);
    let mut told: Vec<String> = seen.iter().map(one).collect();
    told.dedup();
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use pgpair_core::ids::{InstanceId, Term};

    use super::*;

    fn seen(versions: &[(Mode, u32)]) -> Vec<Seen> {
        let one = |(at, (mode, term)): (usize, &(Mode, u32))| {
            let mut record = Record { mode: *mode, term: Term(*term), ..Record::initial() };
            record.primary.instance = if term % 2 == 1 { InstanceId::A } else { InstanceId::B };
            Seen { at_us: i64::try_from(at).unwrap(), record }
        };
        versions.iter().enumerate().map(one).collect()
    }

    #[test]
    fn a_take_over_is_a_failover_and_no_excursion() {
        let log = seen(&[(Mode::Paired, 1), (Mode::Solo, 2), (Mode::Paired, 2)]);
        assert_eq!((failovers(&log), excursions(&log), paired_again_us(&log)), (1, 0, Some(2)));
        assert_eq!(tell(&log), "Paired 1 a, Solo 2 b, Paired 2 b");
    }

    #[test]
    fn going_on_alone_and_back_is_an_excursion() {
        let log = seen(&[(Mode::Paired, 1), (Mode::Solo, 1), (Mode::Paired, 1), (Mode::Solo, 1)]);
        assert_eq!((failovers(&log), excursions(&log), paired_again_us(&log)), (0, 2, Some(2)));
    }

    #[test]
    fn a_record_that_never_changes_was_never_left() {
        let log = seen(&[(Mode::Paired, 1)]);
        assert_eq!((failovers(&log), excursions(&log), paired_again_us(&log)), (0, 0, None));
        assert_eq!(tell(&[]), "");
    }
}
