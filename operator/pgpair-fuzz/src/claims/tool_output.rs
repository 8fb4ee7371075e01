//! What PostgreSQL and its programs print, where the agent acts upon it.

use std::path::Path;

use pgpair_agent::postgres::postmaster::objections;
use pgpair_agent::postgres::tablespaces::{find_missing, read_rows};

use super::text;

pub const WORDS: &[&str] = &[
    "LOG:  invalid value for parameter \"work_mem\": \"lots\"\n",
    "FATAL:  could not open directory \"/pgpair/data/tablespaces/x\" does not exist\n",
    "directory \"",
    "\" does not exist",
    "\0",
    "16385\0/pgpair/data/tablespaces/one\0",
    "contains errors",
    "HINT:",
    "/../",
];

/// What is found stands in what was printed, on one line, and nothing is made up.
pub fn run(data: &[u8]) {
    let Some(said) = text(data) else { return };
    if let Some(told) = objections(said) {
        assert!(!told.is_empty() && !told.contains('\n'));
        assert!(told.split(" | ").all(|part| said.contains(part)), "{told:?}");
    }
    if let Some(path) = find_missing(said) {
        let path = path.to_str().expect("a part of text is text");
        assert!(said.contains(path) && said.contains("FATAL:") && !path.contains('\n'));
    }
    let rows = read_rows(said);
    assert!(rows.is_sorted() && rows.iter().all(|row| row.location.starts_with(Path::new("/"))));
    // The empty field behind the last zero is no row.
    assert!(rows.len() <= said.matches('\0').count());
}
