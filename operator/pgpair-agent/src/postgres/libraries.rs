//! Libraries that a configuration has PostgreSQL load: whether this instance has them.
//!
//! `postgres -C` accepts any name. A missing one in `shared_preload_libraries` keeps postgres from its next start, in the two others it lets
//! nobody log in any more. Nothing is loaded here, for a library may end the server that tries it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::postgres::objection::Objection;
use crate::postgres::sql::Sql;

/// The parameters that name libraries, and where a name without a directory is looked for (PostgreSQL, Shared Library Preloading).
const PARAMETERS: [(&str, Kind); 3] = [
    ("shared_preload_libraries", Kind::Anywhere),
    ("session_preload_libraries", Kind::Anywhere),
    ("local_preload_libraries", Kind::Plugins),
];
/// What a path of libraries calls the directory of the server's own.
const OWN: &str = "$libdir";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// In `dynamic_library_path`.
    Anywhere,
    /// In `$libdir/plugins`.
    Plugins,
}

/// Where a server looks for libraries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryPath {
    /// `$libdir`.
    pub own: PathBuf,
    /// `dynamic_library_path`.
    pub search: String,
}

/// The first library that `parameters` name and the image lacks; `None` also if postgres cannot be asked where its libraries are.
pub async fn find_missing(sql: &Sql, parameters: &BTreeMap<String, String>) -> Option<Objection> {
    if !PARAMETERS.iter().any(|(name, _)| parameters.contains_key(*name)) {
        return None;
    }
    let path = sql.library_path().await.ok()?;
    let parameters = parameters.clone();
    tokio::task::spawn_blocking(move || missing_of(&path, &parameters)).await.ok()?
}

fn missing_of(path: &LibraryPath, parameters: &BTreeMap<String, String>) -> Option<Objection> {
    PARAMETERS.iter().find_map(|(parameter, kind)| {
        let missing = names(parameters.get(*parameter)?).find(|name| !exists(path, name, *kind))?;
        Some(Objection::NoLibrary { parameter, name: missing.to_owned(), directory: path.own.clone() })
    })
}

/// The names of a list, without quotes and blanks.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(|name| name.trim().trim_matches('"').trim()).filter(|name| !name.is_empty())
}

fn exists(path: &LibraryPath, name: &str, kind: Kind) -> bool {
    let is_file = |file: &Path| file.is_file() || file.with_added_extension("so").is_file();
    let own = |text: &str| match text.strip_prefix(OWN) {
        Some(rest) => path.own.join(rest.trim_start_matches('/')),
        None => PathBuf::from(text),
    };
    match kind {
        _ if name.contains('/') => is_file(&own(name)),
        Kind::Plugins => is_file(&path.own.join("plugins").join(name)),
        Kind::Anywhere => path.search.split(':').any(|directory| is_file(&own(directory.trim()).join(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_as_postgres_finds_it_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (dir.path().join("lib"), dir.path().join("other"));
        std::fs::create_dir_all(own.join("plugins")).unwrap();
        std::fs::create_dir_all(&other).unwrap();
        for file in [own.join("stat.so"), own.join("plugins/plug.so"), other.join("extra.so")] {
            std::fs::write(file, "").unwrap();
        }
        let path = LibraryPath { own: own.clone(), search: format!("$libdir:{}", other.display()) };
        let missing = |parameter: &str, value: &str| {
            missing_of(&path, &BTreeMap::from([(parameter.to_owned(), value.to_owned())]))
        };
        let absolute = format!("{}, stat", own.join("stat.so").display());
        for good in
            ["", "stat", " stat , \"extra\"", "stat.so", "$libdir/stat", "$libdir/plugins/plug", &absolute]
        {
            assert_eq!(missing("shared_preload_libraries", good), None, "{good}");
            assert_eq!(missing("session_preload_libraries", good), None, "{good}");
        }
        assert_eq!(missing("local_preload_libraries", "plug"), None);
        assert!(missing("local_preload_libraries", "stat").is_some());
        let told = missing("session_preload_libraries", "stat, pgaudti").unwrap();
        let said = told.to_string();
        assert!(
            said.starts_with("session_preload_libraries: this image has no library \"pgaudti\" in "),
            "{said}"
        );
        assert_eq!(missing("work_mem", "pgaudti"), None);
    }
}
