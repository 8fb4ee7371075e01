//! What `observe.sql` tells, read out of its row.

use pgpair_core::authority::position;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineId;
use pgpair_core::wal::SegmentSize;
use tokio_postgres::Row;

/// Everything that postgres says about itself at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlSnapshot {
    /// Primary: who streams under the standby's name without its slot. Commits would count as safe with them.
    pub impostors: i64,
    /// In recovery, so a standby.
    pub in_recovery: bool,
    /// `server_version_num`, such as 150018.
    pub version_num: u32,
    /// Timeline that is written (primary) or received (standby).
    pub timeline: Option<TimelineId>,
    /// Primary: end of what was inserted.
    pub insert_lsn: Option<Lsn>,
    /// Primary: end of what is on disk.
    pub flush_lsn: Option<Lsn>,
    /// Standby: received and flushed; `None` before the first stream.
    pub receive_lsn: Option<Lsn>,
    /// Standby: replayed.
    pub replay_lsn: Option<Lsn>,
    /// Standby: the walreceiver, if there is one.
    pub receiver: Option<Receiver>,
    /// Primary: what it knows of the peer's walreceiver, if it is connected.
    pub peer: Option<PeerRow>,
    /// The archiver.
    pub archiver: ArchiverFacts,
    /// `synchronous_standby_names` as this session sees it.
    pub sync_names: String,
    /// Where replay of the latest checkpoint (restartpoint on a standby) begins: no older log is needed to start again.
    pub redo: Option<Lsn>,
    /// Bytes of a WAL segment.
    pub segment_size: SegmentSize,
    /// The peer's slot, if there is one.
    pub peer_slot: Option<Slot>,
}

impl SqlSnapshot {
    /// The end of the WAL that this postgres has: see [`position`].
    #[must_use]
    pub fn position(&self) -> Option<Lsn> {
        position(self.flush_lsn.or(self.receive_lsn), self.replay_lsn)
    }

    /// The walsender of a standby that streams while the place of the next record lies beyond all that is on disk: nothing was written since
    /// a switch to another segment, whose header is no record.
    #[must_use]
    pub fn streams_before_the_next_record(&self) -> Option<i32> {
        let streams = self.peer.as_ref().filter(|peer| peer.stream == StreamState::Streaming)?;
        (self.insert_lsn > self.flush_lsn).then_some(streams.pid)
    }
}

/// A physical replication slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// Oldest log that it keeps; `None` when it keeps none (any more).
    pub restart: Option<Lsn>,
    /// It grew over its limit and keeps nothing any more; nobody can stream from it again.
    pub lost: bool,
}

/// Whether WAL comes as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamState {
    /// It does.
    Streaming,
    /// Not yet, or not any more: it starts, catches up, waits or stops.
    Other,
}

impl StreamState {
    /// By the word in `pg_stat_wal_receiver` or `pg_stat_replication`.
    fn of(word: &str) -> StreamState {
        if word == "streaming" { StreamState::Streaming } else { StreamState::Other }
    }
}

/// `pg_stat_wal_receiver`.
#[derive(Debug, Clone, PartialEq)]
pub struct Receiver {
    /// Its process.
    pub pid: i32,
    /// What it does.
    pub stream: StreamState,
    /// Flushed by it.
    pub flushed: Option<Lsn>,
    /// Timeline of that.
    pub timeline: Option<TimelineId>,
}

/// The peer's row of `pg_stat_replication`.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerRow {
    /// Process of the walsender: another one for each connection.
    pub pid: i32,
    /// What it does.
    pub stream: StreamState,
    /// `sync`, `async`, …: the walsender's own view, no proof that commits wait.
    pub sync_state: String,
    /// Written by it.
    pub write: Option<Lsn>,
    /// Flushed by it.
    pub flush: Option<Lsn>,
    /// Replayed by it.
    pub replay: Option<Lsn>,
}

/// `pg_stat_archiver`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ArchiverFacts {
    /// Failures since the last success.
    pub failures: u64,
    /// File of the last success.
    pub last_archived: Option<String>,
    /// File of the last failure, if no success came after it.
    pub failing: Option<String>,
}

