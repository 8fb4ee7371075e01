//! The one client for requests to agents: HTTP/1.1 over mTLS, as agents ask each other and the operator asks them.
//!
//! The caller says where the server is, and by which name its certificate must be valid: no request waits for a name server
//! unless the caller asks one. Every request has one limit for everything, and an answer a greatest length. Connections are
//! kept, because a TLS handshake costs more than everything else about a request.
//!
//! hyper-util's pooled client sends a request again only if it never left. The other end of a kept connection may be another
//! process by now, which is noticed after the request has left; [`Idle`] then sends it once more over a new connection. Every
//! request of ours may come twice.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
pub use tokio_rustls::client::TlsStream;

use crate::paths;

mod long_poll;
mod pieces;

pub use long_poll::LongPoll;
pub use pieces::Pieces;

/// Longest answer of most requests, in bytes.
pub const MAX_ANSWER: usize = 1024 * 1024;
/// Of the text of a refusal that is read, in bytes.
const MAX_REFUSAL: usize = 64 * 1024;
/// Of the text of a refusal that is kept, in characters.
const MAX_MESSAGE: usize = 1000;

/// Sessions that are kept to be resumed: those of both instances of a pair. rustls makes room for 32 servers, which is 16 kB for each pair
/// of an operator.
const SESSIONS: usize = 16;

/// By which certificates the one end of a connection shows itself and trusts the other. Both ends are ours: TLS 1.3 only.
///
/// `revoked`: revocation lists of these authorities, however old. An authority without one has revoked nothing.
///
/// # Errors
/// The key is not that of the certificate, or a list cannot be read.
pub fn secured_by(
    roots: Arc<RootCertStore>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let verifier = WebPkiServerVerifier::builder(roots)
        .with_crls(revoked)
        .allow_unknown_revocation_status()
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))?;
    let mut config = ClientConfig::builder_with_protocol_versions(&[&TLS13])
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain, key)?;
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}

/// A request that had no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// The connection or the TLS handshake failed.
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server does not do it.
    #[error("the answer was {status}{}", sentence(.message))]
    Refused {
        /// Status of the answer.
        status: StatusCode,
        /// What the server says about it: one line of at most 1000 characters; empty if it says nothing.
        message: String,
    },
    /// More than the caller accepts.
    #[error("the answer has more than {0} bytes")]
    TooLong(usize),
    /// Not what was expected.
    #[error("the answer is not understood, perhaps because it is of another version: {0}")]
    Content(#[source] serde_json::Error),
    /// The request cannot be made.
    #[error("the request is malformed: {0}")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn sentence(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl RequestError {
    fn malformed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RequestError {
        RequestError::Malformed(error.into())
    }

    fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RequestError {
        RequestError::Broken(error.into())
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// What is to be done.
    pub method: Method,
    /// One of [`paths`], with a query if there is one.
    pub path: &'a str,
    /// JSON; empty for a `GET`.
    pub body: Bytes,
    /// Header [`paths::HERE`]: where the sender is.
    pub here: Option<&'a HeaderValue>,
}

impl<'a> Call<'a> {
    /// A `GET`.
    #[must_use]
    pub fn get(path: &'a str) -> Call<'a> {
        Call { method: Method::GET, path, body: Bytes::new(), here: None }
    }

    /// A request that carries `content` as JSON.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn with(
        method: Method,
        path: &'a str,
        content: &(impl Serialize + ?Sized),
    ) -> Result<Call<'a>, RequestError> {
        let body = serde_json::to_vec(content).map_err(RequestError::malformed)?.into();
        Ok(Call { method, path, body, here: None })
    }
}

/// Reads an answer.
///
/// # Errors
/// It is not what was expected.
pub fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, RequestError> {
    serde_json::from_slice(answer).map_err(RequestError::Content)
}

/// A TCP connection to the first of the addresses that accepts one.
///
/// # Errors
/// None does.
pub async fn connect(to: impl ToSocketAddrs) -> Result<TcpStream, RequestError> {
    let stream = TcpStream::connect(to).await.map_err(RequestError::Connect)?;
    stream.set_nodelay(true).map_err(RequestError::Connect)?;
    Ok(stream)
}

