//! Waiting: every wait has an end, and says what did not come and what was there instead.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::time::{sleep, timeout};

/// Between two looks.
const POLL: Duration = Duration::from_millis(250);

/// Looks until `probe` gives something. An error of the probe means "not yet": while a fault is on, requests fail too.
///
/// # Errors
/// After `limit`: names `what`, and repeats what the last look found.
pub async fn await_condition<T, F>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let end = Instant::now() + limit;
    let mut last = "nothing was seen".to_owned();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match timeout(left.max(POLL), probe()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => last = format!("no answer in time (before: {last})"),
        }
        if Instant::now() >= end {
            bail!("{what} did not come within {} s; last seen: {last}", limit.as_secs());
        }
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn what_comes_in_time_is_returned() {
        let looks = Cell::new(0);
        let probe = || async {
            looks.set(looks.get() + 1);
            if looks.get() < 3 { bail!("not yet") } else { Ok(looks.get()) }
        };
        assert_eq!(await_condition("three looks", Duration::from_secs(5), probe).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn what_does_not_come_is_named_with_what_was_seen_instead() {
        let probe = || async { bail!("mode is Solo") };
        let error = await_condition::<(), _>("Paired", Duration::from_millis(1), probe).await.unwrap_err();
        assert_eq!(error.to_string(), "Paired did not come within 0 s; last seen: mode is Solo");
    }

    #[tokio::test]
    async fn a_look_that_hangs_ends_too() {
        let error =
            await_condition::<(), _>("an answer", Duration::from_millis(1), std::future::pending).await;
        assert!(error.unwrap_err().to_string().contains("no answer in time"));
    }
}
