//! The operator process: election, caches, controller, probes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client};
use pgpair_api::PgReplicaPair;
use pgpair_api::names::OPERATOR;
use pgpair_api::validate::Defaults;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::api::is_status;
use crate::cache::Signs;
use crate::control::{FIRST_LIST, Operator, lead};
use crate::health::{Health, Phase};
use crate::leader::Elector;
use crate::metrics::Metrics;

/// Longest wait for the answer to the first request.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

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

impl OperatorFlags {
    fn defaults(&self) -> Defaults {
        Defaults {
            postgres_image_template: self.postgres_image_template.clone(),
            agent_image: self.agent_image.clone(),
            image_pull_policy: self.image_pull_policy.clone(),
        }
    }
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No client.
    #[error("no configuration for the API server: run inside a cluster or set KUBECONFIG")]
    Client(#[from] kube::Error),
    /// The CRD is missing.
    #[error(
        "the API server knows no PgReplicaPairs: install the CRD with kubectl apply --server-side -f crds/pgreplicapair.yaml"
    )]
    NoDefinition(#[source] kube::Error),
    /// No right to list pairs.
    #[error(
        "this account may not list PgReplicaPairs: install the chart's roles for the ServiceAccount of the operator"
    )]
    Forbidden(#[source] kube::Error),
    /// The first request failed for another reason.
    #[error("listing PgReplicaPairs failed: is the API server reachable from this pod?")]
    List(#[source] kube::Error),
    /// The first request was not answered.
    #[error("the API server did not answer within {} s: is it reachable from this pod?", FIRST_ANSWER.as_secs())]
    NoAnswer,
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
    let signs = Signs { health: Arc::new(Health::default()), metrics: Arc::new(Metrics::default()) };
    let http = crate::http::serve(flags.listen, signs.clone(), stopped.clone());
    let listen = flags.listen;
    let work = work(flags, client, signs, stopped);
    tokio::try_join!(async { http.await.map_err(|e| RunError::Http(listen, e)) }, work)?;
    Ok(())
}

async fn work(
    flags: OperatorFlags,
    client: Client,
    signs: Signs,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), RunError> {
    check_definition(&client).await?;
    signs.health.note_answer();
    let identity = flags.identity.clone().unwrap_or_else(host_name);
    let api = Api::<Lease>::namespaced(client.clone(), &flags.namespace);
    let election = Elector::new(api, identity.clone(), signs.health.clone());
    let (leads, mut leading) = watch::channel(false);
    let election = tokio::spawn(election.run(leads, stopped.clone()));
    signs.health.enter(Phase::Waiting);
    let metrics = signs.metrics.clone();
    let operator = Operator { client, defaults: Arc::new(flags.defaults()), identity, signs };
    loop {
        tokio::select! {
            led = leading.wait_for(|leads| *leads) => if led.is_err() { break },
            _ = stopped.wait_for(|stop| *stop) => break,
        }
        metrics.leader.set(1);
        let result = lead(&operator, leading.clone()).await;
        metrics.leader.set(0);
        result?;
    }
    let _ = election.await; // gives the lease up; a panic there has been logged
    Ok(())
}

/// Whether pairs can be listed. Their content does not matter: one that cannot be decoded is a matter of its own.
pub(crate) async fn check_definition(client: &Client) -> Result<(), RunError> {
    let pairs = Api::<PgReplicaPair>::all(client.clone());
    let params = ListParams::default().limit(1);
    match timeout(FIRST_ANSWER, pairs.list_metadata(&params)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if is_status(&error, 404) => Err(RunError::NoDefinition(error)),
        Ok(Err(error)) if is_status(&error, 403) => Err(RunError::Forbidden(error)),
        Ok(Err(error)) => Err(RunError::List(error)),
        Err(_) => Err(RunError::NoAnswer),
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| OPERATOR.to_owned(), |s| s.trim().to_owned())
}
