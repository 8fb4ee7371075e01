//! Programs with shared memory of their own.
//!
//! A postgres that is killed leaves its shared memory behind for its next start, which here never comes. A segment also holds the
//! Landlock domain of the process that made it, and with that every file and directory that the domain names, deleted ones too. In an
//! IPC namespace and a `/dev/shm` of its own, as a pod has them, all of it goes with the last process.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The program is opened before the user changes, who may not enter its directory.
const SCRIPT: &str = "mount -t tmpfs shm /dev/shm && exec 3<\"$1\" && u=$2 g=$3 && shift 3 && \
                      exec setpriv --reuid \"$u\" --regid \"$g\" --clear-groups /proc/self/fd/3 \"$@\"";

/// `program` under that user and group, in `/`; arguments are added to it. Whoever is not root runs it as himself, with the memory of all.
pub fn command(program: &Path, (uid, gid): (u32, u32)) -> Command {
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("unshare");
        command.args(["--ipc", "--mount", "--propagation", "slave", "sh", "-c", SCRIPT, "sh"]);
        command.arg(program).args([uid.to_string(), gid.to_string()]);
        command
    } else {
        let mut command = Command::new(program);
        command.uid(uid).gid(gid);
        command
    };
    command.current_dir("/");
    command
}
