//! When a status is worth a write. Numbers that move all the time are compared by what they mean, not digit by digit.

use std::time::Duration;

use pgpair_api::status::{ConditionType, LagStatus, PgReplicaPairStatus, Reason, RtoStatus, StorageStatus};
use pgpair_core::lsn::Lsn;

/// Shortest time between two writes of the status of one pair. An agent whose words change all the time writes into etcd by the
/// operator's hand. Only what becomes of an order is written at once: it is sent when it is announced there.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between writes that are made for moving numbers only.
const MOVING_INTERVAL: Duration = Duration::from_secs(10);
/// Shortest time between writes that are made for the progress of a base backup only.
const SEEDING_INTERVAL: Duration = Duration::from_secs(2);
/// Progress of a base backup that is worth a write.
const SEEDING_PERCENT: i64 = 5;
/// Free space is worth a write when it has moved by one part in so many of its volume.
const SPACE_DIVISOR: u64 = 20;
/// A position is worth a write when it has moved this far: one WAL segment.
const POSITION_STEP: u64 = 16 * 1024 * 1024;

/// Conditions whose messages tell numbers that move: their status and reason decide about a write.
const TELLS_NUMBERS: [ConditionType; 3] =
    [ConditionType::FailoverReady, ConditionType::StorageHealthy, ConditionType::UpdatePending];

/// Whether `new` is worth writing over `old`, which was written `since` ago (`None`: by an earlier process).
#[must_use]
pub fn is_worth_a_write(
    old: &PgReplicaPairStatus,
    new: &PgReplicaPairStatus,
    since: Option<Duration>,
) -> bool {
    // As JSON: what was read back has whole seconds where this process knows milliseconds.
    let json = |status| serde_json::to_value(settled_part(status)).unwrap_or_default();
    let waited = |interval| since.is_none_or(|s| s >= interval);
    if json(old) != json(new) {
        let order = |status: &PgReplicaPairStatus| serde_json::to_value(&status.order).unwrap_or_default();
        return waited(SHORTEST_INTERVAL) || order(old) != order(new);
    }
    let moved = moving_part(old) != moving_part(new) || positions_moved(old, new) || space_moved(old, new);
    (moved && waited(MOVING_INTERVAL)) || (seeding_moved(old, new) && waited(SEEDING_INTERVAL))
}

/// After which time `new` is worth a write that it is not worth yet; `None`: it is, or will not be.
#[must_use]
pub fn due_in(
    old: &PgReplicaPairStatus,
    new: &PgReplicaPairStatus,
    since: Option<Duration>,
) -> Option<Duration> {
    let later = !is_worth_a_write(old, new, since) && is_worth_a_write(old, new, None);
    let soon = is_worth_a_write(old, new, Some(SHORTEST_INTERVAL));
    let interval = if soon { SHORTEST_INTERVAL } else { MOVING_INTERVAL };
    later.then(|| interval.saturating_sub(since.unwrap_or_default()))
}

/// Everything but what moves by itself. A change here is written as soon as may be.
fn settled_part(status: &PgReplicaPairStatus) -> PgReplicaPairStatus {
    let mut out =
        PgReplicaPairStatus { lag: None, archive: Vec::new(), storage: Vec::new(), ..status.clone() };
    // Their numbers move with the lag; they are written whenever that is.
    if let Some(rpo) = &mut out.rpo {
        (rpo.bytes, rpo.seconds) = (None, None);
    }
    // Without estimates it may have nothing left to say: the same as none at all.
    out.rto =
        out.rto.map(|rto| RtoStatus { estimates: Vec::new(), ..rto }).filter(|r| *r != RtoStatus::default());
    for condition in &mut out.conditions {
        // What an agent refuses it says in words.
        let has_words = condition.reason == Reason::SettingsRefused.as_str();
        if TELLS_NUMBERS.iter().any(|t| t.as_str() == condition.type_) && !has_words {
            condition.message.clear();
        }
    }
    for instance in &mut out.instances {
        (instance.flush_lsn, instance.replay_lsn, instance.receive_lsn) = (None, None, None);
    }
    if let Some(seeding) = &mut out.seeding {
        (seeding.done_bytes, seeding.total_bytes, seeding.percent) = (None, None, None);
    }
    out
}

/// What moves by itself, by what it means.
#[derive(PartialEq)]
struct Moving<'a> {
    lag: Option<[u32; 2]>,
    archives: Vec<Archived<'a>>,
}

/// An archive without its age.
#[derive(PartialEq)]
struct Archived<'a> {
    last_segment: Option<&'a str>,
    failures: Option<i64>,
    backlog: Option<u32>,
}

fn moving_part(status: &PgReplicaPairStatus) -> Moving<'_> {
    let archives = status.archive.iter().map(|a| Archived {
        last_segment: a.last_segment.as_deref(),
        failures: a.failures,
        backlog: a.backlog_segments.map(|n| level(n, 4)),
    });
    Moving { lag: status.lag.as_ref().map(lag_level), archives: archives.collect() }
}

/// Lag in levels: of bytes by factors of 4 above 1 MiB, of seconds by factors of 4 above 1 s.
fn lag_level(lag: &LagStatus) -> [u32; 2] {
    match &lag.total {
        None => [u32::MAX; 2],
        Some(total) => [level(total.bytes, 1 << 20), level(total.seconds as i64, 1)],
    }
}

/// 0 below `first`, then one more for each factor of 4.
fn level(n: i64, first: i64) -> u32 {
    let times = u64::try_from(n / first).unwrap_or(0);
    if times == 0 { 0 } else { times.ilog2() / 2 + 1 }
}

fn positions_moved(old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) -> bool {
    let position = |text: &Option<String>| text.as_deref().and_then(|t| t.parse::<Lsn>().ok());
    let moved = |old: &Option<String>, new: &Option<String>| match (position(old), position(new)) {
        (Some(a), Some(b)) => a.0.abs_diff(b.0) >= POSITION_STEP,
        (a, b) => a != b,
    };
    old.instances
        .iter()
        .zip(&new.instances)
        .any(|(a, b)| moved(&a.flush_lsn, &b.flush_lsn) || moved(&a.replay_lsn, &b.replay_lsn))
}

/// By difference to what was written, so that a value at an edge does not flap.
fn space_moved(old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) -> bool {
    let moved = |size: Option<i64>, old: Option<i64>, new: Option<i64>| match (size, old, new) {
        (Some(size), Some(a), Some(b)) => a.abs_diff(b) >= (size.unsigned_abs() / SPACE_DIVISOR).max(1),
        (_, a, b) => a.is_some() != b.is_some(),
    };
    let differs = |a: &StorageStatus, b: &StorageStatus| {
        (a.data_bytes, a.archive_bytes) != (b.data_bytes, b.archive_bytes)
            || moved(b.data_bytes, a.data_free_bytes, b.data_free_bytes)
            || moved(b.archive_bytes, a.archive_free_bytes, b.archive_free_bytes)
    };
    old.storage.len() != new.storage.len() || old.storage.iter().zip(&new.storage).any(|(a, b)| differs(a, b))
}

fn seeding_moved(old: &PgReplicaPairStatus, new: &PgReplicaPairStatus) -> bool {
    let (Some(old), Some(new)) = (&old.seeding, &new.seeding) else { return false };
    match (old.percent, new.percent) {
        (Some(a), Some(b)) => (b - a).abs() >= SEEDING_PERCENT || (b == 100 && a != 100),
        (a, b) => a != b || old.done_bytes.is_some() != new.done_bytes.is_some(),
    }
}
