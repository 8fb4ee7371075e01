//! Room on the archive and data volumes: what nobody needs any more is removed, oldest first, when there is too much of it.
//!
//! Archived log is kept up to half of the archive volume. Beyond that, or when the volume runs out of room, the oldest is
//! removed, but never what an instance needs: everything from the beginning of our own next recovery, of the peer's, and of what
//! the standby's slot keeps. What the peer needs is asked of it; while that is not known, nothing is removed. Only when the volume is
//! almost full does what the peer needs go as well: an archive that takes nothing any more would fill the data volume and stop
//! this instance, and a standby that lacks log is copied anew. Logs after the
//! newest base backup are removed last, simply because they are newer. History files stay: they are small, and a rewind needs them.
//!
//! Copies of branches that were never finished (`lost/*.partial`) and data directories that were moved aside are removed only when
//! their volume runs out of room, and never the newest one. A branch that was kept completely is a person's to remove.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pgpair_core::lsn::Lsn;
use pgpair_core::wal::{SegmentSize, WalFile};

use crate::instance::fsx::{self, Context, FileError};
use crate::instance::layout::Layout;
use crate::instance::space;
use crate::postgres::control_file;

/// Archived log may fill this share of the archive volume: one half.
const ARCHIVE_SHARE: u64 = 2;
/// A volume has room while more than a tenth of it is free.
const ROOM_SHARE: u64 = 10;
/// Less than this share of the archive volume is free: what only the peer needs is given up, until there is as much. One twentieth.
const LAST_SHARE: u64 = 20;

/// From where on archived log is needed. Unknown keeps everything.
#[derive(Debug, Clone, Copy)]
pub struct Needed {
    /// Beginning of our own next recovery.
    pub own: Option<Lsn>,
    /// Beginning of the peer's next recovery, as it told.
    pub peer: Option<Lsn>,
    /// What the peer's slot keeps, if there is a slot that keeps anything.
    pub slot: Option<Lsn>,
    /// Bytes of a segment.
    pub segment_size: SegmentSize,
}

impl Needed {
    /// Number of the first segment that must stay; `None`: all must.
    fn first_segment(self) -> Option<u64> {
        let oldest = self.own?.min(self.peer?);
        let oldest = self.slot.map_or(oldest, |s| s.min(oldest));
        Some(self.segment_of(oldest))
    }

    /// The same when only our own next recovery counts.
    fn own_first_segment(self) -> Option<u64> {
        Some(self.segment_of(self.own?))
    }

    fn segment_of(self, lsn: Lsn) -> u64 {
        lsn.0 / self.segment_size.bytes()
    }
}

/// Nobody writes to a file without a pause of this length.
const UNFINISHED: Duration = Duration::from_secs(3600);

/// One round: removes what there is too much of, and logs it once. Blocks.
pub fn round(layout: &Layout, needed: Needed) {
    if let Err(e) = archived_log(layout, needed, space::of) {
        tracing::error!(error = %e, "the archive cannot be cleaned");
    }
    if let Err(e) = unfinished(layout, needed, SystemTime::now()) {
        tracing::error!(error = %e, "what was never finished in the archive cannot be removed");
    }
    for (volume, dir, suffix) in
        [(&layout.archive, layout.lost(), ".partial"), (&layout.data, layout.moved_aside(), "")]
    {
        if let Err(e) = leftovers(volume, &dir, suffix, runs_short) {
            tracing::error!(error = %e, "what was left over cannot be removed");
        }
    }
}

/// Data directories that were moved aside, removed before a base backup needs the room; never the newest one.
///
/// # Errors
/// One of them cannot be removed.
pub fn moved_aside(layout: &Layout) -> Result<(), FileError> {
    leftovers(&layout.data, &layout.moved_aside(), "", runs_short)
}

fn runs_short(volume: &Path) -> bool {
    space::of(volume).is_some_and(|(size, free)| free < size / ROOM_SHARE)
}

