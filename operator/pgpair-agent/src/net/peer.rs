//! Requests to the other instance's agent, over mTLS. Each has one limit for everything: name, connection, handshake, answer.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::Method;
use hyper::header::HeaderValue;
use pgpair_core::authority::messages::{
    Answer, CanTake, CanTakeReply, Evidence, Heartbeat, ResignReply, Resignation,
};
use pgpair_core::lsn::Lsn;
use pgpair_core::order::OrderReply;
use pgpair_wire::client::{self, Call, Connection, Idle, MAX_ANSWER, RequestError};
use pgpair_wire::order::Order;
use pgpair_wire::paths;
use pgpair_wire::report::InstanceReport;
use pgpair_wire::wal::{ArchivedFile, PrimaryTimeline, WalNeeds};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;

use crate::instance::env::InstanceEnv;
use crate::net::tls::Identity;

pub mod address;

use address::Address;

/// A request to the peer that had no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The request.
    #[error("asking the peer failed: {0}")]
    Request(#[from] RequestError),
    /// Its answer cannot be written down.
    #[error("what the peer sent cannot be kept: {0}")]
    Keep(#[source] std::io::Error),
}

/// Longest list of the files of an archive, in bytes: about a million names.
const MAX_LIST: usize = 64 * 1024 * 1024;

/// For a file to begin to come, and for each next piece of it.
const PIECE: Duration = Duration::from_secs(3);

/// Attempts at a greeting: about a minute. Whoever comes later greets us.
const GREETINGS: u32 = 120;
const BETWEEN_GREETINGS: Duration = Duration::from_millis(500);

/// The peer's agent. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Peer {
    inner: Arc<Inner>,
}

struct Inner {
    host: String,
    port: u16,
    identity: Identity,
    idle: Idle,
    /// Up to which change of what is revoked the idle connections are good.
    revocations: AtomicU64,
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
    pub fn new(settings: &InstanceEnv, identity: Identity) -> Peer {
        let inner = Inner {
            host: settings.peer_host.clone(),
            port: settings.peer_peer_port,
            revocations: AtomicU64::new(identity.changes().borrow().revocations),
            identity,
            idle: Idle::default(),
            address: Address::watch(&settings.peer_host, settings.listen, settings.layout.peer_address()),
            here: settings.pod_ip.parse::<IpAddr>().ok().and_then(|ip| ip.to_string().try_into().ok()),
        };
        Peer { inner: Arc::new(inner) }
    }

