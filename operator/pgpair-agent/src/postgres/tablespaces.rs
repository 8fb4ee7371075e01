//! Tablespaces: directories outside PGDATA that belong to it (PostgreSQL, "Tablespaces").
//!
//! One may lie on the data volume, beside what is ours there, and nowhere else: what lies in the container's own files ends with it,
//! and the other instance has no such place. The standby gets the directory of a new one when it replays its creation; a base
//! backup copies it beside the data directory and puts it in its place at the end, so that the old copy stays whole until then.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::fence::clock;
use crate::instance::fsx::{self, Context, FileError};
use crate::instance::layout::Layout;
use crate::postgres::sql::{Sql, SqlError, within};
use crate::postgres::tool::{self, PgBin, ToolError};

/// Names and operators are qualified: the session is open to what a person has put into its way.
const LOCATIONS: &str =
    "SELECT t.oid::pg_catalog.text, pg_catalog.pg_tablespace_location(t.oid) FROM pg_catalog.pg_tablespace t";
/// A question to the primary's postgres.
const ASK: Duration = Duration::from_secs(30);
/// What postgres says when no connection is left for a session that is not a superuser's.
const IS_FULL: [&str; 2] = ["too many clients", "connection slots are reserved"];
/// What postgres says when it replays the creation of a tablespace whose directory is not there.
const MISSING: (&str, &str) = ("directory \"", "\" does not exist");

/// A tablespace that lies outside PGDATA.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tablespace {
    /// Where its files are. First, so that one within another comes later in order.
    pub location: PathBuf,
    /// Its number: its name below `pg_tblspc`.
    pub oid: String,
}

/// A tablespace in a place that the pair does not keep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "tablespace {oid} lies in {location}, where the pair does not keep it and its standby cannot have it: make another one in a \
     directory of its own below {data}, move what is in it (ALTER TABLE ... SET TABLESPACE), and drop it",
    location = location.display(), data = data.display()
)]
pub struct MisplacedTablespace {
    oid: String,
    location: PathBuf,
    data: PathBuf,
}

impl Tablespace {
    /// Where a base backup writes it.
    fn copied_to(&self, layout: &Layout) -> PathBuf {
        layout.seeding_tablespaces().join(&self.oid)
    }

    /// The option by which `pg_basebackup` does so.
    pub(crate) fn mapping(&self, layout: &Layout) -> OsString {
        // Its own separator is escaped in a path.
        let escaped = |path: &Path| path.to_string_lossy().replace('=', "\\=");
        format!("--tablespace-mapping={}={}", escaped(&self.location), escaped(&self.copied_to(layout)))
            .into()
    }
}

/// Whether a tablespace may lie there.
fn may_lie_at(layout: &Layout, location: &Path) -> bool {
    let Ok(below) = location.strip_prefix(&layout.data) else { return false };
    let plain = below.components().all(|c| matches!(c, Component::Normal(_)));
    plain
        && below.components().next().is_some()
        && !layout.own_in_data().iter().any(|path| location.starts_with(path))
}

/// Whether the volume can hold a tablespace where the primary has it.
///
/// # Errors
/// It cannot.
pub fn check(layout: &Layout, tablespace: &Tablespace) -> Result<(), MisplacedTablespace> {
    if may_lie_at(layout, &tablespace.location) {
        return Ok(());
    }
    let Tablespace { location, oid } = tablespace.clone();
    Err(MisplacedTablespace { oid, location, data: layout.data.clone() })
}

/// The tablespaces of the primary to which `conninfo` leads; one within another comes later.
///
/// # Errors
/// It does not answer.
pub async fn of_primary(bin: &PgBin, conninfo: &str) -> Result<Vec<Tablespace>, ToolError> {
    match ask(bin, conninfo).await {
        // The sessions of clients may have used up all connections; those of replication are counted apart.
        Err(e) if IS_FULL.iter().any(|text| e.text().contains(text)) => {
            ask(bin, &format!("{conninfo} replication=database")).await
        }
        done => done,
    }
}

async fn ask(bin: &PgBin, conninfo: &str) -> Result<Vec<Tablespace>, ToolError> {
    let mut command = bin.command("psql");
    command.args(["-X", "-A", "-t", "-w", "-z", "-0", "-c", LOCATIONS, "-d"]).arg(conninfo);
    Ok(read_rows(&tool::run(&mut command, ASK).await?))
}

/// Number and location in turn, each followed by a zero byte, for a location may hold any other.
#[must_use]
pub fn read_rows(text: &str) -> Vec<Tablespace> {
    let fields: Vec<&str> = text.split('\0').collect();
    let rows = fields.chunks_exact(2).map(|row| (row[0], row[1]));
    from_rows(rows.map(|(oid, location)| (oid.to_owned(), location.to_owned())))
}

