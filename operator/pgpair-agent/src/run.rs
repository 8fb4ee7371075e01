//! `pgpair agent`: everything put together.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgpair_core::authority::timing::Timing;
use pgpair_core::authority::{Authority, Event, NodeId, Want};
use pgpair_core::ids::Incarnation;
use pgpair_core::record::Holder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::control::driver::{self, Driver, DriverIo};
use crate::control::health::{Answered, Health};
use crate::control::inbox::Input;
use crate::control::intake::Intake;
use crate::control::journal::Journal;
use crate::control::report::Reporter;
use crate::control::server::{self, Shared};
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
use crate::worker::{Worker, WorkerParts};

/// How long postgres has to stop when the agent leaves.
const LEAVE: Duration = Duration::from_secs(20);
/// For a checkpoint before: of a pod that is deleted by force the kubelet leaves two seconds.
const LAST_CHECKPOINT: Duration = Duration::from_millis(700);

/// How long the last lines of the journal have to get to the disk.
const JOURNAL: Duration = Duration::from_secs(1);

/// How long what is being written at the end has to get to the disk.
const LAST_WRITES: Duration = Duration::from_secs(1);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the agent, as the child of [`crate::fence::init::main`].
#[must_use]
pub fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(Failure::from).and_then(|runtime| {
        let result = runtime.block_on(agent());
        // A thread that waits for a disk keeps neither the process nor its lock, by which the witness tells that it is dead.
        runtime.shutdown_timeout(LAST_WRITES);
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!(error = %e, "the agent ends");
            ExitCode::FAILURE
        }
    }
}

async fn agent() -> Result<(), Failure> {
    let settings = Arc::new(InstanceEnv::from_env()?);
    let me = Holder { instance: settings.instance, incarnation: Incarnation(rand::random()) };
    // This one first: the witness of a predecessor takes the two in the same order.
    let _alive = AgentLock::acquire(&settings.layout, me.incarnation).await?;
    let lock = wait_for_lock(&settings).await?;
    // The kubelet reads it when the container has ended: evidence of death names the incarnation.
    if let Err(e) = std::fs::write(TERMINATION_LOG, me.incarnation.to_string()) {
        tracing::debug!(error = %e, "no termination log; not in a container");
    }
    postmaster::install_tls(&settings.layout)?;
    let durable = state::load(&settings.layout)?;
    tracing::info!(instance = %me.instance, incarnation = %me.incarnation, term = durable.term.0, "agent starts");

    let bin = PgBin::find(&settings)?;
    let config = Arc::new(pair_config::load_tried(&settings, &bin).await?);
    let client = kube::Client::try_default().await?;
    let store = RecordStore::new(client.clone(), &settings.namespace, &settings.pair, me);
    let identity = Identity::load(&settings.layout.tls)?;
    tokio::spawn(identity.clone().keep_renewed());
    let peer = Peer::new(&settings, identity.clone());
    let greeting = peer.clone();
    tokio::spawn(async move { greeting.greet().await });
    let rules = driver::rules(&config, Timing::new(config.ttl_ms)?);
    let authority = Authority::new(me, node_id(&settings.node), rules, durable, clock::now());
    let (config, configs) = watch::channel(config);

    let (inbox, inputs) = mpsc::channel(256);
    let (wish, wishes) = watch::channel(Wish::none());
    let (report, reports) = watch::channel(Reporter::default().report(clock::now(), &authority));
    let (hand_over, serve_pg_wal) = watch::channel(None);
    let (timeline, timelines) = watch::channel(None);
    let writable = Writable::new(Deadman::of_agent()?);
    let sql = Sql::new(&settings);
    let (try_hba, hba_trials) = mpsc::channel(1);
    let intake =
        Intake::new(settings.clone(), bin.clone(), sql.clone(), configs.clone(), inbox.clone(), try_hba);
    tokio::spawn(intake.clone().watch_mounted());
    let shared = Shared {
        inbox: inbox.clone(),
        intake,
        report: reports,
        timeline: timelines,
        serve_pg_wal,
        settings: settings.clone(),
        sql: sql.beside(),
        peer: peer.clone(),
    };
    let servers = tokio::spawn(serve(shared, identity.clone()));
    let answered = Answered::default();
    let worker = Worker::new(WorkerParts {
        answered: answered.clone(),
        settings: settings.clone(),
        bin,
        sql: sql.beside(),
        peer: peer.clone(),
        endpoint: ReadWriteEndpoint::new(client, &settings),
        tree: Tree::of_agent(),
        writable: writable.clone(),
        wish: wishes,
        inputs: inbox.clone(),
        timeline,
        lock,
        identity,
        config: configs.clone(),
        hba_trials,
    });
    let worker = tokio::spawn(worker.run());
    let sql = sql.beside();
    tokio::spawn(
        Health {
            writable: writable.clone(),
            sql: sql.clone(),
            file: settings.layout.write_probe(),
            config: configs,
            answered,
            inputs: inbox.clone(),
        }
        .run(),
    );
    on_sigterm(inbox.clone(), sql.clone())?;
    let last_word = wish.clone();
    let left_settings = settings.clone();
    let io = DriverIo {
        settings,
        store,
        peer,
        inbox,
        wish,
        report,
        hand_over,
        writable,
        tree: Tree::of_agent(),
        config,
        sql,
    };
    let (journal, journal_end) = Journal::start(left_settings.layout.journal(), &authority);
    let driver = tokio::spawn(Driver::new(authority, journal, io, Reporter::default()).run(inputs));
    tokio::select! {
        ended = servers => return Err(ended.unwrap_or_else(Failure::from)),
        ended = driver => ended?,
    }
    if leave(&last_word, worker).await {
        forget_node(&left_settings)?;
    }
    let _ = tokio::time::timeout(JOURNAL, journal_end).await; // a disk that hangs holds up nobody
    tracing::info!("agent ends");
    Ok(())
}

/// The lock may still be held by the last processes of the agent before us; nothing is done without it.
async fn wait_for_lock(settings: &InstanceEnv) -> Result<VolumeLock, Failure> {
    fsx::create_dir(&settings.layout.run, 0o700)?;
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

async fn serve(shared: Shared, identity: Identity) -> Failure {
    let ended = tokio::select! {
        ended = server::serve_peer(shared.clone(), identity) => ended,
        ended = server::serve_probes(shared) => ended,
    };
    ended.err().map_or_else(|| "a server ended".into(), Failure::from)
}

fn on_sigterm(inbox: mpsc::Sender<Input>, sql: Sql) -> Result<(), Failure> {
    let mut term = signal(SignalKind::terminate())?;
    // From a terminal, where no init process is in between.
    let mut int = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let told = tokio::select! { t = term.recv() => t, i = int.recv() => i };
        if told.is_some() {
            tracing::info!("told to end: leaving");
            // Clients are served meanwhile, and the stop, during which they are not, has less to write. It goes on without it too.
            let _ = sql.checkpoint(LAST_CHECKPOINT).await;
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
