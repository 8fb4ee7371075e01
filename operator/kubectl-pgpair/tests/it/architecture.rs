//! The code map of `ARCHITECTURE.md` against the folders of the workspace: each crate has a table, whose first cells name the
//! files below its `src`, or a folder (`name/`) for all that is in it. Tests beside a file (`tests.rs`, `tests/`) belong to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::repository::{pages_in, root, text};

/// The crates, by their path from the top.
fn crates() -> Vec<String> {
    let manifest = text("Cargo.toml");
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
    let quoted = members.split('"').skip(1).step_by(2);
    quoted.map(ToOwned::to_owned).collect()
}

/// Sources below `dir` that are no tests, by their path from `src`.
fn sources(dir: &Path, src: &Path, out: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, src, out);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            out.insert(path.strip_prefix(src).unwrap().display().to_string());
        }
    }
}

/// What the table of each crate names. A crate's table stands below the heading that bears its path.
fn code_map() -> BTreeMap<String, Vec<String>> {
    let page = text("ARCHITECTURE.md");
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = None;
    for line in page.lines() {
        if line.starts_with('#') {
            current = line.strip_prefix("### `").and_then(|rest| rest.split('`').next());
        }
        if let (Some(path), Some(row)) = (current, line.strip_prefix("| `")) {
            let cell = row.split('|').next().unwrap_or_default();
            let names = cell.split('`').step_by(2).filter(|name| !name.is_empty());
            out.entry(path.to_owned()).or_default().extend(names.map(ToOwned::to_owned));
        }
    }
    out
}

/// All sources of the workspace, by their path from the `src` of their crate.
fn all_sources() -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for path in crates() {
        let src = root().join(path).join("src");
        sources(&src, &src, &mut out);
    }
    out
}

#[test]
fn the_pages_about_the_code_name_files_that_exist() {
    let (there, mut named, mut wrong) = (all_sources(), 0, Vec::new());
    for page in pages_in("docs/architecture") {
        let words = text(&page);
        for word in words.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs")) {
            named += 1;
            if !there.contains(word) {
                wrong.push(format!("{page}: {word}"));
            }
        }
    }
    assert!(named > 20, "the files were not found: {named}");
    assert!(wrong.is_empty(), "no such files: {wrong:#?}");
}

#[test]
fn the_code_map_names_every_file_once_and_no_file_that_does_not_exist() {
    let (map, mut wrong, mut files) = (code_map(), Vec::new(), 0);
    for path in crates() {
        let src = root().join(&path).join("src");
        let mut there = BTreeSet::new();
        sources(&src, &src, &mut there);
        files += there.len();
        let named = map.get(&path).cloned().unwrap_or_default();
        for file in &there {
            let names = |name: &&String| *name == file || (name.ends_with('/') && file.starts_with(*name));
            match named.iter().filter(names).count() {
                0 => wrong.push(format!("{path}: {file} is missing")),
                1 => {}
                _ => wrong.push(format!("{path}: {file} is named twice")),
            }
        }
        for name in &named {
            let found = if name.ends_with('/') { src.join(name).is_dir() } else { there.contains(name) };
            if !found {
                wrong.push(format!("{path}: {name} does not exist"));
            }
        }
    }
    let crates: BTreeSet<String> = crates().into_iter().collect();
    wrong.extend(map.keys().filter(|path| !crates.contains(*path)).map(|path| format!("{path} is no crate")));
    assert!(files > 100, "the sources were not found: {files}");
    assert!(wrong.is_empty(), "the code map of ARCHITECTURE.md: {wrong:#?}");
}
