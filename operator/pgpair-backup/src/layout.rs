//! Names of files in a place: below `SYSTEM/LINEAGE/`, and nowhere else.
//!
//! A place is an archive volume (its root is `/pgpair/archive`). The WAL archive of a volume, `SYSTEM/wal`, is not named here: the agent
//! writes and cleans it. Backups only tell it from where on its segments are needed.
//!
//! # Guarantee
//! A [`File`] is made of numbers, never of text, so the path of each begins with the lineage of its [`Home`] and has no component that
//! leads out of it. Decisions about deletions are backup ids and segments without a [`Home`]: the process that
//! carries them out can only apply them to its own.

use pgpair_core::ids::{Lineage, SystemIdentifier};
use pgpair_core::timeline::TimelineId;
use pgpair_core::wal::{Segment, SegmentSize, WalFile};

use crate::ids::{Attempt, BackupId, GapId, HoldId, PartNumber, ProofId};

/// The directory of one lineage in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// The cluster that `initdb` made.
    pub system: SystemIdentifier,
    /// One pair's past of it.
    pub lineage: Lineage,
    /// The size of its segments, on which their names depend.
    pub segment_size: SegmentSize,
}

/// A file of a lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum File {
    /// `lineage.json`: where the lineage comes from.
    Lineage,
    /// `backups/ID.json`: the entry. It is written last: a backup without it does not exist.
    Entry(BackupId),
    /// `backups/ID.deleted`: the backup is being deleted and does not exist any more.
    Deleted(BackupId),
    /// `backups/ID.keep`: a person keeps the backup. Beside the entry, because an entry is never written again.
    Keep(BackupId),
    /// `data/ID/ATTEMPT/…`
    Data(BackupId, Attempt, DataFile),
    /// `holds/HOLD.json`
    Hold(HoldId),
    /// `proofs/PROOF.json`
    Proof(ProofId),
    /// `gaps/GAP.json`
    Gap(GapId),
}

/// A file of one attempt at a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataFile {
    /// `tar.000001.zst`: a part of the tar.
    Part(PartNumber),
    /// `manifest.zst`: PostgreSQL's manifest.
    Manifest,
    /// `wal/NAME`: a segment from start to stop, so a backup that is kept needs nothing else.
    Segment(Segment),
    /// `wal/NNNNNNNN.history`
    History(TimelineId),
}

/// A directory of a lineage: what can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    /// Entries, and the marks beside them.
    Backups,
    /// Of all backups.
    Data,
    /// Of all attempts at one backup.
    Backup(BackupId),
    /// Of one attempt.
    Attempt(BackupId, Attempt),
    /// The WAL of one attempt.
    Wal(BackupId, Attempt),
    /// Readers.
    Holds,
    /// Results of restores.
    Proofs,
    /// WAL that was given up.
    Gaps,
}

impl Home {
    /// Path from the root of the place; has no slash at the end.
    #[must_use]
    pub fn root(self) -> String {
        format!("{}/{}", self.system, self.lineage)
    }

    /// Path from the root of the place.
    #[must_use]
    pub fn folder(self, folder: Folder) -> String {
        let root = self.root();
        match folder {
            Folder::Backups => format!("{root}/backups"),
            Folder::Data => format!("{root}/data"),
            Folder::Backup(id) => format!("{root}/data/{id}"),
            Folder::Attempt(id, attempt) => format!("{root}/data/{id}/{attempt}"),
            Folder::Wal(id, attempt) => format!("{root}/data/{id}/{attempt}/wal"),
            Folder::Holds => format!("{root}/holds"),
            Folder::Proofs => format!("{root}/proofs"),
            Folder::Gaps => format!("{root}/gaps"),
        }
    }

