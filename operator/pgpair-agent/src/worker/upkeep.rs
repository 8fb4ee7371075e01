//! What is done beside the wish: a changed configuration, renewed certificates, the peer's slot, room on the volumes. Nothing of
//! it happens while a take-over waits, and nothing of it is waited for longer than a look at postgres.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgpair_core::lsn::Lsn;
use pgpair_wire::client::RequestError;
use pgpair_wire::config::PairConfig;
use pgpair_wire::report::{SpaceReport, TwoPasts};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{STALE, Server, StartedAs, Wish, Worker};
use crate::control::inbox::HbaTrial;
use crate::instance::env::InstanceEnv;
use crate::instance::layout::Layout;
use crate::instance::space::Forecast;
use crate::net::peer::{Peer, PeerError};
use crate::net::tls::Identity;
use crate::postgres::postmaster::{self, ClientAccess, StartAs};
use crate::postgres::render::{self, Floors};
use crate::postgres::sql::SqlError;
use crate::wal::backfill::{self, Compared, FillError};
use crate::wal::cleanup::{self, Needed};

/// How often postgres is asked which parameters wait for a restart: a person may edit with `ALTER SYSTEM`.
const PENDING: Duration = Duration::from_secs(10);
/// How often the settings are looked at on which a promise rests.
const PROMISES: Duration = Duration::from_secs(1);
/// How long people are told of something that is done.
const NOTICE: Duration = Duration::from_secs(300);
/// How often the volumes are measured.
const SPACE: Duration = Duration::from_secs(10);
/// How often the archive is cleaned.
const CLEAN: Duration = Duration::from_secs(60);
/// How often the archive is held against the peer's.
const FILL: Duration = Duration::from_secs(60);
/// How often while something is missing.
const FILL_ON: Duration = Duration::from_secs(10);
/// How often a lost slot is made anew.
const SLOT: Duration = Duration::from_secs(5);
/// How often a record is written anew for a standby that needs one, when that failed; and how long it may take.
const MOVE_ON: Duration = Duration::from_secs(2);
/// A question to the peer's agent.
const ASK: Duration = Duration::from_secs(2);

/// State of it.
pub(super) struct Upkeep {
    pub(super) identity: Identity,
    config: watch::Receiver<Arc<PairConfig>>,
    hba_trials: mpsc::Receiver<HbaTrial>,
    /// What the files of postgres were written from.
    pub(super) written: Arc<PairConfig>,
    /// What the file of a running postgres was raised to, if it was written since the start.
    pub(super) floors: Option<Floors>,
    /// Parameters that a standby has more of than is configured, because its primary has.
    pub(super) raised: Vec<String>,
    /// When postgres had read its configuration before the last change, in its own words; `None`: no change is under way.
    loaded_before: Option<String>,
    /// What postgres follows, with `pending` from after it was read.
    pub(super) generation: i64,
    pub(super) pending: Vec<String>,
    pub(super) space: SpaceReport,
    /// What people are told for a while, and since when: a setting that was put back, say.
    notice: Option<(String, Instant)>,
    forecast: Forecast,
    measuring: Option<JoinHandle<SpaceReport>>,
    /// Where the peer's next recovery begins, as it told last: that only moves forward.
    peer_redo: Option<Lsn>,
    cleaning: Option<JoinHandle<Option<Lsn>>>,
    filling: Option<JoinHandle<(Rest, Compared)>>,
    /// What is known of the histories in both archives.
    compared: Compared,
    /// The standby's connection for which a record was written last.
    moved_on_for: Option<i32>,
    next: Next,
}

/// When each thing is due.
struct Next {
    pending: Instant,
    promises: Instant,
    floors: Instant,
    space: Instant,
    clean: Instant,
    fill: Instant,
    slot: Instant,
    move_on: Instant,
}

impl Upkeep {
    pub(super) fn new(
        identity: Identity,
        config: watch::Receiver<Arc<PairConfig>>,
        hba_trials: mpsc::Receiver<HbaTrial>,
    ) -> Upkeep {
        let written = config.borrow().clone();
        let now = Instant::now();
        Upkeep {
            identity,
            generation: written.generation,
            written,
            config,
            hba_trials,
            floors: None,
            raised: Vec::new(),
            loaded_before: None,
            pending: Vec::new(),
            space: SpaceReport::default(),
            notice: None,
            forecast: Forecast::default(),
            measuring: None,
            peer_redo: None,
            cleaning: None,
            filling: None,
            compared: Compared::default(),
            moved_on_for: None,
            next: Next {
                pending: now,
                promises: now,
                floors: now,
                space: now,
                clean: now + CLEAN,
                fill: now + FILL_ON,
                slot: now,
                move_on: now,
            },
        }
    }

