use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pgpair_backup::chain::{Chain, Elsewhere, Wanted, chain};
use pgpair_backup::contents::{Contents, Object};
use pgpair_backup::cut::{CutError, Cutter, Label, Level, Limits, Piece, Sink};
use pgpair_backup::join::{Joined, Opened, Source};
use pgpair_backup::names::Names;
use pgpair_backup::past::Past;
use pgpair_backup::target::Asked;
use pgpair_core::ids::Lineage;
use pgpair_core::timeline::TimelineHistory;
use pgpair_core::wal::{SegmentSize, WalFile};

use crate::postgres::{World, with_each};

/// An object that is being written.
#[derive(Debug)]
struct Out(File, Piece);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A directory with a file for each object.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn file(&self, piece: Piece) -> PathBuf {
        match piece {
            Piece::Part(number) => self.0.join(format!("tar.{number}.zst")),
            Piece::Manifest => self.0.join("manifest.zst"),
        }
    }
}

impl Sink for Directory {
    type Out = Out;

    fn open(&mut self, piece: Piece) -> io::Result<Out> {
        Ok(Out(File::create_new(self.file(piece).with_extension("unfinished"))?, piece))
    }

    fn seal(&mut self, out: Out, object: &Object) -> io::Result<()> {
        let path = self.file(out.1);
        assert_eq!(out.0.metadata()?.len(), object.stored.bytes);
        fs::rename(path.with_extension("unfinished"), path)
    }
}

impl Source for Directory {
    type In = File;

    fn open(&mut self, piece: Piece) -> io::Result<File> {
        File::open(self.file(piece))
    }
}

