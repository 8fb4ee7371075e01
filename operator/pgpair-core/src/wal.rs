//! Names of files in the write-ahead log and its archive (PostgreSQL, `xlog_internal.h`).

use std::fmt;

use crate::lsn::Lsn;
use crate::timeline::TimelineId;

/// Size of a WAL segment: a power of two from 1 MiB to 1 GiB (PostgreSQL, `IsValidWalSegSize`). Positions are divided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSize(u64);

impl SegmentSize {
    /// The smallest one: with it the name of a segment of any size can be read.
    pub const SMALLEST: SegmentSize = SegmentSize(1 << 20);
    /// As `initdb` sets it unless told otherwise: 16 MiB.
    pub const DEFAULT: SegmentSize = SegmentSize(16 << 20);
    const LARGEST: SegmentSize = SegmentSize(1 << 30);

    /// `None` if PostgreSQL has no segments of so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Option<SegmentSize> {
        let size = SegmentSize(bytes);
        (bytes.is_power_of_two() && (SegmentSize::SMALLEST..=SegmentSize::LARGEST).contains(&size))
            .then_some(size)
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// How many segments have names with the same first 16 digits.
    fn per_id(self) -> u64 {
        0x1_0000_0000 / self.0
    }
}

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
    pub fn holding(timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> Segment {
        Segment { timeline, number: lsn.0 / size.bytes() }
    }

    /// Position of its first byte.
    #[must_use]
    pub fn start(self, size: SegmentSize) -> Lsn {
        Lsn(self.number.saturating_mul(size.bytes()))
    }

    /// The 24 hexadecimal digits that PostgreSQL names it by.
    #[must_use]
    pub fn file_name(self, size: SegmentSize) -> String {
        let per_id = size.per_id();
        format!("{:08X}{:08X}{:08X}", self.timeline.0, self.number / per_id, self.number % per_id)
    }
}

impl WalFile {
    /// The timeline to which its name says that it belongs; a label does not say.
    #[must_use]
    pub fn timeline(self) -> Option<TimelineId> {
        match self {
            WalFile::Segment(segment) | WalFile::Partial(segment) => Some(segment.timeline),
            WalFile::History(timeline) => Some(timeline),
            WalFile::BackupLabel => None,
        }
    }

    /// Reads a file name; `None` if PostgreSQL would not use such a name. Never accepts a path separator.
    #[must_use]
    pub fn parse(name: &str, size: SegmentSize) -> Option<WalFile> {
        let hex = |s: &str| {
            let upper = s.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
            upper.then(|| u32::from_str_radix(s, 16).ok()).flatten()
        };
        if let Some(stem) = name.strip_suffix(".history") {
            return (stem.len() == 8).then(|| hex(stem)).flatten().map(|t| WalFile::History(TimelineId(t)));
        }
        let (stem, rest) = name.split_at_checked(24)?;
        let per_id = size.per_id();
        let low = u64::from(hex(stem.get(16..)?)?);
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
        f.write_str(&self.file_name(SegmentSize::DEFAULT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    proptest! {
        #[test]
        fn segment_names_are_read_back(t in 1u32.., lsn: u64, bits in 20u32..=30) {
            let size = SegmentSize::new(1 << bits).unwrap();
            let s = Segment::holding(TimelineId(t), Lsn(lsn), size);
            prop_assert_eq!(WalFile::parse(&s.file_name(size), size), Some(WalFile::Segment(s)));
        }
    }

    #[test]
    fn only_what_positions_can_be_divided_by_is_a_size() {
        for bytes in [0, 1, 1 << 19, (1 << 20) + 1, 3 << 20, 1 << 31, u64::MAX] {
            assert_eq!(SegmentSize::new(bytes), None, "{bytes}");
        }
        assert_eq!(SegmentSize::new(16 << 20), Some(SegmentSize::DEFAULT));
    }

    #[rstest]
    #[case("00000002.history", Some(WalFile::History(TimelineId(2))))]
    #[case("000000010000000000000003.00000028.backup", Some(WalFile::BackupLabel))]
    #[case("000000010000000000000003.partial", Some(WalFile::Partial(Segment { timeline: TimelineId(1), number: 3 })))]
    #[case("../../etc/passwd0000000000", None)]
    #[case("0000000100000000000000ff", None)]
    #[case("000000010000000000000100", None)]
    #[case("00000001000000000000000é", None)]
    #[case("000000010000000é00000003", None)]
    #[case("RECOVERYXLOG", None)]
    fn other_names_are_told_apart(#[case] name: &str, #[case] want: Option<WalFile>) {
        assert_eq!(WalFile::parse(name, SegmentSize::DEFAULT), want);
    }
}
