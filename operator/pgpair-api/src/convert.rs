//! Numbers of the wire as numbers of the API, and back: counts of the wire are unsigned and times are milliseconds; the API has
//! signed counts and seconds. And both as people read them.

use std::time::Duration;

use jiff::Timestamp;
use pgpair_core::lag::Lag;

use crate::status::LagValue;

/// A distance as the status tells it.
#[must_use]
pub fn lag_value(lag: Lag) -> LagValue {
    LagValue { bytes: number(lag.bytes), seconds: Duration::from_millis(lag.millis).as_secs_f64() }
}

/// The distance that [`lag_value`] tells, to the millisecond.
#[must_use]
pub fn lag_of(value: LagValue) -> Option<Lag> {
    let millis = Duration::try_from_secs_f64(value.seconds).ok()?.as_millis();
    Some(Lag { bytes: value.bytes.unsigned_abs(), millis: u64::try_from(millis).ok()? })
}

/// Counts of the wire are unsigned, those of the API signed.
#[must_use]
pub fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Bytes for the eye, such as `48 MiB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (0..UNITS.len()).rev().find(|u| n >> (10 * u) > 0).unwrap_or(0);
    format!("{} {}", n >> (10 * unit), UNITS[unit])
}

/// How long ago a time is, such as `5 min ago`.
#[must_use]
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    if seconds < 0 { "by a clock ahead of this one".into() } else { format!("{} ago", span(seconds)) }
}

/// A length of time in seconds for the eye, such as `5 min`.
#[must_use]
pub fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_survives_the_way_through_the_status() {
        for lag in
            [Lag { bytes: 0, millis: 0 }, Lag { bytes: 2048, millis: 1500 }, Lag { bytes: 7, millis: 999 }]
        {
            assert_eq!(lag_of(lag_value(lag)), Some(lag));
        }
        assert_eq!(lag_of(LagValue { bytes: 1, seconds: -1.0 }), None, "no time of the past");
    }
}