/// A base backup of the server on `port`, cut into parts of 1 MiB; and its tar.
fn back_up(world: &World, port: u16, to: &Path) -> (Contents, Label, Vec<u8>) {
    let mut child = world
        .command("pg_basebackup")
        .args(["--format=tar", "--pgdata=-", "--wal-method=none", "--checkpoint=fast"])
        .args(["--manifest-checksums=SHA256", "--port", &port.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("pg_basebackup");
    let mut cutter = Cutter::new(Directory(to.to_owned()), limits()).expect("a cutter");
    let (mut stdout, mut buffer, mut tar) = (child.stdout.take().expect("a pipe"), [0; 100_000], Vec::new());
    loop {
        let n = stdout.read(&mut buffer).expect("the pipe");
        if n == 0 {
            break;
        }
        cutter.push(&buffer[..n]).expect("a base backup");
        tar.extend_from_slice(&buffer[..n]);
    }
    assert!(child.wait().expect("pg_basebackup").success());
    let (contents, label, _) = cutter.finish().expect("a whole base backup");
    (contents, label, tar)
}

fn limits() -> Limits {
    Limits::new(Limits::SMALLEST, Level::FASTEST).expect("limits")
}

fn cut(tar: &[u8], to: PathBuf) -> Result<(Contents, Label, Directory), CutError> {
    let mut cutter = Cutter::new(Directory(to), limits())?;
    cutter.push(tar)?;
    cutter.finish()
}

/// Unpacks the parts with `tar`.
fn unpack(world: &World, contents: &Contents, from: &Path, to: &Path) {
    let mut tar = world.command("tar");
    let mut child = tar.args(["-x", "-C"]).arg(to).stdin(Stdio::piped()).spawn().expect("tar");
    let mut stdin = child.stdin.take().expect("a pipe");
    io::copy(&mut Joined::new(Directory(from.to_owned()), contents), &mut stdin).expect("what was cut");
    drop(stdin);
    assert!(child.wait().expect("tar").success());
}

/// The segments of a server, copied as an archive would have them.
fn archive(world: &World, data: &Path, to: &Path) -> Names {
    let mut names = Names::default();
    for entry in fs::read_dir(data.join("pg_wal")).expect("pg_wal") {
        let name = entry.expect("a file").file_name().into_string().expect("a name");
        if let Some(file) = WalFile::parse(&name, SegmentSize::DEFAULT) {
            fs::copy(data.join("pg_wal").join(&name), to.join(&name)).expect("a copy");
            world.own(&to.join(&name));
            names.insert(Lineage(1), file);
        }
    }
    names
}

#[test]
fn a_base_backup_is_cut_joined_and_recovered() {
    with_each(|world| {
        let (data, parts, restored, log) =
            (world.make("data"), world.make("parts"), world.make("restored"), world.make("log"));
        world.run("initdb", &["-D", "data", "-U", "postgres", "--auth=trust", "--data-checksums"]);
        let source = world.start(&data, 5501);
        source.sql("CREATE TABLE before AS SELECT n, md5(n::text) AS t FROM generate_series(1, 200000) n");
        source.sql("SELECT lo_from_bytea(0, '\\x00')");
        let (contents, label, tar) = back_up(world, 5501, &parts);
        assert!(contents.parts().len() > 1, "{:?}", contents.parts());
        assert!(!label.from_standby);
        source.sql("CREATE TABLE after AS SELECT 1");
        source.sql("SELECT pg_switch_wal()");
        let names = archive(world, &data, &log);
        drop(source);

        let past = Past::of_one(Lineage(1), &TimelineHistory::first());
        let ((_, start), (_, stop)) = (contents.start(), contents.stop());
        let whole =
            |names: &Names| chain(&past, start, stop, SegmentSize::DEFAULT, names, Elsewhere::default());
        assert_eq!(whole(&names), Chain::Complete);
        let first = start.0 / SegmentSize::DEFAULT.bytes();
        let mut without = names;
        without.remove_segments(Lineage(1), contents.start().0, &(first..first + 1));
        assert!(matches!(
            whole(&without),
            Chain::Missing { first: Wanted::Segment(s), .. } if s.segment.number == first
        ));

        unpack(world, &contents, &parts, &restored);
        world.run("pg_verifybackup", &["--no-parse-wal", "restored"]);
        let mut manifest = Vec::new();
        let stored = File::open(parts.join("manifest.zst")).expect("the manifest");
        let mut opened = Opened::new(stored, Piece::Manifest, contents.manifest()).expect("a reader");
        opened.read_to_end(&mut manifest).expect("the manifest as the entry says");
        assert!(manifest == fs::read(restored.join("backup_manifest")).expect("that of the tar"));

        let latest = Asked { latest: true, ..Asked::default() }.parse().expect("a target");
        let mut conf = format!("restore_command = 'cp {}/%f %p'\n", log.display());
        for (name, value) in latest.parameters(contents.stop().0) {
            conf += &format!("{name} = '{value}'\n");
        }
        let auto = File::options().append(true).open(restored.join("postgresql.auto.conf"));
        auto.expect("the file").write_all(conf.as_bytes()).expect("settings");
        let signal = restored.join("recovery.signal");
        File::create(&signal).expect("the signal");
        world.own(&signal);
        let recovered = world.start(&restored, 5502);
        assert_eq!(recovered.sql("SELECT count(*), max(n) FROM before"), "200000|200000");
        assert_eq!(recovered.sql("SELECT count(*) FROM after"), "1");
        drop(recovered);

        for end in [0, 512, tar.len() / 3, tar.len() - 2000, tar.len() - 1025] {
            let again = world.make(&format!("cut-{end}"));
            assert!(cut(&tar[..end], again).is_err(), "{end} of {}", tar.len());
        }
    });
}

/// GNU tar has the last word about names: what it packs in each of its formats is followed to its end.
#[test]
fn what_tar_packs_in_any_format_is_understood() {
    let dir = tempfile::tempdir().expect("a directory");
    let deep = format!("{}/{}", "d".repeat(90), "e".repeat(90));
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join(&deep)).expect("directories");
    let label = "START WAL LOCATION: 0/2000028 (file x)\nBACKUP FROM: primary\nSTART TIMELINE: 1\n";
    for (name, content) in [
        ("backup_label".to_owned(), label.as_bytes().to_vec()),
        ("empty".to_owned(), Vec::new()),
        (format!("{deep}/file"), vec![7; 513]),
        ("n".repeat(100), vec![1; 512]),
    ] {
        fs::write(tree.join(name), content).expect("a file");
    }
    for format in ["ustar", "pax", "gnu"] {
        let args = ["-c", "--format", format, "-C"];
        let out = Command::new("tar").args(args).arg(&tree).arg(".").output().expect("tar");
        assert!(out.status.success(), "{format}: {}", String::from_utf8_lossy(&out.stderr));
        let parts = dir.path().join(format);
        fs::create_dir(&parts).expect("a directory");
        // It is no base backup, because it has no manifest; but the label was found, and nothing was refused.
        let refused = cut(&out.stdout, parts).expect_err("no manifest");
        assert!(matches!(refused, CutError::Missing("backup_manifest")), "{format}: {refused}");
    }
}
