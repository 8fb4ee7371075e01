//! PostgreSQL's programs, run to their end.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::instance::env::InstanceEnv;
use crate::instance::layout::Layout;
use crate::postgres::confine;

/// How much of a program's output goes into an error.
const TAIL: usize = 600;
/// `postgres --version` prints one line.
const VERSION: Duration = Duration::from_secs(10);

/// What a program says when the volume is full.
pub(crate) const NO_SPACE: &str = "No space left on device";
/// What a program says, also about a file of the data directory, when what is around the directory is to blame.
pub(crate) const NOT_THE_DATA: [&str; 7] = [
    NO_SPACE,
    "Cannot allocate memory",
    "out of memory",
    "Permission denied",
    "Read-only file system",
    "Input/output error",
    "Too many open files",
];

/// Where PostgreSQL's programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgBin {
    dir: PathBuf,
}

/// A program that could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// There is no PostgreSQL.
    #[error(
        "no PostgreSQL programs found: looked at PGPAIR_PG_BIN, pg_config --bindir, /usr/lib/postgresql and PATH; use an image that holds the server"
    )]
    NotFound,
    /// It could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Which one.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It reported failure.
    #[error("{program} failed ({status}): {}", tail(output))]
    Failed {
        /// Which one.
        program: String,
        /// Exit status.
        status: std::process::ExitStatus,
        /// What it printed; messages show its end.
        output: String,
    },
    /// It did not end in time; it was killed.
    #[error("{program} did not end within {limit:?} and was killed")]
    Late {
        /// Which one.
        program: String,
        /// The time it had.
        limit: Duration,
    },
}

impl ToolError {
    /// What the program printed.
    pub(crate) fn text(&self) -> &str {
        if let ToolError::Failed { output, .. } = self { output } else { "" }
    }

    /// The program.
    pub(crate) fn program(&self) -> &str {
        match self {
            ToolError::NotFound => "postgres",
            ToolError::Start { program, .. }
            | ToolError::Failed { program, .. }
            | ToolError::Late { program, .. } => program,
        }
    }

    /// It was killed in the middle of its work.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self, ToolError::Late { .. })
    }
}

impl PgBin {
    /// Finds the programs: `PGPAIR_PG_BIN`, else what `pg_config` says, else the newest of `/usr/lib/postgresql`, else PATH.
    ///
    /// # Errors
    /// There is no `postgres` in any of these places.
    pub fn find(settings: &InstanceEnv) -> Result<PgBin, ToolError> {
        let configured = settings.pg_bin.clone().into_iter();
        let candidates = configured.chain(from_pg_config()).chain(newest_debian()).chain(path_dirs());
        candidates
            .into_iter()
            .find(|dir| dir.join("postgres").is_file())
            .map(|dir| PgBin { dir })
            .ok_or(ToolError::NotFound)
    }

    /// Path of one program.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Major version of these programs; `None` if they do not say.
    pub async fn major(&self) -> Option<u32> {
        let text = run(self.command("postgres").arg("--version"), VERSION).await.ok()?;
        let word = text.split_whitespace().find(|w| w.starts_with(|c: char| c.is_ascii_digit()))?;
        word.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
    }

    /// A command with a fixed locale and nothing on its standard input.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.program(name));
        command.env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

fn from_pg_config() -> Option<PathBuf> {
    let out = std::process::Command::new("pg_config").arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(out.stdout).ok()?.trim()))
}

fn newest_debian() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let newest = versions.filter_map(|v| v.ok()?.file_name().to_str()?.parse::<u32>().ok()).max()?;
    Some(Path::new("/usr/lib/postgresql").join(newest.to_string()).join("bin"))
}

fn path_dirs() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|p| std::env::split_paths(OsStr::new(&p)).collect()).unwrap_or_default()
}

/// Runs a program to its end and returns what it wrote to standard output.
///
/// # Errors
/// It could not be started, failed or took longer than `limit`.
pub(crate) async fn run(command: &mut Command, limit: Duration) -> Result<String, ToolError> {
    Ok(String::from_utf8_lossy(&output(command, limit).await?.stdout).into_owned())
}

/// As [`run`], for a program that starts postgres, which is [confined](confine). Returns what it wrote to standard error too.
pub(crate) async fn run_confined(
    command: &mut Command,
    layout: &Layout,
    limit: Duration,
) -> Result<String, ToolError> {
    let program = name_of(command);
    let spawned = confine::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()), layout);
    let (child, _) = spawned.map_err(|source| ToolError::Start { program: program.clone(), source })?;
    let output = finished(program, child.wait_with_output(), limit).await?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

async fn output(command: &mut Command, limit: Duration) -> Result<Output, ToolError> {
    let program = name_of(command);
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    finished(program, output, limit).await
}

async fn finished(
    program: String,
    output: impl Future<Output = io::Result<Output>>,
    limit: Duration,
) -> Result<Output, ToolError> {
    let output = tokio::time::timeout(limit, output)
        .await
        .map_err(|_| ToolError::Late { program: program.clone(), limit })?
        .map_err(|source| ToolError::Start { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(output);
    }
    let text = [output.stdout, output.stderr].concat();
    Err(ToolError::Failed {
        program,
        status: output.status,
        output: String::from_utf8_lossy(&text).into_owned(),
    })
}

pub(crate) fn name_of(command: &Command) -> String {
    Path::new(command.as_std().get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The last characters of a text, on one line.
pub(crate) fn tail(text: &str) -> String {
    let line = text.trim().replace('\n', " | ");
    let start = line.char_indices().rev().nth(TAIL).map_or(0, |(i, _)| i);
    line[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_says_which_program_and_what_it_printed() {
        let mut c = Command::new("/bin/sh");
        let e = run(c.args(["-c", "echo no disk; exit 3"]), Duration::from_secs(10)).await.unwrap_err();
        let text = e.to_string();
        assert!(text.contains("sh failed") && text.contains("no disk"), "{text}");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_given_up() {
        let mut c = Command::new("/bin/sleep");
        let e = run(c.arg("60").kill_on_drop(true), Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(e, ToolError::Late { .. }));
    }

    #[test]
    fn the_tail_respects_characters() {
        assert!(tail(&"é".repeat(2000)).chars().count() <= TAIL + 1);
    }
}
