use super::*;
use proptest::prelude::*;
use rstest::rstest;

/// A tar that is being made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tar(pub Vec<u8>);

impl Tar {
    pub(crate) fn file(mut self, name: &str, content: &[u8]) -> Tar {
        self.0.extend(header(name, "", &octal(content.len()), b'0'));
        self.content(content)
    }

    pub(crate) fn content(mut self, content: &[u8]) -> Tar {
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    fn raw(mut self, header: [u8; BLOCK]) -> Tar {
        self.0.extend(header);
        self
    }

    fn directory(self, name: &str) -> Tar {
        self.raw(header(name, "", &octal(0), b'5'))
    }

    /// A member after an extended header.
    fn extended(self, what: u8, text: &[u8], name: &str, content: &[u8]) -> Tar {
        self.raw(header("ext", "", &octal(text.len()), what)).content(text).file(name, content)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 2 * BLOCK]);
        self.0
    }
}

fn octal(size: usize) -> [u8; 12] {
    format!("{size:011o}\0").into_bytes().try_into().unwrap()
}

fn base_256(size: u64) -> [u8; 12] {
    let mut field = [0; 12];
    field[0] = 0x80;
    field[4..].copy_from_slice(&size.to_be_bytes());
    field
}

fn header(name: &str, prefix: &str, size: &[u8; 12], kind: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000600\0");
    block[124..136].copy_from_slice(size);
    block[148..156].copy_from_slice(b"        ");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[345..345 + prefix.len()].copy_from_slice(prefix.as_bytes());
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn pax_record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let len = (1..5).map(|digits| rest.len() + digits).find(|len| len.to_string().len() + rest.len() == *len);
    format!("{}{rest}", len.unwrap())
}

type Members = Vec<(String, Vec<u8>)>;

/// The files of a tar that comes in pieces of `step` bytes; directories end with a slash.
fn read(tar: &[u8], step: usize) -> Result<Members, TarError> {
    let mut follower = Follower::default();
    let (mut members, mut open): (Members, bool) = (Vec::new(), false);
    for piece in tar.chunks(step) {
        follower.follow(piece, &mut |event| {
            match event {
                Event::Begin(name, kind) => {
                    let slash = if kind == MemberKind::Directory { "/" } else { "" };
                    members.push((format!("{name}{slash}"), Vec::new()));
                    assert!(!std::mem::replace(&mut open, true), "the one before has ended");
                }
                Event::Bytes(bytes) => members.last_mut().unwrap().1.extend(bytes),
                Event::End => assert!(std::mem::take(&mut open), "it has begun"),
            }
            Ok::<(), TarError>(())
        })?;
        assert!(follower.held() <= BLOCK + 3 * usize::try_from(MOST_EXTENSION).unwrap());
    }
    follower.finish()?;
    assert!(!open);
    Ok(members)
}

fn odd() -> (Vec<u8>, Members) {
    let long = format!("base/{}", "x".repeat(300));
    let prefix = format!("base/{}", "p".repeat(140));
    let name_100 = "n".repeat(100);
    let tar = Tar::default()
        .directory("./")
        .directory("base/1/")
        .file("PG_VERSION", b"17\n")
        .file("empty", b"")
        .file(&name_100, &[7; BLOCK])
        .raw(header("file", &prefix, &octal(3), b'0'))
        .content(b"abc")
        .extended(b'x', pax_record("path", &long).as_bytes(), "cut off", b"long by pax")
        .extended(b'L', format!("{long}\0").as_bytes(), "cut off", b"long by GNU")
        .extended(b'g', pax_record("path", "everything").as_bytes(), "not-everything", b"")
        .extended(b'x', pax_record("size", "600").as_bytes(), "large", &[])
        .content(&[9; 600])
        .raw(header("base256", "", &base_256(5), 0))
        .content(b"12345")
        .raw(header("dir-with-a-size", "", &octal(77), b'5'))
        .file("./last", &[1; BLOCK + 1]);
    let members = [
        ("/".to_owned(), vec![]),
        ("base/1/".to_owned(), vec![]),
        ("PG_VERSION".to_owned(), b"17\n".to_vec()),
        ("empty".to_owned(), vec![]),
        (name_100, vec![7; BLOCK]),
        (format!("{prefix}/file"), b"abc".to_vec()),
        (long.clone(), b"long by pax".to_vec()),
        (long, b"long by GNU".to_vec()),
        ("not-everything".to_owned(), vec![]),
        ("large".to_owned(), vec![9; 600]),
        ("base256".to_owned(), b"12345".to_vec()),
        ("dir-with-a-size/".to_owned(), vec![]),
        ("last".to_owned(), vec![1; BLOCK + 1]),
    ];
    (tar.end(), members.into())
}

