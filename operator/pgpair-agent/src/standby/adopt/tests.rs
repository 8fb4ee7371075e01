use pgpair_core::authority::NodeId;
use pgpair_core::record::RecordUid;
use pgpair_core::wal::SegmentSize;

use super::*;
use crate::postgres::control_file::ClusterState;
use crate::postgres::render::Floors;

const VOLUME: VolumeId = VolumeId(1);

#[test]
fn of_a_long_history_the_newest_ancestors_are_told() {
    let history = |count: u32| TimelineHistory {
        timeline: TimelineId(1000),
        ancestors: (1..=count).map(|n| (TimelineId(n), Lsn(n.into()))).collect(),
    };
    for count in [0, 1, 80] {
        assert_eq!(newest(history(count)), history(count));
    }
    let told = newest(history(200));
    assert_eq!((told.timeline, told.ancestors.len()), (TimelineId(1000), ANCESTORS));
    assert_eq!(told.ancestors.first(), Some(&(TimelineId(121), Lsn(121))));
    assert_eq!(told.ancestors.last(), Some(&(TimelineId(200), Lsn(200))));
}

#[test]
fn words_are_cut_to_what_fits_whatever_their_characters_are() {
    assert_eq!(cut("no\nspace"), "no space");
    assert_eq!(cut(&"x".repeat(WORDS)), "x".repeat(WORDS));
    for text in ["x", "é", "\"", "\\", "\u{1f40c}", "\u{1}"] {
        let cut = cut(&text.repeat(5000));
        let json = serde_json::to_string(&cut).unwrap();
        assert!((WORDS - 4..=WORDS).contains(&(json.len() - 2)), "{text:?}: {}", json.len());
        assert!(cut.ends_with('…'));
    }
}

fn control() -> ControlData {
    ControlData {
        system_identifier: SystemIdentifier(7),
        state: ClusterState::InProduction,
        checkpoint: Lsn(0),
        redo: Lsn(0),
        timeline: TimelineId(1),
        min_recovery: None,
        segment_size: SegmentSize::SMALLEST,
        page_size: 8192,
        floors: Floors::default(),
    }
}

#[test]
fn the_log_was_written_when_its_last_segment_was_or_else_the_newest() {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::under(root.path());
    fs::create_dir_all(layout.pg_wal()).unwrap();
    assert_eq!(written_ms(&layout, &control(), None), None);
    for (name, seconds) in
        [("000000010000000000000001", 100), ("000000010000000000000002", 300), ("00000002.history", 900)]
    {
        let file = File::create(layout.pg_wal().join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
    }
    let size = SegmentSize::SMALLEST.bytes();
    let end = |at| Some(Position { timeline: TimelineId(1), end: Lsn(at) });
    // Up to the last byte of the first; the second was made in advance.
    assert_eq!(written_ms(&layout, &control(), end(2 * size)), Some(100_000));
    assert_eq!(written_ms(&layout, &control(), end(2 * size + 1)), Some(300_000));
    assert_eq!(written_ms(&layout, &control(), end(9 * size)), Some(300_000));
    assert_eq!(written_ms(&layout, &control(), None), Some(300_000));
}

#[test]
fn a_segment_that_cannot_be_read_as_a_whole_is_no_end_of_the_log() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("segment");
    check_whole(&path, &control()).unwrap();
    let file = File::create(&path).unwrap();
    file.set_len(SegmentSize::SMALLEST.bytes()).unwrap();
    check_whole(&path, &control()).unwrap();
    file.set_len(SegmentSize::SMALLEST.bytes() - 1).unwrap();
    let why = check_whole(&path, &control()).unwrap_err().to_string();
    assert!(why.contains("1048575 bytes"), "{why}");
}

/// A volume with data that belongs to this record, and a state with a field that this version does not know.
fn volume(root: &Path, record: u128) -> Layout {
    let layout = Layout::under(root);
    fs::create_dir_all(layout.pgdata()).unwrap();
    fs::write(layout.in_pgdata("PG_VERSION"), "17").unwrap();
    let identity = pgdata::Volume { volume_id: VOLUME, system_identifier: SystemIdentifier(7) };
    fsx::write_json(&layout.volume_json(), &identity).unwrap();
    belongs_to(&layout, record);
    layout
}

fn belongs_to(layout: &Layout, record: u128) -> Vec<u8> {
    let durable = Durable {
        record_uid: Some(RecordUid(record)),
        node: Some(NodeId(9)),
        longest_ttl_ms: 60_000,
        ..Durable::default()
    };
    let mut value = serde_json::to_value(durable).unwrap();
    value["of_a_later_version"] = 1.into();
    let bytes = serde_json::to_vec(&value).unwrap();
    fs::write(layout.state_json(), &bytes).unwrap();
    bytes
}

#[test]
fn a_volume_that_is_let_go_of_keeps_its_promises_and_a_copy_of_what_it_remembered() {
    let root = tempfile::tempdir().unwrap();
    let layout = volume(root.path(), 1);
    let before = belongs_to(&layout, 1);
    assert_eq!(let_go(&layout, Some(VOLUME)).unwrap(), Released::Now);
    let state = state::stored(&layout).unwrap().unwrap();
    assert_eq!((state.record_uid, state.node, state.longest_ttl_ms), (None, None, 60_000));
    assert_eq!(let_go(&layout, Some(VOLUME)).unwrap(), Released::Before);
    assert_eq!(fs::read(layout.state_before_adoption()).unwrap(), before);
    assert!(!layout.states_before_earlier_adoptions().exists());
}

