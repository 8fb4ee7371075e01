//! `pgpair basebackup`: seeds this instance's data volume from the primary. Run by a Job while the instance is scaled to 0.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use axum::{Json, Router, routing::get};
use hyper_util::service::TowerToHyperService;
use pgpair_core::ids::{SystemIdentifier, VolumeId};
use pgpair_wire::config::PairConfig;
use pgpair_wire::door::{self, Limits};
use pgpair_wire::paths;
use pgpair_wire::seed::{SeedEnd, SeedProgress};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;

use crate::fence::lock::VolumeLock;
use crate::instance::env::{InstanceEnv, InstanceEnvError};
use crate::instance::fsx::{self, Context, FileError};
use crate::instance::state;
use crate::postgres::control_file;
use crate::postgres::pair_config::{self, ConfigError};
use crate::postgres::pgdata::{self, Volume};
use crate::postgres::postmaster::{TlsFor, install_tls};
use crate::postgres::render::{self, Upstream};
use crate::postgres::tablespaces::{self, MisplacedTablespace, Tablespace};
use crate::postgres::tool::{self, PgBin, ToolError};
use crate::postgres::trust::ServerTrust;
use crate::standby::{job, room};
use crate::wal::cleanup;

/// Connecting, asking and creating a slot.
const SMALL: Duration = Duration::from_secs(30);
/// For the primary to answer at all.
const PRIMARY: Duration = Duration::from_secs(60);
const PRIMARY_AGAIN: Duration = Duration::from_millis(250);
/// No byte for so long: the connection is dead even if the kernel does not know.
const STALLED: Duration = Duration::from_secs(600);
/// Who asks for progress at once, and for how long.
const ASKERS: Limits = Limits { places: 16, time: Duration::from_secs(10) };
/// How often progress is printed.
const TELL: Duration = Duration::from_secs(1);
/// How much of `pg_basebackup`'s messages is kept for an error.
const MESSAGES: usize = 4000;

/// A seeding that failed. The volume holds no half data directory under the name PGDATA.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The environment.
    #[error(transparent)]
    InstanceEnv(#[from] InstanceEnvError),
    /// What a person has set.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A program of PostgreSQL.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The instance still runs.
    #[error("another process holds the lock {path}: scale the instance to 0 first", path = .0.display())]
    Locked(PathBuf),
    /// Not our data.
    #[error(
        "the data directory belongs to the cluster {found}, the primary to {primary}: it is not touched; empty the volume by hand if it is not needed"
    )]
    Foreign {
        /// System identifier on the volume.
        found: SystemIdentifier,
        /// System identifier of the primary.
        primary: SystemIdentifier,
    },
    /// The primary said something unexpected.
    #[error("the primary answered IDENTIFY_SYSTEM with {0:?}")]
    Primary(String),
    /// The backup.
    #[error("pg_basebackup failed: {0}")]
    Backup(String),
    /// There is not room for two copies, and the one that is there may not go.
    #[error(
        "the data volume has no room for a copy beside the data that it holds, which is kept because it can still serve: make the volume \
         larger (spec.storage.data.size), or delete the claims and the pod of this instance ({0})"
    )]
    NoRoom(String),
    /// A tablespace that this volume cannot hold.
    #[error(transparent)]
    Tablespace(#[from] MisplacedTablespace),
}

