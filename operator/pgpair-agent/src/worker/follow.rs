//! Becoming and staying a standby: compare with the primary, keep the branch, rewind, or ask for a rebuild.

use std::time::{Duration, Instant};

use pgpair_core::ids::Term;
use pgpair_core::report::Need;
use pgpair_core::timeline::TimelineHistory;

use super::{Server, Worker};
use crate::peer::PrimaryTimeline;
use crate::pgdata::{self, ControlData, DataDir};
use crate::rejoin::{self, RejoinError, Relation};

/// A question to the peer's agent.
const ASK: Duration = Duration::from_secs(2);
/// A standby that does not stream for this long compares itself with the primary again.
const DOUBT: Duration = Duration::from_secs(20);

impl Worker {
    /// Starts as a standby of the primary of `term`. A directory that was a primary's is compared first, and only with a
    /// primary that has confirmed its promotion in that term.
    pub(super) async fn follow(&mut self, term: Term) -> bool {
        if Instant::now() < self.not_before || matches!(self.need, Some(Need::Rebuild { .. })) {
            return false;
        }
        let was_primary = !self.settings.layout.in_pgdata("standby.signal").exists();
        if was_primary || self.doubtful {
            let Some(primary) = self.primary_of(term).await else {
                self.not_before = Instant::now() + Duration::from_millis(300);
                return false;
            };
            match self.reconcile(&primary).await {
                Ok(true) => self.doubtful = false,
                Ok(false) => return true,
                Err(e) => {
                    tracing::warn!(error = e, "cannot rejoin yet; trying again");
                    self.not_before = Instant::now() + Duration::from_secs(1);
                    return false;
                }
            }
        }
        self.start_standby().await
    }

    async fn primary_of(&self, term: Term) -> Option<PrimaryTimeline> {
        match self.peer.timeline(ASK).await {
            Ok(primary) if primary.term == term => Some(primary),
            Ok(primary) => {
                tracing::debug!(term = term.0, its = primary.term.0, "the peer is primary of another term");
                None
            }
            Err(e) => {
                tracing::debug!(error = %e, "the peer has no confirmed timeline yet");
                None
            }
        }
    }

    /// Makes the directory fit to follow; `false` if it needs a rebuild.
    async fn reconcile(&mut self, primary: &PrimaryTimeline) -> Result<bool, String> {
        let layout = &self.settings.layout;
        let control = pgdata::control_data(&self.bin, &layout.pgdata()).await.map_err(|e| e.to_string())?;
        let end = pgdata::end_of_wal(&self.bin, layout, &control, self.last_flush).await;
        let end = match end {
            Ok(end) => end,
            Err(e) => return Ok(self.ask_rebuild(format!("its log cannot be read: {e}"))),
        };
        let own = self.own_history(&control, end.timeline)?;
        match rejoin::compare(&own, end, &primary.past) {
            Relation::Contained => {
                tracing::info!(end = %end.end, timeline = end.timeline.0, "all of our log is the primary's past: following");
                Ok(true)
            }
            Relation::Unrelated => Ok(self.ask_rebuild("it has no common past with the primary".into())),
            Relation::Diverged(branch) => {
                let kept = match self.kept.take().filter(|(of, _)| *of == branch) {
                    Some((_, kept)) => kept, // an earlier try has copied it
                    None => {
                        rejoin::keep_branch(&self.settings, &control, branch).map_err(|e| e.to_string())?
                    }
                };
                self.kept = Some((branch, kept.clone()));
                tracing::warn!(from = %kept.from, to = %kept.to, bytes = kept.bytes, dir = %kept.dir.display(),
                    "our log goes beyond the primary's past: the branch is kept, then rewound");
                let Server::Down { lock: Some(lock) } = &self.server else {
                    return Err("postgres runs".into());
                };
                let (host, port) = (self.settings.peer_host.clone(), self.settings.peer_pg_port);
                match rejoin::rewind(&self.settings, &self.bin, lock, &kept, &host, port).await {
                    Ok(()) => Ok(true),
                    Err(RejoinError::Broken { output }) => {
                        Ok(self.ask_rebuild(format!("pg_rewind failed: {output}")))
                    }
                    Err(e) => Err(e.to_string()),
                }
            }
        }
    }

    fn own_history(
        &self,
        control: &ControlData,
        timeline: pgpair_core::timeline::TimelineId,
    ) -> Result<TimelineHistory, String> {
        pgdata::history(&self.settings.layout, control.system_identifier, timeline)
            .map_err(|e| e.to_string())?
            .ok_or_else(|| format!("the history of our timeline {timeline} is nowhere"))
    }

    fn ask_rebuild(&mut self, reason: String) -> bool {
        tracing::error!(reason, "this instance needs a new base backup");
        self.need = Some(Need::Rebuild { reason });
        false
    }

    /// A running standby that has not streamed for a while may be on a branch of its own: it is stopped and compared.
    pub(super) async fn tend_standby(&mut self, term: Term) -> bool {
        let streams =
            self.seen.as_ref().and_then(|s| s.receiver.as_ref()).is_some_and(|r| r.status == "streaming");
        if streams {
            self.not_streaming_since = None;
            return false;
        }
        let since = *self.not_streaming_since.get_or_insert_with(Instant::now);
        if since.elapsed() < DOUBT {
            return false;
        }
        self.not_streaming_since = None;
        let Some(primary) = self.primary_of(term).await else { return false };
        let Some(seen) = &self.seen else { return false };
        let behind = seen.receive_lsn.max(seen.replay_lsn) <= Some(primary.past.flush);
        let known = primary.past.history.timeline == seen.timeline.unwrap_or(primary.past.history.timeline);
        if behind && known {
            return false; // catching up from the archive, or the primary cannot be reached
        }
        tracing::warn!("not streaming, and not in line with the primary: stopping to compare");
        self.doubtful = true;
        self.stop().await
    }

    /// An empty or unfinished directory of an instance that is to follow: a seeding Job has to fill it.
    pub(super) fn note_need(&mut self, following: bool) {
        let inspected = pgdata::inspect(&self.settings.layout);
        match (inspected, following) {
            (Ok(DataDir::Empty), true) => self.need = Some(Need::Seed),
            (Ok(DataDir::Unfinished), true) => {
                self.need =
                    Some(Need::Rebuild { reason: "an initdb, seeding or rewind did not finish".into() });
            }
            _ => {}
        }
    }
}