/// Without those in PGDATA: the two that are always there, and `allow_in_place_tablespaces`.
fn from_rows(rows: impl Iterator<Item = (String, String)>) -> Vec<Tablespace> {
    let outside = rows.filter(|(_, location)| location.starts_with('/'));
    let mut all: Vec<_> =
        outside.map(|(oid, location)| Tablespace { location: location.into(), oid }).collect();
    all.sort();
    all
}

/// The first tablespace of our own postgres that lies where the pair does not keep it.
///
/// # Errors
/// Postgres does not answer.
pub(crate) async fn find_misplaced(
    sql: &Sql,
    layout: &Layout,
) -> Result<Option<MisplacedTablespace>, SqlError> {
    let client = sql.session(None).await?;
    let rows = within("look at the tablespaces", ASK, client.query(LOCATIONS, &[])).await?;
    let all = from_rows(rows.iter().map(|row| (row.get(0), row.get(1))));
    Ok(all.iter().find_map(|t| check(layout, t).err()))
}

/// Makes the directory of each tablespace that has none.
///
/// # Errors
/// It cannot be made; what may not lie there is left to postgres to refuse.
pub(crate) fn make_directories(layout: &Layout, tablespaces: &[Tablespace]) -> Result<(), FileError> {
    let mut ours = tablespaces.iter().filter(|t| may_lie_at(layout, &t.location));
    ours.try_for_each(|t| fsx::create_dir(&t.location, 0o700))
}

/// Makes the directory that a start of postgres lacked, by what it said; where it is, if it was made.
///
/// # Errors
/// It cannot be made.
pub(crate) fn make_missing(layout: &Layout, said: &str) -> Result<Option<PathBuf>, FileError> {
    let Some(path) = find_missing(said).filter(|path| may_lie_at(layout, path) && !path.exists()) else {
        return Ok(None);
    };
    fsx::create_dir(&path, 0o700)?;
    Ok(Some(path))
}

/// The directory whose absence kept postgres from starting, by what it said.
#[must_use]
pub fn find_missing(said: &str) -> Option<PathBuf> {
    said.lines().filter(|line| line.contains("FATAL:")).find_map(|line| {
        let (path, _) = line.split_once(MISSING.0)?.1.split_once(MISSING.1)?;
        Some(PathBuf::from(path))
    })
}

/// The tablespaces of a stopped data directory; one within another comes later.
fn of_directory(pgdata: &Path) -> Result<Vec<Tablespace>, FileError> {
    let dir = pgdata.join("pg_tblspc");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).at("read", &dir),
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.at("read", &dir)?;
        // What is no link is in place.
        if let (Ok(oid), Ok(location)) = (entry.file_name().into_string(), fs::read_link(entry.path())) {
            all.push(Tablespace { location, oid });
        }
    }
    all.sort();
    Ok(all)
}

/// Moves the tablespaces of PGDATA to `to`, and has PGDATA find them there: it is moved next.
///
/// # Errors
/// A directory or link cannot be changed; what was moved is found where it is.
pub(crate) fn move_aside(layout: &Layout, to: &Path) -> Result<(), FileError> {
    let pgdata = layout.pgdata();
    for Tablespace { location, oid } in of_directory(&pgdata)?.into_iter().rev() {
        if !may_lie_at(layout, &location) || !location.exists() {
            continue;
        }
        let kept = to.join("tablespaces").join(&oid);
        move_directory(&location, &kept)?;
        relink(&pgdata, &oid, &kept)?;
    }
    Ok(())
}

/// Moves the tablespaces of a finished base backup to where the primary has them, and has the backup find them there. What is in
/// the way belongs to no data directory any more, and is moved aside.
///
/// # Errors
/// A directory or link cannot be changed. The next base backup begins anew.
pub(crate) fn put_in_place(layout: &Layout, tablespaces: &[Tablespace]) -> Result<(), FileError> {
    for t in tablespaces {
        let copied = t.copied_to(layout);
        if !copied.exists() {
            continue; // dropped since the primary was asked
        }
        if t.location.exists() && fs::remove_dir(&t.location).is_err() {
            let aside = format!("{}-tablespace-{}", clock::unix_ms() / 1000, t.oid);
            move_directory(&t.location, &layout.moved_aside().join(aside))?;
        }
        move_directory(&copied, &t.location)?;
        relink(&layout.seeding(), &t.oid, &t.location)?;
    }
    Ok(())
}

/// Removes the tablespaces of PGDATA, which is removed next.
///
/// # Errors
/// One cannot be removed.
pub(crate) fn remove(layout: &Layout) -> Result<(), FileError> {
    for Tablespace { location, .. } in of_directory(&layout.pgdata())?.into_iter().rev() {
        if may_lie_at(layout, &location) && location.exists() {
            fs::remove_dir_all(&location).at("remove", &location)?;
        }
    }
    Ok(())
}

fn move_directory(from: &Path, to: &Path) -> Result<(), FileError> {
    if let Some(parent) = to.parent() {
        fsx::create_dir(parent, 0o700)?;
    }
    fs::rename(from, to).at("move aside", from)?;
    fsx::sync_parent(from)?;
    fsx::sync_parent(to)
}

