//! Room on the volumes, and when there will be none.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use pgpair_wire::report::SpaceReport;

use crate::instance::layout::Layout;

/// The pace is taken from this much of the past.
const WINDOW: Duration = Duration::from_secs(600);
/// With less of a past nothing is foretold.
const SHORTEST: Duration = Duration::from_secs(60);
/// What is farther away than this is not told: the pace of ten minutes says nothing about it.
const FARTHEST: f64 = 30.0 * 86_400.0;

/// Size and free bytes of the file system at `path`; `None` if it does not answer.
#[must_use]
pub fn of(path: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some((stat.f_blocks.saturating_mul(stat.f_frsize), stat.f_bavail.saturating_mul(stat.f_frsize)))
}

/// Both volumes now, without a forecast. May block.
#[must_use]
pub fn measure(layout: &Layout) -> SpaceReport {
    let (data, archive) = (of(&layout.data), of(&layout.archive));
    SpaceReport {
        data_bytes: data.map(|d| d.0),
        data_free: data.map(|d| d.1),
        archive_bytes: archive.map(|a| a.0),
        archive_free: archive.map(|a| a.1),
        full_in_seconds: None,
    }
}

/// What was free in the last minutes.
#[derive(Debug, Default)]
pub struct Forecast {
    data: VecDeque<(Instant, u64)>,
    archive: VecDeque<(Instant, u64)>,
}

impl Forecast {
    /// Adds a measurement and returns it with the forecast.
    pub fn take(&mut self, now: Instant, measured: SpaceReport) -> SpaceReport {
        keep(&mut self.data, now, measured.data_free);
        keep(&mut self.archive, now, measured.archive_free);
        let both = [full_in(&self.data), full_in(&self.archive)];
        SpaceReport { full_in_seconds: both.into_iter().flatten().min(), ..measured }
    }
}

fn keep(past: &mut VecDeque<(Instant, u64)>, now: Instant, free: Option<u64>) {
    past.extend(free.map(|f| (now, f)));
    while past.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
        past.pop_front();
    }
}

/// Seconds until nothing is free, at the pace of the line that fits best through the samples.
fn full_in(past: &VecDeque<(Instant, u64)>) -> Option<u64> {
    let (begin, _) = past.front()?;
    let (last, free) = past.back()?;
    if last.duration_since(*begin) < SHORTEST {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let points: Vec<(f64, f64)> =
        past.iter().map(|(at, free)| (at.duration_since(*begin).as_secs_f64(), *free as f64)).collect();
    #[expect(clippy::cast_precision_loss, reason = "some dozens")]
    let n = points.len() as f64;
    let mean = |f: fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / n;
    let (mean_t, mean_free) = (mean(|p| p.0), mean(|p| p.1));
    let (mut over, mut under) = (0.0, 0.0);
    for (t, f) in &points {
        over += (t - mean_t) * (f - mean_free);
        under += (t - mean_t) * (t - mean_t);
    }
    let pace = -over / under;
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let seconds = *free as f64 / pace;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 30 days")]
    (pace > 0.0 && seconds <= FARTHEST).then_some(seconds as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(data: u64, archive: u64) -> SpaceReport {
        SpaceReport { data_free: Some(data), archive_free: Some(archive), ..SpaceReport::default() }
    }

    fn after(samples: impl IntoIterator<Item = (u64, SpaceReport)>) -> Option<u64> {
        let (mut forecast, begin) = (Forecast::default(), Instant::now());
        let told = samples.into_iter().map(|(s, m)| forecast.take(begin + Duration::from_secs(s), m));
        told.last().and_then(|r| r.full_in_seconds)
    }

    #[test]
    fn a_volume_that_fills_evenly_is_full_when_the_line_says_so() {
        let archive = (0..=30).map(|i| (i * 10, free(1_000_000, 10_000 - i * 100)));
        assert_eq!(after(archive), Some(700), "7000 bytes at 10 a second");
    }

    #[test]
    fn the_first_of_the_two_to_be_full_counts() {
        let both = (0..=12).map(|i| (i * 10, free(10_000 - i * 500, 10_000 - i * 10)));
        assert_eq!(after(both), Some(80));
    }

    #[test]
    fn nothing_is_foretold_of_a_short_past_a_steady_volume_or_one_that_empties() {
        assert_eq!(after((0..5).map(|i| (i * 10, free(10_000 - i * 500, 1)))), None);
        assert_eq!(after((0..30).map(|i| (i * 10, free(10_000, 10_000)))), None);
        assert_eq!(after((0..30).map(|i| (i * 10, free(10_000 + i, 10_000)))), None);
        assert_eq!(after((0..30).map(|i| (i * 10, free(u64::MAX / 2 - i * 4096, 1)))), None, "ages away");
    }

    #[test]
    fn a_pace_of_long_ago_is_forgotten() {
        let filling = (0..60).map(|i| (i * 10, free(100_000 - i * 1000, 1)));
        let steady = (60..200).map(|i| (i * 10, free(40_000, 1)));
        assert_eq!(after(filling.chain(steady)), None);
    }
}
