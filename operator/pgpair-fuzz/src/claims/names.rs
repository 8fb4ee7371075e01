//! Names of WAL files, positions and identities.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use pgpair_core::ids::{Incarnation, InstanceId, SystemIdentifier, VolumeId};
use pgpair_core::lsn::Lsn;
use pgpair_core::wal::{Segment, SegmentSize, WalFile};
use pgpair_wire::report::ReportVersion;

use super::text;

pub const WORDS: &[&str] = &[
    "000000010000000000000003",
    "00000002.history",
    ".partial",
    ".00000028.backup",
    "/",
    "..",
    "FFFFFFFF",
    "a/",
];

/// A name that is understood is the only one of what it names, and no path. An identity is read as it is printed.
pub fn run(data: &[u8]) {
    let Some(name) = text(data) else { return };
    for size in (20..=30).filter_map(|bits| SegmentSize::new(1 << bits)) {
        let Some(file) = WalFile::parse(name, size) else { continue };
        assert!(!name.contains(['/', '\0', ' ']) && name.len() <= 40, "{name:?}");
        match file {
            WalFile::Segment(segment) => assert_eq!(named(segment, size), name),
            WalFile::Partial(segment) => assert_eq!(format!("{}.partial", named(segment, size)), name),
            WalFile::History(timeline) => assert_eq!(format!("{:08X}.history", timeline.0), name),
            WalFile::BackupLabel => assert_eq!(file.timeline(), None),
        }
    }
    reread::<Lsn>(name);
    reread::<VolumeId>(name);
    reread::<Incarnation>(name);
    reread::<SystemIdentifier>(name);
    reread::<InstanceId>(name);
    reread::<ReportVersion>(name);
}

/// Its name; where it begins is in it.
fn named(segment: Segment, size: SegmentSize) -> String {
    assert_eq!(Segment::holding(segment.timeline, segment.start(size), size), segment);
    segment.file_name(size)
}

fn reread<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let printed = value.to_string();
        assert_eq!(printed.parse::<T>().ok(), Some(value), "{text:?} is printed as {printed:?}");
    }
}
