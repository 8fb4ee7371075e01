//! Becoming and staying a standby: compare with the primary, keep the branch, rewind, or ask for a rebuild.
//!
//! A rebuild is asked for only against a primary that has confirmed its promotion in the record's term and answers: one that is
//! down or cannot be reached proves nothing.

use std::time::{Duration, Instant};

use pgpair_core::ids::Term;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_wire::report::{Need, RejoinKind, RejoinReport};
use pgpair_wire::wal::{PrimaryHistory, PrimaryTimeline};

use super::{Did, Server, Worker, refusal};
use crate::instance::fsx;
use crate::postgres::control_file::{self, ControlData};
use crate::postgres::end_of_wal::end_of_wal;
use crate::postgres::pgdata::{self, DataDir};
use crate::postgres::postmaster;
use crate::postgres::render::Upstream;
use crate::postgres::sql::StreamState;
use crate::postgres::tablespaces;
use crate::standby::rejoin::{self, Branch, KeptBranch, RejoinError, Relation};
use crate::wal::archive;

/// A question to the peer's agent. What is seen of a standby counts for 2 s, and a round that asks in vain must not take longer.
const ASK: Duration = Duration::from_millis(1200);
/// A standby that does not stream for this long compares itself with the primary again.
const DOUBT: Duration = Duration::from_secs(20);
/// From the first to the second look for log that is gone.
const CONFIRM: Duration = Duration::from_secs(5);
/// After this many failed starts in a row the directory is compared with the primary before the next one.
const FAILED_DOUBT: u32 = 2;
/// After this many it is rebuilt, if what postgres says is what a new copy cures.
const FAILED_REBUILD: u32 = 5;
/// A copy that does not start is followed by another after so long at the earliest.
const COPY_AGAIN: Duration = Duration::from_secs(3600);
/// A return to the primary that fails again and again for so long is told.
const REJOIN_TOLD: Duration = Duration::from_secs(20);
/// A return that fails so often, for a reason that does not pass by itself, ends in a rebuild.
const REJOIN_TRIES: u32 = 5;
/// Time between the first two tries; it doubles.
const REJOIN_AGAIN: Duration = Duration::from_secs(1);
/// The longest such time.
const REJOIN_AGAIN_AT_MOST: Duration = Duration::from_secs(30);
/// How long one try waits for the copy of the branch.
const KEEP: Duration = Duration::from_secs(5);

/// What a worker remembers of following.
#[derive(Debug, Default)]
pub(super) struct Following {
    not_streaming_since: Option<Instant>,
    /// Process of the walreceiver at the look before: one that cannot stream is another one each time.
    receiver: Option<i32>,
    /// Where postgres was told to stream from.
    pub(super) upstream: Option<Upstream>,
    /// Segment that nobody has, and where the standby stood when it was found missing first.
    missing: Option<(Lsn, Option<Lsn>)>,
    /// The directory must be compared before the next start.
    pub(super) doubtful: bool,
    /// The last start was made to learn why it fails.
    learning: bool,
    /// Since when the return to the primary has failed.
    rejoin_fails: Option<RejoinFails>,
    /// How this instance joined its present primary.
    pub(super) rejoin: Option<RejoinReport>,
}

/// A return to the primary that fails again and again.
#[derive(Debug, Clone, Copy)]
struct RejoinFails {
    since: Instant,
    tries: u32,
    /// Those of them whose reason does not pass by itself.
    lasting: u32,
}

/// What comes of the comparison with the primary.
enum Fit {
    /// The directory can follow the primary.
    Follows,
    /// Only a new copy can, for this reason.
    NeedsRebuild(String),
}

impl Following {
    /// Postgres has ended.
    pub(super) fn forget_server(&mut self) {
        (self.not_streaming_since, self.receiver, self.missing) = (None, None, None);
    }
}

impl Worker {
    /// The primary of this instance when it is a standby.
    pub(super) fn upstream(&self) -> Upstream {
        Upstream {
            host: self.settings.peer_host.clone(),
            address: self.peer.address(),
            port: self.settings.peer_pg_port,
        }
    }

