//! The head of a segment.

use pgpair_agent::wal::content::{ContentError, HEAD, check, check_place};
use pgpair_core::ids::SystemIdentifier;
use pgpair_core::timeline::TimelineId;
use pgpair_core::wal::{Segment, SegmentSize, WalFile};

pub const WORDS: &[&str] = &["\0\0\0\x01", "\0\0\0\0", "\u{7f}\u{7f}"];

/// Eight bytes are the number of the segment, the others its head. One that is accepted has the size and the place of its name; one
/// that is refused in general is refused in its place too.
pub fn run(data: &[u8]) {
    let Some((number, head)) = data.split_first_chunk::<8>() else { return };
    let segment = Segment { timeline: TimelineId(1), number: u64::from_le_bytes(*number) };
    let word = |at: usize| Some(u64::from_ne_bytes(head.get(at..at + 8)?.try_into().ok()?));
    let system = SystemIdentifier(word(24).unwrap_or(7));
    let size =
        head.get(32..36).and_then(|b| Some(u32::from_ne_bytes(b.try_into().ok()?))).map_or(0, u64::from);
    for (file, len) in
        [WalFile::Segment(segment), WalFile::Partial(segment)].into_iter().zip([size, 16 << 20])
    {
        let general = check(file, system, head, len);
        let placed = check_place(file, system, head, len);
        assert!(general.is_ok() || placed == general, "{general:?} {placed:?}");
        if head.len() < HEAD - 4 {
            assert_eq!(general, Err(ContentError::TooShort));
        }
        if placed.is_ok() && matches!(file, WalFile::Segment(_)) {
            let size = SegmentSize::new(len).expect("a segment with the size of one");
            assert_eq!(word(8), Some(segment.start(size).0));
        }
    }
}