/// The first half of [`round`]; `measure` gives size and free bytes of a volume.
///
/// # Errors
/// The archive cannot be read, or a file of it cannot be removed.
pub fn archived_log(
    layout: &Layout,
    needed: Needed,
    measure: impl Fn(&Path) -> Option<(u64, u64)>,
) -> Result<(), FileError> {
    let Some((size, free)) = measure(&layout.archive) else { return Ok(()) };
    let Ok(system) = control_file::system_identifier(&layout.pgdata()) else { return Ok(()) };
    let dir = layout.wal_archive(system);
    if !dir.is_dir() {
        return Ok(());
    }
    let files = archived(&dir, needed.segment_size)?;
    let used: u64 = files.iter().map(|f| f.bytes).sum();
    let excess = excess(used, size, free);
    if needed.first_segment().is_none() && excess > 0 {
        tracing::warn!(used, "the archive is larger than it should be: what the peer needs is not known");
    }
    let (unneeded, given_up) = (unneeded(&files, needed, excess), given_up(&files, needed, size, free));
    let doomed = if given_up.len() > unneeded.len() {
        tracing::error!(
            files = given_up.len() - unneeded.len(),
            free,
            "the archive volume is almost full: log that the peer may still need is removed; without it it is copied anew"
        );
        given_up
    } else {
        unneeded
    };
    let (Some(from), Some(to)) = (doomed.first(), doomed.last()) else { return Ok(()) };
    for file in doomed {
        fsx::remove(&dir.join(&file.name))?;
    }
    fsx::sync_dir(&dir)?;
    let bytes: u64 = doomed.iter().map(|f| f.bytes).sum();
    tracing::info!(files = doomed.len(), bytes, from = from.name, to = to.name, "archive: log is removed");
    Ok(())
}

/// Removes copies into the archive that a kill has cut off, when nobody can still be writing them; and the marks of tails that came from the
/// peer's `pg_wal`, when postgres archives nothing of that segment any more.
///
/// # Errors
/// The archive cannot be read, or a file of it cannot be removed.
pub fn unfinished(layout: &Layout, needed: Needed, now: SystemTime) -> Result<(), FileError> {
    let Ok(system) = control_file::system_identifier(&layout.pgdata()) else { return Ok(()) };
    let dir = layout.wal_archive(system);
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(&dir).at("read", &dir)? {
        let entry = entry.at("read", &dir)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some((of, kind)) = name.strip_prefix('.').and_then(|rest| rest.rsplit_once('.')) else {
            continue;
        };
        let is_over = match kind {
            "tmp" | "filled" => {
                // One that has got its name meanwhile is not looked at.
                let written = entry.metadata().and_then(|m| m.modified()).ok();
                written.is_some_and(|at| now.duration_since(at).is_ok_and(|age| age > UNFINISHED))
            }
            "live" => match WalFile::parse(of, needed.segment_size) {
                Some(WalFile::Segment(s)) => needed.own_first_segment().is_some_and(|first| s.number < first),
                _ => false,
            },
            _ => false,
        };
        if is_over {
            fsx::remove(&entry.path())?;
            tracing::info!(name, "archive: what was never finished is removed");
        }
    }
    Ok(())
}

/// By how many bytes archived log goes over its share, or by how many the volume lacks room.
fn excess(used: u64, size: u64, free: u64) -> u64 {
    used.saturating_sub(size / ARCHIVE_SHARE).max((size / ROOM_SHARE).saturating_sub(free))
}

/// How many bytes may be added to archived log before something of it has to go.
pub(crate) fn room(used: u64, size: u64, free: u64) -> u64 {
    (size / ARCHIVE_SHARE).saturating_sub(used).min(free.saturating_sub(size / ROOM_SHARE))
}

/// A file of the archive that belongs to one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ArchivedSegment {
    number: u64,
    name: String,
    bytes: u64,
}

/// Segments, partial ones included, and backup labels; oldest first.
fn archived(dir: &Path, segment_size: SegmentSize) -> Result<Vec<ArchivedSegment>, FileError> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).at("read", dir)? {
        let entry = entry.at("read", dir)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let number = match WalFile::parse(&name, segment_size) {
            Some(WalFile::Segment(s) | WalFile::Partial(s)) => s.number,
            Some(WalFile::BackupLabel) => match WalFile::parse(&name[..24], segment_size) {
                Some(WalFile::Segment(s)) => s.number,
                _ => continue,
            },
            Some(WalFile::History(_)) | None => continue,
        };
        let bytes = entry.metadata().at("look at", &entry.path())?.len();
        out.push(ArchivedSegment { number, name, bytes });
    }
    out.sort_by(|a, b| (a.number, &a.name).cmp(&(b.number, &b.name)));
    Ok(out)
}

