//! Files that survive a power loss: contents, then name, then directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file operation that failed, and on what.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}", path = path.display())]
pub struct FileError {
    /// What was attempted.
    pub action: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

/// Names the operation and the path of an IO error.
pub trait Context<T> {
    /// Turns the error into a [`FileError`].
    ///
    /// # Errors
    /// The same error, with its place.
    fn at(self, action: &'static str, path: &Path) -> Result<T, FileError>;
}

impl<T> Context<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|source| FileError { action, path: path.to_owned(), source })
    }
}

impl<T> Context<T> for Result<T, rustix::io::Errno> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(io::Error::from).at(action, path)
    }
}

/// Makes the names in a directory durable.
///
/// # Errors
/// The directory cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> Result<(), FileError> {
    File::open(dir).and_then(|d| d.sync_all()).at("sync directory", dir)
}

/// Creates a directory and its parents with `mode`, unless they exist; durable.
///
/// # Errors
/// A directory can be neither found nor made.
pub fn create_dir(dir: &Path, mode: u32) -> Result<(), FileError> {
    if dir.is_dir() {
        return Ok(());
    }
    // Each new name is durable only when the directory that it stands in is synced.
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_dir(parent, mode)?;
    }
    match fs::DirBuilder::new().mode(mode).create(dir) {
        Ok(()) => sync_parent(dir),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()), // somebody else was quicker
        Err(e) => Err(e).at("create directory", dir),
    }
}

/// Makes the name of `path` durable.
///
/// # Errors
/// Its directory cannot be synced.
pub fn sync_parent(path: &Path) -> Result<(), FileError> {
    path.parent().map_or(Ok(()), sync_dir)
}

/// Replaces `path` with `contents` in one step, durable; `mode` such as `0o600`.
///
/// # Errors
/// Nothing has changed at `path` unless the last sync of the directory failed.
pub fn write(path: &Path, contents: &[u8], mode: u32) -> Result<(), FileError> {
    let tmp = sibling(path, ".new");
    write_new(&tmp, contents, mode)?;
    fs::rename(&tmp, path).at("rename into place", path)?;
    sync_parent(path)
}

/// Writes `path` anew and syncs its contents, not its name.
pub(crate) fn write_new(path: &Path, contents: &[u8], mode: u32) -> Result<(), FileError> {
    let mut file = create_truncated(path, mode)?;
    file.write_all(contents).and_then(|()| file.sync_all()).at("write", path)
}

/// Opens `path` for writing, empty, with `mode` even if it existed with another.
pub(crate) fn create_truncated(path: &Path, mode: u32) -> Result<File, FileError> {
    remove(path)?;
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path).at("create", path)
}

/// As [`write`], of a value as JSON.
///
/// # Errors
/// As [`write`].
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let mut bytes = serde_json::to_vec(value).map_err(io::Error::from).at("encode", path)?;
    bytes.push(b'\n');
    write(path, &bytes, 0o600)
}

/// As [`write_json`], and on a volume without a free block too: `spare`, which stays, and `path` take turns.
///
/// # Errors
/// As [`write`].
pub fn write_json_in_turn<T: Serialize>(path: &Path, spare: &Path, value: &T) -> Result<(), FileError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let mut bytes = serde_json::to_vec(value).map_err(io::Error::from).at("encode", path)?;
    bytes.push(b'\n');
    // Not emptied first: its blocks would be free for others.
    let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(spare);
    let mut file = options.at("open", spare)?;
    let written = file.write_all(&bytes).and_then(|()| file.set_len(bytes.len() as u64));
    written.and_then(|()| file.sync_all()).at("write", spare)?;
    match renameat_with(CWD, spare, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        // The first one of all; or a file system that cannot exchange two.
        Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => {
            fs::rename(spare, path).at("rename into place", path)?;
        }
        Err(e) => return Err(e).at("exchange for the one before", path),
    }
    sync_parent(path)
}

/// Reads a JSON file; `None` if there is none.
///
/// # Errors
/// It exists and cannot be read or understood.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FileError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from).at("decode", path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("read", path),
    }
}

