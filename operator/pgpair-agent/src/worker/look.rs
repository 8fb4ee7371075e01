//! What a round begins with: a look at postgres, at the data volume and at the archive, and the facts that come of it.

use std::time::{Duration, Instant};

use pgpair_core::authority::{Directory, PgFacts};
use pgpair_core::instance::PostgresState;

use super::{STALE, Server, Worker};
use crate::fence::clock;
use crate::postgres::pgdata::{self, DataDir};
use crate::postgres::sql::StreamState;
use crate::wal::archive;

impl Worker {
    pub(super) async fn look(&mut self) {
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
        if self.archive_read.is_none_or(|t| t.elapsed() >= Duration::from_secs(1)) {
            self.archive_read = Some(Instant::now());
            self.read_archive().await;
        }
    }

    async fn read_archive(&mut self) {
        let Some(DataDir::Ready(volume)) = self.inspected() else { return };
        let settings = self.settings.clone();
        let archiver = self.seen.as_ref().map(|s| s.archiver.clone());
        let before = self.archive.last_segment.clone();
        let system = volume.system_identifier;
        let read =
            move || archive::archive_status(&settings.layout, system, archiver.as_ref(), before.as_deref());
        self.archive = tokio::task::spawn_blocking(read).await.unwrap_or_default();
    }

    /// What lies on the data volume; `None` if it cannot be read. Looked up once a round, and again after an action.
    pub(super) fn inspected(&self) -> Option<DataDir> {
        let look = || {
            pgdata::inspect(&self.settings.layout)
                .inspect_err(|e| tracing::error!(error = %e, "the data volume cannot be read"))
                .ok()
        };
        *self.disk.get_or_init(look)
    }

    fn directory(&self) -> (Directory, Option<pgdata::Volume>) {
        match self.inspected() {
            Some(DataDir::Empty) => (Directory::Empty, None),
            Some(DataDir::Unfinished) => (Directory::Unusable, None),
            Some(DataDir::Ready(volume)) => {
                let standby = self.settings.layout.in_pgdata("standby.signal").exists();
                (if standby { Directory::Standby } else { Directory::Primary }, Some(volume))
            }
            None => (Directory::Unknown, None),
        }
    }

    /// Whether a postgres that was started then has answered no new connection for too long. The look of every half second does not
    /// find out: its connection was made before.
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
