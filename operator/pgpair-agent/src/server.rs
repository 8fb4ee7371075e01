//! What the agent serves: to its peer and the operator over mTLS, to the kubelet and Prometheus over plain HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use pgpair_core::authority::messages::{
    Answer, CanTake, CanTakeReply, Evidence, Heartbeat, ResignReply, Resignation,
};
use pgpair_core::report::{InstanceReport, PostgresState, wire};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::archive;
use crate::peer::PrimaryTimeline;
use crate::settings::Settings;
use crate::sql::Sql;
use crate::tls;

/// A client that has not finished its handshake by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// The state machine answers at once, except where it must read the record first.
const ANSWER: Duration = Duration::from_secs(3);

/// A message for the state machine, with the way back for its answer.
#[derive(Debug)]
pub enum Call {
    /// A heartbeat.
    Heartbeat(Heartbeat, oneshot::Sender<Answer>),
    /// "Can you take it?"
    CanTake(CanTake, oneshot::Sender<CanTakeReply>),
    /// A resignation.
    Resignation(Resignation, oneshot::Sender<ResignReply>),
    /// Evidence of death.
    Evidence(Evidence),
}

/// What the handlers read.
#[derive(Debug, Clone)]
pub struct Shared {
    /// To the state machine.
    pub calls: mpsc::Sender<Call>,
    /// Latest report.
    pub report: watch::Receiver<InstanceReport>,
    /// Our timeline, while we are a confirmed primary.
    pub timeline: watch::Receiver<Option<PrimaryTimeline>>,
    /// Whether files of `pg_wal` may be given out: postgres is dead and has resigned.
    pub serve_pg_wal: watch::Receiver<bool>,
    /// Settings.
    pub settings: Arc<Settings>,
    /// The local postgres.
    pub sql: Sql,
}

/// Serves the peer and the operator until the process ends.
///
/// # Errors
/// The port cannot be bound.
pub async fn serve_peer(shared: Shared, tls: Arc<ServerConfig>) -> std::io::Result<()> {
    let address = SocketAddr::new(shared.settings.listen, shared.settings.peer_port);
    let listener = MutualTls::bind(address, tls, &shared.settings.pair).await?;
    let app = Router::new()
        .route(wire::REPORT, get(report))
        .route(wire::HEARTBEAT, post(heartbeat))
        .route(wire::CAN_TAKE, post(can_take))
        .route(wire::RESIGN, post(resignation))
        .route(wire::EVIDENCE, post(evidence))
        .route(wire::TIMELINE, get(timeline))
        .route(&format!("{}/{{file}}", wire::WAL), get(wal))
        .with_state(shared);
    axum::serve(listener, app).await
}

/// Serves probes until the process ends.
///
/// # Errors
/// The port cannot be bound.
pub async fn serve_probes(shared: Shared) -> std::io::Result<()> {
    let address = SocketAddr::new(shared.settings.listen, shared.settings.probe_port);
    let app = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/v1/report", get(report))
        .with_state(shared);
    axum::serve(TcpListener::bind(address).await?, app).await
}

async fn report(State(s): State<Shared>) -> Json<InstanceReport> {
    Json(s.report.borrow().clone())
}

async fn readyz(State(s): State<Shared>) -> (StatusCode, &'static str) {
    let report = s.report.borrow();
    let ready = match report.postgres.state {
        PostgresState::Primary => report.authority.gate_open,
        PostgresState::Standby => true,
        PostgresState::Down | PostgresState::Starting | PostgresState::Promoting => false,
    };
    if ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "postgres is not ready") }
}

async fn ask<T>(s: &Shared, make: impl FnOnce(oneshot::Sender<T>) -> Call) -> Result<Json<T>, StatusCode> {
    let (tx, rx) = oneshot::channel();
    s.calls.try_send(make(tx)).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    match tokio::time::timeout(ANSWER, rx).await {
        Ok(Ok(answer)) => Ok(Json(answer)),
        Ok(Err(_)) | Err(_) => Err(StatusCode::GATEWAY_TIMEOUT),
    }
}

