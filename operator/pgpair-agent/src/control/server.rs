//! What the agent serves: to its peer and the operator over mTLS, to the kubelet and Prometheus over plain HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router};
use futures::{Stream, StreamExt};
use hyper_util::service::TowerToHyperService;
use pgpair_core::authority::messages::{
    Answer, CanTake, CanTakeReply, Evidence, Heartbeat, ResignReply, Resignation,
};
use pgpair_core::authority::{Event, ReplyId};
use pgpair_core::instance::PostgresState;
use pgpair_core::lsn::Lsn;
use pgpair_core::order::OrderReply;
use pgpair_wire::certificates::GivenCertificates;
use pgpair_wire::config::PairConfig;
use pgpair_wire::door::{self, Limits};
use pgpair_wire::hold::hold;
use pgpair_wire::order::{ANSWERED, JUDGED, Order};
use pgpair_wire::paths;
use pgpair_wire::report::InstanceReport;
use pgpair_wire::scram::GivenPasswords;
use pgpair_wire::wal::{ArchivedFile, PrimaryTimeline, WalNeeds};
use pgpair_wire::words::MEMBERS;
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, Take};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::io::ReaderStream;

use crate::control::callers::judge;
use crate::control::inbox::{Ask, Input, Reply};
use crate::control::intake::Intake;
use crate::instance::env::InstanceEnv;
use crate::net::caller::{Caller, Callers};
use crate::net::listener::MutualTls;
use crate::net::peer::Peer;
use crate::net::tls::Identity;
use crate::net::tls::source::GivenError;
use crate::postgres::pair_config::ConfigError;
use crate::postgres::sql::Sql;
use crate::wal::archive::{self, LogEnd, Places};
use crate::wal::backfill;

/// The state machine answers at once, except where it must read the record first.
const ANSWER: Duration = Duration::from_secs(3);

/// Probes at once, and how long one may take.
const PROBES: Limits = Limits { places: 64, time: Duration::from_secs(10) };
/// How often the protocol's thread shows that it runs.
const PULSE: Duration = Duration::from_millis(500);
/// Longer than that it does not pause; init has fenced long before.
const STILL: Duration = Duration::from_secs(10);

/// Bytes of a segment in memory at a time while it is given out.
const WAL_CHUNK: usize = 64 * 1024;
/// Longest wait until a new configuration is checked and stored.
const STORED: Duration = Duration::from_secs(45);

/// What the handlers read.
#[derive(Debug, Clone)]
pub struct Shared {
    /// To the state machine.
    pub inbox: mpsc::Sender<Input>,
    /// Latest report.
    pub report: watch::Receiver<InstanceReport>,
    /// Our timeline, while we are a confirmed primary.
    pub timeline: watch::Receiver<Option<PrimaryTimeline>>,
    /// Present while files of `pg_wal` may be given out: postgres is dead and has resigned.
    pub serve_pg_wal: watch::Receiver<Option<LogEnd>>,
    /// Who and where this instance is.
    pub settings: Arc<InstanceEnv>,
    /// The local postgres.
    pub sql: Sql,
    /// For a new configuration.
    pub intake: Intake,
    /// For certificates.
    pub identity: Identity,
    /// For the passwords of roles.
    pub passwords: watch::Sender<Arc<GivenPasswords>>,
    /// The other agent.
    pub peer: Peer,
    /// Where volumes are touched, which may hang: nothing here waits for them in the threads that answer.
    pub volumes: Handle,
}

/// Serves the peer and the operator until the process ends.
///
/// # Errors
/// The port cannot be bound.
pub async fn serve_peer(shared: Shared, doors: &Handle) -> std::io::Result<()> {
    let address = SocketAddr::new(shared.settings.listen, shared.settings.peer_port);
    let callers = Callers::of(&shared.settings.pair, shared.settings.instance);
    let listener = MutualTls::bind(address, shared.identity.clone(), callers, doors).await?;
    let app = Router::new()
        .route(paths::REPORT, get(report))
        .route(paths::HEARTBEAT, post(heartbeat))
        .route(paths::CAN_TAKE, post(can_take))
        .route(paths::RESIGN, post(resignation))
        .route(paths::EVIDENCE, post(evidence))
        .route(paths::ORDER, post(order))
        .route(paths::CONFIG, put(configure))
        .route(paths::PASSWORDS, put(take_passwords))
        .route(paths::CERTIFICATES, put(take_certificates))
        .route(paths::TIMELINE, get(timeline))
        .route(paths::NEEDS, get(needs))
        .route(paths::WAL, get(archived))
        .route(&format!("{}/{{file}}", paths::WAL), get(wal))
        .layer(from_fn_with_state(shared.peer.clone(), meet))
        .layer(from_fn(judge))
        .with_state(shared);
    axum::serve(listener, app.into_make_service_with_connect_info::<Caller>()).await
}