fn relink(pgdata: &Path, oid: &str, to: &Path) -> Result<(), FileError> {
    let link = pgdata.join("pg_tblspc").join(oid);
    fsx::remove(&link)?;
    symlink(to, &link).at("link", &link)?;
    fsx::sync_parent(&link)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(location: &str) -> Tablespace {
        Tablespace { location: location.into(), oid: "16390".into() }
    }

    #[test]
    fn a_tablespace_may_lie_on_the_data_volume_beside_what_is_ours() {
        let layout = Layout::under(Path::new("/pgpair"));
        for good in ["/pgpair/data/fast", "/pgpair/data/tablespaces/fast", "/pgpair/data/pgdata2"] {
            assert!(may_lie_at(&layout, Path::new(good)), "{good}");
        }
        for bad in [
            "/tmp/fast",
            "/pgpair/data",
            "/pgpair/archive/fast",
            "/pgpair/data/pgdata",
            "/pgpair/data/pgdata/fast",
            "/pgpair/data/moved-aside/fast",
            "/pgpair/data/x/../pgdata",
            "/pgpair/database",
        ] {
            assert!(!may_lie_at(&layout, Path::new(bad)), "{bad}");
        }
        let why = check(&layout, &at("/tmp/fast")).unwrap_err().to_string();
        assert!(why.contains("/tmp/fast") && why.contains("below /pgpair/data"), "{why}");
    }

    #[test]
    fn rows_are_read_whatever_is_in_a_path() {
        let text = "1663\0\x001664\0\x0016391\0/pgpair/data/a|b\nc\x0016390\0/pgpair/data/a\x0016392\0pg_tblspc/16392\0";
        let all = read_rows(text);
        let found: Vec<_> = all.iter().map(|t| (t.oid.as_str(), t.location.to_str().unwrap())).collect();
        assert_eq!(found, [("16390", "/pgpair/data/a"), ("16391", "/pgpair/data/a|b\nc")]);
    }

    #[test]
    fn the_copy_is_written_beside_the_data_directory() {
        let layout = Layout::under(Path::new("/pgpair"));
        let option = at("/pgpair/data/a=b").mapping(&layout);
        assert_eq!(option, "--tablespace-mapping=/pgpair/data/a\\=b=/pgpair/data/tablespaces.seeding/16390");
    }

    #[test]
    fn the_directory_that_a_start_lacked_is_made_if_it_may_be_there() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        let wanted = layout.data.join("tablespaces/fast");
        let said = format!(
            "2026-05-01 12:00:00 UTC [9] FATAL:  directory \"{}\" does not exist\n\
             2026-05-01 12:00:00 UTC [9] HINT:  Create this directory for the tablespace before restarting the server.",
            wanted.display()
        );
        assert_eq!(make_missing(&layout, &said).unwrap(), Some(wanted.clone()));
        assert!(wanted.is_dir());
        assert_eq!(make_missing(&layout, &said).unwrap(), None, "it is there: something else is wrong");
        let elsewhere = "FATAL:  directory \"/nowhere/of/ours\" does not exist";
        assert_eq!(make_missing(&layout, elsewhere).unwrap(), None);
    }

    #[test]
    fn tablespaces_go_aside_with_their_directory_and_the_copy_takes_their_place() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        let location = layout.data.join("fast");
        let (old, new) = (layout.pgdata(), layout.seeding());
        let t = Tablespace { location: location.clone(), oid: "16390".into() };
        for (dir, of_it, word) in [(&old, &location, "old"), (&new, &t.copied_to(&layout), "new")] {
            fs::create_dir_all(dir.join("pg_tblspc")).unwrap();
            fs::create_dir_all(of_it).unwrap();
            fs::write(of_it.join("file"), word).unwrap();
            symlink(of_it, dir.join("pg_tblspc/16390")).unwrap();
        }
        let to = layout.moved_aside().join("1");
        fs::create_dir_all(&to).unwrap();
        move_aside(&layout, &to).unwrap();
        fs::rename(&old, to.join("pgdata")).unwrap();
        put_in_place(&layout, std::slice::from_ref(&t)).unwrap();
        fs::rename(&new, &old).unwrap();
        let read = |pgdata: &Path| fs::read_to_string(pgdata.join("pg_tblspc/16390/file")).unwrap();
        assert_eq!((read(&old), read(&to.join("pgdata"))), ("new".into(), "old".into()));
        assert_eq!(fs::read_link(old.join("pg_tblspc/16390")).unwrap(), location);
        // Cut off before the directory itself was in place: what was put there is in the way of the next try.
        fs::create_dir_all(new.join("pg_tblspc")).unwrap();
        fs::create_dir_all(t.copied_to(&layout)).unwrap();
        put_in_place(&layout, &[t]).unwrap();
        assert!(!location.join("file").exists());
    }
}