    /// The same agent, asked over connections of its own: they belong to the runtime in which they are made.
    #[must_use]
    pub(crate) fn beside(&self) -> Peer {
        let inner = Inner {
            host: self.inner.host.clone(),
            port: self.inner.port,
            identity: self.inner.identity.clone(),
            revocations: AtomicU64::new(self.inner.identity.changes().borrow().revocations),
            idle: Idle::default(),
            address: self.inner.address.clone(),
            here: self.inner.here.clone(),
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
        self.get(paths::REPORT, limit).await
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
        self.get(&format!("{}{query}", paths::TIMELINE), limit).await
    }

    /// What of the log it needs.
    ///
    /// # Errors
    /// No usable answer within `limit`.
    pub async fn needs(&self, limit: Duration) -> Result<WalNeeds, PeerError> {
        self.get(paths::NEEDS, limit).await
    }

    /// The files of its archive.
    ///
    /// # Errors
    /// No usable answer within `limit`.
    pub async fn archive(&self, limit: Duration) -> Result<Vec<ArchivedFile>, PeerError> {
        self.send(Call::get(paths::WAL), MAX_LIST, limit).await
    }

    /// Writes a file of its archive to `to`, synced. A slow link may take its time, a dead one may not.
    ///
    /// # Errors
    /// What is at `to` then is to be thrown away.
    pub async fn fetch_wal(&self, name: &str, to: &Path) -> Result<(), PeerError> {
        let path = format!("{}/{name}", paths::WAL);
        let begun = async { self.connect().await?.stream(&self.signed(Call::get(&path))).await };
        let (_, mut pieces) =
            tokio::time::timeout(PIECE, begun).await.unwrap_or(Err(RequestError::Late(PIECE)))?;
        let mut file = tokio::fs::File::create(to).await.map_err(PeerError::Keep)?;
        while let Some(piece) = pieces.next(PIECE).await? {
            file.write_all(&piece).await.map_err(PeerError::Keep)?;
        }
        file.sync_all().await.map_err(PeerError::Keep)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<T, PeerError> {
        self.send(Call::get(path), MAX_ANSWER, limit).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &'static str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, PeerError> {
        self.send(Call::with(Method::POST, path, body)?, MAX_ANSWER, limit).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        call: Call<'_>,
        max: usize,
        limit: Duration,
    ) -> Result<T, PeerError> {
        let call = self.signed(call);
        self.end_doubtful();
        let answer = self.inner.idle.exchange(&call, max, limit, self.connect()).await?;
        Ok(client::parse(&answer)?)
    }

    /// A connection that was made before something was revoked may be to a server whose certificate was: it is not used again.
    fn end_doubtful(&self) {
        let revocations = self.inner.identity.changes().borrow().revocations;
        if self.inner.revocations.swap(revocations, Ordering::SeqCst) != revocations {
            self.inner.idle.clear();
        }
    }

    /// With our address.
    fn signed<'a>(&'a self, call: Call<'a>) -> Call<'a> {
        Call { here: self.inner.here.as_ref(), ..call }
    }

    async fn connect(&self) -> Result<Connection, RequestError> {
        let unknown = || std::io::Error::new(std::io::ErrorKind::NotFound, "its name has no address yet");
        // Looked up anew unless this connection is made: a pod's address changes.
        let mut doubt = Doubt(Some(&self.inner.address));
        let address = self.inner.address.get().await.ok_or_else(|| RequestError::Connect(unknown()))?;
        let stream = client::connect(SocketAddr::new(address, self.inner.port)).await?;
        let connection = Connection::secured(stream, &self.inner.host, self.inner.identity.client()).await?;
        doubt.0 = None;
        Ok(connection)
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

#[cfg(test)]
mod tests {
    use std::fs;

    use axum::routing::get;
    use axum::{Json, Router};
    use pgpair_core::ids::InstanceId;
    use pgpair_wire::certificates::REVOKED;
    use tokio::runtime::Handle;

    use super::*;
    use crate::net::caller::{Caller, Callers};
    use crate::net::listener::MutualTls;
    use crate::net::tls::tests::{Authority, mounted};

    const LIMIT: Duration = Duration::from_secs(20);

    /// The agent of instance a, as far as it is asked here.
    async fn serve(identity: Identity) -> SocketAddr {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let callers = Callers::of("shop", InstanceId::A);
        let listener = MutualTls::bind(address, identity, callers, &Handle::current()).await.unwrap();
        let app = Router::new().route(paths::NEEDS, get(|| async { Json(WalNeeds { redo: Lsn(7) }) }));
        let app = app.into_make_service_with_connect_info::<Caller>();
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    #[tokio::test]
    async fn a_connection_to_an_agent_whose_certificate_was_revoked_is_not_used_again() {
        let ca = Authority::new("ca");
        let [a, b] = [("shop-a", 1), ("shop-b", 2)].map(|(name, n)| mounted(&ca.given(name, n, 0)));
        let to = serve(Identity::load(a.path()).unwrap()).await;
        let run = tempfile::tempdir().unwrap();
        let settings = InstanceEnv::from_lookup(|name| match name {
            "PGPAIR_PAIR" | "PGPAIR_NAMESPACE" => Some("shop".into()),
            "PGPAIR_INSTANCE" => Some("b".into()),
            "PGPAIR_PEER_HOST" => Some("localhost".into()),
            "PGPAIR_PEER_PEER_PORT" => Some(to.port().to_string()),
            "PGPAIR_LISTEN" => Some("127.0.0.1".into()),
            "PGPAIR_RUN" => Some(run.path().display().to_string()),
            _ => None,
        });
        let identity = Identity::load(b.path()).unwrap();
        let peer = Peer::new(&settings.unwrap(), identity.clone());
        let answers = async {
            while peer.needs(LIMIT).await.is_err() {
                tokio::task::yield_now().await; // its name is still looked up
            }
        };
        tokio::time::timeout(LIMIT, answers).await.expect("it answers");
        fs::write(b.path().join(REVOKED), ca.list(&[1])).unwrap();
        assert!(identity.renew().unwrap());
        peer.needs(LIMIT).await.expect_err("it is revoked");
    }
}