    /// The configuration that postgres is about to be started with.
    pub(super) fn for_start(&mut self) -> Arc<PairConfig> {
        self.written = self.config.borrow().clone();
        self.generation = self.written.generation;
        (self.loaded_before, self.next.pending) = (None, Instant::now());
        self.pending.clear();
        self.floors = None;
        self.raised.clear();
        self.written.clone()
    }
}

/// Whether the moment has come; the next one is `after` from now then.
pub(super) fn due(at: &mut Instant, after: Duration) -> bool {
    let now = Instant::now();
    let due = now >= *at;
    if due {
        *at = now + after;
    }
    due
}

impl Worker {
    /// What people are told at present of something that is done.
    pub(super) fn notice(&self) -> Option<String> {
        self.upkeep.notice.as_ref().filter(|(_, at)| at.elapsed() < NOTICE).map(|(told, _)| told.clone())
    }

    /// A timeline of which there are two pasts, here or in the peer's archive.
    pub(super) fn two_pasts(&self) -> Option<TwoPasts> {
        self.upkeep.compared.two_pasts()
    }

    /// Tells people of something that is done.
    pub(super) fn tell_for_a_while(&mut self, told: String) {
        self.upkeep.notice = Some((told, Instant::now()));
    }

    /// The configuration as postgres was given it last.
    pub(super) fn config(&self) -> Arc<PairConfig> {
        self.upkeep.written.clone()
    }

    pub(super) async fn do_upkeep(&mut self, wish: &Wish) {
        if wish.urgent || wish.last {
            return;
        }
        self.measure().await;
        self.try_hba().await;
        match &self.server {
            Server::Down(_) => {
                self.forget_certificates();
                self.upkeep.generation = self.upkeep.config.borrow().generation;
                self.upkeep.pending.clear();
                self.upkeep.raised.clear();
            }
            Server::Standby(_) | Server::Primary(_) if self.answers() => {
                self.follow_certificates().await;
                self.take_config().await;
                self.follow_floors().await;
                self.watch_pending().await;
                self.follow_passwords().await;
                self.keep_roles().await;
                self.follow_definitions().await;
                self.put_promises_back();
                self.end_impostors().await;
                self.keep_slot().await;
                self.move_on().await;
                self.watch_slots().await;
                self.clean().await;
                self.fill().await;
            }
            Server::Unlocked { .. } | Server::Starting(..) | Server::Standby(_) | Server::Primary(_) => {}
        }
    }

    /// Postgres answered a moment ago: a question to one that hangs would hold up the rest.
    fn answers(&self) -> bool {
        self.seen.is_some() && self.seen_at.elapsed() < STALE
    }

    /// Has a running postgres judge new access rules before they are taken. While clients are kept out there is nothing to judge.
    async fn try_hba(&mut self) {
        let Ok(trial) = self.upkeep.hba_trials.try_recv() else { return };
        let runs = self.server.running().is_some() && self.answers() && self.access == ClientAccess::Open;
        let objection = match runs && !trial.objection.is_closed() {
            true => postmaster::try_hba(&self.settings, &self.sql, &trial.config).await,
            false => None,
        };
        let _ = trial.objection.send(objection); // whoever asked may have gone on
    }

    /// What can change while postgres runs, changes; the rest waits for a restart, and is named.
    async fn take_config(&mut self) {
        let config = self.upkeep.config.borrow().clone();
        if config == self.upkeep.written {
            return;
        }
        let floors = self.floors().await;
        self.rewrite(config, floors).await;
    }

    /// What the configuration file is to be raised to, by the present role.
    async fn floors(&self) -> Floors {
        let role = match self.server.role() {
            Some(StartedAs::Standby) => StartAs::Standby(self.upstream()),
            Some(StartedAs::Primary) | None => StartAs::Primary,
        };
        postmaster::floors(&self.settings, &self.bin, &role).await
    }

    /// A standby runs with what its primary has, if that is more than is configured. When the primary has less, or when the standby
    /// is promoted, the file is written anew, and the smaller value waits for a restart.
    async fn follow_floors(&mut self) {
        let Some(running) = self.server.running() else { return };
        let written = self.upkeep.floors.unwrap_or(running.postmaster.floors());
        let raised = render::raised(&self.settings, &self.upkeep.written, written);
        let standby = self.server.role() == Some(StartedAs::Standby);
        // Told until postgres has read the smaller value, and says itself what waits for a restart.
        let is_being_read = raised.is_empty() && self.upkeep.loaded_before.is_some();
        if !(standby && is_being_read) {
            self.upkeep.raised = if standby { raised.clone() } else { Vec::new() };
        }
        if raised.is_empty() || !due(&mut self.upkeep.next.floors, PENDING) {
            return;
        }
        let floors = self.floors().await;
        if floors != written {
            tracing::info!(
                parameters = raised.join(", "),
                "smaller values can be written for the next start"
            );
            self.rewrite(self.upkeep.written.clone(), floors).await;
        }
    }

