//! Whether a file of the log is what its name says.

use pgpair_core::ids::SystemIdentifier;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineHistory;
use pgpair_core::wal::{SegmentSize, WalFile};

/// So much of a segment is looked at.
pub(crate) const HEAD: usize = 40;

/// Whether a file that begins with `head` (a history: all of it) and has `len` bytes is of our cluster and complete; the reason
/// if not.
pub(crate) fn check(file: WalFile, system: SystemIdentifier, head: &[u8], len: u64) -> Result<(), String> {
    match file {
        WalFile::History(timeline) => {
            let text = std::str::from_utf8(head).map_err(|e| e.to_string())?;
            TimelineHistory::parse(timeline, text).map(|_| ()).map_err(|e| e.to_string())
        }
        WalFile::Segment(_) | WalFile::Partial(_) => {
            let header = Header::read(head).ok_or("it is too short for the header of a segment")?;
            if header.system != system {
                return Err(format!("it is of the cluster {}, ours is {system}", header.system));
            }
            if header.size != len {
                return Err(format!("it has {len} bytes instead of {}", header.size));
            }
            Ok(())
        }
        WalFile::BackupLabel => Ok(()),
    }
}

/// As [`check`], and a segment also begins where its name says: a recycled one has the name of the future and the content of the
/// past.
pub(crate) fn check_place(
    file: WalFile,
    system: SystemIdentifier,
    head: &[u8],
    len: u64,
) -> Result<(), String> {
    check(file, system, head, len)?;
    let (WalFile::Segment(segment), Some(header)) = (file, Header::read(head)) else { return Ok(()) };
    let size = SegmentSize::new(header.size)
        .ok_or_else(|| format!("its header names a segment size of {} bytes", header.size))?;
    let begin = segment.start(size);
    if header.address == begin {
        Ok(())
    } else {
        Err(format!("it begins at {} instead of {begin}", header.address))
    }
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
        assert!(check(THIRD, OURS, &head(8, 4096, 0), 4096).is_err());
        assert!(check(THIRD, OURS, &head(7, 4096, 0), 4095).is_err());
        assert!(check(THIRD, OURS, &[], 0).is_err());
    }

    #[test]
    fn a_segment_must_begin_where_its_name_says() {
        const MIB: u32 = 1 << 20;
        let place =
            |size: u32, address: u32| check_place(THIRD, OURS, &head(7, size, address.into()), size.into());
        assert_eq!(place(MIB, 3 * MIB), Ok(()));
        let e = place(MIB, 2 * MIB).unwrap_err();
        assert!(e.contains("begins at 0/200000 instead of 0/300000"), "{e}");
        assert!(place(0, 0).is_err(), "no segment has no bytes");
    }

    #[test]
    fn a_history_must_be_readable() {
        let file = WalFile::History(TimelineId(2));
        let history = b"1\t0/3000000\tno recovery target specified\n";
        assert_eq!(check(file, OURS, history, history.len() as u64), Ok(()));
        assert!(check(file, OURS, b"<html>", 6).is_err());
    }
}
