use super::*;
use crate::contents::Object;
use crate::digest::{Measure, Measuring};
use pgpair_core::lsn::Lsn;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

pub(crate) const HOME: Home =
    Home { system: SystemIdentifier(7), lineage: Lineage(0xab), segment_size: SegmentSize::DEFAULT };

fn object(text: &str) -> Object {
    let measure = |t: &str| -> Measure {
        let mut measuring = Measuring::default();
        measuring.update(t.as_bytes());
        measuring.finish()
    };
    Object { plain: measure(text), stored: measure(&text[1..]) }
}

pub(crate) fn id(salt: u16) -> BackupId {
    BackupId::new("2026-11-27T01:15:00Z".parse().unwrap(), salt).unwrap()
}

/// A full backup of timeline 2 from the standby.
pub(crate) fn entry() -> Entry {
    let history =
        TimelineHistory { timeline: TimelineId(2), ancestors: vec![(TimelineId(1), Lsn(0x300_0148))] };
    Entry {
        format: FORMAT,
        id: id(1),
        attempt: Attempt(9),
        system_identifier: HOME.system,
        lineage: HOME.lineage,
        segment_size: HOME.segment_size.bytes(),
        versions: Versions {
            server: 170_002,
            c_library: Some("2.36".to_owned()),
            writer: "0.1.0".to_owned(),
        },
        kind: Kind::Full,
        history,
        started_at: "2026-11-27T01:15:00Z".parse().unwrap(),
        stopped_at: "2026-11-27T01:35:00Z".parse().unwrap(),
        source: Source { term: Term(4), role: Role::Standby },
        pages: Pages::Sound,
        page_checksums: Some(true),
        floors: BTreeMap::from([("max_connections".to_owned(), 100)]),
        contents: Contents {
            parts: vec![object("first"), object("second")],
            manifest: object("manifest"),
            start: Lsn(0x400_0028),
            start_timeline: TimelineId(2),
            stop: Lsn(0x500_0100),
            stop_timeline: TimelineId(2),
        },
    }
}

fn value() -> Value {
    serde_json::from_slice(&entry().write(HOME).unwrap()).unwrap()
}

fn read(value: &Value) -> Result<Entry, Unreadable> {
    Entry::read(HOME, id(1), &serde_json::to_vec(value).unwrap())
}

#[test]
fn an_entry_is_read_back() {
    for pages in [Pages::Sound, Pages::Damaged { pages: None }, Pages::Damaged { pages: NonZeroU64::new(3) }]
    {
        for kind in [Kind::Full, Kind::Incremental { parent: id(2) }] {
            let entry = Entry { pages, kind, ..entry() };
            assert_eq!(Entry::read(HOME, entry.id, &entry.write(HOME).unwrap()), Ok(entry));
        }
    }
}

#[test]
fn fields_of_a_later_version_are_ignored() {
    let mut later = value();
    later["colour"] = json!("blue");
    later["contents"]["colour"] = json!({"deep": [1]});
    later["source"]["colour"] = json!(null);
    assert_eq!(read(&later), Ok(entry()));
}

#[test]
fn a_newer_format_is_not_guessed_at() {
    let mut newer = value();
    newer["format"] = json!(FORMAT + 1);
    assert_eq!(read(&newer), Err(Unreadable::NewerFormat(FORMAT + 1)));
    assert_eq!(read(&json!({"format": 9, "other": true})), Err(Unreadable::NewerFormat(9)));
}

#[test]
fn what_is_missing_has_no_default_but_what_may_be_unknown() {
    let whole = value();
    for field in whole.as_object().unwrap().keys() {
        let mut without = whole.clone();
        without.as_object_mut().unwrap().remove(field);
        let may_be_unknown = ["pageChecksums", "floors"].contains(&field.as_str());
        assert_eq!(read(&without).is_ok(), may_be_unknown, "{field}");
    }
}

#[test]
fn an_entry_that_is_cut_short_is_unreadable() {
    let json = entry().write(HOME).unwrap();
    for end in 0..json.len() - 2 {
        assert!(matches!(Entry::read(HOME, id(1), &json[..end]), Err(Unreadable::Malformed(_))), "{end}");
    }
}

#[rstest]
#[case(Entry { id: id(2), ..entry() }, Belonging::Id)]
#[case(Entry { lineage: Lineage(0xac), ..entry() }, Belonging::Lineage)]
#[case(Entry { system_identifier: SystemIdentifier(8), ..entry() }, Belonging::System)]
#[case(Entry { segment_size: 1 << 20, ..entry() }, Belonging::SegmentSize)]
#[case(Entry { segment_size: 3, ..entry() }, Belonging::SegmentSize)]
fn an_entry_of_elsewhere_is_not_taken_for_ours(#[case] other: Entry, #[case] what: Belonging) {
    let json = serde_json::to_vec(&other).unwrap();
    assert_eq!(Entry::read(HOME, id(1), &json), Err(Unreadable::Elsewhere(what)));
}

#[test]
fn an_entry_that_contradicts_itself_is_neither_written_nor_read() {
    let with = |change: fn(&mut Entry)| {
        let mut entry = entry();
        change(&mut entry);
        entry
    };
    for wrong in [
        with(|e| e.contents.parts.clear()),
        with(|e| e.contents.stop = e.contents.start),
        with(|e| e.contents.stop_timeline = TimelineId(1)),
        with(|e| e.history.timeline = TimelineId(3)),
        with(|e| e.history.ancestors.push((TimelineId(1), Lsn(0x400_0000)))),
        with(|e| e.history.ancestors.push((TimelineId(2), Lsn(0x400_0000)))),
        with(|e| e.kind = Kind::Incremental { parent: e.id }),
    ] {
        assert!(wrong.write(HOME).is_err(), "{wrong:?}");
        assert!(Entry::read(HOME, id(1), &serde_json::to_vec(&wrong).unwrap()).is_err(), "{wrong:?}");
    }
}

#[test]
fn an_entry_has_a_largest_size() {
    let mut json = entry().write(HOME).unwrap();
    json.resize(MOST_BYTES, b' ');
    assert_eq!(Entry::read(HOME, id(1), &json), Ok(entry()));
    json.push(b' ');
    assert_eq!(Entry::read(HOME, id(1), &json), Err(Unreadable::TooLarge(MOST_BYTES + 1)));
    let many =
        Entry { contents: Contents { parts: vec![object("part"); 100_000], ..entry().contents }, ..entry() };
    assert!(matches!(many.write(HOME), Err(Unreadable::TooLarge(_))));
}

#[test]
fn a_damaged_backup_is_not_sound() {
    let damaged = Entry { pages: Pages::Damaged { pages: NonZeroU64::new(3) }, ..entry() };
    assert_eq!(damaged.state(), State::Damaged { pages: NonZeroU64::new(3) });
    assert_eq!(entry().state(), State::Sound);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, at: prop::sample::Index, to: u8) {
        let _ = Entry::read(HOME, id(1), &bytes);
        let mut json = entry().write(HOME).unwrap();
        let at = at.index(json.len());
        json[at] = to;
        if let Ok(entry) = Entry::read(HOME, id(1), &json) {
            prop_assert_eq!(Entry::read(HOME, id(1), &entry.write(HOME).unwrap()), Ok(entry));
        }
    }
}