    async fn rewrite(&mut self, config: Arc<PairConfig>, floors: Floors) {
        let Some(running) = self.server.running() else { return };
        let postmaster = running.postmaster.clone();
        let loaded = match self.sql.pending_restart().await {
            Ok((loaded, _)) => loaded,
            // What is corrected may be what lets nobody in. Whatever it says once somebody gets in is news then.
            Err(SqlError::Postgres { .. }) => String::new(),
            Err(SqlError::Late { .. } | SqlError::Answer { .. }) => return,
        };
        match postmaster::reload_config(&self.settings, &config, floors, self.access, &postmaster) {
            Ok(()) => {
                tracing::info!(generation = config.generation, "postgres reads the new configuration");
                (self.upkeep.written, self.upkeep.loaded_before) = (config, Some(loaded));
                self.upkeep.floors = Some(floors);
                self.upkeep.next.pending = Instant::now();
            }
            Err(e) => {
                tracing::error!(error = %e, "the new configuration cannot be given to postgres; trying again")
            }
        }
    }

    async fn watch_pending(&mut self) {
        let waits = self.upkeep.loaded_before.is_some();
        if !due(&mut self.upkeep.next.pending, if waits { Duration::ZERO } else { PENDING }) {
            return;
        }
        let Ok((loaded, pending)) = self.sql.pending_restart().await else { return };
        if self.upkeep.loaded_before.as_ref() == Some(&loaded) {
            return; // not read yet
        }
        if self.upkeep.pending != pending && !pending.is_empty() {
            tracing::warn!(parameters = pending.join(", "), "changes that need a restart of postgres");
        }
        self.upkeep.loaded_before = None;
        (self.upkeep.pending, self.upkeep.generation) = (pending, self.upkeep.written.generation);
    }

    /// A setting on which a promise rests, changed by `ALTER SYSTEM`, does not stay in force.
    fn put_promises_back(&mut self) {
        let Some(running) = self.server.running() else { return };
        if !due(&mut self.upkeep.next.promises, PROMISES) {
            return;
        }
        match postmaster::put_back_promises(&self.settings, &running.postmaster) {
            Ok(names) if names.is_empty() => {}
            Ok(names) => {
                let parameters = names.join(", ");
                tracing::error!(
                    parameters,
                    "ALTER SYSTEM had changed what a promise rests on: it was put back"
                );
                self.tell_for_a_while(format!(
                    "ALTER SYSTEM had changed {parameters}, on which a promise of the pair rests: it was put back; what the spec has no field for cannot be changed"
                ));
            }
            Err(e) => tracing::error!(error = %e, "what ALTER SYSTEM has changed cannot be put back"),
        }
    }

    /// `synchronous_standby_names` knows names only, and whoever may stream can take any name.
    async fn end_impostors(&mut self) {
        if self.seen.as_ref().is_none_or(|seen| seen.impostors == 0) {
            return;
        }
        match self.sql.end_impostors().await {
            Ok(roles) if roles.is_empty() => {}
            Ok(roles) => {
                tracing::error!(roles, "who streamed under the standby's name without its slot was ended");
                self.tell_for_a_while(format!(
                    "a session of {roles} streamed under the name of the standby, so that commits could count as safe with it: it was \
                     ended; give your replication clients another application_name"
                ));
            }
            Err(e) => tracing::error!(error = %e, "who streams under the standby's name cannot be ended"),
        }
    }

    /// A slot that grew over its limit keeps nothing and serves nobody again; the standby catches up from the archives, and
    /// needs a new one to stream.
    async fn keep_slot(&mut self) {
        let lost = self.seen.as_ref().and_then(|s| s.peer_slot.as_ref()).is_none_or(|s| s.lost);
        let primary = self.server.role() == Some(StartedAs::Primary);
        if !(primary && lost && self.prepared.is_some() && due(&mut self.upkeep.next.slot, SLOT)) {
            return;
        }
        let name = InstanceEnv::standby_name(self.settings.instance.peer());
        match self.sql.ensure_slot(name).await {
            Ok(()) => tracing::warn!(slot = name, "the standby's slot was lost: it is made anew"),
            Err(e) => tracing::error!(error = %e, slot = name, "the standby's lost slot cannot be made anew"),
        }
    }

