//! What the authority protocol remembers on the data volume.

use std::sync::{Mutex, PoisonError};

use pgpair_core::authority::Durable;
use pgpair_core::authority::timing::MAX_TTL_MS;

use crate::instance::fsx::{self, FileError};
use crate::instance::layout::Layout;

/// One at a time, and none after the last.
static ENDED: Mutex<bool> = Mutex::new(false);

/// Reads it. A volume without data remembers nothing. One with data and without this file was restored from somewhere: it may have promised
/// whatever can be promised.
///
/// # Errors
/// The file cannot be read or is damaged: then nothing may be done, for the quarantine is unknown.
pub fn load(layout: &Layout) -> Result<Durable, FileError> {
    if let Some(durable) = stored(layout)? {
        return Ok(durable);
    }
    let is_forgotten = layout.volume_json().exists();
    if is_forgotten {
        tracing::warn!(
            "what this volume has promised is not known: it is taken for the longest promise that there is"
        );
    }
    Ok(Durable { longest_ttl_ms: if is_forgotten { MAX_TTL_MS } else { 0 }, ..Durable::default() })
}

/// What is on the disk; `None` if nothing was ever stored, or it is lost.
///
/// # Errors
/// As [`load`].
pub fn stored(layout: &Layout) -> Result<Option<Durable>, FileError> {
    fsx::read_json(&layout.state_json())
}

/// Says on a volume that never had a data directory before that nothing was promised yet; of another one it says nothing.
///
/// # Errors
/// The file cannot be written.
pub fn begin(layout: &Layout) -> Result<(), FileError> {
    let is_new = !layout.volume_json().exists() && !layout.state_json().exists();
    if is_new { store(layout, &Durable::default()) } else { Ok(()) }
}

/// Stores it, durable when this returns.
///
/// # Errors
/// The file cannot be written.
pub fn store(layout: &Layout, durable: &Durable) -> Result<(), FileError> {
    let ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
    if *ended { Ok(()) } else { write(layout, durable) }
}

/// Stores the last word of an agent that is about to end: what its tasks may still want to store is older.
///
/// # Errors
/// The file cannot be written.
pub fn store_last(layout: &Layout, durable: &Durable) -> Result<(), FileError> {
    let mut ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
    *ended = true;
    write(layout, durable)
}

/// Commits wait for it when the standby is lost, so it must not wait for room.
fn write(layout: &Layout, durable: &Durable) -> Result<(), FileError> {
    fsx::write_json_in_turn(&layout.state_json(), &layout.state_spare(), durable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_with_data_that_has_forgotten_its_promises_waits_for_the_longest() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::under(dir.path());
        std::fs::create_dir_all(&layout.data).unwrap();
        assert_eq!(load(&layout).unwrap(), Durable::default(), "there is no data yet");
        std::fs::write(layout.volume_json(), "{}").unwrap();
        begin(&layout).unwrap();
        assert_eq!(load(&layout).unwrap().longest_ttl_ms, MAX_TTL_MS, "the state was lost");
        std::fs::remove_file(layout.volume_json()).unwrap();
        begin(&layout).unwrap();
        std::fs::write(layout.volume_json(), "{}").unwrap();
        assert_eq!(load(&layout).unwrap(), Durable::default(), "the first data of this volume");
    }
}
