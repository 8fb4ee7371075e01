//! The one clock of the protocol: `CLOCK_BOOTTIME`, which goes on while the machine sleeps and is never set.

use std::time::Duration;

use pgpair_core::authority::timing::Ms;
use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since boot.
#[must_use]
pub fn now() -> Ms {
    let t = clock_gettime(ClockId::Boottime);
    let secs = u64::try_from(t.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
    Ms(secs * 1000 + nanos / 1_000_000)
}

/// Unix time in milliseconds: for people only, nothing is decided by it.
#[must_use]
pub fn unix_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Unix time of a moment of [`now`]'s clock, as far as the wall clock has not been set since.
#[must_use]
pub fn unix_ms_at(at: Ms) -> i64 {
    let ago = i64::try_from(now() - at).unwrap_or(0);
    unix_ms() - ago
}

/// Sleeps until `at`, or returns at once.
pub async fn sleep_until(at: Ms) {
    tokio::time::sleep(Duration::from_millis(at - now())).await;
}