#[test]
fn each_adoption_leaves_a_copy_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let layout = volume(root.path(), 1);
    let all = [1, 2, 3].map(|record| {
        let bytes = belongs_to(&layout, record);
        let_go(&layout, Some(VOLUME)).unwrap();
        bytes
    });
    let earlier = layout.states_before_earlier_adoptions();
    let kept = [earlier.join("1.json"), earlier.join("2.json"), layout.state_before_adoption()]
        .map(|p| fs::read(p).unwrap());
    assert_eq!(kept, all);
}

#[test]
fn a_release_that_is_cut_off_at_any_step_ends_in_the_same_when_it_is_repeated() {
    // What lies there after each step of the second adoption of a volume.
    for step in ["nothing done", "older copy set aside", "copy begun", "copied"] {
        let root = tempfile::tempdir().unwrap();
        let layout = volume(root.path(), 1);
        let first = belongs_to(&layout, 1);
        let_go(&layout, Some(VOLUME)).unwrap();
        let second = belongs_to(&layout, 2);
        if step != "nothing done" {
            set_aside(&layout).unwrap();
        }
        if step == "copy begun" {
            fs::write(fsx::sibling(&layout.state_before_adoption(), ".new"), b"{").unwrap();
        }
        if step == "copied" {
            fs::copy(layout.state_json(), layout.state_before_adoption()).unwrap();
        }
        assert_eq!(let_go(&layout, Some(VOLUME)).unwrap(), Released::Now, "{step}");
        assert_eq!(state::stored(&layout).unwrap().unwrap().record_uid, None, "{step}");
        assert_eq!(fs::read(layout.state_before_adoption()).unwrap(), second, "{step}");
        let earlier: Vec<_> = fs::read_dir(layout.states_before_earlier_adoptions()).unwrap().collect();
        assert_eq!(earlier.len(), 1, "{step}");
        assert_eq!(fs::read(earlier[0].as_ref().unwrap().path()).unwrap(), first, "{step}");
    }
}

#[test]
fn only_a_complete_directory_with_that_id_and_a_free_lock_is_let_go_of() {
    let root = tempfile::tempdir().unwrap();
    let layout = volume(root.path(), 1);
    let before = fs::read(layout.state_json()).unwrap();
    let why = let_go(&layout, Some(VolumeId(2))).unwrap_err().to_string();
    assert!(why.contains("0000000000000001") && why.contains("0000000000000002"), "{why}");
    let held = VolumeLock::try_acquire(&layout.lock()).unwrap().unwrap();
    assert!(matches!(let_go(&layout, Some(VOLUME)), Err(ReleaseError::Locked(_))));
    drop(held);
    fs::write(layout.rewinding(), b"").unwrap();
    assert!(matches!(let_go(&layout, Some(VOLUME)), Err(ReleaseError::Nothing(VOLUME))));
    assert_eq!(fs::read(layout.state_json()).unwrap(), before);
    assert!(!layout.state_before_adoption().exists());
}

/// A copy that did not finish, or data that was taken away: its agent would still remember the former record when it has a copy.
#[test]
fn a_volume_without_a_complete_directory_is_let_go_of_when_that_is_asked_and_no_other_is() {
    let root = tempfile::tempdir().unwrap();
    let layout = volume(root.path(), 1);
    assert!(matches!(let_go(&layout, None), Err(ReleaseError::Something(VOLUME))));
    assert!(state::stored(&layout).unwrap().unwrap().record_uid.is_some());
    fs::remove_file(layout.volume_json()).unwrap();
    assert_eq!(let_go(&layout, None).unwrap(), Released::Now, "unfinished");
    assert_eq!(state::stored(&layout).unwrap().unwrap().record_uid, None);
    belongs_to(&layout, 2);
    fs::remove_dir_all(layout.pgdata()).unwrap();
    assert_eq!(let_go(&layout, None).unwrap(), Released::Now, "empty");
}

#[test]
fn a_volume_whose_state_is_lost_belongs_to_no_record() {
    let root = tempfile::tempdir().unwrap();
    let layout = volume(root.path(), 1);
    fs::remove_file(layout.state_json()).unwrap();
    assert_eq!(let_go(&layout, Some(VOLUME)).unwrap(), Released::Before);
    assert!(!layout.state_json().exists());
}

#[test]
fn the_longest_look_fits_into_the_last_words_of_a_container() {
    use pgpair_core::authority::{Durability, NodeId};
    use pgpair_core::ids::Term;
    use pgpair_core::record::{Began, Beginning, Mode};
    let state = Durable {
        record_uid: Some(RecordUid(u128::MAX)),
        term: Term(u32::MAX),
        primary: false,
        volume: Some(VolumeId(u64::MAX)),
        longest_ttl_ms: u32::MAX,
        node: Some(NodeId(u64::MAX)),
        fenced: false,
        mode: Some(Mode::Paired),
        durability: Some(Durability::SyncStrict),
        standby_volume: Some(VolumeId(u64::MAX)),
        began: Some(Began { how: Beginning::TakenBack, before: Mode::Paired }),
    };
    let last = TimelineId(u32::MAX);
    let history = TimelineHistory { timeline: last, ancestors: vec![(last, Lsn(u64::MAX)); 10 * ANCESTORS] };
    let look = Look::Volume(KeptVolume {
        volume_id: VolumeId(u64::MAX),
        system_identifier: SystemIdentifier(u64::MAX),
        version: u32::MAX,
        history: newest(history),
        end: None,
        end_unknown: Some(cut(&"\"\u{1f40c}".repeat(WORDS))),
        written_ms: Some(u64::MAX),
        state: Some(state),
    });
    let text = serde_json::to_string(&look).unwrap();
    assert!(text.len() <= 4096, "{}", text.len());
}
