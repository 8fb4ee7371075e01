//! The work tree that a command was started in.
//!
//! Found at run time: clones share build outputs, so a path that the compiler saw may be that of another clone.

use std::path::{Path, PathBuf};

/// Its top folder: the package's parent under `cargo test` and `cargo run`, else the nearest folder above the current one
/// that is this repository.
///
/// # Panics
/// Outside of a work tree.
#[must_use]
pub fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = std::env::current_dir().unwrap_or_default();
    let mut above = package.iter().flat_map(|p| p.ancestors()).chain(here.ancestors());
    above
        .find(|folder| folder.join("e2e/cluster/cluster").is_file())
        .map(Path::to_path_buf)
        .expect("started outside of the repository: go to its top folder first")
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_folder_with_the_workspace() {
        assert!(super::root().join("e2e/src/repository.rs").is_file());
    }
}
