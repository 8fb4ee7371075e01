//! `pgpair agent`: everything put together.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgpair_core::authority::timing::Timing;
use pgpair_core::authority::{Authority, Event, NodeId, Want};
use pgpair_core::ids::Incarnation;
use pgpair_core::record::Holder;
use pgpair_wire::config::PairConfig;
use pgpair_wire::report::InstanceReport;
use pgpair_wire::scram::GivenPasswords;
use pgpair_wire::wal::PrimaryTimeline;
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::control::driver::{self, Driver, DriverIo};
use crate::control::health::{Answered, Health};
use crate::control::inbox::{HbaTrial, Input};
use crate::control::intake::Intake;
use crate::control::journal::Journal;
use crate::control::report::Reporter;
use crate::control::server::{self, Pulse, Shared};
use crate::control::wish::Wish;
use crate::fence::clock;
use crate::fence::deadman::Deadman;
use crate::fence::init::Tree;
use crate::fence::lock::{self, VolumeLock};
use crate::fence::witness::AgentLock;
use crate::fence::writable::Writable;
use crate::instance::env::InstanceEnv;
use crate::instance::fsx;
use crate::instance::layout::TERMINATION_LOG;
use crate::instance::state;
use crate::net::endpoint::ReadWriteEndpoint;
use crate::net::lease::RecordStore;
use crate::net::peer::Peer;
use crate::net::tls::Identity;
use crate::postgres::pair_config;
use crate::postgres::postmaster;
use crate::postgres::sql::Sql;
use crate::postgres::tool::PgBin;
use crate::wal::archive::LogEnd;
use crate::worker::{Worker, WorkerParts};

/// How long postgres has to stop when the agent leaves.
const LEAVE: Duration = Duration::from_secs(20);
/// Share of the pod's time to stop that a checkpoint before may take; the hand-over needs the rest.
const CHECKPOINT_SHARE: u32 = 4;
/// More is not waited for, however long that time is: it is longer only with a longer `ttl`, for the hand-over. A pod that is deleted by force has
/// two seconds, of which nobody tells it: it may be killed in its checkpoint then, and its witness says so to the standby.
const MOST_CHECKPOINT: Duration = Duration::from_secs(15);

/// How long the last lines of the journal have to get to the disk.
const JOURNAL: Duration = Duration::from_secs(1);

/// How long what is being written at the end has to get to the disk.
const LAST_WRITES: Duration = Duration::from_secs(1);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the agent, as the child of [`crate::fence::init::main`].
#[must_use]
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!(error = %e, "the agent ends");
            ExitCode::FAILURE
        }
    }
}

/// The protocol has this thread for itself, which never waits for a volume: the loop, what it says to the peer and to the API server, the servers, and
/// the look whether a primary hangs. The worker and all else that touches volumes have others; so have strangers, who may be many: handshakes and probes.
fn run() -> Result<(), Failure> {
    let volumes =
        Builder::new_multi_thread().worker_threads(2).thread_name("volumes").enable_all().build()?;
    let doors = Builder::new_multi_thread().worker_threads(1).thread_name("doors").enable_all().build()?;
    let protocol = Builder::new_current_thread().enable_all().build()?;
    let result = protocol.block_on(agent(Threads { volumes: volumes.handle(), doors: doors.handle() }));
    // A thread that waits for a disk keeps neither the process nor its lock, by which the witness tells that it is dead.
    doors.shutdown_background();
    volumes.shutdown_timeout(LAST_WRITES);
    protocol.shutdown_timeout(LAST_WRITES);
    result
}

/// Threads beside that of the protocol.
#[derive(Clone, Copy)]
struct Threads<'a> {
    volumes: &'a Handle,
    doors: &'a Handle,
}

async fn agent(threads: Threads<'_>) -> Result<(), Failure> {
    let settings = Arc::new(InstanceEnv::from_env()?);
    let me = Holder { instance: settings.instance, incarnation: Incarnation(rand::random()) };
    // This one first: the witness of a predecessor takes the two in the same order.
    let _alive = AgentLock::acquire(&settings.layout, me.incarnation).await?;
    let lock = wait_for_lock(&settings).await?;
    // The kubelet reads it when the container has ended: evidence of death names the incarnation.
    if let Err(e) = std::fs::write(TERMINATION_LOG, me.incarnation.to_string()) {
        tracing::debug!(error = %e, "no termination log; not in a container");
    }
    postmaster::install_tls(&settings.layout, postmaster::TlsFor::Postgres)?;
    fsx::remove(&settings.layout.passwords_json())?;
    let durable = state::load(&settings.layout)?;
    tracing::info!(instance = %me.instance, incarnation = %me.incarnation, term = durable.term.0, "agent starts");
    let bin = PgBin::find(&settings)?;
    let config = Arc::new(pair_config::load_tried(&settings, &bin).await?);
    let rules = driver::rules(&config, Timing::new(config.ttl_ms)?);
    let authority = Authority::new(me, node_id(&settings.node), rules, durable, clock::now());
    let (inbox, inputs) = mpsc::channel(256);
    let (set_config, config) = watch::channel(config);
    let ground = Ground::new(settings, bin, config, inbox).await?;
    ground.run(threads, me, lock, authority, set_config, inputs).await
}

