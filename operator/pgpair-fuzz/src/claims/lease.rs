//! The record in its Lease, which anybody with the right to write Leases can have written.

use std::collections::BTreeMap;

use pgpair_wire::lease::{annotations, holder_identity, read};

use super::{head, text};

pub const WORDS: &[&str] = &[
    "a/0000000000000001\n",
    "2147483647\n",
    "pgpair.dev/mode=Paired\n",
    "pgpair.dev/mode=Solo\n",
    "pgpair.dev/primary-volume=0000000000000001\n",
    "pgpair.dev/standby-volume=0000000000000002\n",
    "pgpair.dev/system-identifier=7\n",
    "pgpair.dev/durability=Sync\n",
    "/",
    "=",
    "-1",
];

/// Holder, transitions and annotations, one a line. A record that is read says nothing that contradicts itself, and is written as it was.
pub fn run(data: &[u8]) {
    let Some((holder, rest)) = text(data).map(head) else { return };
    let (transitions, rest) = head(rest);
    let lines = rest.lines().filter_map(|line| line.split_once('='));
    let marks: BTreeMap<String, String> = lines.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let Ok(record) = read(Some(holder), transitions.parse().ok(), &marks) else { return };
    assert_eq!(record.check(), Ok(()));
    let term = i32::try_from(record.term.0).expect("a term of a Lease fits in one");
    assert_eq!(read(Some(&holder_identity(&record)), Some(term), &annotations(&record)), Ok(record));
}
