//! Each parser of text that others write, as a target for a fuzzer: bytes in, and a claim about what comes of them that goes beyond
//! "it does not panic". Two drivers use them: a test with a fixed seed and a small budget (`drive`), and libFuzzer (`/fuzz`, `make fuzz`).

pub mod claims;
pub mod drive;

use std::fmt;

/// One parser with the claim about it.
#[derive(Clone, Copy)]
pub struct Target {
    /// Names the folder of its corpus and its program below `/fuzz`.
    pub name: &'static str,
    /// Panics if a claim is broken.
    pub run: fn(&[u8]),
    /// What such inputs are made of, for the driver that does not see coverage.
    pub words: &'static [&'static str],
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.name).finish()
    }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "history", run: claims::history::run, words: claims::history::WORDS },
    Target { name: "names", run: claims::names::run, words: claims::names::WORDS },
    Target { name: "wal_header", run: claims::wal_header::run, words: claims::wal_header::WORDS },
    Target { name: "wal_records", run: claims::wal_records::run, words: claims::wal_records::WORDS },
    Target { name: "control_data", run: claims::control_data::run, words: claims::control_data::WORDS },
    Target { name: "auto_conf", run: claims::auto_conf::run, words: claims::auto_conf::WORDS },
    Target { name: "conf", run: claims::conf::run, words: claims::conf::WORDS },
    Target { name: "hba", run: claims::hba::run, words: claims::hba::WORDS },
    Target { name: "tool_output", run: claims::tool_output::run, words: claims::tool_output::WORDS },
    Target { name: "messages", run: claims::messages::run, words: claims::messages::WORDS },
    Target { name: "lease", run: claims::lease::run, words: claims::lease::WORDS },
    Target { name: "words", run: claims::words::run, words: claims::words::WORDS },
    Target { name: "journal", run: claims::journal::run, words: claims::journal::WORDS },
    Target { name: "spec", run: claims::spec::run, words: claims::spec::WORDS },
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
