//! The peer's address, known before it is needed: a name server that went with the peer's node must not cost seconds.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::fsx;

/// How often the name is looked up while nobody complains.
const CALM: Duration = Duration::from_secs(30);
/// The same after a complaint: a new pod's address appears in DNS some seconds after the old one is gone.
const EAGER: Duration = Duration::from_secs(1);
/// How long the first answer is waited for.
const FIRST: Duration = Duration::from_millis(400);

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
    latest: Mutex<Option<IpAddr>>,
    wanted: Notify,
    known: Notify,
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
        *self.inner.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address does not lead to the peer: it is looked up again soon.
    pub fn doubt(&self) {
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
        let found: Vec<IpAddr> = found.map(|a: SocketAddr| a.ip()).collect();
        let usable = found.iter().find(|a| a.is_ipv4() == self.v4).or(found.first()).copied();
        let changed = {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            // Of several that are right, the one in use stays.
            let stays = latest.is_some_and(|l| found.contains(&l));
            let next = if stays { *latest } else { usable.or(*latest) };
            std::mem::replace(&mut *latest, next) != next
        };
        self.known.notify_waiters();
        if let (true, Some(address)) = (changed, self.latest_now()) {
            tracing::info!(host = self.host, %address, "the peer's address");
            // Without it wal-restore looks the name up itself.
            let _ = fsx::write(&self.file, address.to_string().as_bytes(), 0o600);
        }
    }

    fn latest_now(&self) -> Option<IpAddr> {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner)
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
}
