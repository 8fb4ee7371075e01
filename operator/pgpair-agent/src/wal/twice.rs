//! Timelines with two pasts.
//!
//! PostgreSQL numbers timelines without knowing what other servers have done: a server that was promoted and lost, or whose promotion was cut
//! off, may have used a number that the next one uses again. Then a name in an archive no longer says to which past a file belongs. So each
//! history is held against the others that are there, and what belongs to a timeline with two pasts is not taken from where the other past is.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use pgpair_core::ids::SystemIdentifier;
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_core::wal::WalFile;
use pgpair_wire::report::{HistoryPlace, TwoPasts};

use crate::instance::fsx::{Context, FileError};
use crate::instance::layout::Layout;
use crate::postgres::pgdata;
use crate::wal::archive::SMALLEST_SEGMENT;

/// The histories that are on the volumes of this instance.
#[derive(Debug, Default)]
pub(super) struct Pasts {
    /// The first that was found of each timeline.
    known: BTreeMap<TimelineId, (TimelineHistory, HistoryPlace)>,
    /// Timelines of which a second one was found that differs.
    pub(super) twice: BTreeMap<TimelineId, TwoPasts>,
}

impl Pasts {
    /// Reads `pg_wal` and the archive of a server that runs with the history `in_use`.
    pub(super) fn read(
        layout: &Layout,
        system: SystemIdentifier,
        in_use: &TimelineHistory,
    ) -> Result<Pasts, FileError> {
        let mut pasts = Pasts::default();
        for (n, (ancestor, _)) in in_use.ancestors.iter().enumerate() {
            let ancestors = in_use.ancestors[..n].to_vec();
            pasts.add(TimelineHistory { timeline: *ancestor, ancestors }, HistoryPlace::InUse);
        }
        pasts.add(in_use.clone(), HistoryPlace::InUse);
        let places =
            [(layout.pg_wal(), HistoryPlace::PgWal), (layout.wal_archive(system), HistoryPlace::Archive)];
        for (dir, place) in places {
            for history in histories_of(&dir)? {
                pasts.add(history, place);
            }
        }
        Ok(pasts)
    }

    /// Holds a history against what is known of its timeline.
    pub(super) fn add(&mut self, history: TimelineHistory, place: HistoryPlace) {
        let timeline = history.timeline;
        let (first, one) = self.known.entry(timeline).or_insert_with(|| (history.clone(), place));
        if first.ancestors != history.ancestors {
            let found = TwoPasts { timeline, one: *one, other: place };
            self.twice.entry(timeline).or_insert(found);
        }
    }

    /// Whether there is a history to hold another one of this timeline against.
    pub(super) fn knows(&self, timeline: TimelineId) -> bool {
        self.known.contains_key(&timeline)
    }
}

/// Those of a directory that can be read; one that cannot is told of where it is used.
fn histories_of(dir: &Path) -> Result<Vec<TimelineHistory>, FileError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("read", dir)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.at("read", dir)?;
        let name = entry.file_name();
        let file = name.to_str().and_then(|name| WalFile::parse(name, SMALLEST_SEGMENT));
        if let Some(WalFile::History(timeline)) = file {
            found.extend(read(&entry.path(), timeline));
        }
    }
    Ok(found)
}

fn read(path: &Path, timeline: TimelineId) -> Option<TimelineHistory> {
    TimelineHistory::parse(timeline, &fs::read_to_string(path).ok()?).ok()
}

/// Whether our archive and `pg_wal`, where histories come from the primary, give the timeline different pasts. WAL of that timeline in our
/// archive may be of the other one then.
pub(super) fn is_disputed(layout: &Layout, system: SystemIdentifier, timeline: TimelineId) -> bool {
    let name = pgdata::history_name(timeline);
    let [in_use, archived] =
        [layout.pg_wal(), layout.wal_archive(system)].map(|dir| read(&dir.join(&name), timeline));
    matches!((in_use, archived), (Some(in_use), Some(archived)) if in_use.ancestors != archived.ancestors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgpair_core::lsn::Lsn;

    const SYSTEM: SystemIdentifier = SystemIdentifier(7);

    fn volume() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::under(dir.path());
        fs::create_dir_all(layout.pg_wal()).unwrap();
        fs::create_dir_all(layout.wal_archive(SYSTEM)).unwrap();
        (dir, layout)
    }

    fn put(dir: &Path, timeline: u32, text: &str) {
        fs::write(dir.join(pgdata::history_name(TimelineId(timeline))), text).unwrap();
    }

    /// On timeline 3, from 1 by way of 2.
    fn in_use() -> TimelineHistory {
        let ancestors = vec![(TimelineId(1), Lsn(0x100)), (TimelineId(2), Lsn(0x200))];
        TimelineHistory { timeline: TimelineId(3), ancestors }
    }

    #[test]
    fn two_histories_of_one_number_are_found_wherever_they_are() {
        let (_dir, layout) = volume();
        let (pg_wal, archive) = (layout.pg_wal(), layout.wal_archive(SYSTEM));
        let twice =
            || Pasts::read(&layout, SYSTEM, &in_use()).unwrap().twice.into_values().collect::<Vec<_>>();
        put(&pg_wal, 3, "1\t0/100\twhy\n2\t0/200\twhy\n");
        put(&archive, 3, "1\t0/100\tother words\n2\t0/200\tfor the same\n");
        put(&archive, 2, "1\t0/100\twhy\n");
        put(&archive, 9, "1\t0/50\tof nobody that is known\n");
        assert_eq!(twice(), []);
        // Of an ancestor, whose own file pg_wal has no more.
        put(&archive, 2, "1\t0/180\twhy\n");
        let of_two =
            TwoPasts { timeline: TimelineId(2), one: HistoryPlace::InUse, other: HistoryPlace::Archive };
        assert_eq!(twice(), [of_two]);
        // Of a timeline that is not in use, and is used again.
        put(&pg_wal, 9, "1\t0/50\tx\n2\t0/60\tx\n");
        let of_nine =
            TwoPasts { timeline: TimelineId(9), one: HistoryPlace::PgWal, other: HistoryPlace::Archive };
        assert_eq!(twice(), [of_two, of_nine]);
    }

    #[test]
    fn an_archive_that_contradicts_the_primarys_history_is_disputed() {
        let (_dir, layout) = volume();
        let disputed = || is_disputed(&layout, SYSTEM, TimelineId(2));
        put(&layout.wal_archive(SYSTEM), 2, "1\t0/100\twhy\n");
        assert!(!disputed(), "there is nothing to hold it against");
        put(&layout.pg_wal(), 2, "1\t0/100\twhy\n");
        assert!(!disputed());
        put(&layout.pg_wal(), 2, "1\t0/180\twhy\n");
        assert!(disputed());
    }
}