/// What goes for being too much.
fn unneeded(files: &[ArchivedSegment], needed: Needed, excess: u64) -> &[ArchivedSegment] {
    needed.first_segment().map_or(&[], |first| doomed(files, first, excess))
}

/// What goes, whatever the peer needs, for the volume is almost full.
fn given_up(files: &[ArchivedSegment], needed: Needed, size: u64, free: u64) -> &[ArchivedSegment] {
    let lack = (size / LAST_SHARE).saturating_sub(free);
    needed.own_first_segment().map_or(&[], |first| doomed(files, first, lack))
}

/// The oldest files that add up to `excess`, none of them of segment `first` or later.
fn doomed(files: &[ArchivedSegment], first: u64, excess: u64) -> &[ArchivedSegment] {
    let mut sum = 0;
    let n = files.iter().take_while(|f| {
        let goes = f.number < first && sum < excess;
        sum += f.bytes;
        goes
    });
    &files[..n.count()]
}

/// Removes the oldest directories of `dir` whose names end with `suffix`, until the volume has room; never the newest one.
/// Names begin with a time, so their order is that of their making.
fn leftovers(
    volume: &Path,
    dir: &Path,
    suffix: &str,
    is_short: impl Fn(&Path) -> bool,
) -> Result<(), FileError> {
    if !dir.is_dir() || !is_short(volume) {
        return Ok(());
    }
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir).at("read", dir)? {
        let path = entry.at("read", dir)?.path();
        if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    let newest = found.pop();
    for path in found {
        if !is_short(volume) {
            return Ok(());
        }
        fs::remove_dir_all(&path).at("remove", &path)?;
        tracing::warn!(path = %path.display(), "removed, for the volume runs out of room");
    }
    if is_short(volume) {
        tracing::warn!(volume = %volume.display(), kept = newest.as_ref().map(|p| p.display().to_string()),
            "the volume runs out of room; the newest of what was left over is kept: remove it by hand, or enlarge the volume");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    const MIB: u64 = 1 << 20;

    fn file(number: u64, bytes: u64) -> ArchivedSegment {
        ArchivedSegment { number, name: format!("{number:024X}"), bytes }
    }

    fn needed(own: Option<u64>, peer: Option<u64>, slot: Option<u64>) -> Option<u64> {
        let lsn = |n: Option<u64>| n.map(|n| Lsn(n * 16 * MIB + 5));
        let needed =
            Needed { own: lsn(own), peer: lsn(peer), slot: lsn(slot), segment_size: SegmentSize::DEFAULT };
        needed.first_segment()
    }

    proptest! {
        #[test]
        fn what_there_is_room_for_is_not_removed_at_once(used in 0..200u64, size in 1..200u64, free in 0..200u64) {
            let added = room(used, size, free);
            prop_assert!(added == 0 || excess(used + added, size, free - added) == 0);
        }
    }

    #[test]
    fn the_most_backward_of_all_who_need_log_decides_and_unknown_keeps_everything() {
        assert_eq!(needed(Some(9), Some(7), Some(8)), Some(7));
        assert_eq!(needed(Some(9), Some(7), Some(3)), Some(3));
        assert_eq!(needed(Some(5), Some(7), None), Some(5));
        assert_eq!(needed(Some(5), None, Some(8)), None);
        assert_eq!(needed(None, Some(7), Some(8)), None);
    }

    #[test]
    fn what_the_peer_needs_is_kept_until_the_volume_is_almost_full_and_what_we_need_always() {
        let files: Vec<ArchivedSegment> = (0..10).map(|n| file(n, 10)).collect();
        let lsn = |n: u64| Some(Lsn(n * 16 * MIB));
        for peer in [lsn(2), None] {
            let needed = Needed { own: lsn(8), peer, slot: lsn(2), segment_size: SegmentSize::DEFAULT };
            let of = |files: &[ArchivedSegment]| files.len();
            assert_eq!(of(unneeded(&files, needed, 1_000)), if peer.is_some() { 2 } else { 0 });
            assert_eq!(of(given_up(&files, needed, 1_000, 50)), 0, "a twentieth is free");
            assert_eq!(of(given_up(&files, needed, 1_000, 25)), 3, "no more than enough");
            assert_eq!(of(given_up(&files, needed, 10_000, 0)), 8, "never what we need");
            assert_eq!(of(given_up(&files, Needed { own: None, ..needed }, 1_000, 0)), 0, "not known");
        }
    }

    #[test]
    fn the_archive_may_have_half_of_its_volume_unless_there_is_no_room() {
        assert_eq!(excess(50, 100, 40), 0);
        assert_eq!(excess(53, 100, 40), 3);
        assert_eq!(excess(20, 100, 4), 6, "others have filled it");
    }

    proptest! {
        #[test]
        fn nothing_that_is_needed_goes_and_no_more_than_enough(
            sizes in prop::collection::vec(1u64..20, 0..30), first: u8, excess in 0u64..400
        ) {
            let files: Vec<ArchivedSegment> = (0..).zip(&sizes).map(|(n, s)| file(n, *s)).collect();
            let gone = doomed(&files, u64::from(first), excess);
            prop_assert!(gone.iter().all(|f| f.number < u64::from(first)));
            let bytes: u64 = gone.iter().map(|f| f.bytes).sum();
            let before_last = bytes - gone.last().map_or(0, |f| f.bytes);
            prop_assert!(gone.is_empty() || before_last < excess);
            let could = files.iter().filter(|f| f.number < u64::from(first)).count();
            prop_assert!(bytes >= excess || gone.len() == could);
        }
    }

    #[test]
    fn what_was_never_finished_goes_when_nobody_can_be_writing_it() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        fs::create_dir_all(layout.in_pgdata("global")).unwrap();
        fs::write(layout.in_pgdata("global/pg_control"), 7u64.to_ne_bytes()).unwrap();
        let dir = layout.wal_archive(pgpair_core::ids::SystemIdentifier(7));
        fs::create_dir_all(&dir).unwrap();
        let segment = |n: u64| format!("00000001{n:016X}");
        let (now, old) = (SystemTime::now(), SystemTime::now() - 2 * UNFINISHED);
        let make = |name: String, written: SystemTime| {
            let file = fs::File::create(dir.join(&name)).unwrap();
            file.set_modified(written).unwrap();
            name
        };
        let stays = [
            make(format!(".{}.tmp", segment(1)), now),
            make(format!(".{}.filled", segment(2)), now),
            make(format!(".{}.live", segment(9)), old),
            make(segment(1), old),
            make("00000002.history".to_owned(), old),
            make(".of-somebody-else".to_owned(), old),
        ];
        for (name, kind) in [(segment(3), "tmp"), (segment(4), "filled"), (segment(5), "live")] {
            make(format!(".{name}.{kind}"), old);
        }
        let lsn = |n: u64| Some(Lsn(n * 16 * MIB));
        let needed = |own| Needed { own, peer: None, slot: None, segment_size: SegmentSize::DEFAULT };
        unfinished(&layout, needed(None), now).unwrap();
        assert!(dir.join(format!(".{}.live", segment(5))).exists(), "it is not known what we need");
        unfinished(&layout, needed(lsn(8)), now).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        let mut expected = stays.to_vec();
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn leftovers_go_oldest_first_and_the_newest_stays_whatever_happens() {
        let dir = tempfile::tempdir().unwrap();
        let make = || {
            for name in ["1.partial", "2.partial", "3.partial", "2-whole"] {
                fs::create_dir_all(dir.path().join(name)).unwrap();
            }
        };
        let names = || {
            let mut names: Vec<String> = fs::read_dir(dir.path())
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        make();
        leftovers(dir.path(), dir.path(), ".partial", |_| false).unwrap();
        assert_eq!(names().len(), 4);
        // Short until one is gone.
        let looks = Cell::new(0);
        let until_one_is_gone = |_: &Path| looks.replace(looks.get() + 1) < 2;
        leftovers(dir.path(), dir.path(), ".partial", until_one_is_gone).unwrap();
        assert_eq!(names(), ["2-whole", "2.partial", "3.partial"]);
        leftovers(dir.path(), dir.path(), ".partial", |_| true).unwrap();
        assert_eq!(names(), ["2-whole", "3.partial"]);
    }
}
