//! What a round begins with: a look at postgres, at the data volume and at the archive, and the facts that come of it.

use std::time::{Duration, Instant};

use pgpair_core::authority::timing::Ms;
use pgpair_core::authority::{Directory, PgFacts};
use pgpair_core::instance::PostgresState;
use pgpair_wire::report::ArchiveReport;

use super::background::Look;
use super::{STALE, Server, Worker};
use crate::fence::clock;
use crate::instance::layout::Layout;
use crate::postgres::pgdata::{self, DataDir};
use crate::postgres::sql::{ArchiverFacts, StreamState};
use crate::wal::archive::{self, ArchiveLook};

/// How long a round waits for the data volume. What it saw before goes on to count then, with the time at which it was seen.
const VOLUME: Duration = Duration::from_secs(1);
/// How often the archive is looked at.
const ARCHIVE: Duration = Duration::from_secs(1);
/// After this long without an answer nothing of the archive is known.
const ARCHIVE_SILENT: Duration = Duration::from_secs(5);
/// A segment that is the first to wait for so long waits for an archiver that hangs.
const ARCHIVER_HANGS: Duration = Duration::from_secs(120);

/// The data volume, as it was seen last.
#[derive(Debug, Default)]
pub(super) struct DataVolume {
    look: Look<Option<OnDisk>>,
    /// `None`: not seen yet, or it could not be read.
    seen: Option<OnDisk>,
    at: Option<Ms>,
}

/// What lies on it.
#[derive(Debug, Clone, Copy)]
struct OnDisk {
    dir: DataDir,
    standby_signal: bool,
}

impl OnDisk {
    /// Blocks for as long as the volume does not answer.
    fn read(layout: &Layout) -> Option<OnDisk> {
        let dir = pgdata::inspect(layout)
            .inspect_err(|e| tracing::error!(error = %e, "the data volume cannot be read"))
            .ok()?;
        Some(OnDisk { dir, standby_signal: layout.in_pgdata("standby.signal").exists() })
    }
}

impl DataVolume {
    fn begin(&mut self, layout: &Layout) {
        let layout = layout.clone();
        self.look.begin(move || OnDisk::read(&layout));
    }

    /// Waits for a look that began at `wanted` or later: an earlier one does not show what has been done since.
    async fn end(&mut self, layout: &Layout, wanted: Ms) {
        let end = Instant::now() + VOLUME;
        while let Some((began, seen)) = self.look.end(end.saturating_duration_since(Instant::now())).await {
            (self.seen, self.at) = (seen, Some(began));
            if began >= wanted {
                return;
            }
            self.begin(layout);
        }
    }
}

/// The archive, as it was seen last.
#[derive(Debug, Default)]
pub(super) struct ArchiveVolume {
    look: Look<ArchiveLook>,
    seen: ArchiveReport,
    /// The segment that waits for the archiver, and since when it is the first.
    waiting: Option<(String, Instant)>,
    begun: Option<Instant>,
}

impl ArchiveVolume {
    /// What was seen, with the segment that waits for the archiver. One that hangs fails nothing, so nothing is counted.
    fn take(&mut self, seen: ArchiveReport, waiting: Option<String>, now: Instant) {
        self.waiting = waiting.map(|name| match self.waiting.take() {
            Some((before, since)) if before == name => (name, since),
            Some(_) | None => (name, now),
        });
        let stalled = self.waiting.as_ref().filter(|(_, since)| now - *since >= ARCHIVER_HANGS);
        self.seen = ArchiveReport { stalled: stalled.map(|(name, _)| name.clone()), ..seen };
    }

    /// What the volume showed before it fell silent is not known any more; what postgres says is.
    fn report(&self, now: Ms, archiver: Option<&ArchiverFacts>) -> ArchiveReport {
        let silent = u64::try_from(ARCHIVE_SILENT.as_millis()).unwrap_or(u64::MAX);
        if self.look.began().is_none_or(|began| now - began < silent) {
            return self.seen.clone();
        }
        ArchiveReport {
            unknown: Some(format!("the archive volume has not answered for more than {ARCHIVE_SILENT:?}")),
            ..archive::archiver_status(archiver)
        }
    }
}