    /// Path from the root of the place.
    #[must_use]
    pub fn path(self, file: File) -> String {
        let within = |folder, name: String| format!("{}/{name}", self.folder(folder));
        match file {
            File::Lineage => format!("{}/lineage.json", self.root()),
            File::Entry(id) => within(Folder::Backups, format!("{id}.json")),
            File::Deleted(id) => within(Folder::Backups, format!("{id}.deleted")),
            File::Keep(id) => within(Folder::Backups, format!("{id}.keep")),
            File::Data(id, attempt, DataFile::Part(number)) => {
                within(Folder::Attempt(id, attempt), format!("tar.{number}.zst"))
            }
            File::Data(id, attempt, DataFile::Manifest) => {
                within(Folder::Attempt(id, attempt), "manifest.zst".to_owned())
            }
            File::Data(id, attempt, DataFile::Segment(segment)) => {
                within(Folder::Wal(id, attempt), segment.file_name(self.segment_size))
            }
            File::Data(id, attempt, DataFile::History(timeline)) => {
                within(Folder::Wal(id, attempt), format!("{:08X}.history", timeline.0))
            }
            File::Hold(id) => within(Folder::Holds, format!("{id}.json")),
            File::Proof(id) => within(Folder::Proofs, format!("{id}.json")),
            File::Gap(id) => within(Folder::Gaps, format!("{id}.json")),
        }
    }

    /// The file with this path from the root of the place; `None` if it is not one of this lineage. Only what [`Home::path`] prints is
    /// read.
    #[must_use]
    pub fn parse(self, path: &str) -> Option<File> {
        let within = path.strip_prefix(&self.root())?.strip_prefix('/')?;
        let parts: Vec<&str> = within.split('/').collect();
        let file = match parts[..] {
            ["lineage.json"] => File::Lineage,
            ["backups", name] => match name.split_once('.')? {
                (id, "json") => File::Entry(id.parse().ok()?),
                (id, "deleted") => File::Deleted(id.parse().ok()?),
                (id, "keep") => File::Keep(id.parse().ok()?),
                _ => return None,
            },
            ["data", id, attempt, ref rest @ ..] => {
                File::Data(id.parse().ok()?, attempt.parse().ok()?, self.parse_data(rest)?)
            }
            ["holds", name] => File::Hold(name.strip_suffix(".json")?.parse().ok()?),
            ["proofs", name] => File::Proof(name.strip_suffix(".json")?.parse().ok()?),
            ["gaps", name] => File::Gap(name.strip_suffix(".json")?.parse().ok()?),
            _ => return None,
        };
        (self.path(file) == path).then_some(file)
    }