    /// Starts as a standby of the primary of `term`. A directory that was a primary's is compared first, and only with a
    /// primary that has confirmed its promotion in that term.
    pub(super) async fn follow(&mut self, term: Term) -> Did {
        if Instant::now() < self.not_before || matches!(self.need, Some(Need::Rebuild { .. })) {
            return Did::Nothing;
        }
        // Before the directory is compared: the programs of another version would read it wrongly.
        if !self.programs_fit().await {
            return Did::Nothing;
        }
        let was_primary = !self.settings.layout.in_pgdata("standby.signal").exists();
        let fails = self.failed_starts >= FAILED_DOUBT;
        if was_primary || self.following.doubtful || fails {
            let Some(primary) = self.primary_of(term, None).await else {
                self.not_before = Instant::now() + Duration::from_millis(300);
                return Did::Nothing;
            };
            match self.reconcile(&primary).await {
                Ok(Fit::Follows) => (self.following.doubtful, self.following.rejoin_fails) = (false, None),
                Ok(Fit::NeedsRebuild(reason)) => {
                    self.ask_rebuild(reason);
                    return Did::Acted;
                }
                Err(e) => {
                    self.rejoin_failed(&e);
                    return Did::Nothing;
                }
            }
            if fails {
                return self.start_to_learn().await;
            }
        }
        self.start_standby().await
    }

    /// Tried again, later each time, as long as what is in the way may pass; else a rebuild is asked for.
    fn rejoin_failed(&mut self, e: &RejoinError) {
        let first = RejoinFails { since: Instant::now(), tries: 0, lasting: 0 };
        let fails = self.following.rejoin_fails.get_or_insert(first);
        let later = (REJOIN_AGAIN * (1 << fails.tries.min(5))).min(REJOIN_AGAIN_AT_MOST);
        let is_waiting = matches!(e, RejoinError::Keeping { .. });
        self.not_before = Instant::now() + if is_waiting { REJOIN_AGAIN } else { later };
        fails.tries += 1;
        fails.lasting += u32::from(!e.passes());
        let RejoinFails { since, tries, lasting } = *fails;
        if lasting >= REJOIN_TRIES {
            self.following.rejoin_fails = None;
            self.ask_rebuild(format!("it cannot return to the primary, tried {tries} times: {e}"));
            return;
        }
        tracing::warn!(error = %e, tries, "cannot rejoin yet; trying again");
        if since.elapsed() >= REJOIN_TOLD {
            self.refused = Some(format!("it cannot return to the primary; trying again: {e}"));
        }
    }

    /// Called with a primary that lives, after starts that failed: from now on each start keeps what postgres says, until one
    /// succeeds.
    async fn start_to_learn(&mut self) -> Did {
        let log = self.settings.layout.start_log();
        if std::mem::take(&mut self.following.learning) {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let words = refusal::last_words(&said);
            let failed = self.failed_starts;
            tracing::error!(failed, words, "postgres does not start");
            match tablespaces::make_missing(&self.settings.layout, &said) {
                Ok(Some(made)) => {
                    tracing::info!(path = %made.display(), "the directory of a new tablespace is made")
                }
                Ok(None) => {}
                Err(e) => tracing::error!(error = %e, "the directory of a new tablespace cannot be made"),
            }
            let is_fresh = self.is_fresh_copy();
            if failed >= FAILED_REBUILD && refusal::is_cured_by_a_copy(&said) && !is_fresh {
                self.ask_rebuild(format!("postgres failed to start {failed} times in a row: {words}"));
                return Did::Nothing;
            }
            let what = if is_fresh {
                "postgres does not start on a fresh copy of the primary"
            } else {
                "postgres does not start"
            };
            self.refused = Some(format!("{what}: {words}"));
        }
        tracing::warn!(failed = self.failed_starts, "starting once more to learn why it fails");
        self.following.learning = true;
        self.start_standby_with(Some(log)).await
    }

