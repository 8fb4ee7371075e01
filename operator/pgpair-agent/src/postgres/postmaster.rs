//! The postmaster of this instance: made, started, watched and stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgpair_core::ids::InstanceId;
use pgpair_wire::config::PairConfig;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

use crate::fence::lock::VolumeLock;
use crate::instance::env::InstanceEnv;
use crate::instance::fsx::{self, FileError};
use crate::postgres::confine;
use crate::postgres::render::decoding::{SlotCopies, WalLevel};
use crate::postgres::render::{Floors, RenderError, Upstream};
use crate::postgres::sql::{Sql, SqlError};
use crate::postgres::tool::{PgBin, ToolError};

mod configure;
pub mod definitions;
mod init_db;
pub mod passwords;
mod roles;
pub mod sync;
mod system_settings;

pub use crate::postgres::render::hba::ClientAccess;
pub(crate) use configure::configure;
pub use configure::{
    Installed, TlsFor, floors, install_tls, objections, put_back_promises, reload_config, set_clients,
    set_upstream, try_hba, try_parameters,
};
pub use init_db::initdb;
pub use roles::{bootstrap, finish_bootstrap, keep_own_roles};
pub(crate) use system_settings::SystemSettings;

/// How often a starting postmaster is asked whether it accepts connections.
const READY_POLL: Duration = Duration::from_millis(10);

/// What could not be done with the postmaster.
#[derive(Debug, thiserror::Error)]
pub enum PostmasterError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A program of PostgreSQL.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A configuration that must not be written.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// A statement.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// It ended while something was awaited of it.
    #[error("postgres ended while {awaited}: {how}")]
    Exited {
        /// What was awaited.
        awaited: &'static str,
        /// Its exit status.
        how: String,
    },
    /// It did not do it in time.
    #[error("postgres: {awaited} took longer than {limit:?}{}", last.as_ref().map(|e| format!(" (last: {e})")).unwrap_or_default())]
    Late {
        /// What was awaited.
        awaited: &'static str,
        /// The time it had.
        limit: Duration,
        /// Last failure seen.
        last: Option<String>,
    },
}

/// In which role a data directory is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartAs {
    /// Writable after crash recovery.
    Primary,
    /// In recovery, streaming from this primary.
    Standby(Upstream),
}

/// How to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartOptions {
    /// Primary or standby.
    pub role: StartAs,
    /// Clients. A primary in a sync mode starts `Closed`, proves [`sync::set_sync`], and opens then.
    pub clients: ClientAccess,
    /// The standby that commits wait for from the start on.
    pub sync_with: Option<InstanceId>,
    /// A file for what postgres says, instead of our standard error: for a start that is made to learn why it fails.
    pub log: Option<PathBuf>,
}

/// A postmaster that this agent has started. Clones are handles of the same process.
#[derive(Debug, Clone)]
pub struct Postmaster {
    pid: Pid,
    pid_file: PathBuf,
    floors: Floors,
    wal_level: WalLevel,
    slot_copies: SlotCopies,
    exit: watch::Receiver<Option<String>>,
}

/// The first and the eighth line of `postmaster.pid`: process id and state. Empty if they are not there.
fn said(pid_file: &Path) -> (String, String) {
    let text = fs::read_to_string(pid_file).unwrap_or_default();
    let line = |n| text.lines().nth(n).unwrap_or_default().trim().to_owned();
    (line(0), line(7))
}

/// Whether a postmaster says that it is being shut down, in whatever way.
#[must_use]
pub fn is_shutting_down(pid_file: &Path) -> bool {
    said(pid_file).1 == "stopping"
}

