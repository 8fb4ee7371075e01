//! The worker: keeps postgres as the state machine wishes it, one action at a time, and reports what it sees.
//!
//! Flow of a round: look at postgres, report the facts, take at most one action towards the wish, wait for a change.
//! Guarantees: nothing is made writable unless the latest wish allows it right before and right after the start;
//! every action ends by itself or is bounded in time; "down" is reported only with the volume's lock in hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgpair_core::authority::{SyncState, Want};
use pgpair_core::ids::{Term, VolumeId};
use pgpair_core::instance::Role;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineId;
use pgpair_wire::config::PairConfig;
use pgpair_wire::report::Need;
use pgpair_wire::scram::GivenPasswords;
use pgpair_wire::wal::PrimaryTimeline;
use tokio::sync::{mpsc, watch};

use crate::control::health::Answered;
use crate::control::inbox::{HbaTrial, Input};
use crate::control::observed::Observed;
use crate::control::wish::Wish;
use crate::fence::init::Tree;
use crate::fence::lock::{self, VolumeLock};
use crate::fence::writable::Writable;
use crate::instance::env::InstanceEnv;
use crate::instance::fsx::{self, FileError};
use crate::net::endpoint::ReadWriteEndpoint;
use crate::net::peer::Peer;
use crate::net::tls::Identity;
use crate::postgres::control_file;
use crate::postgres::end_of_wal::end_of_wal;
use crate::postgres::pgdata::{self, DataDir};
use crate::postgres::postmaster::{ClientAccess, SystemSettings};
use crate::postgres::promote::{self, Promotion};
use crate::postgres::sql::{self, Sql};
use crate::postgres::tool::PgBin;
use crate::standby::rejoin::{Branch, KeptBranch};

mod actions;
mod background;
mod certificates;
mod follow;
mod look;
mod refusal;
mod roles;
mod server;
mod slots;
mod upkeep;
mod wake;

use server::{Did, Running, Server, StartedAs};

/// Time between two looks at a postgres that is as it should be.
const CALM: Duration = Duration::from_millis(500);
/// The same while it is not.
const BUSY: Duration = Duration::from_millis(50);
/// The same while a take-over waits for it.
const URGENT: Duration = Duration::from_millis(10);
/// A standby that has not answered for so long is not taken for a streaming one: its postgres may hang.
const STALE: Duration = Duration::from_millis(1200);
/// Time between two tries to find the end of the log of a stopped directory.
const END_AGAIN: Duration = Duration::from_secs(1);
/// For one look at what lies on a volume.
const LOOK: Duration = Duration::from_secs(5);
/// A dead postmaster's children are gone in milliseconds.
const DEATH: Duration = Duration::from_secs(10);

/// The worker's state.
pub struct Worker {
    settings: Arc<InstanceEnv>,
    bin: PgBin,
    answered: Answered,
    sql: Sql,
    peer: Peer,
    endpoint: ReadWriteEndpoint,
    tree: Tree,
    writable: Writable,
    wish: watch::Receiver<Wish>,
    inputs: mpsc::Sender<Input>,
    timeline: watch::Sender<Option<PrimaryTimeline>>,
    server: Server,
    access: ClientAccess,
    sync: SyncState,
    seen: Option<sql::SqlSnapshot>,
    seen_at: Instant,
    /// Newest timeline that this postmaster has received: without a walreceiver, the control file tells an older one.
    received_timeline: Option<TimelineId>,
    last_flush: Option<Lsn>,
    end: Option<(TimelineId, Lsn)>,
    failed_starts: u32,
    not_before: Instant,
    prepared: Option<Term>,
    /// Why the new primary cannot be prepared.
    trouble: Option<String>,
    /// Why no postgres runs, in the words of the program that refuses; until one runs.
    refused: Option<String>,
    /// A primary was started to learn why it does not start.
    learning: bool,
    /// Major version of PostgreSQL's programs, asked for once; `Some(None)`: they do not say.
    major: Option<Option<u32>>,
    promotion: Option<(Term, Promotion)>,
    pointed: Option<(Term, i64)>,
    need: Option<Need>,
    following: follow::Following,
    wakes: wake::Wakes,
    certificates: certificates::Certificates,
    upkeep: upkeep::Upkeep,
    roles: roles::RolesKept,
    /// What people have set with `ALTER SYSTEM`.
    system_settings: SystemSettings,
    slots: slots::Slots,
    volume: look::DataVolume,
    archive: look::ArchiveVolume,
    keeping: background::Look<(Branch, Result<KeptBranch, FileError>)>,
    kept: Option<(Branch, KeptBranch)>,
    end_tried: Option<Instant>,
    driver_ended: bool,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("instance", &self.settings.instance).finish_non_exhaustive()
    }
}

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerParts {
    /// When postgres showed last that it works.
    pub answered: Answered,
    /// Who and where this instance is.
    pub settings: Arc<InstanceEnv>,
    /// PostgreSQL's programs.
    pub bin: PgBin,
    /// The local postgres.
    pub sql: Sql,
    /// The peer's agent.
    pub peer: Peer,
    /// The read-write endpoint.
    pub endpoint: ReadWriteEndpoint,
    /// The processes to kill.
    pub tree: Tree,
    /// Shared with the driver.
    pub writable: Writable,
    /// From the driver.
    pub wish: watch::Receiver<Wish>,
    /// To the driver.
    pub inputs: mpsc::Sender<Input>,
    /// To the server.
    pub timeline: watch::Sender<Option<PrimaryTimeline>>,
    /// The volume's lock.
    pub lock: VolumeLock,
    /// Certificates, renewed while this runs.
    pub identity: Identity,
    /// What a person has set, from the driver.
    pub config: watch::Receiver<Arc<PairConfig>>,
    /// Access rules to try, from the intake.
    pub hba_trials: mpsc::Receiver<HbaTrial>,
    /// Passwords of roles, from the operator.
    pub passwords: watch::Receiver<Arc<GivenPasswords>>,
}