async fn heartbeat(State(s): State<Shared>, Json(hb): Json<Heartbeat>) -> Result<Json<Answer>, StatusCode> {
    ask(&s, |tx| Call::Heartbeat(hb, tx)).await
}

async fn can_take(State(s): State<Shared>, Json(q): Json<CanTake>) -> Result<Json<CanTakeReply>, StatusCode> {
    ask(&s, |tx| Call::CanTake(q, tx)).await
}

async fn resignation(
    State(s): State<Shared>,
    Json(r): Json<Resignation>,
) -> Result<Json<ResignReply>, StatusCode> {
    ask(&s, |tx| Call::Resignation(r, tx)).await
}

async fn evidence(State(s): State<Shared>, Json(e): Json<Evidence>) -> Result<Json<()>, StatusCode> {
    match s.calls.try_send(Call::Evidence(e)) {
        Ok(()) => Ok(Json(())),
        Err(_) => Err(StatusCode::SERVICE_UNAVAILABLE),
    }
}

async fn timeline(State(s): State<Shared>) -> Result<Json<PrimaryTimeline>, StatusCode> {
    let primary = s.timeline.borrow().clone();
    let mut primary = primary.ok_or(StatusCode::CONFLICT)?;
    // Where our log ends now: an older answer would make what the asker has got since then look like a branch of its own.
    let facts = s.sql.observe().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    primary.past.flush = facts.flush_lsn.ok_or(StatusCode::CONFLICT)?;
    Ok(Json(primary))
}

async fn wal(State(s): State<Shared>, Path(file): Path<String>) -> Result<impl IntoResponse, StatusCode> {
    let pg_wal = *s.serve_pg_wal.borrow();
    let system = s.report.borrow().system_identifier.ok_or(StatusCode::NOT_FOUND)?;
    let path = archive::wal_file(&s.settings.layout, system, &file, pg_wal).ok_or(StatusCode::NOT_FOUND)?;
    let mut headers = HeaderMap::new();
    if archive::is_live(&s.settings.layout, &path) {
        headers.insert(archive::LIVE_HEADER, HeaderValue::from_static("1"));
    }
    let content = tokio::fs::read(path).await.map_err(|_| StatusCode::NOT_FOUND)?;
    Ok((headers, content))
}

/// A listener whose handshakes run beside each other: one slow client keeps nobody waiting.
struct MutualTls {
    accepted: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: SocketAddr,
}

impl MutualTls {
    async fn bind(address: SocketAddr, config: Arc<ServerConfig>, pair: &str) -> std::io::Result<MutualTls> {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        let allowed = Arc::new([format!("{pair}-a"), format!("{pair}-b"), tls::OPERATOR.to_owned()]);
        let acceptor = TlsAcceptor::from(config);
        let (tx, accepted) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let Ok((stream, from)) = listener.accept().await else {
                    // Out of descriptors, for instance: leave the others time to end.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let (tx, acceptor, allowed) = (tx.clone(), acceptor.clone(), allowed.clone());
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) if is_allowed(&stream, &*allowed) => {
                            let _ = tx.send((stream, from)).await;
                        }
                        Ok(Ok(_)) => {
                            tracing::warn!(%from, "a client's certificate has a name that may not ask")
                        }
                        Ok(Err(e)) => tracing::debug!(%from, error = %e, "a client's handshake failed"),
                        Err(_) => tracing::debug!(%from, "a client did not finish its handshake"),
                    }
                });
            }
        });
        Ok(MutualTls { accepted, local })
    }
}

fn is_allowed(stream: &TlsStream<TcpStream>, allowed: &[String]) -> bool {
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    certificates.first().and_then(tls::common_name).is_some_and(|name| allowed.contains(&name))
}

impl axum::serve::Listener for MutualTls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.local)
    }
}
