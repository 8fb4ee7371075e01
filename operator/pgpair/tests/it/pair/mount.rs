//! A volume with a file system of its own, which can be made to hang.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::give;

/// Enough for a cluster that fills a cache of gigabytes. What is not written takes no room.
const BYTES: u64 = 16 << 30;

fn run(program: &str, args: &[&Path]) {
    let status = Command::new(program).args(args).status();
    assert!(status.as_ref().is_ok_and(|s| s.success()), "{program} {args:?}: {status:?}");
}

/// An ext4 on a loop device, mounted in the place of an empty directory. Gone when it is dropped.
pub struct Mount {
    at: PathBuf,
}

impl Mount {
    /// Only root may mount: another user is told so, because a test that tries nothing proves nothing.
    pub fn new(at: &Path, owner: (u32, u32)) -> Mount {
        assert!(rustix::process::geteuid().is_root(), "this test mounts a file system: run it as root");
        let image = at.with_extension("img");
        File::create(&image).unwrap().set_len(BYTES).unwrap();
        let [ext4, quiet, no_reserve, zero] = ["-t", "-q", "-m", "0"].map(Path::new);
        run("mkfs.ext4", &[quiet, no_reserve, zero, &image]);
        run("mount", &[ext4, Path::new("ext4"), Path::new("-o"), Path::new("loop"), &image, at]);
        let mount = Mount { at: at.to_owned() };
        std::fs::remove_dir(at.join("lost+found")).unwrap();
        give(at, owner);
        mount
    }

    /// From now on whoever writes to it waits, and not even SIGKILL ends that.
    pub fn freeze(&self) -> Frozen {
        run("fsfreeze", &[Path::new("--freeze"), &self.at]);
        Frozen { at: self.at.clone() }
    }

    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Thawed already, unless the test has failed; processes that could not end may still be ending.
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.at).output();
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

/// A volume that hangs until this is dropped.
pub struct Frozen {
    at: PathBuf,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        run("fsfreeze", &[Path::new("--unfreeze"), &self.at]);
    }
}
