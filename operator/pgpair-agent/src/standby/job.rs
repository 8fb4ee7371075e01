//! What a Job says: on its standard output while it runs, and in the termination log, which outlives it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::instance::layout::TERMINATION_LOG;

/// Says something as a line of JSON. What is said last stays in the termination log.
///
/// # Errors
/// It cannot be written.
pub(super) fn tell(words: &impl Serialize) -> io::Result<()> {
    let line = serde_json::to_string(words)?;
    writeln!(io::stdout(), "{line}")?;
    leave(&line)
}

/// Leaves words in the termination log.
///
/// # Errors
/// They cannot be written.
pub(super) fn leave(words: &str) -> io::Result<()> {
    // Outside a container there is no such file, and none is made.
    if Path::new(TERMINATION_LOG).exists() { fs::write(TERMINATION_LOG, words) } else { Ok(()) }
}
