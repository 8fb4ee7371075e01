//! Records as `pg_waldump` prints them.

use pgpair_agent::postgres::end_of_wal::records;
use pgpair_core::wal::SegmentSize;

pub const WORDS: &[&str] = &[
    "rmgr: XLOG        len (rec/tot):     24/    24, tx:          0, lsn: 0/03000110, prev 0/030000D8, desc: SWITCH \n",
    "rmgr: ",
    "(rec/tot):",
    "desc: ",
    "lsn: ",
    "FFFFFFFF/FFFFFFFF",
    "4294967295",
];

/// A record ends behind its bytes, where one may begin; on a page of no size it has no end. Its end is found in bounded time.
pub fn run(data: &[u8]) {
    // Each may have four million pages: a few are enough.
    for line in data.split(|byte| *byte == b'\n').take(4) {
        let Some(record) = records::parse(line) else { continue };
        for (page, bits) in [(8192, 24), (1024, 20), (65536, 30), (0, 24)] {
            let Some(size) = SegmentSize::new(1 << bits) else { continue };
            let end = record.end(page, size);
            assert!(page > 0 || end.is_none());
            if let Some(end) = end {
                assert!(end.0.is_multiple_of(8) && end >= record.lsn, "{record:?} ends at {end}");
                assert!(end.bytes_since(record.lsn) >= record.len, "{record:?} ends at {end}");
            }
        }
    }
}
