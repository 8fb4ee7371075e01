//! Room for a base backup on a volume that does not hold two copies.
//!
//! The primary has the good copy. What goes here are copies that were replaced, and then, if it is known to be of no use, the one that
//! is about to be replaced: each only after a base backup has failed for want of space, and one at a time.

use std::fs;
use std::path::PathBuf;

use crate::instance::fsx::{self, Context, FileError};
use crate::instance::layout::Layout;
use crate::postgres::pgdata::{self, DataDir};
use crate::postgres::tablespaces;

/// Removes one thing, and says what; `None`: nothing that is left may go.
///
/// # Errors
/// It cannot be removed.
pub(super) fn make_room(layout: &Layout) -> Result<Option<PathBuf>, FileError> {
    let dir = layout.moved_aside();
    let mut aside: Vec<PathBuf> =
        fs::read_dir(&dir).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect();
    aside.sort();
    if let Some(oldest) = aside.into_iter().next() {
        fs::remove_dir_all(&oldest).at("remove", &oldest)?;
        return Ok(Some(oldest));
    }
    let pgdata = layout.pgdata();
    if !pgdata.exists() || !is_of_no_use(layout)? {
        return Ok(None);
    }
    // First of all its identity goes, so that no state in between looks complete.
    fsx::remove(&layout.volume_json())?;
    fsx::sync_dir(&layout.data)?;
    tablespaces::remove(layout)?;
    fs::remove_dir_all(&pgdata).at("remove", &pgdata)?;
    Ok(Some(pgdata))
}

/// Its own agent has asked for another one, or it was never complete.
fn is_of_no_use(layout: &Layout) -> Result<bool, FileError> {
    Ok(layout.rebuild_needed().exists() || pgdata::inspect(layout)? == DataDir::Unfinished)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A volume with a complete data directory and two that were moved aside.
    fn volume(root: &Path) -> Layout {
        let layout = Layout::under(root);
        for dir in [layout.pgdata(), layout.moved_aside().join("1"), layout.moved_aside().join("2")] {
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("PG_VERSION"), "17").unwrap();
        }
        let volume = r#"{"volumeId":"0000000000000001","systemIdentifier":"7"}"#;
        fs::write(layout.volume_json(), volume).unwrap();
        assert!(matches!(pgdata::inspect(&layout), Ok(DataDir::Ready(_))));
        layout
    }

    #[test]
    fn what_was_replaced_goes_first_and_data_that_could_still_serve_never() {
        let root = tempfile::tempdir().unwrap();
        let layout = volume(root.path());
        for oldest in ["1", "2"] {
            assert_eq!(make_room(&layout).unwrap(), Some(layout.moved_aside().join(oldest)));
        }
        assert_eq!(make_room(&layout).unwrap(), None);
        assert!(matches!(pgdata::inspect(&layout), Ok(DataDir::Ready(_))));
    }

    #[test]
    fn data_of_which_the_agent_says_that_it_is_of_no_use_goes_last() {
        let root = tempfile::tempdir().unwrap();
        let layout = volume(root.path());
        fs::write(layout.rebuild_needed(), "its log is gone").unwrap();
        let gone: Vec<_> = std::iter::from_fn(|| make_room(&layout).unwrap()).collect();
        assert_eq!(gone.last(), Some(&layout.pgdata()));
        assert_eq!(gone.len(), 3);
        assert!(!layout.pgdata().exists() && !layout.volume_json().exists());
    }
}
