//! What several pairs break together: nodes, links, the control plane. The first one breaks it, the last one mends it.

use std::collections::BTreeMap;

use anyhow::Context as _;
use tokio::sync::Mutex;

/// What must be kept to mend a thing, by its name, and how many have broken it.
#[derive(Debug)]
pub struct Common<T>(Mutex<BTreeMap<String, (usize, T)>>);

impl<T> Default for Common<T> {
    fn default() -> Common<T> {
        Common(Mutex::default())
    }
}

impl<T> Common<T> {
    /// Breaks it unless it is broken; returns when it is.
    ///
    /// # Errors
    /// When it cannot be broken: then it does not count.
    pub async fn break_it(
        &self,
        name: &str,
        how: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<()> {
        let mut broken = self.0.lock().await;
        if let Some((times, _)) = broken.get_mut(name) {
            *times += 1;
            return Ok(());
        }
        let token = how.await?;
        broken.insert(name.to_owned(), (1, token));
        Ok(())
    }

    /// Mends it if nobody else wants it broken.
    ///
    /// # Errors
    /// When it is not broken, or cannot be mended.
    pub async fn mend(
        &self,
        name: &str,
        how: impl AsyncFnOnce(T) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut broken = self.0.lock().await;
        let (times, _) = broken.get_mut(name).with_context(|| format!("{name} is not broken"))?;
        *times -= 1;
        if *times > 0 {
            return Ok(());
        }
        let (_, token) = broken.remove(name).with_context(|| format!("{name} is not broken"))?;
        how(token).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn the_first_breaks_it_and_the_last_mends_it() {
        let (common, done) = (Common::default(), AtomicUsize::new(0));
        let count = || done.load(Ordering::Relaxed);
        let again = async || {
            done.fetch_add(1, Ordering::Relaxed);
            anyhow::Ok(7)
        };
        let mend = async |token| {
            assert_eq!(token, 7);
            done.fetch_add(10, Ordering::Relaxed);
            anyhow::Ok(())
        };
        common.break_it("link n1", again()).await.unwrap();
        common.break_it("link n1", again()).await.unwrap();
        assert_eq!(count(), 1);
        common.mend("link n1", mend).await.unwrap();
        assert_eq!(count(), 1, "another pair still wants it broken");
        common.mend("link n1", mend).await.unwrap();
        assert_eq!(count(), 11);
        assert!(common.mend("link n1", mend).await.is_err());
        let refused = common.break_it("link n1", async { anyhow::bail!("no such link") }).await;
        assert!(
            refused.is_err() && common.mend("link n1", mend).await.is_err(),
            "what failed does not count"
        );
    }
}