/// mTLS over a connection: the server's certificate must be valid for `name`.
///
/// # Errors
/// The handshake failed, for example because the certificate has another name.
pub async fn secure(
    stream: TcpStream,
    name: &str,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, RequestError> {
    let server = ServerName::try_from(name.to_owned()).map_err(RequestError::malformed)?;
    TlsConnector::from(config).connect(server, stream).await.map_err(RequestError::Connect)
}

/// An open HTTP connection to one server. It ends when this is dropped.
#[derive(Debug)]
pub struct Connection {
    host: String,
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<hyper::Result<()>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Over mTLS: the server's certificate must be valid for `name`.
    ///
    /// # Errors
    /// The handshake failed, for example because the certificate has another name.
    pub async fn secured(
        stream: TcpStream,
        name: &str,
        config: Arc<ClientConfig>,
    ) -> Result<Connection, RequestError> {
        Connection::plain(secure(stream, name, config).await?, name).await
    }

    /// Over a stream as it is.
    ///
    /// # Errors
    /// It broke.
    pub async fn plain<S>(stream: S, host: &str) -> Result<Connection, RequestError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(RequestError::broken)?;
        Ok(Connection { host: host.to_owned(), sender, driver: tokio::spawn(connection) })
    }

    /// The answer to one request, of at most `max` bytes.
    ///
    /// # Errors
    /// It is refused, too long, or broke off.
    pub async fn exchange(&mut self, call: &Call<'_>, max: usize) -> Result<Vec<u8>, RequestError> {
        let response = self.accepted(call).await?;
        whole(response.into_body(), max).await
    }

    /// The answer to one request, piece by piece, and its headers.
    ///
    /// # Errors
    /// It is refused, or broke off.
    pub async fn stream(mut self, call: &Call<'_>) -> Result<(HeaderMap, Pieces), RequestError> {
        let (head, body) = self.accepted(call).await?.into_parts();
        Ok((head.headers, Pieces::new(body, self)))
    }

    /// The beginning of an answer that is no refusal.
    async fn accepted(&mut self, call: &Call<'_>) -> Result<Response<Incoming>, RequestError> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(call.path)
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, "application/json");
        if let Some(here) = call.here {
            request = request.header(paths::HERE, here);
        }
        let request = request.body(Full::new(call.body.clone())).map_err(RequestError::malformed)?;
        self.sender.ready().await.map_err(RequestError::broken)?;
        let response = self.sender.send_request(request).await.map_err(RequestError::broken)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        // Read in any case: only then can the connection be used again. What cannot be read says nothing.
        let text = whole(response.into_body(), MAX_REFUSAL).await.unwrap_or_default();
        Err(RequestError::Refused { status, message: one_line(&text) })
    }
}

async fn whole(mut body: Incoming, max: usize) -> Result<Vec<u8>, RequestError> {
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let piece = frame.map_err(RequestError::broken)?.into_data().unwrap_or_default();
        if all.len() + piece.len() > max {
            return Err(RequestError::TooLong(max));
        }
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// The text as one line for a log or a status: no control characters, not too long.
fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let printable = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(MAX_MESSAGE).collect()
}

/// Connections to one server that wait for their next request.
#[derive(Debug, Default)]
pub struct Idle {
    connections: Mutex<Vec<Connection>>,
}

impl Idle {
    /// The answer to one request within `limit`, of at most `max` bytes: over a connection that was kept, or over the one that
    /// `connect` makes if there is none or it has broken meanwhile. A refusal does not end a connection; an answer that did
    /// not come in time does.
    ///
    /// # Errors
    /// No usable answer in time. The request may have been carried out all the same.
    pub async fn exchange(
        &self,
        call: &Call<'_>,
        max: usize,
        limit: Duration,
        connect: impl Future<Output = Result<Connection, RequestError>>,
    ) -> Result<Vec<u8>, RequestError> {
        let attempt = async {
            if let Some(mut kept) = self.take() {
                match kept.exchange(call, max).await {
                    Err(RequestError::Broken(_)) => {}
                    result => return self.keep(kept, result),
                }
            }
            let mut connection = connect.await?;
            let result = connection.exchange(call, max).await;
            self.keep(connection, result)
        };
        tokio::time::timeout(limit, attempt).await.unwrap_or(Err(RequestError::Late(limit)))
    }

    /// Ends all of them.
    pub fn clear(&self) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Taken out while it is used: it is lost if the caller does not wait for the answer any more.
    fn take(&self) -> Option<Connection> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| connections.pop()).find(|c| !c.sender.is_closed())
    }

    fn keep(
        &self,
        connection: Connection,
        result: Result<Vec<u8>, RequestError>,
    ) -> Result<Vec<u8>, RequestError> {
        if matches!(result, Ok(_) | Err(RequestError::Refused { .. })) {
            self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        result
    }
}

#[cfg(test)]
mod tests;
