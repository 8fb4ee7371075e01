use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read;
use std::rc::Rc;

use super::tar::tests::Tar;
use super::*;
use crate::digest::{Measure, Measuring};
use crate::join::{Joined, Source};
use proptest::prelude::*;

/// A place in memory, which fails at one of its calls if it shall.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    pub sealed: Rc<RefCell<BTreeMap<Piece, Vec<u8>>>>,
    calls: Rc<RefCell<u32>>,
    fails_at: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct Open(Piece, Vec<u8>, Memory);

impl Memory {
    fn call(&self) -> io::Result<()> {
        let mut calls = self.calls.borrow_mut();
        *calls += 1;
        if self.fails_at == Some(*calls) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl io::Write for Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.2.call()?;
        let some = bytes.len().div_ceil(2);
        self.1.extend_from_slice(&bytes[..some]);
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Memory {
    type Out = Open;

    fn open(&mut self, piece: Piece) -> io::Result<Open> {
        self.call()?;
        Ok(Open(piece, Vec::new(), self.clone()))
    }

    fn seal(&mut self, out: Open, object: &Object) -> io::Result<()> {
        self.call()?;
        assert_eq!(measure(&out.1), object.stored);
        assert_eq!(self.sealed.borrow_mut().insert(out.0, out.1), None, "no object is written twice");
        Ok(())
    }
}

impl Source for Memory {
    type In = io::Cursor<Vec<u8>>;

    fn open(&mut self, piece: Piece) -> io::Result<Self::In> {
        self.sealed.borrow().get(&piece).cloned().map(io::Cursor::new).ok_or(io::ErrorKind::NotFound.into())
    }
}

pub(crate) fn measure(bytes: &[u8]) -> Measure {
    let mut measuring = Measuring::default();
    measuring.update(bytes);
    measuring.finish()
}

pub(crate) const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
    CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIMELINE: 1\n";

pub(crate) fn manifest(start: &str) -> String {
    let body = format!(
        "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n],\n\"WAL-Ranges\": [\n\
        {{ \"Timeline\": 1, \"Start-LSN\": \"{start}\", \"End-LSN\": \"0/2000120\" }}\n],\n"
    );
    format!("{body}\"Manifest-Checksum\": \"{}\"}}\n", measure(body.as_bytes()).sha256)
}

/// A base backup with this file in it.
pub(crate) fn backup(content: &[u8]) -> Vec<u8> {
    Tar::default()
        .file("backup_label", LABEL.as_bytes())
        .file("base/1/1259", content)
        .file("backup_manifest", manifest("0/2000028").as_bytes())
        .end()
}

pub(crate) fn limits(part_bytes: u64) -> Limits {
    Limits::new(part_bytes, Level::FASTEST).unwrap()
}

/// Bytes that cannot be compressed.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap()
    };
    (0..len).map(next).collect()
}

pub(crate) fn cut(tar: &[u8], step: usize, part_bytes: u64) -> Result<(Contents, Label, Memory), CutError> {
    let mut cutter = Cutter::new(Memory::default(), limits(part_bytes))?;
    for piece in tar.chunks(step) {
        cutter.push(piece)?;
    }
    cutter.finish()
}

fn joined(contents: &Contents, memory: Memory) -> Vec<u8> {
    let mut out = Vec::new();
    Joined::new(memory, contents).read_to_end(&mut out).unwrap();
    out
}

#[test]
fn the_parts_are_the_tar_again_and_none_is_too_large() {
    let part = Limits::SMALLEST;
    let mixed = [noise(2_000_000), vec![0; 1_000_000], noise(1_500_001)].concat();
    for (content, parts) in [(vec![], 1), (vec![0; 3 << 20], 1), (noise(5 << 20), 6), (mixed, 4)] {
        let tar = backup(&content);
        let (contents, label, memory) = cut(&tar, 100_000, part).unwrap();
        assert_eq!(contents.parts().len(), parts, "about 0.9 MiB each");
        assert!(contents.parts().iter().all(|p| p.stored.bytes <= part), "{:?}", contents.parts());
        assert_eq!((label.start, contents.stop()), (Lsn(0x200_0028), (TimelineId(1), Lsn(0x200_0120))));
        assert!(joined(&contents, memory) == tar);
    }
}

#[test]
fn what_zstd_unpacks_is_the_tar_and_the_manifest() {
    let tar = backup(&noise(2 << 20));
    let (contents, _, memory) = cut(&tar, 4096, Limits::SMALLEST).unwrap();
    let sealed = memory.sealed.borrow();
    let parts: Vec<u8> =
        sealed.iter().filter(|(p, _)| **p != Piece::Manifest).flat_map(|(_, b)| b.clone()).collect();
    assert!(zstd::decode_all(&parts[..]).unwrap() == tar);
    let text = zstd::decode_all(&sealed[&Piece::Manifest][..]).unwrap();
    assert_eq!(text, manifest("0/2000028").as_bytes());
    assert_eq!(contents.manifest().plain, measure(&text));
}

#[test]
fn a_stream_that_is_cut_short_at_any_byte_is_no_backup() {
    let tar = backup(b"content");
    for end in 0..tar.len() {
        assert!(cut(&tar[..end], 1 << 20, Limits::SMALLEST).is_err(), "{end}");
    }
    assert!(cut(&tar, 1 << 20, Limits::SMALLEST).is_ok());
}

