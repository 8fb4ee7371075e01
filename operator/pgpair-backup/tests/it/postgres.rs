//! A PostgreSQL of each version that is there, in a directory of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// The directories of `PGPAIR_TEST_PG_BINS`, separated by colons, else each version of `/usr/lib/postgresql`.
fn programs() -> Vec<PathBuf> {
    if let Some(given) = std::env::var_os("PGPAIR_TEST_PG_BINS").filter(|v| !v.is_empty()) {
        return std::env::split_paths(&given).collect();
    }
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let bins = versions.map(|v| v.expect("a version").path().join("bin"));
    let mut bins: Vec<PathBuf> = bins.filter(|b| b.join("postgres").is_file()).collect();
    bins.sort();
    assert!(!bins.is_empty(), "no PostgreSQL below /usr/lib/postgresql");
    bins
}

/// Postgres refuses root: then the user `postgres`, or `nobody`.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |user: &str| {
        let line = passwd.lines().find(|l| l.split(':').next() == Some(user))?;
        let mut ids = line.split(':').skip(2).map_while(|f| f.parse().ok());
        Some((ids.next()?, ids.next()?))
    };
    Some(find("postgres").or_else(|| find("nobody")).unwrap_or((65534, 65534)))
}

/// A directory for one version.
pub struct World {
    dir: TempDir,
    bin: PathBuf,
}

/// A server; it is stopped when it is dropped.
pub struct Server<'a> {
    world: &'a World,
    data: PathBuf,
    port: u16,
}

/// Runs a test with each version.
pub fn with_each(body: impl Fn(&World)) {
    for bin in programs() {
        println!("{}", bin.display());
        let dir = tempfile::Builder::new().prefix("pgpair-backup-").tempdir_in("/tmp").expect("a directory");
        let world = World { dir, bin };
        world.own(world.dir.path());
        body(&world);
    }
}

impl World {
    /// Gives a file or directory to postgres' user.
    pub fn own(&self, path: &Path) {
        if let Some((uid, gid)) = unprivileged() {
            chown(path, Some(uid), Some(gid)).expect("the directory is given away");
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("the directory is ours");
    }

    /// A new directory of postgres' user.
    pub fn make(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir(&path).expect("a directory");
        self.own(&path);
        path
    }

    /// A program, run as postgres' user.
    pub fn command(&self, program: &str) -> Command {
        let own = self.bin.join(program);
        let mut command = Command::new(if own.is_file() { own } else { PathBuf::from(program) });
        if let Some((uid, gid)) = unprivileged() {
            command.uid(uid).gid(gid);
        }
        command.current_dir(self.dir.path()).env("PGHOST", self.dir.path()).env("PGUSER", "postgres");
        command.env("PGDATABASE", "postgres").env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// Runs a program that has to end well.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(program).args(args).output().expect("it starts");
        let said = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "{program} {args:?}: {status}: {said}");
        String::from_utf8_lossy(&stdout).trim().to_owned()
    }

    /// Starts a server on `data`.
    pub fn start(&self, data: &Path, port: u16) -> Server<'_> {
        let server = Server { world: self, data: data.to_owned(), port };
        let log = self.dir.path().join(format!("{port}.log"));
        let options = format!("-p {port} -k {} -c listen_addresses= -c fsync=off", self.dir.path().display());
        let (data, log) = (data.display().to_string(), log.display().to_string());
        self.run("pg_ctl", &["start", "-w", "-t", "60", "-D", &data, "-l", &log, "-o", &options]);
        server
    }
}

impl Server<'_> {
    /// The answer to one statement.
    pub fn sql(&self, statement: &str) -> String {
        self.world.run("psql", &["-p", &self.port.to_string(), "-X", "-A", "-t", "-c", statement])
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let mut stop = self.world.command("pg_ctl");
        stop.args(["stop", "-w", "-t", "60", "-m", "immediate", "-D"]).arg(&self.data);
        let _ = stop.output();
    }
}
