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
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::net::caller::{Caller, Callers};
use crate::net::tls::Identity;

/// Handshakes at once, and how long one may take.
const HANDSHAKES: Limits = Limits { places: 128, time: Duration::from_secs(3) };

/// A listener whose handshakes are made elsewhere: strangers keep nobody waiting, neither by being slow nor by being many.
#[derive(Debug)]
pub struct MutualTls {
    accepted: mpsc::Receiver<(TlsStream<Seat>, Caller)>,
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
            // Asked anew: certificates are renewed while this listens.
            let acceptor = TlsAcceptor::from(identity.server());
            let (tx, callers) = (tx.clone(), callers.clone());
            async move {
                let _ = stream.set_nodelay(true);
                match acceptor.accept(Seat(Some(stream))).await {
                    Ok(stream) => match caller_of(&stream, &callers) {
                        Some(caller) => drop(tx.send((stream, caller)).await), // the server has ended
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
    type Io = TlsStream<Seat>;
    /// Requests are judged by who sends them, not from where.
    type Addr = Caller;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Some((mut stream, caller)) = self.accepted.recv().await else {
                return std::future::pending().await;
            };
            match stream.get_mut().0.move_here() {
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