impl Worker {
    /// Looks at postgres and at both volumes. A volume that does not answer holds this up for a second at most.
    pub(super) async fn look(&mut self) {
        let now = clock::now();
        self.volume.begin(&self.settings.layout);
        self.look_at_postgres().await;
        self.volume.end(&self.settings.layout, now).await;
        self.look_at_archive().await;
    }

    async fn look_at_postgres(&mut self) {
        let Some(running) = self.server.running() else { return };
        let starting = matches!(self.server, Server::Starting(..));
        // Asked too early, postgres would refuse, and fill its log with refusals.
        if running.postmaster.has_exited().is_some() || (starting && !running.postmaster.says_ready()) {
            return;
        }
        match self.sql.observe().await {
            Ok(facts) => {
                if starting {
                    let took_ms = running.since.elapsed().as_millis();
                    tracing::info!(took_ms, "postgres accepts connections");
                    self.server.becomes_ready();
                    self.needs_no_rebuild();
                    if let Some(told) = self.system_settings.started() {
                        tracing::error!(told, "settings are set aside");
                        self.tell_for_a_while(told);
                    }
                    self.failed_starts = 0;
                    self.refused = None;
                }
                self.last_flush = facts.position().or(self.last_flush);
                self.received_timeline =
                    facts.receiver.as_ref().and_then(|r| r.timeline).max(self.received_timeline);
                self.seen = Some(facts);
                self.seen_at = Instant::now();
            }
            Err(e) => {
                tracing::debug!(error = %e, "postgres does not answer");
                if starting {
                    self.seen = None;
                }
            }
        }
    }

    /// In the background, for the archive is a volume of its own, which may hang while all else is well.
    async fn look_at_archive(&mut self) {
        if let Some((_, seen)) = self.archive.look.end(Duration::ZERO).await {
            self.archive.take(seen.report, seen.first_waiting, Instant::now());
        }
        let runs = matches!(self.server, Server::Standby(_) | Server::Primary(_));
        let Some(DataDir::Ready(volume)) = self.inspected().filter(|_| runs) else { return };
        if self.archive.begun.is_some_and(|t| t.elapsed() < ARCHIVE) || self.archive.look.began().is_some() {
            return;
        }
        self.archive.begun = Some(Instant::now());
        let settings = self.settings.clone();
        let archiver = self.seen.as_ref().map(|s| s.archiver.clone());
        let before = self.archive.seen.last_segment.clone();
        let system = volume.system_identifier;
        self.archive
            .look
            .begin(move || archive::look(&settings.layout, system, archiver.as_ref(), before.as_deref()));
    }

    /// What is known of the archive.
    pub(super) fn archive_report(&self) -> ArchiveReport {
        let report = self.archive.report(clock::now(), self.seen.as_ref().map(|s| &s.archiver));
        ArchiveReport { two_pasts: self.two_pasts(), ..report }
    }

    /// What lies on the data volume, as this round saw it; `None` if it cannot be read.
    pub(super) fn inspected(&self) -> Option<DataDir> {
        self.volume.seen.map(|on_disk| on_disk.dir)
    }

    /// When that was seen.
    pub(super) fn seen_at(&self) -> Ms {
        self.volume.at.unwrap_or_else(clock::now)
    }

    fn directory(&self) -> (Directory, Option<pgdata::Volume>) {
        let standby = self.volume.seen.is_some_and(|on_disk| on_disk.standby_signal);
        match self.inspected() {
            Some(DataDir::Empty) => (Directory::Empty, None),
            Some(DataDir::Unfinished) => (Directory::Unusable, None),
            Some(DataDir::Ready(volume)) => {
                (if standby { Directory::Standby } else { Directory::Primary }, Some(volume))
            }
            None => (Directory::Unknown, None),
        }
    }

