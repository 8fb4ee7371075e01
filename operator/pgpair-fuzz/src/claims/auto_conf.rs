//! `postgresql.auto.conf`, as `ALTER SYSTEM` and people who may write the file leave it.

use pgpair_agent::postgres::render::{cleaned_auto_conf, names_in_auto_conf, without_broken_promises};
use pgpair_wire::parameters::{Reason, refusal};

use super::instance;

pub const WORDS: &[&str] = &[
    "fsync = off\n",
    "archive_command",
    "work_mem = '8MB'\n",
    "'",
    "''",
    "\\",
    "=",
    "\r",
    "\t",
    "#",
    "\n",
    "include 'x'\n",
    "FSYNC",
    "ssl_key_file",
    "\u{e9}",
    "transaction_timeout = '1h'\n",
];

/// Nothing stays that PostgreSQL would read as a parameter of the operator, no other line is lost or changed, and cleaning what is clean
/// changes nothing.
pub fn run(data: &[u8]) {
    let cleaned = cleaned_auto_conf(instance(), data);
    let (promised, names) = without_broken_promises(instance(), data);
    for line in lines(&cleaned) {
        let refused = parameter_of(line).and_then(|name| refusal(&name));
        assert!(matches!(refused, None | Some(Reason::Narrower)), "{line:?} stays");
    }
    assert_eq!(cleaned_auto_conf(instance(), &cleaned), cleaned);
    assert_eq!(lines(data).count(), lines(&promised).count() + names.len());
    assert!(is_part(&cleaned, &promised) && is_part(&promised, data), "lines are left out, never changed");
    let set = lines(data).filter_map(parameter_of).count();
    assert!(names_in_auto_conf(data).len() >= set, "a parameter is not seen");
}

fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split_inclusive(|byte| *byte == b'\n')
}

fn is_part(part: &[u8], whole: &[u8]) -> bool {
    let mut all = lines(whole);
    lines(part).all(|line| all.any(|other| other == line))
}

/// The parameter that PostgreSQL's own scanner sees set by a line (`guc-file.l`): the longest token wins, and must be a name.
fn parameter_of(line: &[u8]) -> Option<String> {
    let start = line.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\r'))?;
    let line = &line[start..];
    let is_letter = |b: &u8| b.is_ascii_alphabetic() || *b == b'_' || *b >= 0x80;
    let is_word = |b: &u8| is_letter(b) || b.is_ascii_digit();
    if !line.first().is_some_and(is_letter) {
        return None;
    }
    let name = line.iter().take_while(|b| is_word(b)).count();
    let unquoted =
        line.iter().take_while(|b| is_word(b) || matches!(b, b'-' | b'.' | b'_' | b':' | b'/')).count();
    (unquoted == name).then(|| String::from_utf8_lossy(&line[..name]).to_ascii_lowercase())
}
