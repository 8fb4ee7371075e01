//! Records as `pg_waldump` prints them, and where they end (PostgreSQL, `xlogreader.c`).

use pgpair_core::lsn::Lsn;
use pgpair_core::wal::SegmentSize;

/// Header of a WAL page.
const PAGE_HEADER: u64 = 24;
/// Header of the first page of a segment.
const SEGMENT_HEADER: u64 = 40;

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRecord {
    /// Where it begins.
    pub lsn: Lsn,
    /// Its bytes, without padding and without the page headers in between.
    pub len: u64,
    /// The rest of the segment is empty.
    pub switch: bool,
}

/// Reads a line such as
/// `rmgr: XLOG len (rec/tot): 114/ 114, tx: 0, lsn: 0/03000028, prev 0/02000110, desc: CHECKPOINT_SHUTDOWN …`.
#[must_use]
pub fn parse(line: &[u8]) -> Option<WalRecord> {
    let text = String::from_utf8_lossy(line);
    let rest = text.strip_prefix("rmgr: ")?;
    let rmgr = rest.split_whitespace().next()?;
    let (lengths, rest) = rest.split_once("(rec/tot):")?.1.split_once(',')?;
    // `xl_tot_len` has 32 bits.
    let len: u32 = lengths.split_once('/')?.1.trim().parse().ok()?;
    let (lsn, rest) = rest.split_once("lsn: ")?.1.split_once(',')?;
    let desc = rest.split_once("desc: ")?.1.trim_start();
    Some(WalRecord {
        lsn: lsn.trim().parse().ok()?,
        len: len.into(),
        switch: rmgr == "XLOG" && desc.starts_with("SWITCH"),
    })
}

/// Where the last record begins, in what `pg_waldump` says when there is no further one:
/// `pg_waldump: error: error in WAL record at 0/9EB2F48: invalid record length at 0/9EB2F70: expected at least 24, got 0`.
#[must_use]
pub fn last(errors: &[u8]) -> Option<Lsn> {
    let text = String::from_utf8_lossy(errors);
    let (lsn, _) = text.split_once("error in WAL record at ")?.1.split_once(':')?;
    lsn.parse().ok()
}

impl WalRecord {
    /// Where the next record may begin, as replay would report it. `None`: beyond the last position that there is.
    #[must_use]
    pub fn end(self, page: u64, segment: SegmentSize) -> Option<Lsn> {
        let segment = segment.bytes();
        let mut at = self.lsn.0;
        let mut left = self.len;
        loop {
            let room = page - at.checked_rem(page)?;
            if left <= room {
                at = at.checked_add(left)?.checked_next_multiple_of(8)?;
                break;
            }
            left -= room;
            at = at.checked_add(room)?;
            at = at.checked_add(if at.is_multiple_of(segment) { SEGMENT_HEADER } else { PAGE_HEADER })?;
        }
        Some(Lsn(if self.switch { at.checked_next_multiple_of(segment)? } else { at }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(lsn: u64, len: u64, switch: bool) -> u64 {
        WalRecord { lsn: Lsn(lsn), len, switch }.end(8192, SegmentSize::DEFAULT).unwrap().0
    }

    #[test]
    fn what_nothing_can_be_reckoned_with_has_no_end() {
        let record = |lsn| WalRecord { lsn: Lsn(lsn), len: 114, switch: true };
        assert_eq!(record(0x100_0028).end(0, SegmentSize::DEFAULT), None);
        assert_eq!(record(u64::MAX - 200).end(8192, SegmentSize::DEFAULT), None);
        let endless = b"rmgr: XLOG len (rec/tot): 24/18446744073709551615, tx: 0, lsn: 0/03000110, prev 0/0, desc: NOOP";
        assert_eq!(parse(endless), None, "no record is longer than 4 GiB");
    }

    #[test]
    fn a_line_gives_position_length_and_switch() {
        let line = b"rmgr: Heap        len (rec/tot):     59/   159, tx:        735, lsn: 0/0149F4E0, prev 0/0149F4A8, desc: INSERT off 3";
        assert_eq!(parse(line), Some(WalRecord { lsn: Lsn(0x149_f4e0), len: 159, switch: false }));
        let line = b"rmgr: XLOG        len (rec/tot):     24/    24, tx:          0, lsn: 0/03000110, prev 0/030000D8, desc: SWITCH ";
        assert!(parse(line).unwrap().switch);
        assert_eq!(parse(b"pg_waldump: error: \xff"), None);
    }

    #[test]
    fn the_last_record_is_the_one_behind_which_something_is_wrong() {
        let error = b"pg_waldump: error: error in WAL record at 0/9EB2F48: invalid record length at 0/9EB2F70: expected at least 24, got 0\n";
        assert_eq!(last(error), Some(Lsn(0x9eb_2f48)));
        assert_eq!(last(b"pg_waldump: error: could not find a valid record after 0/9EB2F48\n"), None);
        assert_eq!(last(b"error in WAL record at \xff: no"), None);
        assert_eq!(last(b""), None);
    }

    #[test]
    fn ends_are_padded_and_count_page_headers() {
        assert_eq!(end(0x100_0028, 114, false), 0x100_0028 + 120);
        // 100 bytes left on the page: the other 14 follow the next page's header.
        assert_eq!(end(0x100_4000 - 100, 114, false), 0x100_4000 + 24 + 16);
        // The same at the end of a segment.
        assert_eq!(end(0x200_0000 - 100, 114, false), 0x200_0000 + 40 + 16);
        assert_eq!(end(0x100_0028, 24, true), 0x200_0000);
        // Ends with its page: the next header is not part of it.
        assert_eq!(end(0x100_4000 - 120, 114, false), 0x100_4000);
    }
}
