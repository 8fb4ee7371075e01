//! The two archives of a pair, held against each other and against the history of the timeline in use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context as _, ensure};
use pgpair_core::ids::InstanceId;
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_core::wal::{Segment, SegmentSize, WalFile};

use crate::harness::pair::Pair;

/// Files of one archive with the checksums of their content.
pub type Listing = BTreeMap<String, String>;

/// What two archives hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Segments of the history in use, from the first one that either has.
    pub wanted: usize,
    /// Files that both hold.
    pub common: usize,
    /// Segments of the history in use that are not there, per archive.
    pub missing: [Vec<String>; 2],
    /// Files that both hold with different content.
    pub different: Vec<String>,
}

impl Comparison {
    /// No gap, and nothing different.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.missing.iter().all(Vec::is_empty) && self.different.is_empty()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} segments, {} files in both; missing in a {:?}, in b {:?}; different {:?}",
            self.wanted, self.common, self.missing[0], self.missing[1], self.different
        )
    }
}

/// Holds the archives of `a` and `b` against `history` up to and with segment number `last`, from the first segment that
/// either of them has: what one was seeded too late for, it gets from the other.
#[must_use]
pub fn compare(a: &Listing, b: &Listing, history: &TimelineHistory, last: u64) -> Comparison {
    let numbers = |listing: &Listing| segments(listing).iter().map(|s| s.number).min();
    let first = [numbers(a), numbers(b)].into_iter().flatten().min().unwrap_or(last + 1);
    let wanted = expected(history, first, last);
    let of = |listing: &Listing| -> Vec<String> {
        let held = segments(listing);
        wanted.iter().filter(|s| !held.contains(s)).map(ToString::to_string).collect()
    };
    let common: Vec<(&String, bool)> =
        a.iter().filter_map(|(name, sum)| Some((name, b.get(name)? == sum))).collect();
    Comparison {
        wanted: wanted.len(),
        common: common.len(),
        missing: [of(a), of(b)],
        different: common.iter().filter(|(_, same)| !same).map(|(name, _)| (*name).clone()).collect(),
    }
}

fn segments(listing: &Listing) -> BTreeSet<Segment> {
    let parsed = listing.keys().filter_map(|name| WalFile::parse(name, SegmentSize::DEFAULT));
    parsed.filter_map(|file| if let WalFile::Segment(s) = file { Some(s) } else { None }).collect()
}

/// The complete segments of a history: the one in which a timeline was left is complete on the next timeline only.
fn expected(history: &TimelineHistory, first: u64, last: u64) -> Vec<Segment> {
    let mut out = Vec::new();
    let mut from = first;
    let left =
        history.ancestors.iter().map(|(timeline, at)| (*timeline, at.0 / SegmentSize::DEFAULT.bytes()));
    for (timeline, end) in left.chain([(history.timeline, last + 1)]) {
        out.extend((from..end).map(|number| Segment { timeline, number }));
        from = from.max(end);
    }
    out
}

/// Switches to a new segment on `primary`, and returns the one that was ended with the history of its timeline.
///
/// # Errors
/// What psql or the shell said.
pub async fn close_segment(pair: &Pair, primary: InstanceId) -> anyhow::Result<(Segment, TimelineHistory)> {
    let name = pair.psql(primary, "SELECT pg_walfile_name(pg_switch_wal())").await?;
    let Some(WalFile::Segment(segment)) = WalFile::parse(&name, SegmentSize::DEFAULT) else {
        anyhow::bail!("{name:?} is no segment");
    };
    if segment.timeline == TimelineId(1) {
        return Ok((segment, TimelineHistory::first()));
    }
    let file = format!("/pgpair/data/pgdata/pg_wal/{:08X}.history", segment.timeline.0);
    let text = pair.shell(primary, &format!("cat {file}")).await?;
    let history =
        TimelineHistory::parse(segment.timeline, &text).with_context(|| format!("reading {file}"))?;
    Ok((segment, history))
}

