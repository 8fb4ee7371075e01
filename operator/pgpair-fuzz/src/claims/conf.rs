//! `postgresql.conf` from what a person has set.

use std::collections::BTreeMap;

use pgpair_agent::postgres::render::{Floors, main_conf};
use pgpair_wire::config::PairConfig;
use pgpair_wire::parameters::refusal;

use super::{instance, text};

pub const WORDS: &[&str] = &[
    "work_mem=8MB\x01",
    "\x01",
    "=",
    "'",
    "''",
    "\\",
    "\\'",
    "\n",
    "\r",
    "\0",
    "log_line_prefix=%m [%p] ",
    "wal_level=logical",
    "FSYNC=off",
    "$",
    ".",
    "include=x",
];

/// Settings are `name=value`, apart by a byte 1. A file that is written says, read as PostgreSQL reads it, exactly what was set, once,
/// and nothing that is the operator's.
pub fn run(data: &[u8]) {
    let Some(input) = text(data) else { return };
    let pairs = input.split('\x01').filter_map(|pair| pair.split_once('='));
    let parameters: BTreeMap<String, String> = pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let config = PairConfig { parameters, ..PairConfig::default() };
    let Ok(written) = main_conf(instance(), &config, Floors::default(), 64) else { return };
    let read = read(&written);
    let mut wanted: BTreeMap<String, &str> = BTreeMap::new();
    for (name, value) in &config.parameters {
        wanted.insert(name.to_ascii_lowercase(), value);
    }
    for (name, value) in wanted {
        if name == "wal_level" {
            assert!(read.get(&name).is_some_and(|level| ["replica", "logical"].contains(&level.as_str())));
            continue;
        }
        assert!(refusal(&name).is_none(), "{name} is written");
        assert_eq!(read.get(&name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(read.get("fsync").map(String::as_str), Some("on"));
}

/// Each line is a comment, an include of ours, or `name = 'value'` with a name that stands once.
fn read(conf: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for line in conf
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("include_if_exists = 'pgpair."))
    {
        let (name, value) = line.split_once(" = '").expect("a name and a value");
        let value = value.strip_suffix('\'').expect("a quote at the end");
        let before = all.insert(name.to_owned(), unquoted(value));
        assert!(before.is_none(), "{name} stands twice");
    }
    all
}

/// As `DeescapeQuotedString` of PostgreSQL.
fn unquoted(value: &str) -> String {
    let (mut out, mut rest) = (String::new(), value.chars());
    while let Some(c) = rest.next() {
        match c {
            '\\' => out.push(rest.next().expect("a backslash is not the last")),
            '\'' => {
                assert_eq!(rest.next(), Some('\''), "the value ends early: {value:?}");
                out.push('\'');
            }
            c => out.push(c),
        }
    }
    out
}
