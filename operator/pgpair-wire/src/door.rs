//! A port that strangers can reach: as many connections as there are places, each for a limited time.
//!
//! Whoever comes is let in. When all places are taken, the one that has waited longest of the address with the most connections has to go: a
//! flood from one address, or from many, costs the kubelet's probe and the peer nothing but the moment that an accept takes, and memory is bounded.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinSet};
use tokio::time::{sleep, timeout};

/// After an accept that failed, for want of descriptors for instance: the others have time to end.
const PAUSE: Duration = Duration::from_millis(50);
/// For the head of a request.
const HEAD: Duration = Duration::from_secs(5);
/// A request of ours has a line and a few headers.
const LARGEST_HEAD: usize = 16 * 1024;

/// How much strangers may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub places: usize,
    /// From accepted to over.
    pub time: Duration,
}

/// Lets in for ever whoever comes. `serve`: what is done with a connection; it is dropped when its time is over or its place is needed.
pub async fn keep<F>(listener: TcpListener, limits: Limits, mut serve: impl FnMut(TcpStream, SocketAddr) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (mut guests, mut running) = (Guests::new(limits.places), JoinSet::new());
    loop {
        tokio::select! {
            biased;
            Some(ended) = running.join_next_with_id() => {
                guests.leave(ended.map_or_else(|e| e.id(), |(id, ())| id));
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let served = serve(stream, from);
                    // That its time is over is told to nobody: it is a stranger.
                    let handle = running.spawn(async move { drop(timeout(limits.time, served).await) });
                    if let Some(handle) = guests.admit(from.ip(), handle.id(), handle) {
                        handle.abort();
                    }
                }
                Err(_) => sleep(PAUSE).await,
            },
        }
    }
}

/// Answers for ever whoever comes, one request for each connection.
pub async fn serve<S, B>(listener: TcpListener, limits: Limits, service: S)
where
    S: HttpService<Incoming, ResBody = B> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    keep(listener, limits, move |stream, _| answer(stream, HEAD, service.clone())).await;
}

/// Answers the one request of a connection.
async fn answer<S, B>(stream: TcpStream, headers: Duration, service: S)
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(headers)
        .max_buf_size(LARGEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever asked is gone, or has not asked in time.
    let _ = connection.await;
}

/// Who has a place; the longest there first.
#[derive(Debug)]
struct Guests<H> {
    places: usize,
    all: VecDeque<(IpAddr, Id, H)>,
}

impl<H> Guests<H> {
    fn new(places: usize) -> Guests<H> {
        Guests { places: places.max(1), all: VecDeque::new() }
    }

    /// Who has to go for it.
    fn admit(&mut self, from: IpAddr, id: Id, handle: H) -> Option<H> {
        let out = if self.all.len() < self.places { None } else { self.crowded() };
        self.all.push_back((from, id, handle));
        out
    }

    /// The oldest of the address with the most.
    fn crowded(&mut self) -> Option<H> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for (from, _, _) in &self.all {
            *counts.entry(*from).or_default() += 1;
        }
        let most = counts.values().copied().max()?;
        let at = self.all.iter().position(|(from, _, _)| counts.get(from) == Some(&most))?;
        self.all.remove(at).map(|(_, _, handle)| handle)
    }

    fn leave(&mut self, id: Id) {
        self.all.retain(|(_, other, _)| *other != id);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMITS: Limits = Limits { places: 8, time: Duration::from_secs(5) };

    async fn door() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hello =
            service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new("hello".to_owned())));
        tokio::spawn(keep(listener, LIMITS, move |stream, _| answer(stream, Duration::from_secs(1), hello)));
        address
    }

    async fn ask(to: SocketAddr) -> String {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        said
    }

    /// `true`: the other end has closed it.
    async fn is_closed(stream: &mut TcpStream) -> bool {
        matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_))
    }

    #[tokio::test]
    async fn half_requests_take_nobodys_place_and_end() {
        let to = door().await;
        let mut half = Vec::new();
        for _ in 0..40 {
            let mut stream = TcpStream::connect(to).await.unwrap();
            stream.write_all(b"GET / HT").await.unwrap();
            half.push(stream);
        }
        assert!(ask(to).await.ends_with("hello"));
        for stream in &mut half {
            let closed = timeout(Duration::from_secs(3), is_closed(stream)).await;
            assert!(closed.unwrap_or(false), "a half request is kept");
        }
    }

    #[tokio::test]
    async fn a_connection_is_for_one_request() {
        let to = door().await;
        assert!(ask(to).await.contains("connection: close"));
    }

    #[tokio::test]
    async fn who_has_the_most_gives_the_place() {
        let mut set = JoinSet::new();
        let mut id = || set.spawn(std::future::ready(())).id();
        let (flood, kubelet): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mut guests = Guests::new(3);
        let probe = id();
        assert_eq!(guests.admit(kubelet, probe, 0), None);
        for n in 1..3 {
            assert_eq!(guests.admit(flood, id(), n), None);
        }
        for n in 3..9 {
            assert_eq!(guests.admit(flood, id(), n), Some(n - 2), "the oldest of the flood");
        }
        guests.leave(probe);
        assert_eq!(guests.admit(kubelet, id(), 9), None);
    }
}
