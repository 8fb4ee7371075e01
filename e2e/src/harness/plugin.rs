//! `kubectl pgpair` as a process, as a person starts it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::cluster::{Cluster, tools};

/// For one command; an order is followed by the program itself for two minutes.
const LIMIT: Duration = Duration::from_secs(150);
/// Name of the program.
const NAME: &str = "kubectl-pgpair";

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub out: String,
    /// What it printed for the person beside that.
    pub err: String,
}

impl Said {
    /// Whether it ended with `code`, and printed all of `lines` somewhere.
    ///
    /// # Errors
    /// Says what is different, with everything that it printed.
    pub fn expect(self, code: i32, lines: &[&str]) -> anyhow::Result<Said> {
        let all = format!("exit status {:?}\n{}{}", self.code, self.out, self.err);
        ensure!(self.code == Some(code), "expected exit status {code}: {all}");
        for line in lines {
            ensure!(self.out.contains(line) || self.err.contains(line), "{line:?} is not in: {all}");
        }
        Ok(self)
    }
}

/// Runs the plug-in that was built beside this program, in `namespace`, with `input` on its standard input.
///
/// # Errors
/// When it was not built, cannot be started, or takes more than 150 s.
pub async fn plugin(cluster: &Cluster, namespace: &str, args: &[&str], input: &str) -> anyhow::Result<Said> {
    let mut command = Command::new(program()?);
    command.args(cluster.access()).args(["-n", namespace]).args(args);
    command.env("PATH", path()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let what = format!("{NAME} {}", args.join(" "));
    let mut process = command.spawn().with_context(|| format!("starting `{what}`"))?;
    let mut stdin = process.stdin.take().context("it has no standard input")?;
    let run = async {
        // A program that does not read is no failure: its exit status tells.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        process.wait_with_output().await
    };
    let ended = timeout(LIMIT, run).await;
    let ended = ended.with_context(|| format!("`{what}` took more than {} s", LIMIT.as_secs()))?;
    let ended = ended.with_context(|| format!("running `{what}`"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: ended.status.code(), out: text(&ended.stdout), err: text(&ended.stderr) })
}

/// Cargo puts test programs one folder below those that people run.
fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("where is this program?")?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join(NAME)).find(|path| path.is_file());
    found
        .with_context(|| format!("no {NAME} beside {}: build it with `cargo build -p {NAME}`", own.display()))
}

/// The plug-in's `psql` starts kubectl, which may be in the cache only.
fn path() -> OsString {
    let known = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&known).chain(tools());
    std::env::join_paths(all).unwrap_or(known)
}
