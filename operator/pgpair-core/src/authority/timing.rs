//! The timing algebra. One number, `ttl`, decides; everything else is derived from it here.
//!
//! ```text
//! primary  sent ------------------------ fence -- kill budget -- margin | sent + ttl
//! standby        received ------------------------------------------------------ received + ttl + margin: lapsed
//! ```
//! A promise is counted from the *sending* of the heartbeat at the primary and from its *receipt* at the standby, each
//! on its own `CLOCK_BOOTTIME`; the margins cover the drift between the two clocks. So the primary's postgres is dead
//! before the promise lapses, whatever the network did to the messages.

use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// Milliseconds of `CLOCK_BOOTTIME` of the machine on which the agent runs. Never compared between machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Ms(pub u64);

impl Add<u64> for Ms {
    type Output = Ms;
    fn add(self, millis: u64) -> Ms {
        Ms(self.0.saturating_add(millis))
    }
}

impl Sub<Ms> for Ms {
    type Output = u64;
    /// Milliseconds from `earlier` to `self`; 0 if `earlier` is later.
    fn sub(self, earlier: Ms) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// All times of the protocol, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Timing {
    ttl: u64,
}

/// Smallest `ttl`, 1 s: below it the kill budget and the margins leave too little for a lost message.
pub const MIN_TTL_MS: u32 = 1_000;
/// Largest `ttl`, 60 s.
pub const MAX_TTL_MS: u32 = 60_000;
/// Default `ttl`, 5 s.
pub const DEFAULT_TTL_MS: u32 = 5_000;

/// A `ttl` outside its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ttl is {0} ms; choose {MIN_TTL_MS} to {MAX_TTL_MS} ms")]
pub struct TtlError(pub u32);

impl TryFrom<u32> for Timing {
    type Error = TtlError;
    fn try_from(ttl_ms: u32) -> Result<Timing, TtlError> {
        Timing::new(ttl_ms)
    }
}

impl From<Timing> for u32 {
    fn from(timing: Timing) -> u32 {
        u32::try_from(timing.ttl).unwrap_or(u32::MAX)
    }
}

impl Timing {
    /// Derives all times from `ttl_ms`.
    ///
    /// # Errors
    /// If `ttl_ms` is outside [`MIN_TTL_MS`]..=[`MAX_TTL_MS`].
    pub fn new(ttl_ms: u32) -> Result<Timing, TtlError> {
        if !(MIN_TTL_MS..=MAX_TTL_MS).contains(&ttl_ms) {
            return Err(TtlError(ttl_ms));
        }
        Ok(Timing { ttl: u64::from(ttl_ms) })
    }

    /// Length of a promise.
    #[must_use]
    pub fn ttl(self) -> u64 {
        self.ttl
    }

    /// Drift margin for a promise of `ttl`: 1 % of it, far above what two clocks of one ttl apart can drift (500 ppm).
    #[must_use]
    pub fn margin(ttl: u64) -> u64 {
        ttl / 100
    }

    /// Time within which a SIGKILL must have ended every postgres process: an eighth of `ttl`, at most 250 ms.
    #[must_use]
    pub fn kill_budget(self) -> u64 {
        (self.ttl / 8).min(250)
    }

    /// Time between two heartbeats.
    #[must_use]
    pub fn heartbeat_every(self) -> u64 {
        self.ttl / 10
    }

    /// When postgres must be killed if the promise got by the heartbeat sent at `sent` is the last one.
    #[must_use]
    pub fn fence_at(self, sent: Ms) -> Ms {
        sent + (self.ttl - Timing::margin(self.ttl) - self.kill_budget())
    }

    /// When the primary starts to look for a way to go on alone: half of `ttl` after the last answered heartbeat left.
    #[must_use]
    pub fn worry_at(self, sent: Ms) -> Ms {
        sent + self.ttl / 2
    }

    /// When a promise of `ttl` that was given at `received` has lapsed for the one that gave it.
    #[must_use]
    pub fn lapse_at(received: Ms, ttl: u64) -> Ms {
        received + ttl + Timing::margin(ttl)
    }

    /// How long a primary may take to start before its heartbeats stop and the standby is let go.
    #[must_use]
    pub fn start_budget(self) -> u64 {
        30_000
    }

    /// Limit of one request to the API server or the peer: a fifth of `ttl`, at most 1 s, so that several tries fit between the first
    /// worry and the fence.
    #[must_use]
    pub fn request_limit(self) -> u64 {
        (self.ttl / 5).min(1_000)
    }

    /// Time between two tries of the same request to the API server or the peer.
    #[must_use]
    pub fn retry_every(self) -> u64 {
        (self.ttl / 20).clamp(50, 250)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The claim on which everything rests, with clocks that run apart by 500 ppm and any delay of the message.
        #[test]
        fn the_fence_falls_before_the_promise_lapses(ttl in MIN_TTL_MS..=MAX_TTL_MS, sent in 0u64..1 << 40, delay in 0u64..100_000) {
            let t = Timing::new(ttl).unwrap();
            let dead = t.fence_at(Ms(sent)) + t.kill_budget();
            let lapsed = Timing::lapse_at(Ms(sent + delay), u64::from(ttl));
            let drift = u64::from(ttl) * 2 * 500 / 1_000_000 + 1;
            prop_assert!(dead + drift < lapsed);
            prop_assert!(t.worry_at(Ms(sent)) < t.fence_at(Ms(sent)));
        }
    }

    #[test]
    fn a_ttl_out_of_range_is_refused() {
        assert_eq!(Timing::new(999), Err(TtlError(999)));
        assert_eq!(Timing::new(60_001), Err(TtlError(60_001)));
    }
}
