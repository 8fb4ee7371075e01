//! Names of files in the write-ahead log and its archive (PostgreSQL, `xlog_internal.h`).

use std::fmt;

use crate::lsn::Lsn;
use crate::timeline::TimelineId;

/// Size of a WAL segment in bytes as `initdb` sets it unless told otherwise.
pub const DEFAULT_SEGMENT_SIZE: u64 = 16 * 1024 * 1024;

/// A WAL segment: timeline and the running number of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// The timeline on which it was written.
    pub timeline: TimelineId,
    /// Number of the segment: its first byte is at `number * segment size`.
    pub number: u64,
}

/// What `archive_command` and `restore_command` may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalFile {
    /// A complete segment.
    Segment(Segment),
    /// The unfinished last segment of a timeline that was left.
    Partial(Segment),
    /// A timeline's history.
    History(TimelineId),
    /// The label of a base backup.
    BackupLabel,
}

impl Segment {
    /// The segment that holds the byte at `lsn`.
    #[must_use]
    pub fn holding(timeline: TimelineId, lsn: Lsn, segment_size: u64) -> Segment {
        Segment { timeline, number: lsn.0 / segment_size }
    }

    /// Position of its first byte.
    #[must_use]
    pub fn start(self, segment_size: u64) -> Lsn {
        Lsn(self.number * segment_size)
    }

    /// The 24 hexadecimal digits that PostgreSQL names it by.
    #[must_use]
    pub fn file_name(self, segment_size: u64) -> String {
        let per_id = 0x1_0000_0000 / segment_size;
        format!("{:08X}{:08X}{:08X}", self.timeline.0, self.number / per_id, self.number % per_id)
    }
}

impl WalFile {
    /// Reads a file name; `None` if PostgreSQL would not use such a name. Never accepts a path separator.
    #[must_use]
    pub fn parse(name: &str, segment_size: u64) -> Option<WalFile> {
        let hex = |s: &str| {
            let upper = s.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
            upper.then(|| u32::from_str_radix(s, 16).ok()).flatten()
        };
        if let Some(stem) = name.strip_suffix(".history") {
            return (stem.len() == 8).then(|| hex(stem)).flatten().map(|t| WalFile::History(TimelineId(t)));
        }
        let (stem, rest) = name.split_at_checked(24)?;
        let per_id = 0x1_0000_0000 / segment_size;
        let low = u64::from(hex(&stem[16..])?);
        let high = u64::from(hex(stem.get(8..16)?)?);
        let timeline = TimelineId(hex(stem.get(..8)?)?);
        if low >= per_id {
            return None;
        }
        let segment = Segment { timeline, number: high * per_id + low };
        match rest {
            "" => Some(WalFile::Segment(segment)),
            ".partial" => Some(WalFile::Partial(segment)),
            _ => {
                let offset = rest.strip_prefix('.')?.strip_suffix(".backup")?;
                (offset.len() == 8 && hex(offset).is_some()).then_some(WalFile::BackupLabel)
            }
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file_name(DEFAULT_SEGMENT_SIZE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    proptest! {
        #[test]
        fn segment_names_are_read_back(t in 1u32.., lsn: u64, size in prop::sample::select(vec![1u64 << 20, 1 << 24, 1 << 30])) {
            let s = Segment::holding(TimelineId(t), Lsn(lsn), size);
            prop_assert_eq!(WalFile::parse(&s.file_name(size), size), Some(WalFile::Segment(s)));
        }
    }

    #[rstest]
    #[case("00000002.history", Some(WalFile::History(TimelineId(2))))]
    #[case("000000010000000000000003.00000028.backup", Some(WalFile::BackupLabel))]
    #[case("000000010000000000000003.partial", Some(WalFile::Partial(Segment { timeline: TimelineId(1), number: 3 })))]
    #[case("../../etc/passwd0000000000", None)]
    #[case("0000000100000000000000ff", None)]
    #[case("000000010000000000000100", None)]
    #[case("00000001000000000000000é", None)]
    #[case("RECOVERYXLOG", None)]
    fn other_names_are_told_apart(#[case] name: &str, #[case] want: Option<WalFile>) {
        assert_eq!(WalFile::parse(name, DEFAULT_SEGMENT_SIZE), want);
    }
}