#[test]
fn every_shape_of_a_name_and_of_a_size_is_understood() {
    let (tar, members) = odd();
    for step in [1, 7, BLOCK - 1, BLOCK, BLOCK + 1, tar.len()] {
        assert_eq!(read(&tar, step).as_ref(), Ok(&members), "{step}");
    }
}

#[test]
fn a_tar_that_is_cut_short_at_any_byte_has_not_ended() {
    let (tar, _) = odd();
    for end in 0..tar.len() {
        assert_eq!(read(&tar[..end], BLOCK * 3), Err(TarError::CutShort(end as u64)));
    }
}

#[test]
fn only_padding_may_follow_the_end() {
    let mut tar = Tar::default().file("a", b"b").end();
    tar.resize(10_240, 0);
    assert!(read(&tar, 1000).is_ok());
    tar.push(1);
    assert_eq!(read(&tar, 1000), Err(TarError::BehindTheEnd(10_240)));
}

#[rstest]
#[case("../outside")]
#[case("base/../../outside")]
#[case("/etc/passwd")]
#[case("a//b")]
#[case("a/./b")]
#[case("..")]
#[case("")]
#[case("./")]
fn a_file_that_lies_nowhere_or_outside_is_refused(#[case] name: &str) {
    let plain = Tar::default().file(name, b"x").end();
    assert!(matches!(read(&plain, 512), Err(TarError::Name(_))), "{name}");
    if !name.is_empty() {
        let by_pax = Tar::default().extended(b'x', pax_record("path", name).as_bytes(), "ok", b"x").end();
        assert!(matches!(read(&by_pax, 512), Err(TarError::Name(_))), "{name}");
    }
}

#[rstest]
#[case(b'1', true)]
#[case(b'2', true)]
#[case(b'3', false)]
#[case(b'6', false)]
#[case(b'S', false)]
fn links_and_devices_are_refused(#[case] kind: u8, #[case] link: bool) {
    let tar = Tar::default().raw(header("pg_tblspc/16400", "", &octal(0), kind)).end();
    match read(&tar, 512) {
        Err(TarError::Link(name)) => assert!(link && name == "pg_tblspc/16400"),
        Err(TarError::Type(c)) => assert!(!link && c == char::from(kind)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn damaged_headers_are_refused() {
    let good = Tar::default().file("a", b"b").file("c", b"d").end();
    for at in [0, 101, 130, 150, 156, 500] {
        let mut bad = good.clone();
        bad[1024 + at] ^= 1;
        assert_eq!(read(&bad, 512), Err(TarError::NoHeader(1024)), "{at}");
    }
    let mut lone = good;
    lone[1024..1536].fill(0);
    assert_eq!(read(&lone, 512), Err(TarError::NoHeader(1536)), "one block of zeros is no end");
}

#[test]
fn extended_headers_that_are_not_understood_are_refused() {
    for text in [b"8 path=a\n".as_slice(), b"path=a\n", b"99 path=a\n", b"10 path=a\n\n", b"11 size=x1\n"] {
        let tar = Tar::default().extended(b'x', text, "a", b"").end();
        assert!(read(&tar, 512).is_err(), "{}", String::from_utf8_lossy(text));
    }
    let large = header("ext", "", &base_256(MOST_EXTENSION + 1), b'x');
    assert_eq!(read(&Tar::default().raw(large).0, 512), Err(TarError::Extension));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, at: prop::sample::Index, to: u8, step in 1usize..2000) {
        let _ = read(&bytes, step);
        let (mut tar, _) = odd();
        let at = at.index(tar.len());
        tar[at] = to;
        let _ = read(&tar, step);
    }

    #[test]
    fn any_files_in_any_pieces(
        files in prop::collection::vec(("[a-z]{1,9}(/[a-z]{1,9}){0,3}", prop::collection::vec(any::<u8>(), 0..1500)), 0..8),
        step in 1usize..3000,
    ) {
        let tar = files.iter().fold(Tar::default(), |tar, (name, content)| tar.file(name, content)).end();
        prop_assert_eq!(read(&tar, step), Ok(files));
    }
}
