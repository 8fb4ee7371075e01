//! The operator process: election, caches, controller, probes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::ListParams;
use kube::runtime::events::{Recorder, Reporter};
use pgpair_api::PgReplicaPair;
use pgpair_api::names::OPERATOR;
use pgpair_api::validate::Defaults;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::cache::{Signs, api_in};
use crate::control::{FIRST_LIST, Operator, lead};
use crate::error::MayBeRefusal;
use crate::events::EventQueue;
use crate::health::{Health, Phase};
use crate::leader::{Elector, Leadership, Membership};
use crate::metrics::Metrics;
use crate::neighbours::Domain;

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
    /// Name of the operator's Lease, by which its replicas elect the one that works
    #[arg(long, env = "PGPAIR_LEASE", default_value = OPERATOR)]
    pub lease: String,
    /// Pairs of this class only; empty: those without spec.operatorClassName
    #[arg(long, env = "PGPAIR_CLASS", default_value = "")]
    pub class: String,
    /// Namespaces with pairs, with commas; empty: all
    #[arg(long, env = "PGPAIR_WATCH_NAMESPACES", default_value = "", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Pairs that restart at the same time because of a newer operator or a changed template
    #[arg(long, env = "PGPAIR_ROLLOUT_MAX_CONCURRENT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub rollout_max_concurrent: u8,
    /// Name of this replica in the election; its host name if absent
    #[arg(long, env = "PGPAIR_POD_NAME")]
    pub identity: Option<String>,
    /// Address of probes and metrics
    #[arg(long, env = "PGPAIR_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
}

impl OperatorFlags {
    fn membership(&self) -> Membership {
        let namespaces = self.watch_namespaces.iter().filter(|n| !n.is_empty()).cloned().collect();
        Membership {
            namespace: self.namespace.clone(),
            lease: self.lease.clone(),
            identity: self.identity.clone().unwrap_or_else(host_name),
            domain: Domain { class: self.class.clone(), namespaces },
        }
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            postgres_image_template: self.postgres_image_template.clone(),
            agent_image: self.agent_image.clone(),
            image_pull_policy: self.image_pull_policy.clone(),
            operator_namespace: self.namespace.clone(),
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
        "the API server knows no PgReplicaPairs: install the CRDs with kubectl apply --server-side -f crds/"
    )]
    NoDefinition(#[source] kube::Error),
    /// No right to list pairs.
    #[error(
        "this account may not list PgReplicaPairs in {0}: install the chart's roles for the ServiceAccount of the operator"
    )]
    Forbidden(String, #[source] kube::Error),
    /// The first request failed for another reason.
    #[error("listing PgReplicaPairs in {0} failed: is the API server reachable from this pod?")]
    List(String, #[source] kube::Error),
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
    let member = flags.membership();
    for scope in member.domain.scopes() {
        check_definition(&client, scope).await?;
    }
    signs.health.note_answer();
    let reporter = Reporter { controller: OPERATOR.into(), instance: Some(member.identity.clone()) };
    let operator = Operator {
        client: client.clone(),
        defaults: Arc::new(flags.defaults()),
        events: EventQueue::start(Recorder::new(client.clone(), reporter), signs.metrics.clone()),
        domain: member.domain.clone(),
        max_rolling: usize::from(flags.rollout_max_concurrent),
        signs: signs.clone(),
    };
    let election = Elector::new(client, member, signs.clone(), operator.events.clone());
    let (leads, leading) = watch::channel(Leadership::Ended { until: Instant::now() });
    let (working, works) = watch::channel(false);
    let (end, ended) = watch::channel(false);
    let election = tokio::spawn(election.run(leads, works, ended));
    signs.health.enter(Phase::Waiting);
    let result = tokio::select! {
        result = lead_again(&operator, leading, &working) => result,
        () = async {
            // An error means that the process is ending.
            let _ = stopped.wait_for(|stop| *stop).await;
            end.send_replace(true);
            std::future::pending().await
        } => Ok(()),
    };
    // Whatever ended the work: the next replica need not wait until the Lease runs out.
    end.send_replace(true);
    let _ = election.await; // a panic there has been logged
    result
}

/// Works whenever this replica leads, until the election has ended.
async fn lead_again(
    operator: &Operator,
    mut leading: watch::Receiver<Leadership>,
    working: &watch::Sender<bool>,
) -> Result<(), RunError> {
    let leader = &operator.signs.metrics.leader;
    while leading.wait_for(|leads| leads.leads()).await.is_ok() {
        working.send_replace(true);
        leader.set(1);
        let result = lead(operator, leading.clone()).await;
        leader.set(0);
        working.send_replace(false);
        operator.events.drain().await; // the next leader need not wait for it
        result?;
    }
    Ok(())
}

/// Whether pairs can be listed. Their content does not matter: one that cannot be decoded is a matter of its own.
pub(crate) async fn check_definition(client: &Client, scope: Option<&str>) -> Result<(), RunError> {
    let pairs = api_in::<PgReplicaPair>(client, scope);
    let params = ListParams::default().limit(1);
    match timeout(FIRST_ANSWER, pairs.list_metadata(&params)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.is_refused_with(404) => Err(RunError::NoDefinition(error)),
        Ok(Err(error)) if error.is_refused_with(403) => Err(RunError::Forbidden(words(scope), error)),
        Ok(Err(error)) => Err(RunError::List(words(scope), error)),
        Err(_) => Err(RunError::NoAnswer),
    }
}

fn words(scope: Option<&str>) -> String {
    scope.map_or_else(|| "all namespaces".to_owned(), |namespace| format!("namespace {namespace}"))
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| OPERATOR.to_owned(), |s| s.trim().to_owned())
}

#[cfg(test)]
mod tests;