/// Writes the configuration and starts postgres. The lock goes to the postmaster, and with it to all its children.
///
/// # Errors
/// Nothing runs then, and the lock is free.
pub async fn start(
    settings: &InstanceEnv,
    config: &PairConfig,
    bin: &PgBin,
    lock: VolumeLock,
    options: StartOptions,
) -> Result<Postmaster, PostmasterError> {
    let floors = floors(settings, bin, &options.role).await;
    let wal_level = WalLevel::at_start(config, floors);
    let slot_copies = configure::slot_copies(&settings.layout, config, floors);
    configure(settings, config, &options, floors)?;
    let mut command = bin.command("postgres");
    let start_error = |source| ToolError::Start { program: "postgres".into(), source };
    command.arg("-D").arg(settings.layout.pgdata()).kill_on_drop(false);
    command.stdin(lock.share().map_err(start_error)?);
    if let Some(path) = &options.log {
        command.stderr(fsx::create_truncated(path, 0o600)?);
    }
    let (mut child, confinement) = confine::spawn(&mut command, &settings.layout).map_err(start_error)?;
    tracing::info!(?confinement, "postgres is started");
    drop(lock);
    // The command holds a descriptor of the lock as well: only the tree of postgres may keep it.
    drop(command);
    let pid = child.id().and_then(|p| i32::try_from(p).ok()).and_then(Pid::from_raw);
    let Some(pid) = pid else {
        return Err(PostmasterError::Exited { awaited: "it was started", how: "no process id".into() });
    };
    let (send, exit) = watch::channel(None);
    tokio::spawn(async move {
        let how = match child.wait().await {
            Ok(status) => status.to_string(),
            Err(e) => format!("cannot be waited for: {e}"),
        };
        // Nobody may be listening any more.
        let _ = send.send(Some(how));
    });
    let pid_file = settings.layout.in_pgdata("postmaster.pid");
    Ok(Postmaster { pid, pid_file, floors, wal_level, slot_copies, exit })
}

impl Postmaster {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// What its configuration file was raised to when it was started.
    #[must_use]
    pub fn floors(&self) -> Floors {
        self.floors
    }

    /// `wal_level` as it was started with.
    #[must_use]
    pub fn wal_level(&self) -> WalLevel {
        self.wal_level
    }

    /// Whether it copies logical slots as a standby, and holds their consumers back as a primary.
    #[must_use]
    pub fn slot_copies(&self) -> SlotCopies {
        self.slot_copies
    }

    /// Its exit status in words, if it has ended. Its children may still run: the volume's lock tells.
    #[must_use]
    pub fn has_exited(&self) -> Option<String> {
        self.exit.borrow().clone()
    }

    /// Waits for its end and returns its exit status in words.
    pub async fn exited(&self) -> String {
        let mut exit = self.exit.clone();
        let how = exit.wait_for(Option::is_some).await.map(|h| h.clone()).ok().flatten();
        how.unwrap_or_else(|| "its watcher is gone".into())
    }

    /// Waits until it accepts connections: a primary after recovery, a standby when consistent.
    ///
    /// # Errors
    /// It ended, or `limit` passed.
    pub async fn wait_ready(&self, sql: &Sql, limit: Duration) -> Result<(), PostmasterError> {
        const AWAITED: &str = "accepting connections";
        let mut last = None;
        let poll = async {
            loop {
                // Its own file first: each refused connection would be a line in the log.
                if self.says_ready() {
                    match sql.session(None).await {
                        Ok(_) => return,
                        Err(e) => last = Some(e.to_string()),
                    }
                }
                tokio::time::sleep(READY_POLL).await;
            }
        };
        tokio::select! {
            () = poll => Ok(()),
            how = self.exited() => Err(PostmasterError::Exited { awaited: AWAITED, how }),
            () = tokio::time::sleep(limit) => Err(PostmasterError::Late { awaited: AWAITED, limit, last }),
        }
    }

    /// Whether the eighth line of `postmaster.pid` says that connections are accepted (PostgreSQL, `pidfile.h`).
    #[must_use]
    pub fn says_ready(&self) -> bool {
        let (pid, status) = said(&self.pid_file);
        pid == self.pid.as_raw_nonzero().to_string() && status == "ready"
    }

    /// Fast shutdown: ends the sessions, writes the shutdown checkpoint, sends everything to the standby.
    ///
    /// # Errors
    /// It still runs after `limit`; kill the tree then.
    pub async fn stop_fast(&self, limit: Duration) -> Result<(), PostmasterError> {
        self.signal(Signal::INT)?;
        match tokio::time::timeout(limit, self.exited()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(PostmasterError::Late { awaited: "a fast shutdown", limit, last: None }),
        }
    }

    /// Makes it read its configuration again.
    ///
    /// # Errors
    /// It has ended.
    pub fn reload(&self) -> Result<(), PostmasterError> {
        self.signal(Signal::HUP)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), PostmasterError> {
        const AWAITED: &str = "it was signalled";
        if let Some(how) = self.has_exited() {
            return Err(PostmasterError::Exited { awaited: AWAITED, how });
        }
        kill_process(self.pid, signal)
            .map_err(|e| PostmasterError::Exited { awaited: AWAITED, how: e.to_string() })
    }
}