/// What the parts of the agent share.
struct Ground {
    settings: Arc<InstanceEnv>,
    bin: PgBin,
    config: watch::Receiver<Arc<PairConfig>>,
    inbox: mpsc::Sender<Input>,
    client: kube::Client,
    identity: Identity,
    peer: Peer,
    sql: Sql,
    writable: Writable,
    answered: Answered,
}

/// Between the server and the other tasks.
struct Ways {
    report: watch::Receiver<InstanceReport>,
    timeline: watch::Receiver<Option<PrimaryTimeline>>,
    serve_pg_wal: watch::Receiver<Option<LogEnd>>,
    try_hba: mpsc::Sender<HbaTrial>,
    passwords: watch::Sender<Arc<GivenPasswords>>,
}

impl Ground {
    async fn new(
        settings: Arc<InstanceEnv>,
        bin: PgBin,
        config: watch::Receiver<Arc<PairConfig>>,
        inbox: mpsc::Sender<Input>,
    ) -> Result<Ground, Failure> {
        let identity = Identity::of(&settings.layout)?;
        Ok(Ground {
            client: kube::Client::try_default().await?,
            peer: Peer::new(&settings, identity.clone()),
            sql: Sql::new(&settings),
            writable: Writable::new(Deadman::of_agent()?),
            answered: Answered::default(),
            settings,
            bin,
            config,
            inbox,
            identity,
        })
    }

    async fn run(
        self,
        Threads { volumes, doors }: Threads<'_>,
        me: Holder,
        lock: VolumeLock,
        authority: Authority,
        set_config: watch::Sender<Arc<PairConfig>>,
        inputs: mpsc::Receiver<Input>,
    ) -> Result<(), Failure> {
        volumes.spawn(self.identity.clone().keep_renewed());
        let greeting = self.peer.clone();
        tokio::spawn(async move { greeting.greet().await });
        let (wish, wishes) = watch::channel(Wish::none());
        let (report, reports) = watch::channel(Reporter::default().report(clock::now(), &authority));
        let (hand_over, serve_pg_wal) = watch::channel(None);
        let (timeline, timelines) = watch::channel(None);
        let (try_hba, hba_trials) = mpsc::channel(1);
        let (give_passwords, passwords) = watch::channel(Arc::default());
        let ways =
            Ways { report: reports, timeline: timelines, serve_pg_wal, try_hba, passwords: give_passwords };
        let shared = self.shared(volumes, ways);
        volumes.spawn(shared.intake.clone().watch_mounted());
        let servers = tokio::spawn(serve(shared, doors.clone()));
        let worker = volumes.spawn(self.worker(wishes.clone(), timeline, lock, hba_trials, passwords).run());
        tokio::spawn(self.health(wishes).run());
        on_sigterm(self.inbox.clone(), self.sql.beside(), last_checkpoint(self.settings.grace))?;
        let (last_word, settings) = (wish.clone(), self.settings.clone());
        let (journal, journal_end) = Journal::start(settings.layout.journal(), &authority);
        let io = self.driver_io(me, wish, report, hand_over, set_config);
        let driver = tokio::spawn(Driver::new(authority, journal, io, Reporter::default()).run(inputs));
        tokio::select! {
            ended = servers => return Err(ended.unwrap_or_else(Failure::from)),
            ended = driver => ended?,
        }
        if leave(&last_word, worker).await {
            forget_node(&settings)?;
        }
        let _ = tokio::time::timeout(JOURNAL, journal_end).await; // a disk that hangs holds up nobody
        tracing::info!("agent ends");
        Ok(())
    }

    fn shared(&self, volumes: &Handle, ways: Ways) -> Shared {
        let Ways { report, timeline, serve_pg_wal, try_hba, passwords } = ways;
        let (settings, bin, sql) = (self.settings.clone(), self.bin.clone(), self.sql.beside());
        Shared {
            inbox: self.inbox.clone(),
            intake: Intake::new(settings, bin, sql, self.config.clone(), self.inbox.clone(), try_hba),
            report,
            timeline,
            serve_pg_wal,
            settings: self.settings.clone(),
            identity: self.identity.clone(),
            sql: self.sql.beside(),
            passwords,
            peer: self.peer.clone(),
            volumes: volumes.clone(),
        }
    }

    fn worker(
        &self,
        wish: watch::Receiver<Wish>,
        timeline: watch::Sender<Option<PrimaryTimeline>>,
        lock: VolumeLock,
        hba_trials: mpsc::Receiver<HbaTrial>,
        passwords: watch::Receiver<Arc<GivenPasswords>>,
    ) -> Worker {
        Worker::new(WorkerParts {
            answered: self.answered.clone(),
            settings: self.settings.clone(),
            bin: self.bin.clone(),
            sql: self.sql.beside(),
            peer: self.peer.beside(),
            endpoint: ReadWriteEndpoint::new(self.client.clone(), &self.settings),
            tree: Tree::of_agent(),
            writable: self.writable.clone(),
            wish,
            inputs: self.inbox.clone(),
            timeline,
            lock,
            identity: self.identity.clone(),
            config: self.config.clone(),
            hba_trials,
            passwords,
        })
    }