#[test]
fn whatever_fails_in_the_place_nothing_comes_of_it() {
    let tar = backup(&noise(2 << 20));
    let (_, _, memory) = cut(&tar, 1 << 20, Limits::SMALLEST).unwrap();
    let calls = *memory.calls.borrow();
    for fails_at in 1..=calls {
        let memory = Memory { fails_at: Some(fails_at), ..Memory::default() };
        let mut cutter = Cutter::new(memory, limits(Limits::SMALLEST)).unwrap();
        let failed = tar.chunks(1 << 16).find_map(|piece| cutter.push(piece).err());
        if failed.is_some() {
            assert!(matches!(failed, Some(CutError::Object { .. })), "{failed:?}");
            assert!(matches!(cutter.push(b""), Err(CutError::FailedBefore)), "{fails_at}");
        }
        assert!(cutter.finish().is_err(), "{fails_at}");
    }
}

#[test]
fn what_is_held_does_not_grow_with_the_backup() {
    let files = "{ \"Path\": \"base/1/1\", \"Size\": 8192 },\n".repeat(100_000);
    let header = Tar::default().file("backup_label", LABEL.as_bytes()).file("base/1/1", &noise(5 << 20));
    let tar = header.file("base/1/2", &[0; 6 << 20]).file("backup_manifest", files.as_bytes()).0;
    let mut last = 0;
    for level in (1..).map_while(Level::new) {
        let mut cutter = Cutter::new(Memory::default(), Limits::new(8 << 20, level).unwrap()).unwrap();
        let mut most = 0;
        for piece in tar.chunks(300_000) {
            cutter.push(piece).unwrap();
            most = most.max(cutter.held());
        }
        assert!(most <= HELD_AT_MOST, "{level:?}: {most}");
        last = most;
    }
    assert!(last > HELD_AT_MOST / 4, "the bound says something: {last}");
}

#[test]
fn a_tar_without_what_a_base_backup_has_is_refused() {
    let label = LABEL.as_bytes();
    let good = manifest("0/2000028");
    let manifest = good.as_bytes();
    let tar = |files: &[(&str, &[u8])]| files.iter().fold(Tar::default(), |t, (n, c)| t.file(n, c)).end();
    let why = |files: &[(&str, &[u8])]| cut(&tar(files), 1 << 20, Limits::SMALLEST).unwrap_err();
    let both = [("backup_label", label), ("backup_manifest", manifest)];
    assert!(cut(&tar(&both), 1 << 20, Limits::SMALLEST).is_ok());
    assert!(matches!(why(&both[..1]), CutError::Missing("backup_manifest")));
    assert!(matches!(why(&both[1..]), CutError::Missing("backup_label")));
    assert!(matches!(why(&[both[0], both[0], both[1]]), CutError::Twice("backup_label")));
    assert!(matches!(why(&[both[0], both[1], both[1]]), CutError::Twice("backup_manifest")));
    assert!(matches!(why(&[("backup_label", b"?"), both[1]]), CutError::Label(LabelError::Line(_))));
    assert!(matches!(why(&[both[0], ("backup_manifest", b"?")]), CutError::Label(LabelError::NoDigest)));
    assert!(matches!(why(&[("backup_label", &[b'x'; 70_000])]), CutError::Label(LabelError::LabelTooLarge)));
    assert!(matches!(why(&[("tablespace_map", b"1 /x"), both[0]]), CutError::Tar(TarError::Link(_))));
    let empty_map = [("tablespace_map", b"".as_slice()), both[0], both[1]];
    assert!(
        cut(&tar(&empty_map), 1 << 20, Limits::SMALLEST).is_ok(),
        "as every backup without tablespaces has it"
    );
    let other = self::manifest("0/2000060");
    let other = why(&[both[0], ("backup_manifest", other.as_bytes())]);
    assert!(matches!(other, CutError::Label(LabelError::Start { .. })), "{other:?}");
    let below = [("base/backup_label", label), both[1]];
    assert!(matches!(why(&below), CutError::Missing("backup_label")), "only that of the root counts");
}

#[test]
fn limits_have_limits() {
    for bytes in [0, Limits::SMALLEST - 1, Limits::LARGEST + 1, u64::MAX] {
        assert_eq!(Limits::new(bytes, Level::FASTEST), None);
    }
    assert_eq!([Level::new(0), Level::new(7)], [None, None]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn any_backup_in_any_pieces_is_read_back(
        shapes in prop::collection::vec((any::<bool>(), 0usize..700_000), 0..8),
        step in 1000usize..300_000,
    ) {
        let tar = shapes.iter().enumerate().fold(Tar::default(), |tar, (n, (compressible, len))| {
            tar.file(&format!("base/1/{n}"), &if *compressible { vec![1; *len] } else { noise(*len) })
        });
        let tar = tar.file("backup_label", LABEL.as_bytes());
        let tar = tar.file("backup_manifest", manifest("0/2000028").as_bytes()).end();
        let (contents, _, memory) = cut(&tar, step, Limits::SMALLEST).unwrap();
        prop_assert!(contents.parts().iter().all(|p| p.stored.bytes <= Limits::SMALLEST));
        prop_assert!(joined(&contents, memory) == tar);
    }
}
