//! Requests to the other instance's agent, over mTLS. Each has one limit for everything: name, connection, handshake, answer.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pgpair_core::authority::messages::{
    Answer, CanTake, CanTakeReply, Evidence, Heartbeat, ResignReply, Resignation,
};
use pgpair_core::lsn::Lsn;
use pgpair_core::order::OrderReply;
use pgpair_wire::order::Order;
use pgpair_wire::paths;
use pgpair_wire::report::InstanceReport;
use pgpair_wire::wal::{ArchivedFile, PrimaryTimeline, WalNeeds};
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::pieces::{PieceError, next_piece};
use crate::settings::Settings;
use crate::tls::Identity;

pub mod address;

use address::Address;

/// A request to the peer that had no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Not in time.
    #[error("the peer did not answer within {0:?}")]
    Late(Duration),
    /// Name, connection or handshake failed.
    #[error("cannot connect to the peer: {0}")]
    Connect(#[source] std::io::Error),
    /// The connection broke.
    #[error("the connection to the peer broke: {0}")]
    Broken(#[source] hyper::Error),
    /// Another answer than expected.
    #[error("the peer answered {0}")]
    Status(StatusCode),
    /// An answer that cannot be read.
    #[error("the peer's answer cannot be read: {0}")]
    Content(#[source] serde_json::Error),
    /// Its answer cannot be written down.
    #[error("what the peer sent cannot be kept: {0}")]
    Keep(#[source] std::io::Error),
}

impl From<PieceError<hyper::Error>> for PeerError {
    fn from(error: PieceError<hyper::Error>) -> PeerError {
        match error {
            PieceError::Late(limit) => PeerError::Late(limit),
            PieceError::Broken(error) => PeerError::Broken(error),
        }
    }
}

/// For a file to begin to come, and for each next piece of it.
const PIECE: Duration = Duration::from_secs(3);

/// Attempts at a greeting: about a minute. Whoever comes later greets us.
const GREETINGS: u32 = 120;
const BETWEEN_GREETINGS: Duration = Duration::from_millis(500);

type Sender = SendRequest<Full<Bytes>>;

/// The peer's agent. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Peer {
    inner: Arc<Inner>,
}

struct Inner {
    host: String,
    port: u16,
    identity: Identity,
    idle: Mutex<Vec<Sender>>,
    address: Address,
    /// Where we are, for the peer.
    here: Option<HeaderValue>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Peer {
    /// The agent at the host and port of the settings. Call it inside a runtime.
    #[must_use]
    pub fn new(settings: &Settings, identity: Identity) -> Peer {
        let inner = Inner {
            host: settings.peer_host.clone(),
            port: settings.peer_peer_port,
            identity,
            idle: Mutex::default(),
            address: Address::watch(&settings.peer_host, settings.listen, settings.layout.peer_address()),
            here: settings.pod_ip.parse::<IpAddr>().ok().and_then(|ip| ip.to_string().try_into().ok()),
        };
        Peer { inner: Arc::new(inner) }
    }

    /// Where it is, as last known. Never waits.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.inner.address.latest()
    }

    /// It said where it is.
    pub fn meet(&self, address: IpAddr) {
        self.inner.address.meet(address);
    }

    /// What it says of its instance.
    ///
    /// # Errors
    /// No usable answer within `limit`.
    pub async fn report(&self, limit: Duration) -> Result<InstanceReport, PeerError> {
        self.send(Method::GET, paths::REPORT, Bytes::new(), limit).await
    }

    /// Tells it where we are, as soon as it answers: a standby has nothing else to ask its primary, which learns of a new pod
    /// late otherwise.
    pub async fn greet(&self) {
        for _ in 0..GREETINGS {
            if self.report(PIECE).await.is_ok() {
                return;
            }
            tokio::time::sleep(BETWEEN_GREETINGS).await;
        }
    }

    /// Its address may have changed: it is looked up again soon.
    pub fn doubt_address(&self) {
        self.inner.address.doubt();
    }

    /// Sends a heartbeat.
    ///
    /// # Errors
    /// No usable answer within `limit`.
    pub async fn heartbeat(&self, hb: &Heartbeat, limit: Duration) -> Result<Answer, PeerError> {
        self.post(paths::HEARTBEAT, hb, limit).await
    }

    /// Asks whether it can take over.
    ///
    /// # Errors
    /// No usable answer within `limit`.
    pub async fn can_take(&self, q: &CanTake, limit: Duration) -> Result<CanTakeReply, PeerError> {
        self.post(paths::CAN_TAKE, q, limit).await
    }

    /// Tells it that we resign.
    ///
    /// # Errors
    /// No usable answer within `limit`.
    pub async fn resign(&self, r: &Resignation, limit: Duration) -> Result<ResignReply, PeerError> {
        self.post(paths::RESIGN, r, limit).await
    }

    /// Passes a person's order on to it.
    ///
    /// # Errors
    /// No usable answer within `limit`.
    pub async fn order(&self, order: &Order, limit: Duration) -> Result<OrderReply, PeerError> {
        self.post(paths::ORDER, order, limit).await
    }

    /// Tells it of a proven death.
    ///
    /// # Errors
    /// No usable answer within `limit`.
    pub async fn evidence(&self, e: &Evidence, limit: Duration) -> Result<(), PeerError> {
        self.post(paths::EVIDENCE, e, limit).await
    }

    /// Its timeline, if it is a primary with a confirmed promotion. `needs`: the beginning of a segment, to be told whether it
    /// has that one.
    ///
    /// # Errors
    /// No usable answer within `limit`.
    pub async fn timeline(&self, needs: Option<Lsn>, limit: Duration) -> Result<PrimaryTimeline, PeerError> {
        let query = needs.map(|lsn| format!("?needs={lsn}")).unwrap_or_default();
        self.send(Method::GET, &format!("{}{query}", paths::TIMELINE), Bytes::new(), limit).await
    }

    /// What of the log it needs.
    ///
    /// # Errors
    /// No usable answer within `limit`.
    pub async fn needs(&self, limit: Duration) -> Result<WalNeeds, PeerError> {
        self.send(Method::GET, paths::NEEDS, Bytes::new(), limit).await
    }

    /// The files of its archive.
    ///
    /// # Errors
    /// No usable answer within `limit`.
    pub async fn archive(&self, limit: Duration) -> Result<Vec<ArchivedFile>, PeerError> {
        self.send(Method::GET, paths::WAL, Bytes::new(), limit).await
    }

    /// Writes a file of its archive to `to`, synced. A slow link may take its time, a dead one may not.
    ///
    /// # Errors
    /// What is at `to` then is to be thrown away.
    pub async fn fetch_wal(&self, name: &str, to: &Path) -> Result<(), PeerError> {
        let begun = async {
            let mut sender = self.connect().await?;
            let path = format!("{}/{name}", paths::WAL);
            request(&mut sender, &self.inner, &Method::GET, &path, Bytes::new()).await
        };
        let response = tokio::time::timeout(PIECE, begun).await.unwrap_or(Err(PeerError::Late(PIECE)))?;
        if response.status() != StatusCode::OK {
            return Err(PeerError::Status(response.status()));
        }
        let mut body = response.into_body();
        let mut file = tokio::fs::File::create(to).await.map_err(PeerError::Keep)?;
        while let Some(piece) = next_piece(&mut body, PIECE).await? {
            file.write_all(&piece).await.map_err(PeerError::Keep)?;
        }
        file.sync_all().await.map_err(PeerError::Keep)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &'static str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, PeerError> {
        let body = serde_json::to_vec(body).map_err(PeerError::Content)?;
        self.send(Method::POST, path, Bytes::from(body), limit).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<T, PeerError> {
        let attempt = async {
            let (sender, bytes) = match self.reusable() {
                // A kept connection may have been closed by the other side meanwhile; then a new one is made.
                Some(kept) => match exchange(kept, &self.inner, &method, path, body.clone()).await {
                    Err(PeerError::Broken(_)) => {
                        exchange(self.connect().await?, &self.inner, &method, path, body).await?
                    }
                    other => other?,
                },
                None => exchange(self.connect().await?, &self.inner, &method, path, body).await?,
            };
            self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
            serde_json::from_slice(&bytes).map_err(PeerError::Content)
        };
        tokio::time::timeout(limit, attempt).await.unwrap_or(Err(PeerError::Late(limit)))
    }

    fn reusable(&self) -> Option<Sender> {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|s| s.is_ready() && !s.is_closed())
    }

    async fn connect(&self) -> Result<Sender, PeerError> {
        let unknown = || std::io::Error::new(std::io::ErrorKind::NotFound, "its name has no address yet");
        // Looked up anew unless this connection is made: a pod's address changes.
        let mut doubt = Doubt(Some(&self.inner.address));
        let address = self.inner.address.get().await.ok_or_else(|| PeerError::Connect(unknown()))?;
        let stream = TcpStream::connect(SocketAddr::new(address, self.inner.port)).await;
        let stream = stream.map_err(PeerError::Connect)?;
        stream.set_nodelay(true).map_err(PeerError::Connect)?;
        let name = ServerName::try_from(self.inner.host.clone())
            .map_err(|e| PeerError::Connect(std::io::Error::other(e)))?;
        let tls = TlsConnector::from(self.inner.identity.client());
        let stream = tls.connect(name, stream).await.map_err(PeerError::Connect)?;
        doubt.0 = None;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(PeerError::Broken)?;
        // Ends with the sender; its error reaches the request.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// Doubts the address when dropped, as it is when a limit ends the attempt.
struct Doubt<'a>(Option<&'a Address>);

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(address) = self.0 {
            address.doubt();
        }
    }
}

async fn exchange(
    mut sender: Sender,
    to: &Inner,
    method: &Method,
    path: &str,
    body: Bytes,
) -> Result<(Sender, Bytes), PeerError> {
    let response = request(&mut sender, to, method, path, body).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await.map_err(PeerError::Broken)?.to_bytes();
    if status == StatusCode::OK { Ok((sender, bytes)) } else { Err(PeerError::Status(status)) }
}

async fn request(
    sender: &mut Sender,
    to: &Inner,
    method: &Method,
    path: &str,
    body: Bytes,
) -> Result<Response<Incoming>, PeerError> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, &to.host)
        .header(hyper::header::CONTENT_TYPE, "application/json");
    if let Some(here) = &to.here {
        request = request.header(paths::HERE, here);
    }
    let request = request.body(Full::new(body)).map_err(|e| PeerError::Connect(std::io::Error::other(e)))?;
    sender.send_request(request).await.map_err(PeerError::Broken)
}
