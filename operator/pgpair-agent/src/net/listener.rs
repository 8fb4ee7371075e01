//! Where the peer's agent and the operator connect: over mTLS, and by their names.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pgpair_wire::door::{self, Limits};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::net::caller::{Caller, Callers};
use crate::net::tls::{Changes, Identity};

/// Handshakes at once, and how long one may take.
const HANDSHAKES: Limits = Limits { places: 128, time: Duration::from_secs(3) };

/// A listener whose handshakes are made elsewhere: strangers keep nobody waiting, neither by being slow nor by being many.
#[derive(Debug)]
pub struct MutualTls {
    accepted: mpsc::Receiver<(Kept, Caller)>,
}

impl MutualTls {
    /// Listens for `callers`; a client with another name gets no connection. Handshakes are made by `doors`.
    ///
    /// # Errors
    /// The port cannot be bound.
    pub async fn bind(
        address: SocketAddr,
        identity: Identity,
        callers: Callers,
        doors: &Handle,
    ) -> io::Result<MutualTls> {
        let listener = doors.spawn(TcpListener::bind(address)).await.map_err(io::Error::other)??;
        let (tx, accepted) = mpsc::channel(16);
        let serve = move |stream: TcpStream, from: SocketAddr| {
            let (tx, callers, identity) = (tx.clone(), callers.clone(), identity.clone());
            async move {
                let _ = stream.set_nodelay(true);
                // Asked anew: certificates are renewed while this listens. Before the handshake, so that no change is missed.
                let changes = identity.changes();
                let acceptor = TlsAcceptor::from(identity.server());
                match acceptor.accept(Seat(Some(stream))).await {
                    Ok(stream) => match caller_of(&stream, &callers) {
                        Some(caller) => {
                            let kept = Kept { stream, change: Box::pin(next(changes)), identity };
                            drop(tx.send((kept, caller)).await); // the server has ended
                        }
                        None => tracing::warn!(%from, "a client's certificate has a name that may not ask"),
                    },
                    Err(e) => tracing::debug!(%from, error = %e, "a client's handshake failed"),
                }
            }
        };
        doors.spawn(door::keep(listener, HANDSHAKES, serve));
        Ok(MutualTls { accepted })
    }
}

fn caller_of(stream: &TlsStream<Seat>, callers: &Callers) -> Option<Caller> {
    callers.caller(stream.get_ref().1.peer_certificates()?.first()?)
}