/// Has everything done that postgres would do by itself in the next minutes, and that writes log: statistics of the
/// catalogs that a bring-up has changed, hint bits of pages that are read again (with checksums each is a page of log), a
/// checkpoint, and the end of the segment in which all that is. Then keeps autovacuum away, which would find something to do in
/// one database after another for minutes: each segment that is archived is news for the status. [`wake`] ends that.
///
/// # Errors
/// What vacuumdb or psql said.
pub async fn settle(pair: &Pair, primary: InstanceId) -> anyhow::Result<()> {
    pair.psql(primary, "ALTER SYSTEM SET autovacuum = off").await?;
    pair.psql(primary, "SELECT pg_reload_conf()").await?;
    let vacuum = "vacuumdb -h /pgpair/run/pg -U postgres --all --freeze --analyze --quiet";
    pair.shell(primary, vacuum).await?;
    pair.psql(primary, "CHECKPOINT").await?;
    close_segment(pair, primary).await?;
    // The next one by time, in minutes, would find the end of that segment new.
    pair.psql(primary, "CHECKPOINT").await.map(|_| ())
}

/// Lets autovacuum work again.
///
/// # Errors
/// What psql said.
pub async fn wake(pair: &Pair, primary: InstanceId) -> anyhow::Result<()> {
    pair.psql(primary, "ALTER SYSTEM RESET autovacuum").await?;
    pair.psql(primary, "SELECT pg_reload_conf()").await.map(|_| ())
}

/// The finished files in the archive of `instance`.
///
/// # Errors
/// When the archive cannot be listed, or holds the logs of two systems.
pub async fn list(pair: &Pair, instance: InstanceId) -> anyhow::Result<Listing> {
    let dirs = pair.shell(instance, "ls -d /pgpair/archive/[0-9]*/wal").await?;
    ensure!(dirs.lines().count() == 1, "the archive of {instance} holds {dirs:?}");
    // Names that begin with a dot are under way.
    let text = pair.shell(instance, &format!("cd {dirs} && sha256sum [0-9A-F]*")).await?;
    let entry = |line: &str| {
        let (sum, name) = line.split_once("  ").with_context(|| format!("line {line:?} of sha256sum"))?;
        Ok((name.to_owned(), sum.to_owned()))
    };
    text.lines().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use pgpair_core::lsn::Lsn;

    use super::*;

    const SIZE: u64 = SegmentSize::DEFAULT.bytes();

    /// Timeline 1 was left inside segment 3, timeline 2 exactly where segment 5 begins.
    fn history() -> TimelineHistory {
        let left = vec![(TimelineId(1), Lsn(3 * SIZE + 80)), (TimelineId(2), Lsn(5 * SIZE))];
        TimelineHistory { timeline: TimelineId(3), ancestors: left }
    }

    fn listing(files: &[(u32, u64)]) -> Listing {
        let name = |(timeline, number): &(u32, u64)| {
            Segment { timeline: TimelineId(*timeline), number: *number }.to_string()
        };
        files.iter().map(|f| (name(f), format!("{f:?}"))).collect()
    }

    #[test]
    fn a_history_is_complete_when_each_segment_is_there_on_the_timeline_that_ended_it() {
        let all = listing(&[(1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6)]);
        let c = compare(&all, &all, &history(), 6);
        assert!(c.holds(), "{c}");
        assert_eq!((c.wanted, c.common), (6, 6));
        let seeded_later = listing(&[(2, 4), (3, 5), (3, 6)]);
        let c = compare(&all, &seeded_later, &history(), 6);
        assert_eq!((c.missing[0].len(), c.missing[1].len(), c.common), (0, 3, 3));
    }

    #[test]
    fn a_gap_is_named() {
        let gap = listing(&[(1, 1), (1, 2), (1, 3), (2, 4), (3, 6)]);
        let c = compare(&gap, &gap, &history(), 6);
        assert_eq!(c.missing[0], ["000000020000000000000003", "000000030000000000000005"]);
        assert!(c.missing[1] == c.missing[0] && !c.holds());
    }

    #[test]
    fn an_archive_that_stopped_early_has_a_gap_at_its_end_and_an_empty_one_is_no_proof() {
        let c = compare(&listing(&[(2, 4)]), &Listing::new(), &history(), 6);
        assert_eq!((c.missing[0].len(), c.missing[1].len()), (2, 3));
        assert_eq!(compare(&Listing::new(), &Listing::new(), &history(), 6).wanted, 0);
    }

    #[test]
    fn the_same_name_with_other_content_is_told() {
        let (a, mut b) = (listing(&[(3, 6)]), listing(&[(3, 6)]));
        b.insert("000000030000000000000006".into(), "other".into());
        let c = compare(&a, &b, &history(), 6);
        assert_eq!(c.different, ["000000030000000000000006"]);
        assert!(!c.holds());
    }
}