/// The command. Prints progress as JSON lines, and serves it on the probe port under [`paths::SEED`].
#[must_use]
pub fn run() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => {
            eprintln!("basebackup: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let settings = InstanceEnv::from_env();
    let result = runtime.block_on(async {
        let settings = settings.clone()?;
        let (send, receive) = watch::channel(SeedProgress::default());
        tokio::spawn(serve(settings.clone(), receive.clone()));
        tokio::spawn(tell(receive));
        let config = pair_config::load(&settings)?;
        seed(&settings, &config, VolumeId(rand::random()), &send).await
    });
    match result {
        Ok(volume) => {
            report(&SeedEnd { seeded: true, volume_id: Some(volume.volume_id), error: None, kept: false });
            ExitCode::SUCCESS
        }
        Err(e) => {
            let kept =
                settings.is_ok_and(|s| matches!(pgdata::inspect(&s.layout), Ok(pgdata::DataDir::Ready(_))));
            report(&SeedEnd { seeded: false, volume_id: None, error: Some(e.to_string()), kept });
            ExitCode::FAILURE
        }
    }
}

/// Takes a base backup of the peer into this volume and gives it the identity `id`.
///
/// # Errors
/// See [`SeedError`]. What was in PGDATA is still there, or in `moved-aside`.
pub async fn seed(
    settings: &InstanceEnv,
    config: &PairConfig,
    id: VolumeId,
    progress: &watch::Sender<SeedProgress>,
) -> Result<Volume, SeedError> {
    let layout = &settings.layout;
    let lock = VolumeLock::try_acquire(&layout.lock()).at("lock", &layout.lock())?;
    let lock = lock.ok_or_else(|| SeedError::Locked(layout.lock()))?;
    let bin = PgBin::find(settings)?;
    install_tls(layout, TlsFor::BaseBackup)?;
    let primary = await_primary(settings, &bin).await?;
    check_ours(&layout.pgdata(), primary)?;
    let upstream = conninfo_of(settings, Some("postgres"));
    let tablespaces = tablespaces::of_primary(&bin, &upstream).await?;
    tablespaces.iter().try_for_each(|t| tablespaces::check(layout, t))?;
    cleanup::moved_aside(layout)?;
    create_slot(settings, &bin).await?;
    loop {
        // Left by an earlier try, and never served.
        remove_tree(&layout.seeding())?;
        remove_tree(&layout.seeding_tablespaces())?;
        match backup(settings, config, &bin, &lock, &tablespaces, progress).await {
            Err(SeedError::Backup(said)) if said.contains(tool::NO_SPACE) => match room::make_room(layout)? {
                Some(gone) => eprintln!("basebackup: no space is left, {} is removed", gone.display()),
                None => return Err(SeedError::NoRoom(said)),
            },
            done => break done?,
        }
    }
    // A copy of the primary is a standby's directory until it is promoted, whoever starts it.
    fsx::write(&layout.seeding().join("standby.signal"), b"", 0o600)?;
    state::begin(layout)?;
    // Only now: until here the old directory could still be the better one.
    pgdata::move_aside(layout)?;
    tablespaces::put_in_place(layout, &tablespaces)?;
    fs::rename(layout.seeding(), layout.pgdata()).at("rename into place", &layout.pgdata())?;
    fsx::sync_dir(&layout.data)?;
    let volume = Volume { volume_id: id, system_identifier: primary };
    fsx::remove(&layout.rebuild_needed())?;
    fsx::write(&layout.fresh_copy(), b"", 0o600)?;
    fsx::write_json(&layout.volume_json(), &volume)?;
    Ok(volume)
}

fn conninfo(settings: &InstanceEnv) -> String {
    conninfo_of(settings, None)
}

fn conninfo_of(settings: &InstanceEnv, database: Option<&str>) -> String {
    let name = InstanceEnv::standby_name(settings.instance);
    // Another name than the standby's: a backup's WAL stream must never count as the synchronous standby.
    let name = format!("{name}_seed");
    let primary = Upstream { host: settings.peer_host.clone(), address: None, port: settings.peer_pg_port };
    render::conninfo(settings, &primary, &ServerTrust::of(&settings.layout), &name, database)
}

/// The first Job of a pair starts while the primary still makes its data directory; a later one may find it in a restart.
async fn await_primary(settings: &InstanceEnv, bin: &PgBin) -> Result<SystemIdentifier, SeedError> {
    let end = Instant::now() + PRIMARY;
    loop {
        match identify(settings, bin).await {
            Err(SeedError::Tool(e)) if Instant::now() < end => {
                tracing::debug!(error = %e, "the primary does not answer yet");
                tokio::time::sleep(PRIMARY_AGAIN).await;
            }
            done => return done,
        }
    }
}

async fn identify(settings: &InstanceEnv, bin: &PgBin) -> Result<SystemIdentifier, SeedError> {
    let mut command = bin.command("psql");
    command
        .args(["-X", "-A", "-t", "-w", "-c", "IDENTIFY_SYSTEM", "-d"])
        .arg(conninfo(settings) + " replication=true");
    let answer = tool::run(&mut command, SMALL).await?;
    let id = answer.split('|').next().and_then(|t| t.trim().parse().ok());
    id.ok_or(SeedError::Primary(answer))
}

async fn create_slot(settings: &InstanceEnv, bin: &PgBin) -> Result<(), SeedError> {
    let mut command = bin.command("pg_receivewal");
    command
        .args([
            "--create-slot",
            "--if-not-exists",
            "-w",
            "-S",
            InstanceEnv::standby_name(settings.instance),
            "-d",
        ])
        .arg(conninfo(settings));
    tool::run(&mut command, SMALL).await?;
    Ok(())
}

fn check_ours(pgdata: &Path, primary: SystemIdentifier) -> Result<(), SeedError> {
    if !pgdata.join("global/pg_control").exists() {
        return Ok(());
    }
    let found = control_file::system_identifier(pgdata)?;
    if found == primary { Ok(()) } else { Err(SeedError::Foreign { found, primary }) }
}

fn remove_tree(path: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at("remove", path),
        _ => Ok(()),
    }
}

