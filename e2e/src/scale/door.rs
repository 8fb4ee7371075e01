//! How the operator reaches the agents: one listener for all of them, which tells by the name in the TLS handshake who is meant, and
//! shows the certificate that the operator made for that instance.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use pgpair_core::order::OrderReply;
use pgpair_wire::hold::hold;
use pgpair_wire::order::Order;
use pgpair_wire::paths;
use pgpair_wire::report::ReportVersion;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{Acceptor, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;

use crate::scale::agents::Agents;
use crate::scale::pairs::{self, AgentId};

/// A client that has not finished its handshake by then is dropped. The bench's own requests for certificates are part of it.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 16_384;
/// Sessions that an agent keeps: only the operator comes.
const SESSIONS: usize = 4;

/// The way to the agents.
#[derive(Debug)]
pub struct Door {
    agents: Arc<Agents>,
    certificates: Vec<OnceCell<Arc<ServerConfig>>>,
}

impl Door {
    /// To these agents.
    #[must_use]
    pub fn to(agents: Arc<Agents>) -> Arc<Door> {
        let certificates = agents.all().iter().map(|_| OnceCell::new()).collect();
        Arc::new(Door { agents, certificates })
    }

    /// Takes connections on every address, for ever. Certificates come from `client`.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn serve(self: Arc<Self>, client: Client) -> anyhow::Result<()> {
        let listener = listen()?;
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors: connections of a process that has ended are about to close.
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (door, client, reader) = (self.clone(), client.clone(), self.agents.reader());
            tokio::spawn(async move {
                // A client that went away is none of ours.
                let _ = door.admit(stream, &client, reader).await;
            });
        }
    }

    async fn admit(self: &Arc<Self>, stream: TcpStream, client: &Client, reader: u64) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let (tls, id) = timeout(HANDSHAKE, async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let name = hello.client_hello().server_name().map(ToOwned::to_owned);
            let id = name.and_then(|name| AgentId::of_dns(&name)).context("a name of no agent")?;
            let certificates = self.certificates.get(id.place()).context("a name of no pair")?;
            let config = certificates.get_or_try_init(|| fetch_certificates(client, id)).await?;
            anyhow::Ok((hello.into_stream(config.clone()).await?, id))
        })
        .await??;
        let cut = self.agents.get(id).context("no such agent")?.cut.notified();
        let service = service_fn(|request| async move {
            let answer = self.answer(id, reader, request).await;
            Ok::<_, Infallible>(answer.unwrap_or_else(refused))
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service);
        tokio::select! {
            ended = connection => ended?,
            () = cut => {}
        }
        Ok(())
    }

    async fn answer(&self, id: AgentId, reader: u64, request: Request<Incoming>) -> Answer {
        let agent = self.agents.get(id).ok_or(StatusCode::NOT_FOUND)?;
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        match (&method, path.as_str()) {
            (&Method::GET, paths::REPORT) => {
                let mut reports = agent.report.subscribe();
                let report = match request.uri().query().and_then(read_hold) {
                    Some((after, longest)) => hold(&mut reports, after, longest).await,
                    None => Some(reports.borrow().clone()),
                };
                let Some(report) = report else { return Err(StatusCode::NO_CONTENT) };
                self.agents.note_report(agent, reader);
                json(&report)
            }
            (&Method::PUT, paths::CONFIG) => {
                self.agents.configure(agent, &read(request).await?);
                json(&())
            }
            (&Method::PUT, paths::PASSWORDS) => {
                self.agents.take_passwords(agent, &read(request).await?);
                json(&())
            }
            (&Method::POST, paths::ORDER) => {
                self.agents.order(id, read::<Order>(request).await?);
                json(&OrderReply::Accepted)
            }
            (&Method::POST, paths::EVIDENCE) => json(&()),
            _ => Err(StatusCode::NOT_FOUND),
        }
    }
}

type Answer = Result<Response<Full<Bytes>>, StatusCode>;

fn refused(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn json(content: &impl Serialize) -> Answer {
    let text = serde_json::to_vec(content).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Response::new(Full::new(text.into())))
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, StatusCode> {
    let body = request.into_body().collect().await.map_err(|_| StatusCode::BAD_REQUEST)?;
    serde_json::from_slice(&body.to_bytes()).map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)
}

/// What [`paths::report_after`] asks for.
fn read_hold(query: &str) -> Option<(ReportVersion, Duration)> {
    let value = |key: &str| query.split('&').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
    Some((value("after")?.parse().ok()?, Duration::from_millis(value("hold")?.parse().ok()?)))
}

fn listen() -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from(([0, 0, 0, 0], paths::PEER_PORT)))?;
        socket.listen(BACKLOG)
    };
    listen().context("listening for the operator")
}

/// What the operator made for the instance, as its agent would read it from the mounted Secret.
async fn fetch_certificates(client: &Client, id: AgentId) -> anyhow::Result<Arc<ServerConfig>> {
    let name = pairs::name(id.pair);
    let secrets = Api::<Secret>::namespaced(client.clone(), &name.namespace);
    let secret = secrets.get(&name.tls_secret(id.instance)).await?;
    let data = secret.data.unwrap_or_default();
    let text = |key: &str| {
        data.get(key).map(|bytes| bytes.0.as_slice()).with_context(|| format!("no {key} in a Secret"))
    };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(text("ca.crt")?) {
        roots.add(root?)?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
    let chain = CertificateDer::pem_slice_iter(text("tls.crt")?).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(text("tls.key")?)?;
    let mut config =
        ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_waits_for_is_read_as_it_asks() {
        let (version, longest) = (ReportVersion { words: 3, numbers: 7 }, Duration::from_secs(20));
        let path = paths::report_after(version, longest);
        let query = path.strip_prefix(paths::REPORT).and_then(|q| q.strip_prefix('?')).unwrap();
        assert_eq!(read_hold(query), Some((version, longest)));
        assert_eq!(read_hold("hold=20"), None);
    }
}
