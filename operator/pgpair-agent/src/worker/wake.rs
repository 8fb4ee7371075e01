//! A take-over waits for the end of the WAL: recovery must ask for it now.

use std::time::{Duration, Instant};

use super::{StartedAs, Worker};

/// Recovery may just have been asking, too early: then once more.
const AGAIN: Duration = Duration::from_millis(50);
/// What has not come after so many times does not come sooner by asking.
const TIMES: u32 = 20;

/// How often recovery was woken for one take-over.
#[derive(Default)]
pub(super) struct Wakes {
    times: u32,
    last: Option<Instant>,
}

impl Wakes {
    /// Whether to do it once more.
    fn due(&mut self, now: Instant) -> bool {
        let due = self.times < TIMES && self.last.is_none_or(|last| now - last >= AGAIN);
        if due {
            (self.times, self.last) = (self.times + 1, Some(now));
        }
        due
    }
}

impl Worker {
    /// Without a stream, recovery sleeps for `wal_retrieve_retry_interval` between two questions to the archive, and the dead primary's
    /// log is handed over in between. SIGHUP ends that sleep (PostgreSQL, `StartupProcSigHupHandler` in `startup.c`), and does nothing else
    /// to a configuration that has not changed.
    pub(super) fn wake_recovery(&mut self) {
        if let (Some(running), Some(StartedAs::Standby)) = (self.server.running(), self.server.role())
            && self.wakes.due(Instant::now())
            && let Err(e) = running.postmaster.reload()
        {
            tracing::debug!(error = %e, "recovery cannot be woken");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_and_leaves_a_pause_between() {
        let (mut wakes, begin) = (Wakes::default(), Instant::now());
        assert!(wakes.due(begin) && !wakes.due(begin + AGAIN / 2) && wakes.due(begin + AGAIN));
        let times = (2..100).filter(|n| wakes.due(begin + AGAIN * *n)).count();
        assert_eq!(times, TIMES as usize - 2);
    }
}
