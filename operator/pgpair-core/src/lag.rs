//! Lag in time, measured on the primary: how long ago it first was at a position that the standby has not reached.
//! Right on an idle primary (nothing written, no lag) and for a standby that is away (its lag grows).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::authority::timing::Ms;
use crate::lsn::Lsn;

/// Positions kept; at two samples a second this is the last half hour, and the oldest ones are thinned out beyond it.
const KEPT: usize = 3600;

/// A distance in the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lag {
    /// Bytes of WAL.
    pub bytes: u64,
    /// Age of the oldest byte of it in milliseconds; 0 when there is none.
    pub millis: u64,
}

/// When the primary was first seen at which position.
#[derive(Debug, Clone, Default)]
pub struct LagClock {
    samples: VecDeque<(Lsn, Ms)>,
}

impl LagClock {
    /// The primary's flush position at `now`. A position that did not move is no new sample.
    pub fn sample(&mut self, now: Ms, flush: Lsn) {
        match self.samples.back() {
            Some((last, _)) if flush == *last => return,
            Some((last, _)) if flush < *last => self.samples.clear(), // another server: start anew
            _ => {}
        }
        if self.samples.len() == KEPT {
            // Thin the older half: its age matters, not its resolution.
            let mut keep = false;
            let half = KEPT / 2;
            let mut i = 0;
            self.samples.retain(|_| {
                keep = !keep;
                i += 1;
                i > half || keep
            });
        }
        self.samples.push_back((flush, now));
    }

    /// The lag of one who has reached `reached` of a log that ends at `end`.
    #[must_use]
    pub fn lag(&self, now: Ms, end: Lsn, reached: Lsn) -> Lag {
        let bytes = end.bytes_since(reached);
        let i = self.samples.partition_point(|(lsn, _)| *lsn <= reached);
        let millis = match self.samples.get(i) {
            Some((_, since)) if bytes > 0 => now - *since,
            _ => 0,
        };
        Lag { bytes, millis }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> LagClock {
        let mut c = LagClock::default();
        for i in 1..=5u64 {
            c.sample(Ms(i * 1000), Lsn(i * 100));
        }
        c
    }

    #[test]
    fn an_idle_primary_has_no_lag_however_long_ago_the_last_write_was() {
        assert_eq!(clock().lag(Ms(1_000_000), Lsn(500), Lsn(500)), Lag { bytes: 0, millis: 0 });
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_byte_that_is_missing() {
        assert_eq!(clock().lag(Ms(6000), Lsn(500), Lsn(250)), Lag { bytes: 250, millis: 3000 });
        assert_eq!(
            clock().lag(Ms(9000), Lsn(500), Lsn(250)).millis,
            6000,
            "it grows while the standby is away"
        );
    }

    #[test]
    fn the_past_is_thinned_and_never_forgotten() {
        let mut c = LagClock::default();
        for i in 1..=3 * KEPT as u64 {
            c.sample(Ms(i), Lsn(i));
        }
        assert!(c.samples.len() <= KEPT);
        let lag = c.lag(Ms(3 * KEPT as u64), Lsn(3 * KEPT as u64), Lsn(1)).millis;
        assert!(lag > 2 * KEPT as u64, "{lag}");
    }
}