/// Fills a new directory with files that only their owner reads.
///
/// # Errors
/// The directory or a file cannot be written.
pub fn write_dir<'a>(
    dir: &Path,
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<(), FileError> {
    create_dir(dir, 0o700)?;
    files.into_iter().try_for_each(|(name, bytes)| write(&dir.join(name), bytes, 0o600))
}

/// Turns a link to another directory, in one step, and removes the one that it led to.
///
/// # Errors
/// The link is as it was.
pub fn turn_link(link: &Path, dir: &Path) -> Result<(), FileError> {
    let new = sibling(link, ".new");
    remove(&new)?;
    symlink(dir, &new).at("link", &new)?;
    let before = fs::read_link(link).ok();
    fs::rename(&new, link).at("rename into place", link)?;
    if let Some(before) = before.filter(|before| before != dir) {
        // Only copies: what is left of them harms nobody.
        let _ = fs::remove_dir_all(before);
    }
    Ok(())
}

/// Removes a file; true if there was one. Not durable.
///
/// # Errors
/// It exists and cannot be removed.
pub fn remove(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).at("remove", path),
    }
}

/// Gives the finished file `tmp` the name `path` unless that name is taken; durable. False if it is taken.
///
/// # Errors
/// The file system refused for another reason.
pub fn publish(tmp: &Path, path: &Path) -> Result<bool, FileError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, tmp, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(false),
        // File systems without the flag: a hard link refuses to overwrite as well.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match fs::hard_link(tmp, path) {
            Ok(()) => {
                remove(tmp)?;
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(e) => return Err(e).at("publish", path),
        },
        Err(e) => return Err(io::Error::from(e)).at("publish", path),
    }
    sync_parent(path)?;
    Ok(true)
}

/// `path` with `suffix` after its last component.
pub(crate) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// What comes of `work` on a volume, which may never come back; `None` if that takes longer than `limit`. It is not ended then, only not waited for.
pub(crate) async fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    tokio::time::timeout(limit, tokio::task::spawn_blocking(work)).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_with_its_parents_unless_a_file_is_in_the_way() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b/c");
        create_dir(&dir, 0o700).unwrap();
        create_dir(&dir, 0o700).unwrap();
        for made in [dir.as_path(), dir.parent().unwrap()] {
            assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700);
        }
        fs::write(dir.join("file"), b"").unwrap();
        assert!(create_dir(&dir.join("file"), 0o700).is_err());
    }

    #[test]
    fn publishing_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let (tmp, path) = (dir.path().join("t"), dir.path().join("p"));
        fs::write(&tmp, b"one").unwrap();
        assert!(publish(&tmp, &path).unwrap());
        fs::write(&tmp, b"two").unwrap();
        assert!(!publish(&tmp, &path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn writing_replaces_content_and_mode() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        fs::write(&path, b"old").unwrap();
        write(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_json_file_is_none_and_a_broken_one_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        assert_eq!(read_json::<u8>(&path).unwrap(), None);
        fs::write(&path, b"{").unwrap();
        assert!(read_json::<u8>(&path).is_err());
        write_json(&path, &7u8).unwrap();
        assert_eq!(read_json::<u8>(&path).unwrap(), Some(7));
    }

    #[test]
    fn two_files_take_turns_and_no_other_is_made() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let (path, spare) = (dir.path().join("p"), dir.path().join("s"));
        let mut inodes = Vec::new();
        for text in ["first", "a longer second one", "third", "4"] {
            write_json_in_turn(&path, &spare, &text).unwrap();
            assert_eq!(read_json::<String>(&path).unwrap().as_deref(), Some(text));
            inodes.push(fs::metadata(&path).unwrap().ino());
        }
        assert_eq!(inodes[1], inodes[3], "{inodes:?}");
        assert_eq!(inodes[0], inodes[2], "{inodes:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn what_hangs_is_not_waited_for() {
        let (answer, volume) = std::sync::mpsc::channel::<()>();
        assert_eq!(within(Duration::from_millis(5), move || volume.recv().is_ok()).await, None);
        drop(answer);
        assert_eq!(within(Duration::from_secs(10), || 3).await, Some(3));
    }
}
