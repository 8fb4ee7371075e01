//! Where the peer's agent and the operator connect: over mTLS, and by their names.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::net::tls::{self, Identity};

/// A client that has not finished its handshake by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// A listener whose handshakes run beside each other: one slow client keeps nobody waiting.
#[derive(Debug)]
pub struct MutualTls {
    accepted: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: SocketAddr,
}

impl MutualTls {
    /// Listens for the agents of the pair and for the operator.
    ///
    /// # Errors
    /// The port cannot be bound.
    pub async fn bind(address: SocketAddr, identity: Identity, pair: &str) -> std::io::Result<MutualTls> {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        let allowed = Arc::new([format!("{pair}-a"), format!("{pair}-b"), tls::OPERATOR.to_owned()]);
        let (tx, accepted) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let Ok((stream, from)) = listener.accept().await else {
                    // Out of descriptors, for instance: leave the others time to end.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                // Asked anew: certificates are renewed while this listens.
                let acceptor = TlsAcceptor::from(identity.server());
                let (tx, allowed) = (tx.clone(), allowed.clone());
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
