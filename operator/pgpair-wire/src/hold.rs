//! The answer to a request for a report newer than one that the asker has: it is held back until there is one.
//!
//! So whoever listens to many agents hears of a change at once, and costs next to nothing while there is none.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::report::{InstanceReport, ReportVersion};

/// Longest time for which an answer is held back.
pub const LONGEST_HOLD: Duration = Duration::from_secs(30);
/// A report whose numbers alone are new is held back for so long after the request: positions change with every transaction.
const NUMBERS: Duration = Duration::from_secs(1);

/// The first report with other words than those of `after`, or, a second after the call, with other numbers; `None`: there was none
/// within `hold`.
pub async fn hold(
    reports: &mut watch::Receiver<InstanceReport>,
    after: ReportVersion,
    hold: Duration,
) -> Option<InstanceReport> {
    let begun = Instant::now();
    let end = begun + hold.min(LONGEST_HOLD);
    loop {
        let mut wakes = end;
        {
            let report = reports.borrow_and_update();
            let version = report.version.unwrap_or_default();
            if version.words != after.words {
                return Some(report.clone());
            }
            if version.numbers != after.numbers {
                wakes = end.min(begun + NUMBERS);
                if Instant::now() >= wakes {
                    return Some(report.clone());
                }
            }
        }
        if Instant::now() >= end {
            return None;
        }
        tokio::select! {
            changed = reports.changed() => changed.ok()?, // the agent ends
            () = sleep_until(wakes) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use pgpair_core::ids::{Incarnation, InstanceId};

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn publish(sender: &watch::Sender<InstanceReport>, change: impl FnOnce(&mut InstanceReport)) {
        sender.send_modify(|report| {
            let mut next = report.clone();
            change(&mut next);
            assert!(next.follow(report));
            *report = next;
        });
    }

    fn version(words: u64, numbers: u64) -> ReportVersion {
        ReportVersion { words, numbers }
    }

    #[tokio::test(start_paused = true)]
    async fn new_words_are_told_at_once_new_numbers_a_second_later_and_else_nothing() {
        let (sender, mut reports) = watch::channel(InstanceReport::empty(InstanceId::A, Incarnation(1)));
        let begun = Instant::now();
        assert_eq!(hold(&mut reports, version(0, 0), LONG).await, None);
        assert_eq!(begun.elapsed(), LONG);

        publish(&sender, |r| r.postgres.flush_lsn = Some(pgpair_core::lsn::Lsn(7)));
        let begun = Instant::now();
        let told = hold(&mut reports, version(0, 0), LONG).await.unwrap();
        assert_eq!((told.version, begun.elapsed()), (Some(version(0, 1)), NUMBERS));

        publish(&sender, |r| r.trouble = Some("no room".into()));
        let begun = Instant::now();
        let told = hold(&mut reports, version(0, 1), LONG).await.unwrap();
        assert_eq!((told.version, begun.elapsed()), (Some(version(1, 1)), Duration::ZERO));

        let begun = Instant::now();
        let later = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            publish(&sender, |r| r.config_generation += 1);
        };
        let (told, ()) = tokio::join!(hold(&mut reports, version(1, 1), LONG), later);
        assert_eq!((told.unwrap().version, begun.elapsed().as_secs()), (Some(version(2, 1)), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_asker_that_knows_another_process_is_told_at_once_and_a_hold_has_an_end() {
        let (sender, mut reports) = watch::channel(InstanceReport::empty(InstanceId::A, Incarnation(1)));
        assert!(hold(&mut reports, version(9, 9), LONG).await.is_some());
        let begun = Instant::now();
        assert_eq!(hold(&mut reports, version(0, 0), Duration::from_secs(3600)).await, None);
        assert_eq!(begun.elapsed(), LONGEST_HOLD);
        drop(sender);
        assert_eq!(hold(&mut reports, version(0, 0), LONG).await, None, "the agent ends");
    }
}
