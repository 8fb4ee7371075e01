use std::fs;

use tempfile::TempDir;

use super::*;

/// Journals of a real pair whose postmaster at a was killed. Made anew, when the rules or the state have changed, in this
/// package's directory: `PGPAIR_KEEP_JOURNALS=$PWD/tests/journals cargo test --test it explain`.
const RECORDED: [(&str, &str); 2] = [
    ("a.jsonl", include_str!("../../tests/journals/a.jsonl")),
    ("b.jsonl", include_str!("../../tests/journals/b.jsonl")),
];

/// In a directory, as if this version had written them, after a change.
fn recorded(change: impl Fn(&str) -> String) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in RECORDED {
        let (_, rest) = text.split_once("\"pgpair\":\"").unwrap();
        let (version, _) = rest.split_once('"').unwrap();
        let ours = text.replace(&format!("\"pgpair\":\"{version}\""), &format!("\"pgpair\":\"{VERSION}\""));
        fs::write(dir.path().join(name), change(&ours)).unwrap();
    }
    dir
}

fn story(dir: &TempDir, all: bool) -> Result<String, String> {
    tell(&[dir.path().to_owned()], all).map_err(|e| format!("{e:#}"))
}

#[test]
fn a_killed_postmaster_and_what_came_of_it() {
    insta::assert_snapshot!(story(&recorded(str::to_owned), false).unwrap());
}

#[test]
fn each_heartbeat_is_told_if_wanted() {
    let dir = recorded(str::to_owned);
    let (short, long) = (story(&dir, false).unwrap(), story(&dir, true).unwrap());
    assert!(long.lines().count() > 2 * short.lines().count());
    assert!(long.contains("-> answers: promised") && long.contains("time has passed -> heartbeat"));
    assert_eq!(long, story(&dir, true).unwrap());
}

#[test]
fn half_a_line_at_the_end_is_left_out() {
    let whole = story(&recorded(str::to_owned), true);
    assert_eq!(story(&recorded(|text| format!("{text}{{\"e\":[17289154,17")), true), whole);
}

#[test]
fn a_line_in_the_middle_that_is_not_understood_is_an_error_with_what_to_do() {
    let broken = recorded(|text| {
        let mut lines: Vec<&str> = text.lines().collect();
        lines[4] = "{\"e\":[17289154,17";
        lines.join("\n") + "\n"
    });
    let error = story(&broken, false).unwrap_err();
    assert!(error.contains("line 5 of") && error.contains("Copy it again"), "{error}");
}

#[test]
fn a_journal_of_another_version_is_not_guessed_at() {
    let ours = format!("\"pgpair\":\"{VERSION}\"");
    let foreign = recorded(|text| text.replace(&ours, "\"pgpair\":\"7.0.0\",\"new\":1"));
    let error = story(&foreign, false).unwrap_err();
    assert!(error.contains("by pgpair 7.0.0") && error.contains("/pgpair/bin/pgpair"), "{error}");
}

#[test]
fn a_file_that_another_follows_must_end_where_that_begins() {
    let dir = recorded(str::to_owned);
    let mut end = replayed(&dir.path().join("a.jsonl"));
    let more = |name: &str, s: &Snapshot| {
        let line = serde_json::to_string(&Line::Snapshot(Box::new(s.clone()))).unwrap();
        fs::write(dir.path().join(name), line + "\n").unwrap();
    };
    more("c.jsonl", &end);
    assert!(!story(&dir, false).unwrap().contains("missing"));
    end.number += 3;
    more("c.jsonl", &end);
    assert!(story(&dir, false).unwrap().contains("a  3 events are missing here"));
    end.number -= 3;
    end.authority.handle(end.at + 10_000, pgpair_core::authority::Event::Leave);
    more("c.jsonl", &end);
    let error = story(&dir, false).unwrap_err();
    assert!(error.contains("line 1 of") && error.contains("another state"), "{error}");
}

/// The state at the end of a journal.
fn replayed(path: &Path) -> Snapshot {
    let mut journal = Journal::open(path.to_owned()).unwrap().unwrap();
    let mut end = (*journal.first).clone();
    let mut replay = Replay::new(end.clone());
    while let Some(line) = journal.lines.next(path).unwrap() {
        if let Line::Event(at, unix_ms, _) | Line::Short(at, unix_ms, _) = &line {
            (end.at, end.unix_ms, end.number) = (*at, *unix_ms, end.number + 1);
        }
        replay.take(line).unwrap();
    }
    end.authority = replay.authority().clone();
    end
}

#[test]
fn nothing_at_all_is_said_to_be_nothing() {
    let error = story(&recorded(|_| String::new()), false).unwrap_err();
    assert!(error.contains("nothing in these journals"), "{error}");
}
