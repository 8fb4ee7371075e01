use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONNECTION;
use axum::routing::post;
use jiff::SignedDuration;
use pgpair_core::order::OrderReply;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::certificates::{Purpose, new_authority, new_leaf};

const DNS: &str = "orders-a-0.orders-pods.shop.svc";

/// Accepts one TLS connection after the other, and counts them.
struct Counting {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connections: Arc<AtomicU32>,
}

impl axum::serve::Listener for Counting {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (tcp, from) = self.listener.accept().await.unwrap();
            self.connections.fetch_add(1, Ordering::SeqCst);
            if let Ok(tls) = self.acceptor.accept(tcp).await {
                return (tls, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// An agent with a certificate for [`DNS`], and how many connections it has had.
async fn agent() -> (AgentAddress, Arc<AtomicU32>) {
    serve(
        Router::new()
            .route("/number", post(async || "7"))
            .route("/last", post(async || ([(CONNECTION, "close")], "8")))
            .route("/order", post(async || r#""Accepted""#))
            .route("/refuses", post(async || (StatusCode::UNPROCESSABLE_ENTITY, "ttl is too short"))),
    )
    .await
}

/// The same with other answers.
pub(crate) async fn serve(app: Router) -> (AgentAddress, Arc<AtomicU32>) {
    let _ = rustls::crypto::ring::default_provider().install_default(); // fails if another test was first
    let (now, day) = (jiff::Timestamp::now(), SignedDuration::from_hours(24));
    let ca = new_authority("orders", now, day).unwrap();
    let server = new_leaf(&ca, "orders-a", vec![DNS.to_owned()], Purpose::Server, now, day).unwrap();
    let client = new_leaf(&ca, "pgpair-operator", Vec::new(), Purpose::Client, now, day).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.certificate.as_bytes()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder(roots.into()).build().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(server.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).unwrap();
    let config =
        ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicU32::new(0));
    let listener = Counting {
        listener,
        acceptor: TlsAcceptor::from(Arc::new(config)),
        connections: connections.clone(),
    };
    tokio::spawn(async { axum::serve(listener, app).await });
    let config =
        client_config(ca.certificate.as_bytes(), b"", client.certificate.as_bytes(), client.key.as_bytes());
    let target = AgentAddress { config: config.unwrap(), ip: "127.0.0.1".into(), port, dns: DNS.to_owned() };
    (target, connections)
}

#[tokio::test]
async fn one_connection_serves_many_requests_and_a_refusal_does_not_end_it() {
    let (target, connections) = agent().await;
    let mut line = AgentLine::default();
    assert_eq!(line.post::<u32>(&target, "/number", &()).await.unwrap(), 7);
    let refused = line.post::<u32>(&target, "/refuses", &()).await.unwrap_err();
    assert_eq!(refused.to_string(), "the answer was 422 Unprocessable Entity: ttl is too short");
    let reply: OrderReply = line.post(&target, "/order", &"x").await.unwrap();
    assert_eq!(reply, OrderReply::Accepted);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_the_agent_closed_is_made_anew() {
    let (target, connections) = agent().await;
    let mut line = AgentLine::default();
    for _ in 0..3 {
        assert_eq!(line.post::<u32>(&target, "/last", &()).await.unwrap(), 8);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_agent_with_another_name_is_not_talked_to() {
    let (target, _) = agent().await;
    let other = AgentAddress { dns: "orders-b-0.orders-pods.shop.svc".into(), ..target };
    let error = AgentLine::default().post::<u32>(&other, "/number", &()).await.unwrap_err();
    assert!(matches!(error, RequestError::Connect(_)), "{error}");
}