    fn parse_data(self, within: &[&str]) -> Option<DataFile> {
        match within {
            ["manifest.zst"] => Some(DataFile::Manifest),
            [name] => {
                let number = name.strip_prefix("tar.")?.strip_suffix(".zst")?;
                PartNumber::new(number.parse().ok()?).map(DataFile::Part)
            }
            ["wal", name] => match WalFile::parse(name, self.segment_size)? {
                WalFile::Segment(segment) => Some(DataFile::Segment(segment)),
                WalFile::History(timeline) => Some(DataFile::History(timeline)),
                WalFile::Partial(_) | WalFile::BackupLabel => None,
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgpair_core::lsn::Lsn;
    use proptest::prelude::*;

    fn homes() -> impl Strategy<Value = Home> {
        (any::<u64>(), any::<u64>(), 20u32..=30).prop_map(|(system, lineage, bits)| Home {
            system: SystemIdentifier(system),
            lineage: Lineage(lineage),
            segment_size: SegmentSize::new(1 << bits).unwrap(),
        })
    }

    fn ids() -> impl Strategy<Value = BackupId> {
        (0..4_000_000_000i64, any::<u16>())
            .prop_map(|(at, salt)| BackupId::new(jiff::Timestamp::from_second(at).unwrap(), salt).unwrap())
    }

    /// Any file of a home, by the size of its segments.
    fn files() -> impl Strategy<Value = (Home, File)> {
        let data = (0u8..4, any::<u32>(), any::<u64>());
        (homes(), ids(), any::<u64>(), 0u8..8, data).prop_map(|(home, id, n, which, (kind, t, lsn))| {
            let data = match kind {
                0 => DataFile::Part(PartNumber::new(t % PartNumber::LAST.get() + 1).unwrap()),
                1 => DataFile::Manifest,
                2 => DataFile::Segment(Segment::holding(TimelineId(t), Lsn(lsn), home.segment_size)),
                _ => DataFile::History(TimelineId(t)),
            };
            let file = match which {
                0 => File::Lineage,
                1 => File::Entry(id),
                2 => File::Deleted(id),
                3 => File::Keep(id),
                4 => File::Data(id, Attempt(n), data),
                5 => File::Hold(HoldId(n)),
                6 => File::Proof(ProofId(n)),
                _ => File::Gap(GapId(n)),
            };
            (home, file)
        })
    }

    proptest! {
        #[test]
        fn names_are_read_back((home, file) in files()) {
            prop_assert_eq!(home.parse(&home.path(file)), Some(file));
        }

        #[test]
        fn no_file_lies_outside_its_lineage((home, file) in files()) {
            let path = home.path(file);
            let own = format!("{}/{}/", home.system, home.lineage);
            prop_assert!(path.starts_with(&own), "{}", path);
            for part in path.split('/') {
                prop_assert!(!part.is_empty() && part != "." && part != "..", "{}", path);
                prop_assert!(part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-'), "{}", path);
            }
        }

        #[test]
        fn a_file_of_another_lineage_or_system_is_not_read((home, file) in files(), other in homes()) {
            let other = Home { segment_size: home.segment_size, ..other };
            prop_assume!(home.root() != other.root());
            prop_assert_eq!(other.parse(&home.path(file)), None);
        }

        #[test]
        fn one_spelling_is_read_of_each_name((home, file) in files(), at: prop::sample::Index, with in "[0-9A-Fa-f./+é-]") {
            let path = home.path(file);
            let at = at.index(path.len());
            let changed = format!("{}{with}{}", &path[..at], &path[at + 1..]);
            if let Some(read) = home.parse(&changed) {
                prop_assert_eq!(home.path(read), changed);
            }
        }
    }

    #[test]
    fn names_look_like_this() {
        let home =
            Home { system: SystemIdentifier(7), lineage: Lineage(0xab), segment_size: SegmentSize::DEFAULT };
        let id: BackupId = "20261127t011500z-1a2b".parse().unwrap();
        let data = |file| home.path(File::Data(id, Attempt(1), file));
        assert_eq!(home.path(File::Entry(id)), "7/00000000000000ab/backups/20261127t011500z-1a2b.json");
        assert_eq!(
            data(DataFile::Part(PartNumber::FIRST)),
            "7/00000000000000ab/data/20261127t011500z-1a2b/0000000000000001/tar.000001.zst"
        );
        let segment = Segment { timeline: TimelineId(2), number: 3 };
        assert!(data(DataFile::Segment(segment)).ends_with("/wal/000000020000000000000003"));
    }

    #[test]
    fn names_that_are_none_are_not_read() {
        let home =
            Home { system: SystemIdentifier(7), lineage: Lineage(0xab), segment_size: SegmentSize::DEFAULT };
        for name in [
            "",
            "/lineage.json",
            "backups/../lineage.json",
            "backups/20261127t011500z-1a2b.json.tmp",
            "backups/20261127T011500Z-1a2b.json",
            "data/20261127t011500z-1a2b/00000000000000AB/manifest.zst",
            "data/20261127t011500z-1a2b/0000000000000001/tar.1.zst",
            "data/20261127t011500z-1a2b/0000000000000001/tar.000000.zst",
            "data/20261127t011500z-1a2b/0000000000000001/wal/000000020000000000000003.partial",
            "wal/000000020000000000000003",
        ] {
            assert_eq!(home.parse(&format!("7/00000000000000ab/{name}")), None, "{name}");
        }
    }
}