    /// A directory that `pg_rewind` has changed is consistent when it has replayed all up to the place of the primary's next record. Right after
    /// a switch to another segment only that record itself reaches so far, and on an idle primary none comes: the standby would not
    /// accept connections, and nobody would pair with it. So one is written, once for each connection.
    async fn move_on(&mut self) {
        let waits = self.seen.as_ref().and_then(|seen| seen.streams_before_the_next_record());
        let Some(walsender) = waits.filter(|pid| self.upkeep.moved_on_for != Some(*pid)) else { return };
        if !due(&mut self.upkeep.next.move_on, MOVE_ON) {
            return;
        }
        match self.sql.flush_probe(MOVE_ON).await {
            Ok(()) => self.upkeep.moved_on_for = Some(walsender),
            Err(e) => tracing::warn!(error = %e, "a record for the standby to reach cannot be written yet"),
        }
    }

    async fn measure(&mut self) {
        let upkeep = &mut self.upkeep;
        if let Some(done) = upkeep.measuring.take_if(|m| m.is_finished())
            && let Ok(measured) = done.await
        {
            upkeep.space = upkeep.forecast.take(Instant::now(), measured);
        }
        if upkeep.measuring.is_none() && due(&mut upkeep.next.space, SPACE) {
            let layout = self.settings.layout.clone();
            upkeep.measuring =
                Some(tokio::task::spawn_blocking(move || crate::instance::space::measure(&layout)));
        }
    }

    /// Starts a round of [`cleanup`] in the background, and takes the result of the last one.
    async fn clean(&mut self) {
        let upkeep = &mut self.upkeep;
        if let Some(done) = upkeep.cleaning.take_if(|c| c.is_finished())
            && let Ok(told) = done.await
        {
            upkeep.peer_redo = told.max(upkeep.peer_redo);
        }
        let Some(seen) = &self.seen else { return };
        if upkeep.cleaning.is_some() || !due(&mut upkeep.next.clean, CLEAN) {
            return;
        }
        let (layout, peer, known) = (self.settings.layout.clone(), self.peer.clone(), upkeep.peer_redo);
        let (own, segment_size) = (seen.redo, seen.segment_size);
        let slot = seen.peer_slot.as_ref().and_then(|s| s.restart);
        upkeep.cleaning = Some(tokio::spawn(async move {
            let told = peer.needs(ASK).await.ok().map(|n| n.redo).max(known);
            let needed = Needed { own, peer: told, slot, segment_size };
            // It logs what it does; a failure is tried again in the next round.
            let _ = tokio::task::spawn_blocking(move || cleanup::round(&layout, needed)).await;
            told
        }));
    }
    /// Starts a round of [`backfill`] in the background; the next one follows soon when this one left something.
    async fn fill(&mut self) {
        let upkeep = &mut self.upkeep;
        if let Some(done) = upkeep.filling.take_if(|f| f.is_finished())
            && let Ok((rest, compared)) = done.await
        {
            if compared.two_pasts() != upkeep.compared.two_pasts()
                && let Some(TwoPasts { timeline, one, other }) = compared.two_pasts()
            {
                tracing::error!(
                    timeline = timeline.0,
                    ?one,
                    ?other,
                    "archive: ALARM: a timeline has two pasts"
                );
            }
            upkeep.compared = compared;
            if rest == Rest::Nothing {
                upkeep.next.fill = Instant::now() + FILL;
            }
        }
        let Some(seen) = &self.seen else { return };
        if upkeep.filling.is_some() || !due(&mut upkeep.next.fill, FILL_ON) {
            return;
        }
        let (Some(timeline), Some(end)) = (seen.timeline, seen.position()) else { return };
        let own = backfill::Own { timeline, end, segment_size: seen.segment_size };
        let (layout, peer) = (self.settings.layout.clone(), self.peer.clone());
        let mut compared = upkeep.compared.clone();
        upkeep.filling = Some(tokio::spawn(async move {
            let rest = fill(&layout, &peer, own, &mut compared).await;
            (rest, compared)
        }));
    }
}

/// What a round of [`backfill`] left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    Something,
}

async fn fill(layout: &Layout, peer: &Peer, own: backfill::Own, compared: &mut Compared) -> Rest {
    match backfill::round(layout, peer, own, compared).await {
        Ok(backfill::Filled { left: 0, .. }) => Rest::Nothing,
        Ok(backfill::Filled { left, .. }) => {
            tracing::info!(left, "archive: more is to be fetched from the peer");
            Rest::Something
        }
        // A peer that is away has nothing to give.
        Err(FillError::Peer(PeerError::Request(RequestError::Late(_) | RequestError::Connect(_)))) => {
            Rest::Something
        }
        Err(e) => {
            tracing::warn!(error = %e, "archive: what is missing cannot be fetched; trying again");
            Rest::Something
        }
    }
}