impl Worker {
    /// A worker that has not looked at anything yet.
    #[must_use]
    pub fn new(parts: WorkerParts) -> Worker {
        let roles = roles::RolesKept::new(&parts.settings, parts.passwords);
        Worker {
            settings: parts.settings,
            bin: parts.bin,
            answered: parts.answered,
            sql: parts.sql,
            peer: parts.peer,
            endpoint: parts.endpoint,
            tree: parts.tree,
            writable: parts.writable,
            wish: parts.wish,
            inputs: parts.inputs,
            timeline: parts.timeline,
            server: Server::Down(parts.lock),
            access: ClientAccess::Closed,
            sync: SyncState::Unknown,
            seen: None,
            seen_at: Instant::now(),
            received_timeline: None,
            last_flush: None,
            end: None,
            failed_starts: 0,
            not_before: Instant::now(),
            prepared: None,
            trouble: None,
            refused: None,
            learning: false,
            major: None,
            promotion: None,
            pointed: None,
            need: None,
            following: follow::Following::default(),
            wakes: wake::Wakes::default(),
            certificates: certificates::Certificates::new(&parts.identity),
            upkeep: upkeep::Upkeep::new(parts.identity, parts.config, parts.hba_trials),
            roles,
            system_settings: SystemSettings::default(),
            slots: slots::Slots::default(),
            volume: look::DataVolume::default(),
            archive: look::ArchiveVolume::default(),
            keeping: background::Look::default(),
            kept: None,
            end_tried: None,
            driver_ended: false,
        }
    }

    /// Runs until the driver is gone and postgres is down.
    pub async fn run(mut self) {
        loop {
            let wish = *self.wish.borrow_and_update();
            if let Server::Unlocked { again, .. } = self.server
                && Instant::now() >= again
            {
                self.take_lock().await;
            }
            self.look().await;
            self.do_upkeep(&wish).await;
            if self.end.is_none()
                && self.server.is_down()
                && self.end_tried.is_none_or(|t| t.elapsed() >= END_AGAIN)
            {
                // A directory that was left by an agent before us: where its log ends is the first thing to know.
                self.end_tried = Some(Instant::now());
                self.find_end().await;
            }
            if wish.role == Role::Standby && self.server.is_down() {
                self.note_need();
            }
            self.report().await;
            self.look_for_trigger_file().await;
            let wish = *self.wish.borrow_and_update();
            let meant = wish.last || wish.seen == self.facts().state;
            let did = if meant { self.act(&wish).await } else { Did::Nothing };
            if did == Did::Acted {
                self.look().await;
                self.report().await;
            }
            if self.driver_ended && self.server.is_down() {
                return;
            }
            if wish.awaits_log && did == Did::Nothing {
                self.wake_recovery();
            } else {
                self.wakes = wake::Wakes::default();
            }
            let pause = match (wish.urgent, self.is_settled(&wish)) {
                (true, _) => URGENT,
                (false, true) => CALM,
                (false, false) => BUSY,
            };
            let running = self.server.running().cloned();
            tokio::select! {
                changed = self.wish.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
                how = exit_of(running) => self.on_postmaster_exit(&how).await,
            }
        }
    }

    fn is_settled(&self, wish: &Wish) -> bool {
        match (&self.server, wish.desired.postgres) {
            (Server::Primary(_), Want::Primary | Want::Promoted) => {
                self.access == ClientAccess::Open && self.prepared == Some(wish.term)
            }
            (Server::Standby(_), Want::Following(_)) => true,
            (Server::Starting(..) | Server::Standby(_) | Server::Primary(_), Want::Unchanged) => true,
            (Server::Down(_), Want::Down | Want::Stopped) => true,
            _ => false,
        }
    }

