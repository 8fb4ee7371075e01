//! The lock of the data volume: held by every process of a postmaster's tree, so that getting it proves them all dead.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How often [`wait_free`] tries. A killed tree needs some milliseconds to vanish.
const POLL: Duration = Duration::from_millis(2);

/// The exclusive lock. Dropping it releases it unless a child has inherited it.
#[derive(Debug)]
pub struct VolumeLock {
    file: File,
}

impl VolumeLock {
    /// Takes the lock of the file at `path`, which is created if missing; `None` if any process holds it.
    ///
    /// # Errors
    /// The file cannot be opened, or the file system has no locks.
    pub fn try_acquire(path: &Path) -> io::Result<Option<VolumeLock>> {
        let file = open(path)?;
        Ok(take(&file)?.then_some(VolumeLock { file }))
    }

    /// A second handle of the same lock, for a child process's standard input: the one descriptor that a child inherits
    /// without a moment in which another child could inherit it too, and that postgres passes on to all its children.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn share(&self) -> io::Result<Stdio> {
        Ok(Stdio::from(self.file.try_clone()?))
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Takes the lock of an open file; `false` if another process holds it, and only then.
pub(super) fn take(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Waits until no process holds the lock, then takes it; `None` if that has not happened by `deadline`, or if the volume does not
/// even open the file by then.
///
/// # Errors
/// As [`VolumeLock::try_acquire`].
pub async fn wait_free(path: &Path, deadline: Instant) -> io::Result<Option<VolumeLock>> {
    let path = path.to_owned();
    let opening = tokio::task::spawn_blocking(move || open(&path));
    let Ok(opened) = tokio::time::timeout_at(deadline.into(), opening).await else { return Ok(None) };
    let file = opened.map_err(io::Error::other)??;
    loop {
        if take(&file)? {
            return Ok(Some(VolumeLock { file }));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_one_holder_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = VolumeLock::try_acquire(&path).unwrap().unwrap();
        assert!(VolumeLock::try_acquire(&path).unwrap().is_none());
        drop(held);
        assert!(VolumeLock::try_acquire(&path).unwrap().is_some());
    }

    #[test]
    fn a_lock_that_cannot_be_tried_is_not_taken_for_one_that_is_held() {
        use std::os::unix::fs::OpenOptionsExt;
        let only_a_name = i32::try_from(rustix::fs::OFlags::PATH.bits()).unwrap();
        let file = OpenOptions::new().read(true).custom_flags(only_a_name).open("/").unwrap();
        assert_eq!(take(&file).unwrap_err().raw_os_error(), Some(Errno::BADF.raw_os_error()));
    }

    #[tokio::test]
    async fn a_child_keeps_the_lock_that_the_parent_gave_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = VolumeLock::try_acquire(&path).unwrap().unwrap();
        let mut child = Command::new("sleep").arg("60").stdin(held.share().unwrap()).spawn().unwrap();
        drop(held);
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(wait_free(&path, soon).await.unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        let later = Instant::now() + Duration::from_secs(10);
        assert!(wait_free(&path, later).await.unwrap().is_some());
    }
}