    fn health(&self, wish: watch::Receiver<Wish>) -> Health {
        Health {
            writable: self.writable.clone(),
            sql: self.sql.beside(),
            file: self.settings.layout.write_probe(),
            pid_file: self.settings.layout.in_pgdata("postmaster.pid"),
            wish,
            config: self.config.clone(),
            answered: self.answered.clone(),
            inputs: self.inbox.clone(),
        }
    }

    fn driver_io(
        self,
        me: Holder,
        wish: watch::Sender<Wish>,
        report: watch::Sender<InstanceReport>,
        hand_over: watch::Sender<Option<LogEnd>>,
        config: watch::Sender<Arc<PairConfig>>,
    ) -> DriverIo {
        let store = RecordStore::new(self.client, &self.settings.namespace, &self.settings.pair, me);
        DriverIo {
            settings: self.settings,
            store,
            peer: self.peer,
            inbox: self.inbox,
            wish,
            report,
            hand_over,
            writable: self.writable,
            tree: Tree::of_agent(),
            config,
            sql: self.sql,
        }
    }
}

/// The lock may still be held by the last processes of the agent before us; nothing is done without it.
async fn wait_for_lock(settings: &InstanceEnv) -> Result<VolumeLock, Failure> {
    for dir in [settings.layout.told(), settings.layout.restore()] {
        fsx::create_dir(&dir, 0o700)?;
    }
    let path = settings.layout.lock();
    for round in 0u32.. {
        if let Some(lock) = lock::wait_free(&path, Instant::now() + Duration::from_secs(5)).await? {
            return Ok(lock);
        }
        tracing::warn!(round, path = %path.display(), "another process holds the volume's lock; waiting");
    }
    Err("the volume's lock was never free".into())
}

fn node_id(name: &str) -> NodeId {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(name.as_bytes());
    NodeId(digest.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b)))
}

async fn serve(shared: Shared, doors: Handle) -> Failure {
    let probes = server::serve_probes(shared.clone(), Pulse::begin(), &doors);
    let ended = tokio::select! {
        ended = server::serve_peer(shared, &doors) => ended,
        ended = probes => ended,
    };
    ended.err().map_or_else(|| "a server ended".into(), Failure::from)
}

/// Limit of the checkpoint before this instance leaves.
fn last_checkpoint(grace: Duration) -> Duration {
    (grace / CHECKPOINT_SHARE).min(MOST_CHECKPOINT)
}

fn on_sigterm(inbox: mpsc::Sender<Input>, sql: Sql, checkpoint: Duration) -> Result<(), Failure> {
    let mut term = signal(SignalKind::terminate())?;
    // From a terminal, where no init process is in between.
    let mut int = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let told = tokio::select! { t = term.recv() => t, i = int.recv() => i };
        if told.is_some() {
            tracing::info!(limit = ?checkpoint, "told to end: a checkpoint, then leaving");
            // Clients are served meanwhile, and the stop, during which they are not, has less to write.
            let (begin, ended) = (Instant::now(), sql.checkpoint(checkpoint).await);
            let took_ms = begin.elapsed().as_millis();
            match ended {
                Ok(()) => tracing::info!(took_ms, "leaving after a checkpoint"),
                Err(e) => {
                    tracing::info!(took_ms, error = %e, "leaving without a checkpoint: the stop may take longer")
                }
            }
            let _ = inbox.send(Input::Event(Event::Leave)).await; // the driver has ended
        }
    });
    Ok(())
}

/// What still runs is stopped politely; what does not stop is killed by the init process. Says whether all is down.
async fn leave(wish: &watch::Sender<Wish>, worker: tokio::task::JoinHandle<()>) -> bool {
    let mut last = Wish::none();
    // The wish counts whatever state postgres is in: there is nobody left to make another.
    last.desired.postgres = Want::Stopped;
    last.last = true;
    wish.send_replace(last);
    matches!(tokio::time::timeout(LEAVE, worker).await, Ok(Ok(())))
}

/// With everything down by the lock, and this agent about to end, another node may go on with the volume without evidence.
fn forget_node(settings: &InstanceEnv) -> Result<(), Failure> {
    let durable = state::load(&settings.layout)?;
    Ok(state::store_last(&settings.layout, &pgpair_core::authority::Durable { node: None, ..durable })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkpoint_before_a_stop_leaves_most_of_the_time_to_the_hand_over() {
        for (grace, limit_ms) in [(2, 500), (30, 7_500), (60, 15_000), (165, 15_000)] {
            assert_eq!(
                last_checkpoint(Duration::from_secs(grace)),
                Duration::from_millis(limit_ms),
                "{grace}"
            );
        }
    }
}