    async fn primary_of(&self, term: Term, needs: Option<Lsn>) -> Option<PrimaryTimeline> {
        match self.peer.timeline(needs, ASK).await {
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

    /// Makes the directory fit to follow, if that is possible.
    async fn reconcile(&mut self, primary: &PrimaryTimeline) -> Result<Fit, RejoinError> {
        let layout = &self.settings.layout;
        let was_primary = !layout.in_pgdata("standby.signal").exists();
        let control = control_file::control_data(&self.bin, &layout.pgdata()).await?;
        let end = end_of_wal(&self.bin, layout, &control, self.last_flush).await;
        let end = match end {
            Ok(end) => end,
            Err(e) => return Ok(Fit::NeedsRebuild(format!("its log cannot be read: {e}"))),
        };
        let own = self.own_history(&control, end.timeline)?;
        match rejoin::compare(&own, end, &primary.past) {
            Relation::Contained => {
                tracing::info!(end = %end.end, timeline = end.timeline.0, "all of our log is the primary's past: following");
                if was_primary {
                    self.following.rejoin = Some(RejoinReport {
                        term: primary.term,
                        how: RejoinKind::Followed,
                        branch_bytes: 0,
                        branch: None,
                    });
                }
                Ok(Fit::Follows)
            }
            Relation::Unrelated => Ok(Fit::NeedsRebuild("it has no common past with the primary".into())),
            Relation::Diverged(branch) => self.rewind(primary.term, &control, branch).await,
        }
    }

    async fn rewind(
        &mut self,
        term: Term,
        control: &ControlData,
        branch: Branch,
    ) -> Result<Fit, RejoinError> {
        let kept = self.keep(control, branch).await?;
        tracing::warn!(from = %kept.from, to = %kept.to, bytes = kept.bytes, dir = %kept.dir.display(),
            "our log goes beyond the primary's past: the branch is kept, then rewound");
        self.following.rejoin = Some(RejoinReport {
            term,
            how: RejoinKind::Rewound,
            branch_bytes: kept.bytes,
            branch: Some((kept.from, kept.to)),
        });
        let Server::Down(lock) = &self.server else { return Err(RejoinError::Running) };
        let (config, upstream) = (self.config(), self.upstream());
        match rejoin::rewind(&self.settings, &config, &self.bin, lock, &kept, &upstream).await {
            Ok(()) => Ok(Fit::Follows),
            Err(RejoinError::Broken { output }) => {
                Ok(Fit::NeedsRebuild(format!("pg_rewind failed: {output}")))
            }
            Err(e) => Err(e),
        }
    }

    /// The branch on the archive volume. A large one takes its time, and a volume that hangs takes for ever: the copy goes on by itself, and
    /// the next try waits for it again.
    async fn keep(&mut self, control: &ControlData, branch: Branch) -> Result<KeptBranch, RejoinError> {
        if let Some((_, kept)) = self.kept.as_ref().filter(|(of, _)| *of == branch) {
            return Ok(kept.clone());
        }
        let (settings, control) = (self.settings.clone(), control.clone());
        self.keeping.begin(move || (branch, rejoin::keep_branch(&settings, &control, branch)));
        let kept = match self.keeping.end(KEEP).await {
            Some((_, (of, kept))) if of == branch => kept?,
            // Still under way, or a copy of another branch, which was begun before.
            Some(_) | None => return Err(RejoinError::Keeping { limit: KEEP }),
        };
        self.kept = Some((branch, kept.clone()));
        Ok(kept)
    }

    fn own_history(
        &self,
        control: &ControlData,
        timeline: TimelineId,
    ) -> Result<TimelineHistory, RejoinError> {
        pgdata::history(&self.settings.layout, control.system_identifier, timeline)?
            .ok_or(RejoinError::NoHistory(timeline))
    }

    fn ask_rebuild(&mut self, reason: String) {
        tracing::error!(reason, "this instance needs a new base backup");
        // For the copy: what is here may go if the volume does not hold both.
        if let Err(e) = fsx::write(&self.settings.layout.rebuild_needed(), reason.as_bytes(), 0o600) {
            tracing::warn!(error = %e, "it cannot be noted on the volume that its data is of no use");
        }
        self.need = Some(Need::Rebuild { reason });
    }

    /// Postgres accepts connections: its data is of use.
    pub(super) fn needs_no_rebuild(&self) {
        let layout = &self.settings.layout;
        for note in [layout.rebuild_needed(), layout.fresh_copy()] {
            if note.exists()
                && let Err(e) = fsx::remove(&note)
            {
                tracing::warn!(error = %e, "a note about the data cannot be removed");
            }
        }
    }

    /// The data was copied a short while ago and has not served since: the next copy would be the same.
    fn is_fresh_copy(&self) -> bool {
        let made = std::fs::metadata(self.settings.layout.fresh_copy()).and_then(|m| m.modified()).ok();
        made.is_some_and(|made| made.elapsed().is_ok_and(|age| age < COPY_AGAIN))
    }

    /// A running standby that has not streamed for a while may be on a branch of its own, or too late: then the log that it
    /// needs is gone.
    pub(super) async fn converge_standby(&mut self, term: Term) -> Did {
        if std::mem::take(&mut self.following.learning) {
            tracing::info!("postgres starts after all: again, with its log where it belongs");
            return self.stop().await;
        }
        let receiver = self.seen.as_ref().and_then(|s| s.receiver.as_ref());
        let pid = receiver.map(|r| r.pid);
        let same = pid.is_some() && std::mem::replace(&mut self.following.receiver, pid) == pid;
        if same && receiver.is_some_and(|r| r.stream == StreamState::Streaming) {
            (self.following.not_streaming_since, self.following.missing) = (None, None);
            if matches!(self.need, Some(Need::Rebuild { .. })) {
                tracing::info!("streaming again: no rebuild is needed");
                self.need = None;
            }
            return Did::Nothing;
        }
        // One that streams has the right address, whatever the name says now.
        self.peer.doubt_address();
        self.follow_address();
        let since = *self.following.not_streaming_since.get_or_insert_with(Instant::now);
        if since.elapsed() < DOUBT {
            return Did::Nothing;
        }
        self.following.not_streaming_since = None;
        let Some(primary) = self.primary_of(term, None).await else { return Did::Nothing };
        let Some(seen) = &self.seen else { return Did::Nothing };
        let reached = seen.position();
        let timeline = seen.timeline.unwrap_or(primary.past.history.timeline);
        if is_past(&primary.past, timeline, reached) {
            self.find_missing(term, &primary).await;
            return Did::Nothing; // catching up from the archive, or the primary's postgres cannot be reached
        }
        tracing::warn!("not streaming, and not in line with the primary: stopping to compare");
        self.following.doubtful = true;
        self.stop().await
    }

    /// The peer's address has changed: stream from the new one. A promotion is never held up by it, for it is not asked for
    /// here, only taken.
    fn follow_address(&mut self) {
        let upstream = self.upstream();
        if upstream.address.is_none() || self.following.upstream.as_ref() == Some(&upstream) {
            return;
        }
        let Some(running) = self.server.running() else { return };
        match postmaster::set_upstream(&self.settings, &upstream, &running.postmaster) {
            Ok(()) => {
                tracing::info!(address = ?upstream.address, "streaming from the primary's address");
                self.following.upstream = Some(upstream);
            }
            Err(e) => tracing::warn!(error = %e, "the primary's new address cannot be given to postgres"),
        }
    }

    /// What postgres is started with counts as told.
    pub(super) fn follows(&mut self, upstream: Upstream) {
        self.following.upstream = Some(upstream);
    }

    /// A promotion that did not come to its end has told postgres to stream from nobody.
    pub(super) fn follows_nobody(&mut self) {
        self.following.upstream = None;
    }

    /// Asks for a rebuild when the next segment that this standby needs is neither here nor with the primary, twice in a row,
    /// with the standby at the same place. Log that is gone does not come back.
    async fn find_missing(&mut self, term: Term, primary: &PrimaryTimeline) {
        let Some(seen) = &self.seen else { return };
        let reached = seen.position();
        let Some(position) = reached else { return };
        if position == primary.past.flush {
            return; // nothing is missing
        }
        let Ok(DataDir::Ready(volume)) = pgdata::inspect(&self.settings.layout) else { return };
        let (layout, history, size) =
            (self.settings.layout.clone(), primary.past.history.clone(), seen.segment_size);
        let system = volume.system_identifier;
        let look = move || archive::first_missing(&layout, system, &history, position, size);
        let Some(Ok(missing)) = fsx::within(ASK, look).await else { return };
        let Some(primary) = self.primary_of(term, Some(missing)).await else { return };
        if primary.has_needed != Some(false) || missing > primary.past.flush {
            self.following.missing = None;
            return;
        }
        let oldest = primary.oldest.map_or_else(|| "none".to_owned(), |o| format!("none before {o}"));
        tracing::warn!(at = %position, needs = %missing, "the log that this standby needs is gone from the primary and both archives");
        if self.following.missing.replace((missing, reached)) == Some((missing, reached)) {
            self.ask_rebuild(format!(
                "it stopped at {position} and needs the log from {missing}, which is in neither archive; the primary has {oldest}"
            ));
        } else {
            self.following.not_streaming_since = Instant::now().checked_sub(DOUBT - CONFIRM);
        }
    }

    /// An empty or unfinished directory of an instance that is to follow: a seeding Job has to fill it.
    pub(super) fn note_need(&mut self) {
        match self.inspected() {
            Some(DataDir::Empty) => self.need = Some(Need::Seed),
            Some(DataDir::Unfinished) => {
                self.need =
                    Some(Need::Rebuild { reason: "an initdb, seeding or rewind did not finish".into() });
            }
            Some(DataDir::Ready(_)) | None => {}
        }
    }
}

/// Whether a standby that has come to `reached` on `timeline` stands on the primary's past: then it need only go on.
fn is_past(primary: &PrimaryHistory, timeline: TimelineId, reached: Option<Lsn>) -> bool {
    let ancestors = primary.history.ancestors.iter().copied();
    let mut stretches = ancestors.chain([(primary.history.timeline, primary.flush)]);
    stretches.any(|(t, end)| t == timeline && reached <= Some(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_on_an_older_timeline_is_in_line_up_to_where_the_primary_left_it() {
        let history = TimelineHistory { timeline: TimelineId(2), ancestors: vec![(TimelineId(1), Lsn(100))] };
        let primary = PrimaryHistory { history, flush: Lsn(200) };
        let past = |timeline, reached| is_past(&primary, TimelineId(timeline), Some(Lsn(reached)));
        assert!(past(1, 100) && past(2, 150) && past(2, 200));
        assert!(!past(1, 101) && !past(2, 201) && !past(3, 50));
        assert!(is_past(&primary, TimelineId(2), None));
    }
}
