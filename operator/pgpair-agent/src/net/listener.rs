//! Where the peer's agent and the operator connect: over mTLS, and by their names.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::net::caller::{Caller, Callers};
use crate::net::tls::Identity;

/// A client that has not finished its handshake by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// A listener whose handshakes run beside each other: one slow client keeps nobody waiting.
#[derive(Debug)]
pub struct MutualTls {
    accepted: mpsc::Receiver<(TlsStream<TcpStream>, Caller)>,
}

impl MutualTls {
    /// Listens for `callers`; a client with another name gets no connection.
    ///
    /// # Errors
    /// The port cannot be bound.
    pub async fn bind(address: SocketAddr, identity: Identity, callers: Callers) -> io::Result<MutualTls> {
        let listener = TcpListener::bind(address).await?;
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
                let (tx, callers) = (tx.clone(), callers.clone());
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => match caller_of(&stream, &callers) {
                            Some(caller) => drop(tx.send((stream, caller)).await), // the server has ended
                            None => {
                                tracing::warn!(%from, "a client's certificate has a name that may not ask");
                            }
                        },
                        Ok(Err(e)) => tracing::debug!(%from, error = %e, "a client's handshake failed"),
                        Err(_) => tracing::debug!(%from, "a client did not finish its handshake"),
                    }
                });
            }
        });
        Ok(MutualTls { accepted })
    }
}

fn caller_of(stream: &TlsStream<TcpStream>, callers: &Callers) -> Option<Caller> {
    callers.caller(stream.get_ref().1.peer_certificates()?.first()?)
}

impl axum::serve::Listener for MutualTls {
    type Io = TlsStream<TcpStream>;
    /// Requests are judged by who sends them, not from where.
    type Addr = Caller;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Err(io::ErrorKind::Unsupported.into()) // an agent does not call itself
    }
}