impl PeerRow {
    /// The end of the WAL that the standby has, as its walsender knows it.
    #[must_use]
    pub fn position(&self) -> Option<Lsn> {
        position(self.flush, self.replay)
    }
}

/// The archiver's failures are counted since the statistics began; reports want them since the last success.
#[derive(Debug, Default)]
pub(super) struct Failures {
    at_last_success: Option<u64>,
}

pub(super) fn facts(
    row: &Row,
    segment_size: SegmentSize,
    failures: &mut Failures,
) -> Result<SqlSnapshot, tokio_postgres::Error> {
    let lsn = |name: &str| -> Result<Option<Lsn>, tokio_postgres::Error> {
        Ok(row.try_get::<_, Option<&str>>(name)?.and_then(|t| t.parse().ok()))
    };
    let timeline = |name: &str| -> Result<Option<TimelineId>, tokio_postgres::Error> {
        let n: Option<i32> = row.try_get(name)?;
        Ok(n.and_then(|n| u32::try_from(n).ok()).map(TimelineId))
    };
    let receiver = match row.try_get::<_, Option<i32>>("receiver_pid")? {
        None => None,
        Some(pid) => Some(Receiver {
            pid,
            stream: StreamState::of(row.try_get("receiver_status")?),
            flushed: lsn("receiver_flushed")?,
            timeline: timeline("receiver_timeline")?,
        }),
    };
    let peer = match row.try_get::<_, Option<&str>>("peer_state")? {
        None => None,
        Some(state) => Some(PeerRow {
            pid: row.try_get("peer_pid")?,
            stream: StreamState::of(state),
            sync_state: row.try_get::<_, Option<String>>("peer_sync_state")?.unwrap_or_default(),
            write: lsn("peer_write")?,
            flush: lsn("peer_flush")?,
            replay: lsn("peer_replay")?,
        }),
    };
    Ok(SqlSnapshot {
        impostors: row.try_get("impostors")?,
        in_recovery: row.try_get("in_recovery")?,
        version_num: u32::try_from(row.try_get::<_, i32>("version_num")?).unwrap_or(0),
        timeline: timeline("timeline")?,
        insert_lsn: lsn("insert_lsn")?,
        flush_lsn: lsn("flush_lsn")?,
        receive_lsn: lsn("receive_lsn")?,
        replay_lsn: lsn("replay_lsn")?,
        receiver,
        peer,
        archiver: archiver(row, failures)?,
        sync_names: row.try_get("sync_names")?,
        redo: lsn("redo_lsn")?,
        segment_size,
        peer_slot: row
            .try_get::<_, Option<&str>>("slot_status")?
            .map(|status| Ok(Slot { restart: lsn("slot_restart")?, lost: status == "lost" }))
            .transpose()?,
    })
}

fn archiver(row: &Row, failures: &mut Failures) -> Result<ArchiverFacts, tokio_postgres::Error> {
    let count = |name: &str| -> Result<u64, tokio_postgres::Error> {
        Ok(u64::try_from(row.try_get::<_, i64>(name)?).unwrap_or(0))
    };
    let failing: Option<String> = row.try_get("archive_failing")?;
    let failed = count("archive_failed")?;
    Ok(ArchiverFacts {
        failures: failures.since_success(failed, failing.is_some()),
        last_archived: row.try_get("archive_last")?,
        failing,
    })
}

impl Failures {
    fn since_success(&mut self, failed: u64, failing: bool) -> u64 {
        if !failing {
            self.at_last_success = Some(failed);
            return 0;
        }
        // Unknown start, or statistics that were reset: at least one.
        failed.saturating_sub(self.at_last_success.unwrap_or(0)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_since_the_last_success() {
        let mut f = Failures::default();
        assert_eq!(f.since_success(4, false), 0);
        assert_eq!(f.since_success(7, true), 3);
        assert_eq!(f.since_success(7, false), 0);
        assert_eq!(f.since_success(0, true), 1);
    }
}
