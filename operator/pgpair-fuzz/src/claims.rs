//! The claims, one file a parser.

pub mod auto_conf;
pub mod conf;
pub mod control_data;
pub mod hba;
pub mod history;
pub mod journal;
pub mod lease;
pub mod messages;
pub mod names;
pub mod spec;
pub mod tool_output;
pub mod wal_header;
pub mod wal_records;
pub mod words;

use std::sync::OnceLock;

use pgpair_agent::instance::env::InstanceEnv;

/// An instance whose files are written.
fn instance() -> &'static InstanceEnv {
    static INSTANCE: OnceLock<InstanceEnv> = OnceLock::new();
    INSTANCE.get_or_init(|| {
        let variable = |name: &str| match name {
            "PGPAIR_PAIR" | "PGPAIR_NAMESPACE" | "PGPAIR_PEER_HOST" => Some("x".to_owned()),
            "PGPAIR_INSTANCE" => Some("a".to_owned()),
            _ => None,
        };
        InstanceEnv::from_lookup(variable).expect("the smallest environment is one")
    })
}

/// The input as text; a parser of text never sees bytes that are none.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// The first line and the rest.
fn head(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}
