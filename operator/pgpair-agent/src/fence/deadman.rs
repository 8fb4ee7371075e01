//! The deadman: the init process kills everything when the time has passed that the agent wrote here, whatever has
//! become of the agent. The two share eight bytes of memory, read and written as a file: no lock, no allocation.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pgpair_core::authority::timing::Ms;
use rustix::fs::{MemfdFlags, memfd_create};

/// Environment variable that names the shared file to the agent.
const VARIABLE: &str = "PGPAIR_DEADMAN";

/// One end of the shared deadline. `0` is no deadline.
#[derive(Debug, Clone)]
pub struct Deadman {
    file: Option<Arc<File>>,
    last: Arc<AtomicU64>,
}

impl Deadman {
    /// The init process's end: made before the agent is started; the second value is for the agent's environment.
    ///
    /// # Errors
    /// The kernel has no memory files.
    pub fn create() -> std::io::Result<(Deadman, (&'static str, String))> {
        let file = File::from(memfd_create("pgpair-deadman", MemfdFlags::CLOEXEC)?);
        file.write_all_at(&0u64.to_ne_bytes(), 0)?;
        // Not inherited but opened anew by the agent: no child of the agent ever holds it.
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        Ok((Deadman { file: Some(Arc::new(file)), last: Arc::default() }, (VARIABLE, path)))
    }

    /// The agent's end. Without an init process (tests of parts) it does nothing.
    ///
    /// # Errors
    /// The file that the init process named cannot be opened.
    pub fn of_agent() -> std::io::Result<Deadman> {
        let file = std::env::var_os(VARIABLE).map(PathBuf::from);
        let file = file.map(|p| File::options().read(true).write(true).open(p)).transpose()?;
        Ok(Deadman { file: file.map(Arc::new), last: Arc::default() })
    }

    /// Kill at `at`; `None`: not at all. Written only when it changes.
    pub fn set(&self, at: Option<Ms>) {
        let at = at.map_or(0, |ms| ms.0.max(1));
        if self.last.swap(at, Ordering::Relaxed) == at {
            return;
        }
        if let Some(file) = &self.file
            && let Err(e) = file.write_all_at(&at.to_ne_bytes(), 0)
        {
            tracing::error!(error = %e, "the deadman cannot be told its time");
        }
    }

    /// The deadline, if there is one. A deadline that cannot be read has passed.
    #[must_use]
    pub fn deadline(&self) -> Option<Ms> {
        let mut bytes = [0; 8];
        let file = self.file.as_ref()?;
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Some(u64::from_ne_bytes(bytes)).filter(|at| *at > 0).map(Ms),
            Err(_) => Some(Ms(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_end_sees_the_deadline() {
        let (init, (_, path)) = Deadman::create().unwrap();
        let agent = Deadman {
            file: Some(Arc::new(File::options().read(true).write(true).open(path).unwrap())),
            last: Arc::default(),
        };
        assert_eq!(init.deadline(), None);
        agent.set(Some(Ms(42)));
        assert_eq!(init.deadline(), Some(Ms(42)));
        agent.set(None);
        assert_eq!(init.deadline(), None);
    }
}
