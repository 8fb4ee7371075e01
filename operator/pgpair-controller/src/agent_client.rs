//! Talks to agents and seeding pods. The address is the pod's, the name in the certificate is the pod's DNS name, so that
//! the operator needs no DNS.
//!
//! What an agent is told goes over a line that is kept open while something is under way with its pair; what it tells is heard by
//! [`crate::hear`].

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use pgpair_wire::client::{self, Call, Connection, Idle, LongPoll, MAX_ANSWER, RequestError, TlsStream};
use pgpair_wire::paths;
use pgpair_wire::seed::SeedProgress;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// Longest wait for an answer, from the connect to the last byte.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Certificates by which the operator talks to the agents of one pair; `revoked`: revocation lists of its authorities.
///
/// # Errors
/// A PEM text is not what it should be.
pub fn client_config(
    ca: &[u8],
    revoked: &[u8],
    certificate: &[u8],
    key: &[u8],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let bad = |_| rustls::Error::General("not a PEM text".into());
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(ca) {
        roots.add(root.map_err(bad)?)?;
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(bad)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(bad)?;
    let revoked = CertificateRevocationListDer::pem_slice_iter(revoked).collect::<Result<_, _>>();
    client::secured_by(roots.into(), revoked.map_err(bad)?, chain, key)
}

/// A connection to an agent whose answers are held back.
pub type AgentPoll = LongPoll<TlsStream<TcpStream>>;

/// Where the agent of an instance is, and by which certificates it is talked to.
#[derive(Debug, Clone)]
pub struct AgentAddress {
    /// Certificates of the pair.
    pub config: Arc<ClientConfig>,
    /// Address of the pod.
    pub ip: String,
    /// Port of the agent.
    pub port: u16,
    /// Name that the agent's certificate must have.
    pub dns: String,
}

impl AgentAddress {
    /// Whether both are the same.
    #[must_use]
    pub fn is(&self, other: &AgentAddress) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
            && self.ip == other.ip
            && self.port == other.port
            && self.dns == other.dns
    }

    /// A connection to the agent, without a word said.
    ///
    /// # Errors
    /// There is none.
    pub async fn connect(&self) -> Result<TcpStream, RequestError> {
        client::connect((self.ip.as_str(), self.port)).await
    }

    /// The handshake over it, for requests whose answers are held back.
    ///
    /// # Errors
    /// It broke, or the agent has another certificate than it should.
    pub async fn secure(&self, stream: TcpStream) -> Result<AgentPoll, RequestError> {
        Ok(LongPoll::new(client::secure(stream, &self.dns, self.config.clone()).await?, &self.dns))
    }
}

/// The line to one agent. A connection is made when it is needed, used again while it works, and dropped when an answer
/// did not come in time.
#[derive(Debug, Default)]
pub struct AgentLine {
    idle: Idle,
    to: Option<AgentAddress>,
}

impl AgentLine {
    /// `POST` with an answer.
    ///
    /// # Errors
    /// It did not answer in time, or not as expected. It may have been carried out all the same.
    pub async fn post<T: DeserializeOwned>(
        &mut self,
        to: &AgentAddress,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, RequestError> {
        client::parse(&self.call(to, &Call::with(Method::POST, path, body)?).await?)
    }

    /// `POST` or `PUT` of something whose answer says nothing.
    ///
    /// # Errors
    /// It was not taken in time. It may have been taken all the same.
    pub async fn send(
        &mut self,
        to: &AgentAddress,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), RequestError> {
        self.call(to, &Call::with(method, path, body)?).await.map(|_| ())
    }

    async fn call(&mut self, to: &AgentAddress, call: &Call<'_>) -> Result<Vec<u8>, RequestError> {
        if !self.to.as_ref().is_some_and(|before| before.is(to)) {
            self.idle.clear();
            self.to = Some(to.clone());
        }
        self.idle.exchange(call, MAX_ANSWER, TIMEOUT, open(to)).await
    }
}

async fn open(to: &AgentAddress) -> Result<Connection, RequestError> {
    Connection::secured(to.connect().await?, &to.dns, to.config.clone()).await
}

/// How far the seeding pod at `ip` has come.
///
/// # Errors
/// It did not answer in time, or not as expected.
pub async fn fetch_seed_progress(ip: &str) -> Result<SeedProgress, RequestError> {
    let fetch = async {
        let stream = client::connect((ip, paths::PROBE_PORT)).await?;
        Connection::plain(stream, ip).await?.exchange(&Call::get(paths::SEED), MAX_ANSWER).await
    };
    client::parse(&tokio::time::timeout(TIMEOUT, fetch).await.unwrap_or(Err(RequestError::Late(TIMEOUT)))?)
}

#[cfg(test)]
pub(crate) mod tests;
