//! Which histories of timelines recovery gets to see.
//!
//! PostgreSQL follows the newest timeline that it finds a history of, and finds it by counting up until one is missing. A history that
//! does not contain its own past (of a promotion that was cut off, of another server) keeps it from starting, a new copy of the
//! data too, for the archive is the same. So such a history is not there for recovery, unless a newer one is that does contain our
//! past. For a promotion all are there: a number that was used once is not used again.

use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::{TimelineHistory, TimelineId};

use crate::postgres::control_file::ControlData;

/// Newer ones than this many are not looked for.
const MOST: u32 = 16;

/// Whether a server with this control file can go on along `history`, by what PostgreSQL looks at when it starts.
fn continues(control: &ControlData, history: &TimelineHistory) -> bool {
    let left = |timeline: TimelineId| -> Option<Lsn> {
        if timeline == history.timeline {
            return Some(Lsn(u64::MAX));
        }
        history.ancestors.iter().find(|(t, _)| *t == timeline).map(|(_, left)| *left)
    };
    let checkpoint = left(control.timeline).is_some_and(|left| control.checkpoint < left);
    let reached = control.min_recovery.is_none_or(|(t, at)| left(t).is_some_and(|left| at <= left));
    checkpoint && reached
}

/// Whether recovery may see the history of `timeline`. `fetch` gives the text of one, if there is one.
pub(super) async fn is_for_recovery(
    control: &ControlData,
    timeline: TimelineId,
    mut fetch: impl AsyncFnMut(TimelineId) -> Option<String>,
) -> bool {
    if timeline <= control.newest_timeline() {
        return true; // of our own past, whatever it says
    }
    for number in timeline.0..timeline.0.saturating_add(MOST) {
        let Some(text) = fetch(TimelineId(number)).await else { return false };
        // One that cannot be read is for PostgreSQL to refuse.
        if TimelineHistory::parse(TimelineId(number), &text).is_ok_and(|h| continues(control, &h)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::control_file::ClusterState;
    use crate::postgres::render::Floors;
    use pgpair_core::ids::SystemIdentifier;
    use pgpair_core::wal::SegmentSize;

    /// On timeline 1, with its checkpoint at 100 and recovery to be made up to 150.
    fn control() -> ControlData {
        ControlData {
            system_identifier: SystemIdentifier(7),
            state: ClusterState::InArchiveRecovery,
            checkpoint: Lsn(100),
            redo: Lsn(90),
            timeline: TimelineId(1),
            min_recovery: Some((TimelineId(1), Lsn(150))),
            segment_size: SegmentSize::DEFAULT,
            page_size: 8192,
            floors: Floors::default(),
        }
    }

    async fn seen(wanted: u32, histories: &[(u32, &str)]) -> bool {
        let fetch = async |t: TimelineId| {
            histories.iter().find(|(n, _)| *n == t.0).map(|(_, text)| (*text).to_owned())
        };
        is_for_recovery(&control(), TimelineId(wanted), fetch).await
    }

    #[tokio::test]
    async fn a_history_that_leaves_our_past_before_its_end_is_not_there() {
        for (text, there) in [
            ("1\t0/96\tx\n", true),  // 150
            ("1\t0/95\tx\n", false), // 149: recovery has to go further on timeline 1
            ("1\t0/64\tx\n", false), // 100: the checkpoint itself is of timeline 1
        ] {
            assert_eq!(seen(2, &[(2, text)]).await, there, "{text}");
        }
        assert!(!seen(2, &[]).await, "there is none");
        assert!(!seen(3, &[(3, "2\t0/FF\tx\n")]).await, "without timeline 1");
        assert!(seen(1, &[]).await, "of our own past");
    }

    #[tokio::test]
    async fn one_on_the_way_to_a_newer_one_that_continues_our_past_is_there() {
        let foreign = (2, "1\t0/32\tcut off\n");
        assert!(seen(2, &[foreign, (3, "1\t0/C8\tx\n")]).await);
        assert!(!seen(2, &[foreign, (4, "1\t0/C8\tx\n")]).await, "PostgreSQL stops counting at 3");
    }
}