/// Serves probes by `doors` until the process ends.
///
/// # Errors
/// The port cannot be bound.
pub async fn serve_probes(shared: Shared, pulse: Pulse, doors: &Handle) -> std::io::Result<()> {
    let address = SocketAddr::new(shared.settings.listen, shared.settings.probe_port);
    let livez = async move || match pulse.is_felt() {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the protocol's thread does not run"),
    };
    let app = Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).with_state(shared);
    let listener = doors.spawn(TcpListener::bind(address)).await.map_err(io::Error::other)??;
    doors.spawn(door::serve(listener, PROBES, TowerToHyperService::new(app))).await.map_err(io::Error::other)
}

/// Whether the protocol's thread runs: others answer for it.
#[derive(Debug, Clone)]
pub struct Pulse(watch::Receiver<Instant>);

impl Pulse {
    /// Of the thread of the caller.
    #[must_use]
    pub fn begin() -> Pulse {
        let (beat, felt) = watch::channel(Instant::now());
        tokio::spawn(async move {
            while beat.send(Instant::now()).is_ok() {
                tokio::time::sleep(PULSE).await;
            }
        });
        Pulse(felt)
    }

    fn is_felt(&self) -> bool {
        self.0.borrow().elapsed() < STILL
    }
}

/// Only the peer's agent says where it is.
async fn meet(
    State(peer): State<Peer>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let here = request.headers().get(paths::HERE).and_then(|h| h.to_str().ok()?.parse().ok());
    if let Some(here) = here.filter(|_| caller == Caller::Peer) {
        peer.meet(here);
    }
    next.run(request).await
}

/// What [`paths::report_after`] asks for.
#[derive(Deserialize)]
struct ReportQuery {
    after: Option<String>,
    hold: Option<u64>,
}

