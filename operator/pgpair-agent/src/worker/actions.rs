//! One action towards the wish: initialise, start, stop, promote, switch synchronous commit, let clients in.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pgpair_core::authority::{Desired, SyncState, Want};
use pgpair_core::ids::Term;
use pgpair_core::timeline::TimelineHistory;
use pgpair_wire::wal::{PrimaryHistory, PrimaryTimeline};
use tokio::sync::watch;

use super::{Did, Running, Server, StartedAs, Wish, Worker, refusal};
use crate::fence::clock;
use crate::instance::env::InstanceEnv;
use crate::postgres::control_file;
use crate::postgres::pgdata::{self, DataDir};
use crate::postgres::postmaster::{self, ClientAccess, PostmasterError, StartAs, StartOptions, sync};
use crate::postgres::promote::{self, Settled};

/// A fast shutdown that takes longer is ended by force; the standby gets the rest of the log from us as files.
const STOP: Duration = Duration::from_secs(5);
/// After a shutdown or a SIGKILL the postmaster is gone in milliseconds, unless a disk keeps it.
const EXIT: Duration = Duration::from_secs(5);
/// For the walsenders to send the shutdown checkpoint.
const LAST_WORDS: Duration = Duration::from_millis(150);
/// Recovery of what the standby has received ends in far less.
const PROMOTE: Duration = Duration::from_secs(60);
/// After so many failed starts in a row one is made without what people have set with `ALTER SYSTEM`.
const FAILED_SETTINGS: u32 = 3;
/// Before it is looked again what became of a promotion.
const SETTLE_AGAIN: Duration = Duration::from_secs(1);
/// A checkpoint that is under way may have to end before.
const SYNC: Duration = Duration::from_secs(60);

/// What a shutdown is not waited for any longer.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    /// It does not end, or cannot be asked to.
    #[error(transparent)]
    Shutdown(PostmasterError),
    /// It goes on after the next start.
    #[error("the shutdown checkpoint is written; the archiver is not waited for")]
    Archiver,
}

impl Worker {
    /// Takes at most one action.
    pub(super) async fn act(&mut self, wish: &Wish) -> Did {
        match (&self.server, wish.desired.postgres) {
            (Server::Down(_), Want::Initialise) => self.initialise().await,
            (Server::Down(_), Want::Primary) => self.start_primary(wish).await,
            (Server::Down(_), Want::Promoted) => self.start_standby().await,
            (Server::Down(_), Want::Following(term)) => self.follow(term).await,
            (Server::Down(_) | Server::Unlocked { .. }, _) => Did::Nothing,
            (Server::Starting(..) | Server::Standby(_) | Server::Primary(_), Want::Stopped) => {
                self.stop().await
            }
            (Server::Starting(_, StartedAs::Standby) | Server::Standby(_), Want::Down) => self.stop().await,
            (Server::Primary(_), Want::Primary | Want::Promoted) => self.converge_primary(wish).await,
            (Server::Standby(_), Want::Promoted) => self.promote(wish).await,
            (Server::Standby(_), Want::Following(term)) => self.converge_standby(term).await,
            // Fencing is the driver's; whatever else is on its way.
            (Server::Starting(..) | Server::Standby(_) | Server::Primary(_), _) => Did::Nothing,
        }
    }

    async fn initialise(&mut self) -> Did {
        if Instant::now() < self.not_before {
            return Did::Nothing;
        }
        self.not_before = Instant::now() + Duration::from_secs(5);
        if !self.programs_are_wanted().await {
            return Did::Nothing;
        }
        let layout = self.settings.layout.clone();
        if matches!(pgdata::inspect(&layout), Ok(DataDir::Unfinished))
            && let Err(e) = pgdata::move_aside(&layout)
        {
            tracing::error!(error = %e, "an unfinished data directory cannot be moved aside");
            self.refused = Some(format!("an unfinished data directory cannot be moved aside: {e}"));
            return Did::Nothing;
        }
        let Server::Down(lock) = &self.server else { return Did::Nothing };
        tracing::info!("initialising a new cluster");
        let config = self.config();
        match postmaster::initdb(&self.settings, &config.bootstrap, &self.bin, lock, Worker::new_volume_id())
            .await
        {
            Ok(system) => {
                tracing::info!(%system, "initialised");
                (self.not_before, self.refused) = (Instant::now(), None);
            }
            Err(e) => {
                tracing::error!(error = %e, "initdb failed");
                self.refused = Some(format!("no data directory can be made: {}", refusal::words_of(&e)));
            }
        }
        Did::Acted
    }