    /// Whether a postgres that was started then has answered no new connection, or its volume has taken no write, for too long. The look of
    /// every half second does not find out: its connection was made before, and what it reads is in memory.
    fn hangs(&self, started: Instant) -> bool {
        let limit = u64::from(self.config().hang_timeout_ms);
        let silent = clock::now() - self.answered.at();
        started.elapsed() >= Duration::from_millis(limit) && silent >= limit
    }

    pub(super) fn facts(&self) -> PgFacts {
        let (directory, volume) = self.directory();
        let seen = self.seen.as_ref();
        let receiver = seen.and_then(|s| s.receiver.as_ref());
        let recovery = seen.is_none_or(|s| s.in_recovery);
        let state = match &self.server {
            Server::Down(_) => PostgresState::Down,
            Server::Primary(_) if !recovery => PostgresState::Primary,
            Server::Standby(running) if recovery && !self.hangs(running.since) => PostgresState::Standby,
            // Also a postmaster that has ended, without the lock in hand: what is left of it may still write.
            Server::Unlocked { .. } | Server::Starting(..) | Server::Standby(_) | Server::Primary(_) => {
                PostgresState::Starting
            }
        };
        PgFacts {
            state,
            directory,
            volume: volume.map(|v| v.volume_id),
            system_identifier: volume.map(|v| v.system_identifier),
            timeline: seen.and_then(|s| s.timeline).max(self.received_timeline),
            flush: seen.and_then(|s| s.flush_lsn.or(s.receive_lsn)),
            standby_write: seen.and_then(|s| s.peer.as_ref()?.write),
            replay: seen.and_then(|s| s.replay_lsn),
            streaming: receiver.is_some_and(|r| r.stream == StreamState::Streaming)
                && self.seen_at.elapsed() < STALE,
            end: self.end.filter(|_| self.server.is_down()),
            sync: self.sync,
            failed_starts: self.failed_starts,
            // The driver knows.
            hung: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn nothing_is_told_of_an_archive_that_does_not_answer_but_what_postgres_says() {
        let seen = ArchiveReport { backlog_segments: Some(0), ..ArchiveReport::default() };
        let mut archive = ArchiveVolume { seen: seen.clone(), ..ArchiveVolume::default() };
        let (answer, volume) = channel::<ArchiveLook>();
        archive.look.begin(move || volume.recv().unwrap_or_default());
        let began = archive.look.began().unwrap();
        assert_eq!(archive.report(began + 4_999, None), seen);
        let archiver = ArchiverFacts { failures: 2, ..ArchiverFacts::default() };
        let silent = archive.report(began + 5_000, Some(&archiver));
        assert_eq!((silent.backlog_segments, silent.failures), (None, Some(2)));
        assert!(silent.unknown.is_some());
        drop(answer);
    }

    #[test]
    fn an_archiver_that_gets_no_further_is_told_and_one_that_is_slow_is_not() {
        let (mut archive, begin) = (ArchiveVolume::default(), Instant::now());
        let mut told = |segment: &str, seconds| {
            let waiting = Some(segment.to_owned()).filter(|s| !s.is_empty());
            archive.take(ArchiveReport::default(), waiting, begin + Duration::from_secs(seconds));
            archive.seen.stalled.clone()
        };
        assert_eq!(told("one", 0), None);
        assert_eq!(told("one", 119), None);
        assert_eq!(told("two", 120), None, "it got further");
        assert_eq!(told("two", 240), Some("two".into()));
        assert_eq!(told("", 241), None);
        assert_eq!(told("two", 242), None);
    }

    #[tokio::test]
    async fn a_volume_that_hangs_leaves_the_time_at_which_it_was_seen_last() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::under(dir.path());
        let mut volume = DataVolume::default();
        volume.begin(&layout);
        volume.end(&layout, Ms(0)).await;
        let (dir, at) = (volume.seen.map(|on_disk| on_disk.dir), volume.at);
        assert_eq!(dir, Some(DataDir::Empty));
        let (answer, hangs) = channel::<()>();
        volume.look.begin(move || hangs.recv().ok().and(None));
        volume.end(&layout, clock::now()).await;
        assert_eq!((volume.seen.map(|on_disk| on_disk.dir), volume.at), (dir, at));
        drop(answer);
    }
}
