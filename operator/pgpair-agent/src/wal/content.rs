//! Whether a file of the WAL is what its name says.

use std::str::Utf8Error;

use pgpair_core::ids::SystemIdentifier;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::{HistoryError, TimelineHistory};
use pgpair_core::wal::{SegmentSize, WalFile};

/// So much of a segment is looked at.
pub const HEAD: usize = 40;

/// What is wrong with a file of the WAL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// A history that is not text.
    #[error("it is not text: {0}")]
    NotText(#[from] Utf8Error),
    /// A history that cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A segment without a whole header.
    #[error("it is too short for the header of a segment")]
    TooShort,
    /// A segment of another cluster.
    #[error("it belongs to cluster {theirs}, ours is {ours}")]
    OtherCluster {
        /// In its header.
        theirs: SystemIdentifier,
        /// Of our data directory.
        ours: SystemIdentifier,
    },
    /// A segment that was cut off, or is longer than its header says.
    #[error("it has {found} bytes instead of {expected}")]
    Length {
        /// Size of the file.
        found: u64,
        /// By its header.
        expected: u64,
    },
    /// No segment can have the size that its header names.
    #[error("its header names a segment size of {0} bytes")]
    SegmentSize(u64),
    /// A recycled segment has a later name but still holds older WAL.
    #[error("it begins at {found} instead of {expected}")]
    OtherPlace {
        /// By its header.
        found: Lsn,
        /// By its name.
        expected: Lsn,
    },
}

/// Whether a file that begins with `head` (a history: all of it) and has `len` bytes is of our cluster and complete.
///
/// # Errors
/// What is wrong with it.
pub fn check(file: WalFile, system: SystemIdentifier, head: &[u8], len: u64) -> Result<(), ContentError> {
    match file {
        WalFile::History(timeline) => {
            TimelineHistory::parse(timeline, std::str::from_utf8(head)?)?;
            Ok(())
        }
        WalFile::Segment(_) | WalFile::Partial(_) => {
            let header = Header::read(head).ok_or(ContentError::TooShort)?;
            if header.system != system {
                return Err(ContentError::OtherCluster { theirs: header.system, ours: system });
            }
            if header.size != len {
                return Err(ContentError::Length { found: len, expected: header.size });
            }
            Ok(())
        }
        WalFile::BackupLabel => Ok(()),
    }
}

/// As [`check`], and a segment also begins where its name says.
///
/// # Errors
/// What is wrong with it.
pub fn check_place(
    file: WalFile,
    system: SystemIdentifier,
    head: &[u8],
    len: u64,
) -> Result<(), ContentError> {
    check(file, system, head, len)?;
    let (WalFile::Segment(segment), Some(header)) = (file, Header::read(head)) else { return Ok(()) };
    let size = SegmentSize::new(header.size).ok_or(ContentError::SegmentSize(header.size))?;
    let (found, expected) = (header.address, segment.start(size));
    if found == expected { Ok(()) } else { Err(ContentError::OtherPlace { found, expected }) }
}

/// `XLogLongPageHeaderData`, the same in all supported versions.
struct Header {
    address: Lsn,
    system: SystemIdentifier,
    size: u64,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Header> {
        let eight = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let size = u32::from_ne_bytes(bytes.get(32..36)?.try_into().ok()?);
        Some(Header { address: Lsn(eight(8)?), system: SystemIdentifier(eight(24)?), size: size.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgpair_core::timeline::TimelineId;
    use pgpair_core::wal::Segment;

    const OURS: SystemIdentifier = SystemIdentifier(7);
    const THIRD: WalFile = WalFile::Segment(Segment { timeline: TimelineId(1), number: 3 });

    fn head(system: u64, size: u32, address: u64) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        bytes[8..16].copy_from_slice(&address.to_ne_bytes());
        bytes[24..32].copy_from_slice(&system.to_ne_bytes());
        bytes[32..36].copy_from_slice(&size.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_segment_must_be_ours_and_whole() {
        assert_eq!(check(THIRD, OURS, &head(7, 4096, 0), 4096), Ok(()));
        let other = ContentError::OtherCluster { theirs: SystemIdentifier(8), ours: OURS };
        assert_eq!(check(THIRD, OURS, &head(8, 4096, 0), 4096), Err(other));
        let short = ContentError::Length { found: 4095, expected: 4096 };
        assert_eq!(check(THIRD, OURS, &head(7, 4096, 0), 4095), Err(short));
        assert_eq!(check(THIRD, OURS, &[], 0), Err(ContentError::TooShort));
    }

    #[test]
    fn a_segment_must_begin_where_its_name_says() {
        const MIB: u32 = 1 << 20;
        let place =
            |size: u32, address: u32| check_place(THIRD, OURS, &head(7, size, address.into()), size.into());
        assert_eq!(place(MIB, 3 * MIB), Ok(()));
        let recycled = ContentError::OtherPlace { found: Lsn(0x20_0000), expected: Lsn(0x30_0000) };
        assert_eq!(place(MIB, 2 * MIB), Err(recycled));
        assert_eq!(place(0, 0), Err(ContentError::SegmentSize(0)));
    }

    #[test]
    fn a_history_must_be_readable() {
        let file = WalFile::History(TimelineId(2));
        let history = b"1\t0/3000000\tno recovery target specified\n";
        assert_eq!(check(file, OURS, history, history.len() as u64), Ok(()));
        assert!(matches!(check(file, OURS, b"<html>", 6), Err(ContentError::History(_))));
        assert!(matches!(check(file, OURS, b"\xff", 1), Err(ContentError::NotText(_))));
    }
}
