//! Talks to agents and seeding pods. The address is the pod's, the name in the certificate is the pod's DNS name, so that
//! the operator needs no DNS.
//!
//! One connection per agent is kept open: a pair is looked at every second, and a TLS handshake each time would cost both
//! sides more than everything else they do for it.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use pgpair_wire::paths;
use pgpair_wire::seed::SeedProgress;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// Longest wait for an answer, from the connect to the last byte.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer that is read.
const MAX_BYTES: usize = 1024 * 1024;

/// Why an agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No answer in time.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// Connection or TLS.
    #[error("connecting failed")]
    Connect(#[from] std::io::Error),
    /// HTTP.
    #[error("the request failed")]
    Http(#[from] hyper::Error),
    /// Not 200.
    #[error("the answer was {0}")]
    Status(http::StatusCode),
    /// The answer is too long or broke off.
    #[error("reading the answer failed")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Not what was expected.
    #[error("the answer is not understood: does the agent have the operator's version?")]
    Json(#[from] serde_json::Error),
    /// The request could not be made.
    #[error("the request is malformed")]
    Request(#[from] http::Error),
    /// The name is no DNS name.
    #[error("the pod's name is no DNS name")]
    Name(#[from] rustls::pki_types::InvalidDnsNameError),
}

/// Certificates by which the operator talks to the agents of one pair.
///
/// # Errors
/// A PEM text is not what it should be.
pub fn client_config(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Arc<ClientConfig>, rustls::Error> {
    let bad = |_| rustls::Error::General("not a PEM text".into());
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(ca) {
        roots.add(root.map_err(bad)?)?;
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(bad)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(bad)?;
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?))
}

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
    fn is(&self, other: &AgentAddress) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
            && self.ip == other.ip
            && self.port == other.port
            && self.dns == other.dns
    }
}

/// The line to one agent. A connection is made when it is needed, used again while it works, and dropped when an answer
/// did not come in time.
#[derive(Debug, Default)]
pub struct AgentLine {
    open: Option<(AgentAddress, Connection)>,
}

impl AgentLine {
    /// `GET`.
    ///
    /// # Errors
    /// It did not answer in time, or not as expected.
    pub async fn get<T: DeserializeOwned>(&mut self, to: &AgentAddress, path: &str) -> Result<T, AgentError> {
        Ok(serde_json::from_slice(&self.call(to, Method::GET, path, Bytes::new()).await?)?)
    }

    /// `POST` with an answer.
    ///
    /// # Errors
    /// It did not answer in time, or not as expected. It may have been carried out all the same.
    pub async fn post<T: DeserializeOwned>(
        &mut self,
        to: &AgentAddress,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, AgentError> {
        let body = serde_json::to_vec(body)?.into();
        Ok(serde_json::from_slice(&self.call(to, Method::POST, path, body).await?)?)
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
    ) -> Result<(), AgentError> {
        let body = serde_json::to_vec(body)?.into();
        self.call(to, method, path, body).await.map(|_| ())
    }

    async fn call(
        &mut self,
        to: &AgentAddress,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, AgentError> {
        // Taken out: a connection whose answer is not waited for any more cannot be used again.
        let kept = self.open.take().filter(|(target, _)| target.is(to)).map(|(_, connection)| connection);
        let exchange = async {
            if let Some(mut connection) = kept {
                match connection.exchange(&to.dns, &method, path, body.clone()).await {
                    // The other side closed it while nobody used it, or is another process by now: once more, anew.
                    Err(AgentError::Http(_)) => {}
                    result => return Ok((connection, result)),
                }
            }
            let mut connection = connect(to).await?;
            let result = connection.exchange(&to.dns, &method, path, body).await;
            Ok::<_, AgentError>((connection, result))
        };
        let (connection, result) =
            tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| AgentError::Timeout)??;
        if matches!(result, Ok(_) | Err(AgentError::Status(_))) {
            self.open = Some((to.clone(), connection));
        }
        result
    }
}

async fn connect(to: &AgentAddress) -> Result<Connection, AgentError> {
    let tcp = TcpStream::connect((to.ip.as_str(), to.port)).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(to.dns.clone())?;
    let tls = TlsConnector::from(to.config.clone()).connect(name, tcp).await?;
    Connection::over(tls).await
}

/// How far the seeding pod at `ip` has come.
///
/// # Errors
/// It did not answer in time, or not as expected.
pub async fn fetch_seed_progress(ip: &str) -> Result<SeedProgress, AgentError> {
    let fetch = async {
        let mut connection = Connection::over(TcpStream::connect((ip, paths::PROBE_PORT)).await?).await?;
        connection.exchange(ip, &Method::GET, paths::SEED, Bytes::new()).await
    };
    let body = tokio::time::timeout(TIMEOUT, fetch).await.map_err(|_| AgentError::Timeout)??;
    Ok(serde_json::from_slice(&body)?)
}

/// An open HTTP connection; it ends when this is dropped.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<hyper::Result<()>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    async fn over<S>(stream: S) -> Result<Connection, AgentError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        Ok(Connection { sender, driver: tokio::spawn(connection) })
    }

    async fn exchange(
        &mut self,
        host: &str,
        method: &Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, AgentError> {
        self.sender.ready().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, host)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        // Read in any case: only then can the connection be used again.
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(AgentError::Body)?;
        if status.is_success() { Ok(body.to_bytes()) } else { Err(AgentError::Status(status)) }
    }
}

#[cfg(test)]
pub(crate) mod tests;