    /// Whether the latest wish (not the one that this round began with) allows a writable postgres.
    fn allowed(&self) -> bool {
        self.wish.borrow().allows_writes()
    }

    async fn start_primary(&mut self, wish: &Wish) -> Did {
        if Instant::now() < self.not_before || !self.programs_fit().await {
            return Did::Nothing;
        }
        match promote::settle(&self.settings.layout, &self.bin).await {
            Ok(Settled::None | Settled::Done) => {}
            Ok(Settled::Undone) => {
                tracing::warn!("a promotion was cut off before its timeline had begun: it is made once more");
                return Did::Acted;
            }
            Err(e) => {
                tracing::error!(error = %e, "what became of a promotion cannot be told: postgres is not started");
                self.not_before = Instant::now() + SETTLE_AGAIN;
                self.refused = Some(format!("what became of a promotion cannot be told: {e}"));
                return Did::Nothing;
            }
        }
        let sync_with = wish.desired.synchronous.then_some(self.settings.instance.peer());
        let log = self.first_start_log(wish.term);
        let options = StartOptions { role: StartAs::Primary, clients: ClientAccess::Closed, sync_with, log };
        // Told to the driver before, so that from here on it kills whatever it finds when the gate closes.
        self.writable.raise(self.wish.borrow().desired.fence_at);
        if !self.allowed() {
            self.writable.lower();
            return Did::Nothing;
        }
        self.start(options, StartedAs::Primary).await;
        if self.server.is_down() {
            self.writable.lower();
        } else if !self.allowed() {
            self.kill(Duration::from_secs(1)).await;
        }
        Did::Acted
    }

    pub(super) async fn start_standby(&mut self) -> Did {
        self.start_standby_with(None).await
    }

    /// As [`Worker::start_standby`], with a file for what postgres says.
    pub(super) async fn start_standby_with(&mut self, log: Option<PathBuf>) -> Did {
        if Instant::now() < self.not_before || !self.programs_fit().await {
            return Did::Nothing;
        }
        let upstream = self.upstream();
        self.follows(upstream.clone());
        let role = StartAs::Standby(upstream);
        let options = StartOptions { role, clients: ClientAccess::Open, sync_with: None, log };
        self.start(options, StartedAs::Standby).await;
        Did::Acted
    }

    async fn start(&mut self, options: StartOptions, started_as: StartedAs) {
        // The lock goes to postgres.
        let lock = match std::mem::replace(&mut self.server, Server::unlocked()) {
            Server::Down(lock) => lock,
            other => {
                self.server = other;
                return;
            }
        };
        if self.failed_starts >= FAILED_SETTINGS
            && let Err(e) = self.system_settings.before_next_start(&self.settings.layout)
        {
            tracing::error!(error = %e, "what ALTER SYSTEM has set cannot be set aside");
        }
        let clients = options.clients;
        (self.end, self.end_tried) = (None, None);
        let config = self.upkeep.for_start();
        match postmaster::start(&self.settings, &config, &self.bin, lock, options).await {
            Ok(postmaster) => {
                tracing::info!(kind = ?started_as, pid = postmaster.pid().as_raw_nonzero(), "postgres started");
                self.server = Server::Starting(Running { postmaster, since: Instant::now() }, started_as);
                self.access = clients;
                self.sync = SyncState::Unknown;
                self.need = None;
            }
            Err(e) => {
                tracing::error!(error = %e, "postgres could not be started");
                self.refused = Some(format!("postgres could not be started: {e}"));
                self.failed_starts += 1;
                self.not_before = Instant::now() + Duration::from_secs(1);
                self.on_postmaster_exit("not started").await;
            }
        }
    }