async fn backup(
    settings: &InstanceEnv,
    config: &PairConfig,
    bin: &PgBin,
    lock: &VolumeLock,
    tablespaces: &[Tablespace],
    progress: &watch::Sender<SeedProgress>,
) -> Result<(), SeedError> {
    let mut command = bin.command("pg_basebackup");
    command
        .arg("-D")
        .arg(settings.layout.seeding())
        .args(["-X", "stream", "--checkpoint=fast", "--progress", "-w"])
        .args(["-S", InstanceEnv::standby_name(settings.instance), "-d"])
        .arg(conninfo(settings));
    command.args(tablespaces.iter().map(|t| t.mapping(&settings.layout)));
    if let Some(kib_per_second) = config.seed_rate_kib {
        command.arg(format!("--max-rate={kib_per_second}k"));
    }
    let lock_path = settings.layout.lock();
    command.stdin(lock.share().at("share the lock of", &lock_path)?);
    let (ok, messages) = watched(&mut command, progress).await?;
    if ok { Ok(()) } else { Err(SeedError::Backup(tool::tail(&messages))) }
}

/// Runs a program that prints progress; returns whether it succeeded, and its other messages.
async fn watched(
    command: &mut Command,
    progress: &watch::Sender<SeedProgress>,
) -> Result<(bool, String), ToolError> {
    let program = tool::name_of(command);
    let start = |source| ToolError::Start { program: program.clone(), source };
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(start)?;
    let mut messages = String::new();
    if let Some(stderr) = child.stderr.take() {
        let on_line = |line: &str| match parse_progress(line) {
            Some(p) => {
                progress.send_replace(p);
            }
            None if messages.len() < MESSAGES => {
                messages.push_str(line);
                messages.push('\n');
            }
            None => {}
        };
        if !lines(stderr, on_line).await.map_err(start)? {
            // Dropping the child kills it.
            return Err(ToolError::Late { program, limit: STALLED });
        }
    }
    let status = child.wait().await.map_err(start)?;
    Ok((status.success(), messages))
}

/// Calls `on_line` for each line; progress lines end with a carriage return or a line feed. False if nothing came for too long.
async fn lines(mut from: impl AsyncRead + Unpin, mut on_line: impl FnMut(&str)) -> std::io::Result<bool> {
    let mut line = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let Ok(read) = tokio::time::timeout(STALLED, from.read(&mut buffer)).await else { return Ok(false) };
        let n = read?;
        for byte in &buffer[..n] {
            match byte {
                b'\r' | b'\n' => {
                    on_line(&String::from_utf8_lossy(&line));
                    line.clear();
                }
                b => line.push(*b),
            }
        }
        if n == 0 {
            on_line(&String::from_utf8_lossy(&line));
            return Ok(true);
        }
    }
}

/// `  23187/30884 kB (75%), 0/1 tablespace (…)`
fn parse_progress(line: &str) -> Option<SeedProgress> {
    let (done, rest) = line.trim_start().split_once('/')?;
    let (total, rest) = rest.split_once(" kB (")?;
    let percent: u8 = rest.split_once('%')?.0.trim().parse().ok()?;
    let kib = |t: &str| t.trim().parse::<u64>().ok()?.checked_mul(1024);
    Some(SeedProgress {
        done_bytes: kib(done)?,
        total_bytes: Some(kib(total)?),
        percent: Some(percent.min(100)),
    })
}

async fn serve(settings: InstanceEnv, progress: watch::Receiver<SeedProgress>) {
    let app = Router::new().route(paths::SEED, get(async move || Json(*progress.borrow())));
    match TcpListener::bind((settings.listen, settings.probe_port)).await {
        Ok(listener) => door::serve(listener, ASKERS, TowerToHyperService::new(app)).await,
        // Seeding is more important than its display.
        Err(e) => eprintln!("basebackup: progress is not served on port {}: {e}", settings.probe_port),
    }
}

async fn tell(mut progress: watch::Receiver<SeedProgress>) {
    while progress.changed().await.is_ok() {
        let now = *progress.borrow_and_update();
        report(&now);
        tokio::time::sleep(TELL).await;
    }
}

/// The seeding is more important than what is said of it.
fn report(words: &impl Serialize) {
    let _ = job::tell(words);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_the_lines_of_pg_basebackup() {
        let p = parse_progress("23187/30884 kB (75%), 0/1 tablespace (...base/1/2619)").unwrap();
        assert_eq!((p.done_bytes, p.total_bytes, p.percent), (23187 * 1024, Some(30884 * 1024), Some(75)));
        assert_eq!(parse_progress("    0/30884 kB (0%), 0/1 tablespace").unwrap().percent, Some(0));
        assert_eq!(parse_progress("pg_basebackup: error: connection to server at \"x\" (1/2) failed"), None);
        assert_eq!(
            serde_json::to_string(&p).unwrap(),
            r#"{"doneBytes":23743488,"totalBytes":31625216,"percent":75}"#
        );
    }

    #[tokio::test]
    async fn lines_end_with_either_character() {
        let mut got = Vec::new();
        assert!(lines(&b"a\rb\nc"[..], |l| got.push(l.to_owned())).await.unwrap());
        assert_eq!(got, ["a", "b", "c"]);
    }
}
