//! The rooms of this crate against their order: each uses only itself and the rooms before it in the list of `lib.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The rooms in their order, as the list at the head of `lib.rs` has them.
fn rooms() -> Vec<&'static str> {
    let numbered = |line: &'static str| {
        let (number, rest) = line.strip_prefix("//! ")?.split_once(". `")?;
        number.parse::<u32>().ok()?;
        rest.split('`').next()
    };
    include_str!("lib.rs").lines().filter_map(numbered).collect()
}

/// The first names of all paths that begin with `crate::`, without those of comments.
fn used(text: &str) -> Vec<String> {
    let code: String =
        text.lines().map(|l| l.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let mut names = Vec::new();
    for path in code.split("crate::").skip(1) {
        match path.strip_prefix('{') {
            // Each entry of a group may be a path of its own; groups inside of it are below the first name.
            Some(group) => {
                let mut depth = 0;
                let mut word = String::new();
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => names.push(std::mem::take(&mut word)),
                        _ => word.push(c),
                    }
                }
                names.push(word);
            }
            None => names.push(path.to_owned()),
        }
    }
    let first = |path: String| {
        path.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned()
    };
    names.into_iter().map(first).filter(|name| !name.is_empty()).collect()
}

fn sources(path: &Path, room: &str, out: &mut Vec<(String, String, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), room, out);
        }
    } else if path.extension().is_some_and(|e| e == "rs") {
        out.push((room.to_owned(), path.display().to_string(), fs::read_to_string(path).unwrap()));
    }
}

#[test]
fn each_room_uses_only_itself_and_the_rooms_before_it() {
    let (rooms, src) = (rooms(), Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
    let mut files = Vec::new();
    for room in &rooms {
        sources(&src.join(format!("{room}.rs")), room, &mut files);
        sources(&src.join(room), room, &mut files);
    }
    let floor = |name: &str| rooms.iter().position(|room| *room == name);
    let (mut seen, mut wrong) = (0, Vec::new());
    for (room, file, text) in &files {
        for name in used(text) {
            seen += 1;
            if floor(&name).is_none_or(|f| Some(f) > floor(room)) {
                wrong.push(format!("{file} uses crate::{name}"));
            }
        }
    }
    assert!(seen > 100, "the paths were not found: {seen}");
    assert!(wrong.is_empty(), "not allowed by the order in lib.rs: {wrong:#?}");
}

#[test]
fn every_folder_is_a_room() {
    let src = fs::read_dir(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))).unwrap();
    let names = src.map(|e| e.unwrap().file_name().to_string_lossy().replace(".rs", ""));
    let there: BTreeSet<String> = names.filter(|n| !["lib", "run", "tests"].contains(&n.as_str())).collect();
    assert_eq!(there, rooms().into_iter().map(ToOwned::to_owned).collect());
}