/// A version that is none is that of a newer operator: answered at once.
async fn report(State(mut s): State<Shared>, Query(query): Query<ReportQuery>) -> Response {
    let after = query.after.and_then(|after| after.parse().ok());
    let (Some(after), Some(millis)) = (after, query.hold) else {
        return Json(s.report.borrow().clone()).into_response();
    };
    match hold(&mut s.report, after, Duration::from_millis(millis)).await {
        Some(report) => Json(report).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
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

/// Puts a question to the state machine; `reply` is the way back for its answer.
async fn ask<T>(
    s: &Shared,
    question: impl FnOnce(ReplyId) -> Event,
    reply: impl FnOnce(oneshot::Sender<T>) -> Reply,
) -> Result<Json<T>, StatusCode> {
    let (tx, rx) = oneshot::channel();
    tell(s, Input::Ask(Ask::new(question, reply(tx))))?;
    match tokio::time::timeout(ANSWER, rx).await {
        Ok(Ok(answer)) => Ok(Json(answer)),
        Ok(Err(_)) | Err(_) => Err(StatusCode::GATEWAY_TIMEOUT),
    }
}

fn tell(s: &Shared, input: Input) -> Result<(), StatusCode> {
    s.inbox.try_send(input).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

async fn heartbeat(State(s): State<Shared>, Json(hb): Json<Heartbeat>) -> Result<Json<Answer>, StatusCode> {
    ask(&s, |id| Event::Heartbeat(id, hb), Reply::Heartbeat).await
}

async fn can_take(State(s): State<Shared>, Json(q): Json<CanTake>) -> Result<Json<CanTakeReply>, StatusCode> {
    ask(&s, |id| Event::CanTake(id, q), Reply::CanTake).await
}

async fn resignation(
    State(s): State<Shared>,
    Json(r): Json<Resignation>,
) -> Result<Json<ResignReply>, StatusCode> {
    ask(&s, |id| Event::Resignation(id, r), Reply::Resignation).await
}

/// The peer gets the judgement, because it acts upon a refusal. Everybody else gets an answer at once: an order that is not judged
/// by then is in the report until it is.
async fn order(
    State(s): State<Shared>,
    Extension(caller): Extension<Caller>,
    Json(order): Json<Order>,
) -> Result<Json<OrderReply>, StatusCode> {
    if !caller.may_order(order.kind) {
        return Err(StatusCode::FORBIDDEN);
    }
    let (tx, rx) = oneshot::channel();
    tell(&s, Input::Order(order, tx))?;
    let is_peer = caller == Caller::Peer;
    match tokio::time::timeout(if is_peer { JUDGED } else { ANSWERED }, rx).await {
        Ok(Ok(reply)) => Ok(Json(reply)),
        Err(_) if !is_peer => Ok(Json(OrderReply::Accepted)),
        Ok(Err(_)) | Err(_) => Err(StatusCode::GATEWAY_TIMEOUT),
    }
}

async fn evidence(
    State(s): State<Shared>,
    Extension(caller): Extension<Caller>,
    Json(e): Json<Evidence>,
) -> Result<Json<()>, StatusCode> {
    if !caller.may_testify(e.kind) {
        return Err(StatusCode::FORBIDDEN);
    }
    tell(&s, Input::Event(Event::Evidence(e))).map(Json)
}

/// Refused with a reason for people, 422 (409: older than the one in use); nothing has changed then.
async fn configure(
    State(s): State<Shared>,
    body: Result<Json<PairConfig>, JsonRejection>,
) -> Result<Json<()>, (StatusCode, String)> {
    let Json(config) = body.map_err(|e| (StatusCode::UNPROCESSABLE_ENTITY, e.body_text()))?;
    let intake = s.intake.clone();
    let accept = async move { tokio::time::timeout(STORED, intake.accept(config)).await };
    let accepted = s.volumes.spawn(accept).await.unwrap_or(Ok(Err(ConfigError::Ending)));
    let late = || (StatusCode::GATEWAY_TIMEOUT, format!("it could not be stored within {STORED:?}"));
    accepted.map_err(|_| late())?.map(Json).map_err(|e| (status_of(&e), e.to_string()))
}

/// What becomes of them is in the report. What is wrong with others is not told: the words of a parser may hold some of them.
async fn take_passwords(
    State(s): State<Shared>,
    body: Result<Json<GivenPasswords>, JsonRejection>,
) -> Result<Json<()>, (StatusCode, &'static str)> {
    match body {
        Ok(Json(given)) if given.len() <= MEMBERS => {
            s.passwords.send_replace(Arc::new(given));
            Ok(Json(()))
        }
        Ok(_) | Err(_) => {
            Err((StatusCode::UNPROCESSABLE_ENTITY, "these are no passwords of roles, or too many"))
        }
    }
}

/// Refused with a reason for people, 422 (409: older than those in use); nothing has changed then.
async fn take_certificates(
    State(s): State<Shared>,
    body: Result<Json<GivenCertificates>, JsonRejection>,
) -> Result<Json<()>, (StatusCode, String)> {
    // The words of a parser may hold some of a key.
    let Ok(Json(given)) = body else {
        return Err((StatusCode::UNPROCESSABLE_ENTITY, "these are no certificates".into()));
    };
    let identity = s.identity.clone();
    let taken = s.volumes.spawn_blocking(move || identity.take(&given));
    let late = |_| (StatusCode::GATEWAY_TIMEOUT, format!("they could not be stored within {STORED:?}"));
    let ending = |_| (StatusCode::SERVICE_UNAVAILABLE, "the agent ends".to_owned());
    let taken = tokio::time::timeout(STORED, taken).await.map_err(late)?.map_err(ending)?;
    taken.map(Json).map_err(|e| match e {
        GivenError::Stale { .. } => (StatusCode::CONFLICT, e.to_string()),
        GivenError::File(_) => (StatusCode::SERVICE_UNAVAILABLE, e.to_string()),
        GivenError::Unknown(_) | GivenError::Unusable(_) => (StatusCode::UNPROCESSABLE_ENTITY, e.to_string()),
    })
}

fn status_of(e: &ConfigError) -> StatusCode {
    match e {
        ConfigError::Stale { .. } => StatusCode::CONFLICT,
        ConfigError::File(_) | ConfigError::Missing { .. } | ConfigError::Ending => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ConfigError::Ttl(_)
        | ConfigError::Render(_)
        | ConfigError::Range { .. }
        | ConfigError::Postgres(_) => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

#[derive(Deserialize)]
struct TimelineQuery {
    needs: Option<Lsn>,
}

async fn timeline(
    State(s): State<Shared>,
    Query(query): Query<TimelineQuery>,
) -> Result<Json<PrimaryTimeline>, StatusCode> {
    let primary = s.timeline.borrow().clone();
    let mut primary = primary.ok_or(StatusCode::CONFLICT)?;
    // Where our log ends now: an older answer would make what the asker has got since then look like a branch of its own.
    let facts = s.sql.observe().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    primary.past.flush = facts.flush_lsn.ok_or(StatusCode::CONFLICT)?;
    let system = s.report.borrow().system_identifier;
    if let (Some(needs), Some(system)) = (query.needs, system) {
        let (settings, history) = (s.settings.clone(), primary.past.history.clone());
        let look =
            move || archive::has_segment(&settings.layout, system, &history, needs, facts.segment_size);
        let found = s.volumes.spawn_blocking(look).await.ok().and_then(Result::ok);
        primary.has_needed = found.map(|f| f.has);
        primary.oldest = found.and_then(|f| f.oldest);
    }
    Ok(Json(primary))
}

/// What is not known is not told: then the peer keeps everything.
async fn needs(State(s): State<Shared>) -> Result<Json<WalNeeds>, StatusCode> {
    let facts = s.sql.observe().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    facts.redo.map(|redo| Json(WalNeeds { redo })).ok_or(StatusCode::SERVICE_UNAVAILABLE)
}

async fn archived(State(s): State<Shared>) -> Result<Json<Vec<ArchivedFile>>, StatusCode> {
    let system = s.report.borrow().system_identifier.ok_or(StatusCode::NOT_FOUND)?;
    let settings = s.settings.clone();
    let listed = s.volumes.spawn_blocking(move || backfill::list(&settings.layout, system)).await;
    listed.ok().and_then(Result::ok).map(Json).ok_or(StatusCode::INTERNAL_SERVER_ERROR)
}

async fn wal(State(s): State<Shared>, Path(name): Path<String>) -> Result<impl IntoResponse, StatusCode> {
    let log_end = *s.serve_pg_wal.borrow();
    let system = s.report.borrow().system_identifier.ok_or(StatusCode::NOT_FOUND)?;
    let places = if log_end.is_some() { Places::ArchiveAndPgWal } else { Places::Archive };
    let (settings, of) = (s.settings.clone(), name.clone());
    let look = move || {
        let path = archive::wal_file(&settings.layout, system, &of, places)?;
        let live = archive::is_live(&settings.layout, &path);
        Some((path, live))
    };
    let open = async move {
        let (path, live) = tokio::task::spawn_blocking(look).await.ok().flatten()?;
        let file = File::open(path).await.ok()?;
        let size = file.metadata().await.ok()?.len();
        Some((file, size, live))
    };
    let opened = s.volumes.spawn(open).await.ok().flatten();
    let (file, size, live) = opened.ok_or(StatusCode::NOT_FOUND)?;
    let mut headers = HeaderMap::new();
    let mut useful = size;
    if let Some(log_end) = log_end.filter(|_| live) {
        useful = log_end.useful_bytes(&name, size);
        headers.insert(paths::LIVE_WAL, HeaderValue::from_static("1"));
        headers.insert(paths::WAL_SIZE, HeaderValue::from(size));
    }
    // Without the end of it the answer is broken, not shorter.
    headers.insert(CONTENT_LENGTH, HeaderValue::from(useful));
    Ok((headers, Body::from_stream(pieces(&s.volumes, file.take(useful)))))
}

/// What is read of a file, a piece at a time: a segment is 16 MiB, and memory once had is not given back.
fn pieces(volumes: &Handle, file: Take<File>) -> impl Stream<Item = std::io::Result<Bytes>> + use<> {
    let (tx, mut rx) = mpsc::channel(1);
    volumes.spawn(async move {
        let mut pieces = ReaderStream::with_capacity(file, WAL_CHUNK);
        while let Some(piece) = pieces.next().await {
            if tx.send(piece).await.is_err() {
                return; // nobody reads on
            }
        }
    });
    futures::stream::poll_fn(move |cx| rx.poll_recv(cx))
}
