//! What the tests take of the machine: ports, and a user for postgres.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which the kernel takes ports for outgoing connections, so that none is taken before its use.
pub fn ports() -> [u16; 3] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another run of these tests beside this one begins elsewhere: a port is taken only some time after it was found free.
    let first = 21_000 + 300 * u16::try_from(std::process::id() % 38).unwrap();
    [(); 3].map(|()| {
        loop {
            let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}

/// The user that postgres may run as: itself, or `postgres` when the tests run as root.
pub fn owner() -> (u32, u32) {
    if !rustix::process::geteuid().is_root() {
        return (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line =
        passwd.lines().find(|l| l.starts_with("postgres:")).expect("a user postgres (from the package)");
    let fields: Vec<&str> = line.split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

pub fn give(path: &Path, owner: (u32, u32)) {
    chown(path, Some(owner.0), Some(owner.1)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), owner);
        }
    }
}
