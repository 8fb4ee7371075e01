//! `pg_hba.conf` from the lines that a person has set.

use pgpair_agent::postgres::render::hba::{ClientAccess, hba_conf};
use pgpair_wire::config::{ClientTls, PairConfig};

use super::text;

pub const WORDS: &[&str] = &[
    "host all all 10.0.0.0/8 md5\n",
    "local all all trust",
    "\"",
    "\\",
    "#",
    ",",
    "@",
    " ",
    "\t",
    "\r",
    "\0",
    "\x01",
    "include x",
    "::1/128",
    "255.255.255.255",
    "samenet",
];
const KINDS: [&str; 6] = ["local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"];

/// Lines are apart by a byte 1. What is written holds every line as it was and on a line of its own, behind all of the operator's that
/// protect its roles; closed, it holds none. PostgreSQL joins no two of them.
pub fn run(data: &[u8]) {
    let Some(input) = text(data) else { return };
    let hba: Vec<String> = input.split('\x01').map(str::to_owned).collect();
    for client_tls in [ClientTls::Required, ClientTls::Optional] {
        let config = PairConfig { hba: hba.clone(), client_tls, ..PairConfig::default() };
        let none = PairConfig { hba: Vec::new(), ..config.clone() };
        let Ok(open) = hba_conf(&config, ClientAccess::Open) else {
            assert!(hba_conf(&config, ClientAccess::Closed).is_err(), "a bad line is refused at once");
            continue;
        };
        let written: Vec<&str> = open.split('\n').collect();
        let ours = hba_conf(&none, ClientAccess::Open).unwrap_or_default();
        let ours: Vec<&str> = ours.split('\n').collect();
        // The last of ours and the end of the file come behind.
        let (first, last) = ours.split_at(ours.len() - 2);
        let expected: Vec<&str> =
            first.iter().copied().chain(hba.iter().map(String::as_str)).chain(last.iter().copied()).collect();
        assert_eq!(written, expected);
        for line in &written {
            let kind = first_word(line);
            let is_rule = kind.is_none_or(|kind| KINDS.contains(&kind.as_str()));
            assert!(is_rule && !line.ends_with('\\') && !line.contains(['\r', '\0']), "{line:?}");
        }
        assert_eq!(hba_conf(&config, ClientAccess::Closed).ok(), hba_conf(&none, ClientAccess::Closed).ok());
    }
}

/// The first word as PostgreSQL reads it (`next_token` in `hba.c`); `None` for an empty line and a comment.
fn first_word(line: &str) -> Option<String> {
    let mut rest = line.trim_start_matches([' ', '\t', ',']).chars().peekable();
    if rest.peek().is_none_or(|c| *c == '#') {
        return None;
    }
    let (mut word, mut quoted) = (String::new(), false);
    for c in rest {
        match c {
            '"' => quoted = !quoted,
            ' ' | '\t' | ',' | '#' if !quoted => break,
            c => word.push(c),
        }
    }
    Some(word)
}
