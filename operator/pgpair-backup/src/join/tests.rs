use super::*;
use crate::cut::Limits;
use crate::cut::tests::{Memory, backup, cut, measure, noise};

/// A backup of three parts.
fn three() -> (Contents, Memory, Vec<u8>) {
    let tar = backup(&noise(2_000_000));
    let (contents, _, memory) = cut(&tar, 1 << 20, Limits::SMALLEST).unwrap();
    assert_eq!(contents.parts().len(), 3);
    (contents, memory, tar)
}

fn part(number: u32) -> Piece {
    Piece::Part(PartNumber::new(number).unwrap())
}

fn read(contents: &Contents, memory: &Memory) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    Joined::new(memory.clone(), contents).read_to_end(&mut out)?;
    Ok(out)
}

#[test]
fn a_changed_object_is_never_read_to_its_end() {
    let (contents, memory, tar) = three();
    assert!(read(&contents, &memory).unwrap() == tar);
    let whole = memory.sealed.borrow()[&part(2)].clone();
    let with = |bytes: Vec<u8>| {
        memory.sealed.borrow_mut().insert(part(2), bytes);
        let read = read(&contents, &memory);
        memory.sealed.borrow_mut().insert(part(2), whole.clone());
        read
    };
    for at in (0..whole.len()).step_by(50_021).chain([0, 5, whole.len() - 5, whole.len() - 1]) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        assert!(with(bytes).is_err(), "{at}");
    }
    for end in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
        assert!(with(whole[..end].to_vec()).is_err(), "{end}");
    }
    let more = [whole.clone(), vec![0]].concat();
    assert!(with(more).is_err());
    let another_frame = [whole.clone(), zstd::encode_all(&b""[..], 1).unwrap()].concat();
    assert!(with(another_frame).is_err(), "an empty frame behind it changes what is stored");
    assert!(read(&contents, &memory).unwrap() == tar, "put back");
}

#[test]
fn the_order_of_the_parts_is_that_of_the_entry() {
    let (contents, memory, _) = three();
    let mut sealed = memory.sealed.borrow_mut();
    let (one, two) = (sealed[&part(1)].clone(), sealed[&part(2)].clone());
    sealed.insert(part(1), two);
    sealed.insert(part(2), one);
    drop(sealed);
    assert!(read(&contents, &memory).is_err());
}

#[test]
fn a_part_that_is_not_there_is_an_error_and_so_is_everything_after_it() {
    let (contents, memory, _) = three();
    memory.sealed.borrow_mut().remove(&part(3));
    let mut joined = Joined::new(memory, &contents);
    let mut out = Vec::new();
    assert_eq!(joined.read_to_end(&mut out).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(joined.read(&mut [0; 10]).is_err(), "an end would say that all was read");
}

#[test]
fn no_more_comes_out_than_the_entry_says() {
    let bomb = zstd::encode_all(&vec![0; 50 << 20][..], 1).unwrap();
    let said = Object { plain: measure(&[0; 10]), stored: measure(&bomb) };
    let mut out = Vec::new();
    let opened = Opened::new(&bomb[..], Piece::Manifest, said);
    let error = opened.unwrap().read_to_end(&mut out).unwrap_err();
    let error = error.downcast::<JoinError>().unwrap();
    assert!(matches!(error, JoinError::Plain { .. }), "{error}");
    assert!(out.len() <= 10, "{}", out.len());
}

#[test]
fn the_digest_of_what_came_out_is_that_of_the_entry() {
    let stored = zstd::encode_all(&b"abc"[..], 1).unwrap();
    let said = Object { plain: measure(b"abd"), stored: measure(&stored) };
    let mut out = Vec::new();
    let error = Opened::new(&stored[..], part(1), said).unwrap().read_to_end(&mut out).unwrap_err();
    assert!(matches!(error.downcast::<JoinError>(), Ok(JoinError::Plain { .. })));
    let said = Object { plain: measure(b"abc"), ..said };
    assert_eq!(Opened::new(&stored[..], part(1), said).unwrap().read_to_end(&mut out).unwrap(), 3);
}
