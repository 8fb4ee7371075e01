//! What the authority protocol remembers on the data volume.

use pgpair_core::authority::Durable;

use crate::fsx::{self, FileError};
use crate::layout::Layout;

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
    fsx::write_json(&layout.state_json(), durable)
}
