//! A stranger in numbers: requests that are begun and never ended, and handshakes without a certificate. Bounded in number and time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::oracle::tls::Tls;

/// Longest wait for a connection or a handshake.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Handshakes under way at once.
const BESIDE: usize = 64;
/// Of a ClientHello of 512 bytes (RFC 8446, 5.1), and nothing more.
const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01";
/// Of a request.
const REQUEST: &[u8] = b"GET /li";

/// How much, against each address.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Connections on which a request is begun, all kept until the end.
    pub half_open: usize,
    /// Handshakes.
    pub handshakes: u64,
    /// It ends after so long, whatever is left to do.
    pub limit: Duration,
}

/// What was done, over all addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flood {
    /// Requests that were begun.
    pub half_open: u64,
    /// Handshakes that came to their end on this side, or were turned away.
    pub handshakes: u64,
    /// How long the handshakes took, in milliseconds.
    pub ms: u64,
}

/// Floods each address: those in `tls` with beginnings of handshakes and with whole ones, those in `plain` with beginnings of requests.
///
/// # Errors
/// As [`Tls::new`].
pub async fn flood(tls: &[SocketAddr], plain: &[SocketAddr], extent: Extent) -> Result<Flood, rustls::Error> {
    let stranger = Tls::new()?;
    let (begun, end) = (Instant::now(), Instant::now() + extent.limit);
    let halves = tls.iter().map(|at| (*at, HELLO)).chain(plain.iter().map(|at| (*at, REQUEST)));
    let opened =
        futures::future::join_all(halves.map(|(at, beginning)| open(at, beginning, extent.half_open, end)));
    let made = futures::future::join_all(tls.iter().map(|at| shake(&stranger, *at, extent.handshakes, end)));
    let (opened, made) = tokio::join!(opened, made);
    let half_open = opened.iter().map(|kept| kept.len() as u64).sum();
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    // What is half open stays so until the end.
    sleep_until(end).await;
    Ok(Flood { half_open, handshakes: made.iter().sum(), ms })
}

async fn open(at: SocketAddr, beginning: &[u8], number: usize, end: Instant) -> Vec<TcpStream> {
    let mut kept = Vec::new();
    for _ in 0..number {
        if Instant::now() >= end {
            break;
        }
        let Ok(Ok(mut stream)) = timeout(ATTEMPT, TcpStream::connect(at)).await else { continue };
        if stream.write_all(beginning).await.is_ok() {
            kept.push(stream);
        }
    }
    kept
}

async fn shake(stranger: &Tls, at: SocketAddr, number: u64, end: Instant) -> u64 {
    let (left, made) = (AtomicU64::new(number), AtomicU64::new(0));
    let one_after_the_other = async || {
        let takes_one = |left: u64| left.checked_sub(1);
        while Instant::now() < end
            && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, takes_one).is_ok()
        {
            let name = ServerName::IpAddress(at.ip().into());
            let attempt = async { stranger.connector.connect(name, TcpStream::connect(at).await?).await };
            // Turned away counts: the other side has done its part.
            if timeout(ATTEMPT, attempt).await.is_ok() {
                made.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    futures::future::join_all((0..BESIDE).map(|_| one_after_the_other())).await;
    made.into_inner()
}
