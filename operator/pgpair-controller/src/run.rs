//! The operator process: election, caches, controller, probes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use futures::future::try_join_all;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::runtime::controller::Config;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, Predicate, WatchStreamExt, predicates, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use pgpair_api::PgReplicaPair;
use pgpair_api::names::{OPERATOR, PairName};
use pgpair_api::validate::Defaults;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cache::{Caches, watch_all};
use crate::context::Context;
use crate::leader::Elector;
use crate::memory::PairMemory;
use crate::metrics::Metrics;
use crate::reconcile::{error_policy, reconcile};

/// Pairs that are reconciled at once.
const CONCURRENCY: u16 = 8;
/// Changes of one pair within this time make one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Longest wait for the first lists.
const FIRST_LIST: Duration = Duration::from_secs(60);
/// Longest wait for reconciles that run when the process is told to stop.
const DRAIN: Duration = Duration::from_secs(15);

/// Flags of the operator.
#[derive(Debug, Clone, clap::Args)]
pub struct OperatorFlags {
    /// Image of PostgreSQL where a pair names none; `{version}` stands for the major version
    #[arg(long, env = "PGPAIR_POSTGRES_IMAGE_TEMPLATE", default_value = "postgres:{version}")]
    pub postgres_image_template: String,
    /// Image with this program, for the pods of the instances
    #[arg(long, env = "PGPAIR_IMAGE", default_value = "localhost/pgpair:dev")]
    pub agent_image: String,
    /// imagePullPolicy of both
    #[arg(long, env = "PGPAIR_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// Namespace of the operator's Lease
    #[arg(long, env = "PGPAIR_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Name of this replica in the election; its host name if absent
    #[arg(long, env = "PGPAIR_POD_NAME")]
    pub identity: Option<String>,
    /// Address of probes and metrics
    #[arg(long, env = "PGPAIR_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No client.
    #[error("no configuration for the API server: run inside a cluster or set KUBECONFIG")]
    Client(#[from] kube::Error),
    /// The CRD is missing.
    #[error(
        "PgReplicaPairs cannot be listed: is the CRD installed? kubectl apply --server-side -f crds/pgreplicapair.yaml"
    )]
    NoDefinition(#[source] kube::Error),
    /// The listener.
    #[error("serving probes and metrics on {0} failed")]
    Http(SocketAddr, #[source] std::io::Error),
    /// Signals.
    #[error("waiting for signals failed")]
    Signal(#[source] std::io::Error),
    /// The caches.
    #[error("the watch caches were not filled within {} s", FIRST_LIST.as_secs())]
    Caches,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// The operator could not start, or lost something that it cannot do without.
pub async fn run(flags: OperatorFlags) -> Result<(), RunError> {
    let client = Client::try_default().await?;
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping");
        let _ = stop.send(true); // fails when everything has ended already
    });
    let metrics = Arc::new(Metrics::default());
    let (ready, is_ready) = watch::channel(false);
    let http = crate::http::serve(flags.listen, metrics.clone(), is_ready, stopped.clone());
    let work = work(&flags, client, metrics, ready, stopped);
    let listen = flags.listen;
    tokio::try_join!(async { http.await.map_err(|e| RunError::Http(listen, e)) }, work)?;
    Ok(())
}

async fn work(
    flags: &OperatorFlags,
    client: Client,
    metrics: Arc<Metrics>,
    ready: watch::Sender<bool>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let pairs = Api::<PgReplicaPair>::all(client.clone());
    pairs.list(&ListParams::default().limit(1)).await.map_err(RunError::NoDefinition)?;
    let identity = flags.identity.clone().unwrap_or_else(host_name);
    let election = Elector::new(Api::<Lease>::namespaced(client.clone(), &flags.namespace), identity.clone());
    let (leads, mut leading) = watch::channel(false);
    let election = tokio::spawn(election.run(leads, stopped.clone()));
    // A replica that waits is ready: it would take over at once.
    ready.send_replace(true);
    loop {
        tokio::select! {
            led = leading.wait_for(|leads| *leads) => if led.is_err() { break },
            _ = stopped.wait_for(|stop| *stop) => break,
        }
        metrics.leader.set(1);
        let result = lead(flags, &client, &metrics, &identity, leading.clone()).await;
        metrics.leader.set(0);
        result?;
    }
    let _ = election.await; // gives the lease up; a panic there has been logged
    Ok(())
}

/// Works until leadership ends.
async fn lead(
    flags: &OperatorFlags,
    client: &Client,
    metrics: &Arc<Metrics>,
    identity: &str,
    mut leading: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let (triggers, triggered) = mpsc::unbounded::<ObjectRef<PgReplicaPair>>();
    let (caches, feeders, first_lists) = watch_all(client, &triggers);
    let feeders: Vec<_> = feeders.into_iter().map(tokio::spawn).collect();
    let ended = async {
        // An error means that the election has ended, and leadership with it.
        let _ = leading.wait_for(|leads| !*leads).await;
    };
    let result = tokio::select! {
        filled = tokio::time::timeout(FIRST_LIST, try_join_all(first_lists)) => {
            if matches!(filled, Ok(Ok(_))) { Ok(true) } else { Err(RunError::Caches) }
        }
        () = ended => Ok(false),
    };
    if let Ok(true) = result {
        let ctx = context(flags, client, metrics, identity, caches);
        control(client, ctx, triggered, leading).await;
    }
    for feeder in feeders {
        feeder.abort();
    }
    result.map(|_| ())
}

async fn control(
    client: &Client,
    ctx: Arc<Context>,
    triggered: mpsc::UnboundedReceiver<ObjectRef<PgReplicaPair>>,
    mut leading: watch::Receiver<bool>,
) {
    let (reader, writer) = reflector::store();
    let pairs = watcher(Api::<PgReplicaPair>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .modify(|pair| pair.managed_fields_mut().clear())
        .reflect(writer)
        .applied_objects()
        // Our own status writes are no reason to look again.
        .predicate_filter(
            predicates::generation.combine(predicates::labels).combine(predicates::annotations),
            Default::default(),
        );
    let mut ended = leading.clone();
    let ends = async move {
        let _ = ended.wait_for(|leads| !*leads).await; // an error ends leadership too
    };
    let known = reader.clone();
    let context = ctx.clone();
    let run = Controller::for_stream(pairs, reader)
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .reconcile_on(triggered)
        .graceful_shutdown_on(ends)
        .run(reconcile, error_policy, ctx)
        .for_each(move |_| {
            context.retain(|name| known.get(&ObjectRef::new(&name.name).within(&name.namespace)).is_some());
            futures::future::ready(())
        });
    tokio::select! {
        () = run => {}
        () = async {
            let _ = leading.wait_for(|leads| !*leads).await; // as above
            tokio::time::sleep(DRAIN).await;
        } => tracing::warn!("reconciles still ran when leadership had ended and are cut off"),
    }
}

fn context(
    flags: &OperatorFlags,
    client: &Client,
    metrics: &Arc<Metrics>,
    identity: &str,
    caches: Caches,
) -> Arc<Context> {
    let reporter = Reporter { controller: OPERATOR.into(), instance: Some(identity.to_owned()) };
    Arc::new(Context {
        client: client.clone(),
        caches,
        defaults: Arc::new(Defaults {
            postgres_image_template: flags.postgres_image_template.clone(),
            agent_image: flags.agent_image.clone(),
            image_pull_policy: flags.image_pull_policy.clone(),
        }),
        metrics: metrics.clone(),
        recorder: Recorder::new(client.clone(), reporter),
        pairs: Arc::new(Mutex::new(HashMap::<PairName, PairMemory>::new())),
    })
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| OPERATOR.to_owned(), |s| s.trim().to_owned())
}
