//! Reads what agents and seeding pods say. The address is the pod's, the name in the certificate is the pod's DNS name,
//! so that the operator needs no DNS.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use pgpair_core::report::{InstanceReport, wire};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::observed::SeedProgress;

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

/// The report of the agent at `ip`, which must have a certificate for `dns`.
///
/// # Errors
/// It did not answer in time, or not as expected.
pub async fn fetch_report(
    config: Arc<ClientConfig>,
    ip: &str,
    dns: &str,
) -> Result<InstanceReport, AgentError> {
    let fetch = async {
        let tcp = TcpStream::connect((ip, wire::PEER_PORT)).await?;
        let name = ServerName::try_from(dns.to_owned())?;
        let tls = TlsConnector::from(config).connect(name, tcp).await?;
        get(tls, dns, wire::REPORT).await
    };
    tokio::time::timeout(TIMEOUT, fetch).await.map_err(|_| AgentError::Timeout)?
}

/// How far the seeding pod at `ip` has come.
///
/// # Errors
/// It did not answer in time, or not as expected.
pub async fn fetch_seed_progress(ip: &str) -> Result<SeedProgress, AgentError> {
    let fetch = async {
        let tcp = TcpStream::connect((ip, wire::PROBE_PORT)).await?;
        get(tcp, ip, "/v1/seed").await
    };
    tokio::time::timeout(TIMEOUT, fetch).await.map_err(|_| AgentError::Timeout)?
}

async fn get<T, S>(stream: S, host: &str, path: &str) -> Result<T, AgentError>
where
    T: DeserializeOwned,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get(path).header(http::header::HOST, host).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await;
    let result = match answer {
        Ok(response) if response.status().is_success() => {
            let body =
                Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(AgentError::Body);
            body.and_then(|b| Ok(serde_json::from_slice(&b.to_bytes())?))
        }
        Ok(response) => Err(AgentError::Status(response.status())),
        Err(e) => Err(e.into()),
    };
    driver.abort();
    result
}
