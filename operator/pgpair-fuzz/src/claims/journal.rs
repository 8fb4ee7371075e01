//! Journals of decisions: whoever has the volume can have written them, and the state machine is played with what they say. The same
//! events come over the wire.

use pgpair_core::journal::Line;
use pgpair_core::journal::replay::Replay;
use pgpair_core::journal::shorthand::Shorthand;

pub const WORDS: &[&str] = &[
    "{\"e\":[1000,0,\"Tick\"]}\n",
    "\"Leave\"",
    "null",
    "4294967295",
    "18446744073709551615",
    "\"Challenge\"",
    "\"Promised\"",
    "{\"NewerTerm\":4294967295}",
    "\"Paired\"",
    "\"Solo\"",
    "\"a\"",
    "\"b\"",
    "true",
    "false",
    "\n",
    "0",
];

/// A line a line. Each line that is understood is written as it was read, the state machine takes every event, whatever numbers are in
/// it, and what it is told in words is one line.
pub fn run(data: &[u8]) {
    let mut replay: Option<Replay> = None;
    let mut shorthand = Shorthand::default();
    for line in data.split(|byte| *byte == b'\n') {
        let Ok(line) = serde_json::from_slice::<Line>(line) else { continue };
        let written = serde_json::to_string(&line).expect("what was read can be written");
        assert_eq!(serde_json::from_str::<Line>(&written).ok().as_ref(), Some(&line), "written as {written}");
        if let Line::Event(at, unix_ms, event) = &line {
            let short = shorthand.line(*at, *unix_ms, event.clone());
            let read = match short {
                Line::Short(_, _, short) => shorthand.read(short).ok(),
                Line::Event(_, _, event) => Some(event),
                Line::Snapshot(_) => None,
            };
            assert_eq!(read.as_ref(), Some(event), "the short form says the same");
        }
        match replay.as_mut() {
            None => replay = begin(line),
            Some(replay) => {
                let term = replay.authority().term();
                let jumps = matches!(line, Line::Snapshot(_));
                let Ok(tale) = replay.take(line) else { return };
                assert!(!tale.text(true).contains('\n'));
                assert!(jumps || replay.authority().term() >= term, "a term never falls");
            }
        }
    }
}

fn begin(line: Line) -> Option<Replay> {
    let Line::Snapshot(snapshot) = line else { return None };
    let begun = Replay::new(*snapshot);
    assert!(!begun.beginning().text(true).contains('\n'));
    Some(begun)
}