    pub(super) async fn stop(&mut self) -> Did {
        let Some(running) = self.server.running() else { return Did::Nothing };
        let postmaster = running.postmaster.clone();
        tracing::info!("stopping postgres (fast shutdown)");
        let begin = Instant::now();
        let unfinished = tokio::select! {
            stopped = postmaster.stop_fast(STOP) => stopped.err().map(Unfinished::Shutdown),
            () = self.shut_down() => Some(Unfinished::Archiver),
        };
        if let Some(why) = unfinished {
            tracing::info!(reason = %why, "ending the shutdown by force");
            self.kill(Duration::from_secs(5)).await;
        }
        // A process that waits for a disk is not ended by SIGKILL. Whether it is gone is for the lock to say then, which is tried again and again.
        let exited = tokio::time::timeout(EXIT, postmaster.exited()).await;
        let how = exited.unwrap_or_else(|_| format!("still there {EXIT:?} after SIGKILL"));
        tracing::info!(how, took_ms = begin.elapsed().as_millis(), "postgres was stopped");
        self.on_postmaster_exit(&how).await;
        Did::Acted
    }

    /// Returns some time after the shutdown checkpoint of a primary is on disk: what follows is the archiver, which goes on
    /// after the next start, and the walsenders, which get that time; the standby fetches what they did not send.
    async fn shut_down(&self) {
        let pgdata = self.settings.layout.pgdata();
        while !control_file::is_shut_down(&pgdata) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(LAST_WORDS).await;
    }

    /// A running primary: prepared once a term, synchronous commit as wished, clients when admitted, the endpoint here.
    async fn converge_primary(&mut self, wish: &Wish) -> Did {
        if std::mem::take(&mut self.learning) {
            tracing::info!("postgres starts after all: again, with its log where it belongs");
            return self.stop().await;
        }
        if self.prepared != Some(wish.term) {
            return self.prepare(wish.term).await;
        }
        let proven = match self.sync {
            SyncState::On { epoch, .. } => wish.desired.synchronous && epoch == wish.desired.sync_epoch,
            SyncState::Off => !wish.desired.synchronous,
            SyncState::Unknown => false,
        };
        if !proven {
            return self.switch_sync(wish).await;
        }
        if wish.desired.admit_clients && self.access == ClientAccess::Closed {
            let Some(running) = self.server.running() else { return Did::Nothing };
            match postmaster::set_clients(
                &self.settings,
                &self.config(),
                &running.postmaster,
                ClientAccess::Open,
            ) {
                Ok(()) => self.access = ClientAccess::Open,
                Err(e) => tracing::error!(error = %e, "clients cannot be let in"),
            }
            return Did::Acted;
        }
        if self.access == ClientAccess::Open && self.pointed.is_none_or(|(term, _)| term != wish.term) {
            return self.point_here(wish.term).await;
        }
        Did::Nothing
    }