impl axum::serve::Listener for MutualTls {
    type Io = Kept;
    /// Requests are judged by who sends them, not from where.
    type Addr = Caller;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Some((mut stream, caller)) = self.accepted.recv().await else {
                return std::future::pending().await;
            };
            match stream.stream.get_mut().0.move_here() {
                Ok(()) => return (stream, caller),
                Err(e) => {
                    tracing::warn!(error = %e, "a connection could not be taken over from its handshake")
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Err(io::ErrorKind::Unsupported.into()) // an agent does not call itself
    }
}

/// A connection whose client is asked for nothing any more once its certificate is revoked.
pub struct Kept {
    stream: TlsStream<Seat>,
    identity: Identity,
    /// The next change of the certificates.
    change: Pin<Box<dyn Future<Output = watch::Receiver<Changes>> + Send>>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// Comes with the next change. Never, once there can be none.
async fn next(mut changes: watch::Receiver<Changes>) -> watch::Receiver<Changes> {
    match changes.changed().await {
        Ok(()) => changes,
        Err(_) => std::future::pending().await,
    }
}

impl Kept {
    /// Wakes whoever reads when the certificates change, also while nothing comes in.
    fn judge(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Poll::Ready(changes) = self.change.as_mut().poll(cx) {
            self.change = Box::pin(next(changes));
            let chain = self.stream.get_ref().1.peer_certificates().unwrap_or_default();
            if self.identity.has_revoked(chain) {
                tracing::warn!("a connection is closed: the certificate of its client is revoked");
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(())
    }
}

impl AsyncRead for Kept {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.judge(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Kept {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.judge(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.judge(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A connection that changes threads: from those of strangers, where its handshake is made, to the protocol's. Empty only if the change failed.
#[derive(Debug)]
pub struct Seat(Option<TcpStream>);

impl Seat {
    /// Has the runtime of the caller wait for it from now on.
    fn move_here(&mut self) -> io::Result<()> {
        let stream = self.0.take().ok_or(io::ErrorKind::NotConnected)?;
        self.0 = Some(TcpStream::from_std(stream.into_std()?)?);
        Ok(())
    }

    fn inner(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.get_mut().0.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Pin::new(stream))
    }
}

impl AsyncRead for Seat {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Seat {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use axum::serve::Listener as _;
    use pgpair_core::ids::InstanceId;
    use pgpair_wire::certificates::REVOKED;
    use pgpair_wire::client;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::tls::tests::{Authority, mounted};

    const LIMIT: Duration = Duration::from_secs(20);

    /// A listener of instance a that sends back what comes, and where it is.
    async fn echo(identity: Identity) -> SocketAddr {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let callers = Callers::of("shop", InstanceId::A);
        let mut listener = MutualTls::bind(address, identity, callers, &Handle::current()).await.unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await;
                tokio::spawn(async move {
                    let (mut read, mut write) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn connect(identity: &Identity, to: SocketAddr) -> io::Result<client::TlsStream<TcpStream>> {
        let tcp = client::connect(to).await.map_err(io::Error::other)?;
        let mut stream =
            client::secure(tcp, "localhost", identity.client()).await.map_err(io::Error::other)?;
        // With TLS 1.3 the refusal of a certificate comes with the first answer.
        stream.write_all(b"x").await?;
        stream.read_u8().await.map(|_| stream)
    }

    #[tokio::test]
    async fn a_revoked_certificate_is_refused_and_its_open_connections_are_closed_while_others_go_on() {
        let ca = Authority::new("ca");
        let [a, b, operator] = [("shop-a", 1), ("shop-b", 2), ("pgpair-operator", 3)]
            .map(|(name, serial)| mounted(&ca.given(name, serial, 0)));
        let server = Identity::load(a.path()).unwrap();
        let (of_peer, of_operator) =
            (Identity::load(b.path()).unwrap(), Identity::load(operator.path()).unwrap());
        let to = echo(server.clone()).await;
        let mut revoked = connect(&of_peer, to).await.unwrap();
        let mut good = connect(&of_operator, to).await.unwrap();
        fs::write(a.path().join(REVOKED), ca.list(&[2])).unwrap();
        assert!(server.renew().unwrap());
        // Nothing is sent over it: it is closed all the same.
        let end = tokio::time::timeout(LIMIT, revoked.read(&mut [0; 8])).await.expect("it is closed");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        connect(&of_peer, to).await.expect_err("a new one is refused");
        good.write_all(b"y").await.unwrap();
        assert_eq!(good.read_u8().await.unwrap(), b'y');
        // Its next certificate has another number.
        for (name, text) in &ca.given("shop-b", 4, 0).files {
            fs::write(b.path().join(name), text).unwrap();
        }
        assert!(of_peer.renew().unwrap());
        connect(&of_peer, to).await.unwrap();
    }

    #[tokio::test]
    async fn a_client_refuses_a_server_whose_certificate_is_revoked() {
        let ca = Authority::new("ca");
        let [a, b] = [("shop-a", 1), ("shop-b", 2)].map(|(name, n)| mounted(&ca.given(name, n, 0)));
        let client = Identity::load(b.path()).unwrap();
        let to = echo(Identity::load(a.path()).unwrap()).await;
        connect(&client, to).await.unwrap();
        fs::write(b.path().join(REVOKED), ca.list(&[1])).unwrap();
        assert!(client.renew().unwrap());
        connect(&client, to).await.expect_err("it is revoked");
    }
}
