//! The peer's address, known before it is needed: a name server that went with the peer's node must not cost seconds.
//!
//! A name server tells of a new pod late: that there is no such name, or the old pod's address, is kept for up to half a minute
//! in common set-ups. So the peer's requests say where it is, and that counts for more than the name, until it turns out wrong.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::instance::fsx;

/// How often the name is looked up while nobody complains.
const CALM: Duration = Duration::from_secs(30);
/// The same after a complaint: a new pod's address appears in DNS some seconds after the old one is gone.
const EAGER: Duration = Duration::from_secs(1);
/// How long the first answer is waited for.
const FIRST: Duration = Duration::from_millis(400);
/// For so long the peer's own word counts for more than its name, and the address that it had before is not believed of a name
/// server: longer than name servers keep an answer.
const MET: Duration = Duration::from_secs(60);

/// The latest address of a name. Clones share it; the look-ups end with the last of them.
#[derive(Debug, Clone)]
pub struct Address {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    host: String,
    v4: bool,
    file: PathBuf,
    latest: Mutex<Latest>,
    wanted: Notify,
    known: Notify,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Latest {
    address: Option<IpAddr>,
    /// When the peer itself has said so.
    met: Option<Instant>,
    /// Where the peer no longer is, by its own word, and since when.
    left: Option<(IpAddr, Instant)>,
}

impl Address {
    /// Starts to look up `host`, of the family of `like`. The address is also left in `file`, for other processes.
    #[must_use]
    pub fn watch(host: &str, like: IpAddr, file: PathBuf) -> Address {
        let inner = Arc::new(Inner {
            host: host.to_owned(),
            v4: like.is_ipv4(),
            file,
            latest: Mutex::default(),
            wanted: Notify::new(),
            known: Notify::new(),
        });
        let watched = Arc::downgrade(&inner);
        tokio::spawn(async move {
            while let Some(inner) = watched.upgrade() {
                inner.look_up().await;
                let wanted = tokio::time::timeout(CALM, inner.wanted.notified()).await.is_ok();
                drop(inner);
                if wanted {
                    tokio::time::sleep(EAGER).await;
                }
            }
        });
        Address { inner }
    }

    /// The last one that was found. Never waits.
    #[must_use]
    pub fn latest(&self) -> Option<IpAddr> {
        self.inner.latest().address
    }

    /// The peer itself said that it is at `address`.
    pub fn meet(&self, address: IpAddr) {
        if address.is_ipv4() == self.inner.v4 && !address.is_unspecified() {
            let (before, now) = (self.inner.latest(), Instant::now());
            let moved = before.address.filter(|old| *old != address).map(|old| (old, now));
            let left = moved.or(before.left.filter(|(old, _)| *old != address));
            self.inner.set(Latest { address: Some(address), met: Some(now), left });
        }
    }

    /// The address does not lead to the peer: it is looked up again soon.
    pub fn doubt(&self) {
        self.inner.latest.lock().unwrap_or_else(PoisonError::into_inner).met = None;
        self.inner.wanted.notify_one();
    }

    /// As [`Address::latest`]; waits a moment for the first one.
    pub async fn get(&self) -> Option<IpAddr> {
        let first = async {
            loop {
                let known = self.inner.known.notified();
                if let Some(address) = self.latest() {
                    return address;
                }
                known.await;
            }
        };
        tokio::time::timeout(FIRST, first).await.ok()
    }
}

impl Inner {
    async fn look_up(&self) {
        // Not bounded: it runs in a thread that cannot be stopped, and a second one would wait for the same name server.
        let found = tokio::net::lookup_host((self.host.as_str(), 0)).await;
        let Ok(found) = found else { return };
        let latest = self.latest();
        let left = latest.left.filter(|(_, since)| since.elapsed() < MET).map(|(old, _)| old);
        let found: Vec<IpAddr> = found.map(|a: SocketAddr| a.ip()).filter(|a| Some(*a) != left).collect();
        let usable = found.iter().find(|a| a.is_ipv4() == self.v4).or(found.first()).copied();
        let met = latest.met.is_some_and(|at| at.elapsed() < MET);
        // Of several that are right, the one in use stays.
        if !met && !latest.address.is_some_and(|l| found.contains(&l)) && usable.is_some() {
            self.set(Latest { address: usable, met: None, ..latest });
        }
    }

    fn latest(&self) -> Latest {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, latest: Latest) {
        let before =
            std::mem::replace(&mut *self.latest.lock().unwrap_or_else(PoisonError::into_inner), latest);
        self.known.notify_waiters();
        if let Some(address) = latest.address.filter(|_| before.address != latest.address) {
            tracing::info!(host = self.host, %address, met = latest.met.is_some(), "the peer's address");
            // Without it wal-restore looks the name up itself.
            let _ = fsx::write(&self.file, address.to_string().as_bytes(), 0o600);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_found_once_and_left_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("peer-address");
        let address = Address::watch("localhost", IpAddr::from([0, 0, 0, 0]), file.clone());
        let written = async {
            while std::fs::read_to_string(&file).ok().as_deref() != Some("127.0.0.1") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), written).await.unwrap();
        assert_eq!(address.get().await, Some(IpAddr::from([127, 0, 0, 1])));
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_waited_for_a_moment_only() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::watch("no.such.host.invalid", IpAddr::from([0; 4]), dir.path().join("p"));
        assert_eq!((address.latest(), address.get().await), (None, None));
    }

    #[tokio::test]
    async fn the_peers_own_word_counts_until_it_is_doubted() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::watch("localhost", IpAddr::from([0; 4]), dir.path().join("p"));
        let (named, met) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 9]));
        assert_eq!(address.get().await, Some(named));
        address.meet("::1".parse().unwrap());
        assert_eq!(address.latest(), Some(named));
        address.meet(met);
        address.inner.look_up().await;
        assert_eq!(address.latest(), Some(met));
        assert_eq!(std::fs::read_to_string(dir.path().join("p")).unwrap(), "127.0.0.9");
        // The name server may keep its old answer for long: the peer has left that address, whatever becomes of the new one.
        address.doubt();
        address.inner.look_up().await;
        assert_eq!(address.latest(), Some(met));
        address.meet(named);
        address.doubt();
        address.inner.look_up().await;
        assert_eq!(address.latest(), Some(named), "it has come back");
    }

    #[tokio::test]
    async fn an_address_that_is_doubted_gives_way_to_a_name_that_the_peer_has_not_left() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::watch("localhost", IpAddr::from([0; 4]), dir.path().join("p"));
        address.meet(IpAddr::from([127, 0, 0, 9]));
        address.doubt();
        address.inner.look_up().await;
        assert_eq!(address.latest(), Some(IpAddr::from([127, 0, 0, 1])));
    }
}
