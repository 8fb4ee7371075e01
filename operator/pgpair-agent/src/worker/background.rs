//! Work that touches a volume and may never come back: it runs in a thread of its own, and its end is waited for only so long.

use std::time::Duration;

use pgpair_core::authority::timing::Ms;
use tokio::task::JoinHandle;

use crate::fence::clock;

/// Looks of one kind, at most one at a time: a volume that hangs keeps one thread, not one more with each round.
#[derive(Debug)]
pub(super) struct Look<T> {
    under_way: Option<(Ms, JoinHandle<T>)>,
}

impl<T> Default for Look<T> {
    fn default() -> Look<T> {
        Look { under_way: None }
    }
}

impl<T: Send + 'static> Look<T> {
    /// Begins one, unless one is under way.
    pub(super) fn begin(&mut self, look: impl FnOnce() -> T + Send + 'static) {
        if self.under_way.is_none() {
            self.under_way = Some((clock::now(), tokio::task::spawn_blocking(look)));
        }
    }

    /// When the one that is under way began.
    pub(super) fn began(&self) -> Option<Ms> {
        self.under_way.as_ref().map(|(began, _)| *began)
    }

    /// What it saw, and when it began; `None` if it does not come back within `limit`, or none is under way.
    pub(super) async fn end(&mut self, limit: Duration) -> Option<(Ms, T)> {
        let (began, look) = self.under_way.as_mut()?;
        let (began, seen) = (*began, tokio::time::timeout(limit, look).await.ok()?);
        self.under_way = None;
        Some((began, seen.ok()?))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn a_look_that_does_not_come_back_is_the_only_one() {
        let (answer, volume) = channel();
        let mut look = Look::default();
        look.begin(move || volume.recv().unwrap_or(0));
        assert_eq!(look.end(Duration::from_millis(5)).await, None);
        let began = look.began().unwrap();
        look.begin(|| 2);
        assert_eq!(look.began(), Some(began), "the first one is still under way");
        answer.send(1).unwrap();
        assert_eq!(look.end(Duration::from_secs(10)).await, Some((began, 1)));
        assert_eq!(look.began(), None);
    }
}
