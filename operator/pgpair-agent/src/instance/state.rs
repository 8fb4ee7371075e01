//! What the authority protocol remembers on the data volume.

use std::sync::{Mutex, PoisonError};

use pgpair_core::authority::Durable;

use crate::instance::fsx::{self, FileError};
use crate::instance::layout::Layout;

/// One at a time, and none after the last.
static ENDED: Mutex<bool> = Mutex::new(false);

/// Reads it; nothing remembered on a new volume.
///
/// # Errors
/// The file cannot be read or is damaged: then nothing may be done, for the quarantine is unknown.
pub fn load(layout: &Layout) -> Result<Durable, FileError> {
    Ok(fsx::read_json(&layout.state_json())?.unwrap_or_default())
}

/// Stores it, durable when this returns.
///
/// # Errors
/// The file cannot be written.
pub fn store(layout: &Layout, durable: &Durable) -> Result<(), FileError> {
    let ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
    if *ended { Ok(()) } else { fsx::write_json(&layout.state_json(), durable) }
}

/// Stores the last word of an agent that is about to end: what its tasks may still want to store is older.
///
/// # Errors
/// The file cannot be written.
pub fn store_last(layout: &Layout, durable: &Durable) -> Result<(), FileError> {
    let mut ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
    *ended = true;
    fsx::write_json(&layout.state_json(), durable)
}
