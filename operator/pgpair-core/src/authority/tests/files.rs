//! The files of the state machine against their order: each uses only itself and the files before it in the list at the head of
//! `authority.rs`, and none uses `authority.rs`.

use std::path::Path;

/// In their order.
fn files() -> Vec<&'static str> {
    let head = include_str!("../../authority.rs").split("//! Its files:").nth(1).expect("the list");
    let list = head.split_once("Each uses").expect("its end").0;
    list.split('`').skip(1).step_by(2).collect()
}

/// What a line uses of `crate::authority`.
fn used(line: &str) -> Option<&str> {
    let path = line.split("//").next()?.split_once("crate::authority::")?.1;
    path.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

#[test]
fn each_file_uses_only_the_files_before_it() {
    let (files, mut seen) = (files(), 0);
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/authority"));
    for (at, file) in files.iter().enumerate() {
        let text = std::fs::read_to_string(folder.join(file).with_extension("rs")).unwrap();
        for name in text.lines().filter_map(used) {
            seen += 1;
            let before = files.iter().position(|f| *f == name).is_some_and(|n| n <= at);
            assert!(before, "{file} uses authority::{name}");
        }
        assert!(!text.contains("use super::super"), "{file} uses authority.rs");
    }
    assert!(seen > 90, "the paths were not found: {seen}");
}

#[test]
fn every_file_is_in_the_list() {
    let folder = std::fs::read_dir(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/authority"))).unwrap();
    let names = folder.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    let mut there: Vec<_> = names.filter_map(|n| n.strip_suffix(".rs").map(str::to_owned)).collect();
    there.retain(|name| name != "tests");
    there.sort_unstable();
    let mut listed: Vec<_> = files().into_iter().map(str::to_owned).collect();
    listed.sort_unstable();
    assert_eq!(there, listed);
}