    /// The postmaster has ended. Nothing is known to be down before the lock is in hand.
    async fn on_postmaster_exit(&mut self, how: &str) {
        tracing::warn!(how, "postgres has ended");
        if let Server::Starting(..) = self.server {
            self.failed_starts += 1;
            let wait = Duration::from_millis(200 << self.failed_starts.min(6));
            self.not_before = Instant::now() + wait;
        }
        self.server = Server::unlocked();
        self.forget_server();
        self.take_lock().await;
    }

    /// Ends what a postmaster has left behind, and takes the lock, which proves that nothing is left.
    async fn take_lock(&mut self) {
        self.kill(DEATH).await;
        match lock::wait_free(&self.settings.layout.lock(), Instant::now() + DEATH).await {
            Ok(Some(lock)) => {
                self.server = Server::Down(lock);
                self.writable.lower();
                self.find_end().await;
            }
            Ok(None) => {
                let for_s = self.server.try_again_later().as_secs();
                tracing::error!(
                    for_s,
                    "a process still holds the volume's lock after the kill; trying again"
                );
            }
            Err(e) => {
                let for_s = self.server.try_again_later().as_secs();
                tracing::error!(for_s, error = %e, "the volume's lock cannot be tried; trying again");
            }
        }
    }

    /// Kills what runs below the agent.
    async fn kill(&self, limit: Duration) {
        let tree = self.tree;
        if fsx::within(limit + Duration::from_secs(1), move || tree.kill(limit)).await.is_none() {
            tracing::error!("killing the processes of postgres takes too long");
        }
    }

    fn forget_server(&mut self) {
        self.access = ClientAccess::Closed;
        self.sync = SyncState::Unknown;
        self.seen = None;
        self.received_timeline = None;
        (self.prepared, self.trouble) = (None, None);
        self.slots = slots::Slots::default();
        self.following.forget_server();
        self.timeline.send_replace(None);
    }

    /// Where the log of the stopped directory ends: what a resignation must say.
    async fn find_end(&mut self) {
        let layout = &self.settings.layout;
        let of = layout.clone();
        let dir = fsx::within(LOOK, move || pgdata::inspect(&of)).await;
        if !matches!(dir, Some(Ok(DataDir::Ready(_)))) {
            return;
        }
        let end = async {
            let control = control_file::control_data(&self.bin, &layout.pgdata()).await?;
            end_of_wal(&self.bin, layout, &control, self.last_flush).await
        };
        match end.await {
            Ok(position) => self.end = Some((position.timeline, position.end)),
            Err(e) => {
                tracing::warn!(error = %e, "the end of the log cannot be found; no resignation is possible")
            }
        }
    }

    /// A person's trigger file counts on a standby, and only while no promotion of ours is under way.
    async fn look_for_trigger_file(&mut self) {
        let Server::Standby(_) = self.server else { return };
        match promote::take_request(&self.settings.layout) {
            Ok(false) => {}
            // The driver has ended: nobody is left to obey.
            Ok(true) => drop(self.inputs.send(Input::TriggerFile).await),
            Err(e) => tracing::error!(error = %e, "the trigger file cannot be taken"),
        }
    }

    async fn report(&mut self) {
        let observed = Observed {
            at: self.seen_at(),
            facts: self.facts(),
            sql: self.seen.clone(),
            archive: self.archive_report(),
            need: self.need.clone(),
            promotion: self.promotion,
            endpoint: self.pointed,
            rejoin: self.following.rejoin.clone(),
            config_generation: self.upkeep.generation,
            pending_restart: self.upkeep.pending.clone(),
            raised: self.upkeep.raised.clone(),
            logical_slots: self.slots.found.clone(),
            trouble: [self.trouble.as_ref(), self.refused.as_ref(), self.roles.trouble()]
                .into_iter()
                .flatten()
                .next()
                .cloned()
                .or_else(|| self.notice()),
            passwords: self.roles.passwords(),
            definitions: self.roles.definitions(),
            certificates: self.certificates(),
            login_refused: self.server.role().and_then(|_| self.sql.login().refusal()),
            space: self.upkeep.space,
        };
        self.driver_ended = self.inputs.send(Input::Observed(Box::new(observed))).await.is_err();
    }

    fn new_volume_id() -> VolumeId {
        VolumeId(rand::random())
    }
}

async fn exit_of(running: Option<Running>) -> String {
    match running {
        Some(running) => running.postmaster.exited().await,
        None => std::future::pending().await,
    }
}