    /// What a new primary needs: roles (a new pair), the standby's slot, and its past for those who rejoin.
    async fn prepare(&mut self, term: Term) -> Did {
        let work = async {
            if term == Term(1) {
                postmaster::bootstrap(&self.settings, &self.config(), &self.sql).await?;
            }
            let slot = InstanceEnv::standby_name(self.settings.instance.peer());
            Ok::<_, PostmasterError>(self.sql.ensure_slot(slot).await?)
        };
        if let Err(e) = work.await {
            let trouble = Some(e.to_string());
            // Tried five times a second: a line when it is another error than before.
            if self.trouble != trouble {
                tracing::error!(error = %e, "the new primary cannot be prepared; trying again");
                self.trouble = trouble;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            return Did::Nothing;
        }
        self.trouble = None;
        match self.past(term) {
            Some(past) => {
                self.timeline.send_replace(Some(past));
                self.prepared = Some(term);
                Did::Acted
            }
            None => Did::Nothing,
        }
    }

    fn past(&self, term: Term) -> Option<PrimaryTimeline> {
        let seen = self.seen.as_ref()?;
        let (timeline, flush) = (seen.timeline?, seen.flush_lsn?);
        let Some(DataDir::Ready(volume)) = self.inspected() else { return None };
        let history: TimelineHistory =
            match pgdata::history(&self.settings.layout, volume.system_identifier, timeline) {
                Ok(history) => history?,
                Err(e) => {
                    tracing::error!(error = %e, "the history of our timeline cannot be read");
                    return None;
                }
            };
        Some(PrimaryTimeline {
            term,
            past: PrimaryHistory { history, flush },
            has_needed: None,
            oldest: None,
        })
    }

    /// Given up when something else is wanted: the proof needs a checkpoint, which may take a minute, and a stop or a switchover is
    /// not to wait for it.
    async fn switch_sync(&mut self, wish: &Wish) -> Did {
        let (on, epoch) = (wish.desired.synchronous, wish.desired.sync_epoch);
        // Told before it begins: in between, nothing is proven.
        self.sync = SyncState::Unknown;
        self.report().await;
        let Some(Running { postmaster, .. }) = self.server.running() else { return Did::Nothing };
        let standby = on.then_some(self.settings.instance.peer());
        let switched = tokio::select! {
            switched = sync::set_sync(&self.settings, postmaster, &self.sql, standby, SYNC) => switched,
            () = something_else(self.wish.clone(), wish.desired) => return Did::Acted,
        };
        match switched {
            Ok(Some(from)) => {
                tracing::info!(%from, "every commit waits for the standby");
                self.sync = SyncState::On { from, epoch };
            }
            Ok(None) => {
                tracing::info!("commits do not wait for the standby");
                self.sync = SyncState::Off;
            }
            Err(e) => {
                tracing::error!(error = %e, "synchronous commit cannot be switched; trying again");
                self.trouble = Some(format!("synchronous commit cannot be switched; trying again: {e}"));
                self.sync = SyncState::Unknown;
                return Did::Nothing;
            }
        }
        self.trouble = None;
        Did::Acted
    }

    async fn point_here(&mut self, term: Term) -> Did {
        match self.endpoint.point_here().await {
            Ok(_) => {
                self.pointed = Some((term, clock::unix_ms()));
                tracing::info!(term = term.0, "the read-write endpoint is here");
                Did::Acted
            }
            Err(e) => {
                tracing::warn!(error = %e, "the read-write endpoint is not here yet; trying again");
                Did::Nothing
            }
        }
    }

    async fn promote(&mut self, wish: &Wish) -> Did {
        self.writable.raise(self.wish.borrow().desired.fence_at);
        if !self.allowed() {
            self.writable.lower();
            return Did::Nothing;
        }
        let Some(running) = self.server.running() else { return Did::Nothing };
        let postmaster = running.postmaster.clone();
        tracing::warn!(term = wish.term.0, "promoting through the trigger file");
        match promote::promote(&self.settings, &postmaster, &self.sql, PROMOTE).await {
            Ok(promotion) => {
                tracing::warn!(
                    term = wish.term.0,
                    took_ms = promotion.confirmed.as_millis(),
                    "promoted: a write was flushed"
                );
                self.promotion = Some((wish.term, promotion));
                self.sync = SyncState::Off;
                self.server.becomes_primary();
                self.point_here(wish.term).await;
                // Before PostgreSQL 16 pg_rewind reads the timeline of its source from the control file.
                let sql = self.sql.clone();
                tokio::spawn(async move { sql.checkpoint(Duration::from_secs(300)).await });
            }
            Err(e) => {
                tracing::error!(error = %e, "the promotion did not come to its end");
                self.follows_nobody();
                if !self.settings.layout.in_pgdata("standby.signal").exists() {
                    self.server.becomes_primary();
                }
            }
        }
        Did::Acted
    }
}

/// Returns when postgres, or its synchronous commit, is to be another than in `desired`.
async fn something_else(mut wish: watch::Receiver<Wish>, desired: Desired) {
    let of = |d: &Desired| (d.postgres, d.synchronous, d.sync_epoch);
    if wish.wait_for(|now| of(&now.desired) != of(&desired)).await.is_err() {
        // The driver has ended; its last wish is there by then.
        std::future::pending::<()>().await;
    }
}
