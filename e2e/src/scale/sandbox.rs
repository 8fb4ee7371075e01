//! A network, processes and a file system of the benchmark's own: it meets nothing of the machine, and nothing of it is left when it
//! ends, however it ends.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// Environment variables by which the process inside knows its folder and its number of pairs.
const FOLDER: &str = "PGPAIR_SCALE_FOLDER";
const PAIRS: &str = "PGPAIR_SCALE_PAIRS";
/// Open files that are wanted: two connections for each of 10,000 pairs, and room.
const FILES: u64 = 65_536;
/// Open files that are not connections to agents, and connections that are replaced while the old ones still close.
const SPARE_FILES: u64 = 400;
/// All addresses of pods lie in it. They are all of this machine, in the network of the sandbox alone.
const PODS: &str = "10.0.0.0/9";

/// The folder and the number of pairs, inside of the sandbox; `None` outside.
#[must_use]
pub fn inside() -> Option<(PathBuf, usize)> {
    let pairs = std::env::var(PAIRS).ok()?.parse().ok()?;
    Some((std::env::var_os(FOLDER)?.into(), pairs))
}

/// Runs this program again inside, with the same arguments, for one number of pairs, and waits for its end. There it has `folder`, empty
/// and in memory; here the folder stays as it is.
///
/// # Errors
/// When it cannot be started, or failed.
pub fn run_inside(folder: &Path, pairs: usize) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let files = grantable_files()?;
    // When this process dies, unshare does; and when unshare dies, every process inside.
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--nofile={files}:{files}"))
        .args(["setpriv", "--pdeathsig", "KILL"])
        .args(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().context("the path of this program")?)
        .args(std::env::args_os().skip(1))
        .env(FOLDER, folder)
        .env(PAIRS, pairs.to_string());
    let status = command.status().context("starting prlimit, setpriv and unshare (package util-linux)")?;
    ensure!(status.success(), "with {pairs} pairs: {status}");
    Ok(())
}

/// Inside: brings the network up, and puts the folder into memory.
///
/// # Errors
/// When a command fails.
pub fn prepare(folder: &Path) -> anyhow::Result<()> {
    run("ip", &["link", "set", "lo", "up"])?;
    run("ip", &["route", "add", "local", PODS, "dev", "lo"])?;
    run("mount", &["-t", "tmpfs", "-o", "mode=0700", "tmpfs", &folder.display().to_string()])?;
    // After a change of leader thousands of connections come at once.
    fs::write("/proc/sys/net/core/somaxconn", "16384").context("raising net.core.somaxconn")?;
    Ok(())
}

/// The machine in words, and what shares it.
#[must_use]
pub fn machine(shared_by: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{cores} cores and {} GiB, Linux {}, shared by {shared_by}",
        total.map_or_else(|| "?".to_owned(), |kib| (kib >> 20).to_string()),
        kernel.trim()
    )
}

/// Runs a command to its end.
///
/// # Errors
/// When it fails: with what it said.
pub fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(args).output().with_context(|| format!("starting {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(output.status.success(), "{program} {}: {said}", args.join(" "));
    Ok(())
}

/// The address of pod number `pod`.
#[must_use]
pub fn pod_address(pod: usize) -> Ipv4Addr {
    // .0 and .255 of a /24 are addresses like others here.
    let [_, _, high, low] = u32::try_from(pod).unwrap_or(u32::MAX).to_be_bytes();
    Ipv4Addr::new(10, 10 + u8::try_from(pod >> 16).unwrap_or(100), high, low)
}

/// As many pairs as a process with this limit of open files can hold a connection to each agent of.
///
/// # Errors
/// When the limit cannot be read.
pub fn most_pairs() -> anyhow::Result<usize> {
    Ok(pairs_of(limit()?))
}

fn pairs_of(files: u64) -> usize {
    usize::try_from(files.saturating_sub(SPARE_FILES) / 2).unwrap_or(usize::MAX)
}

/// The limit of open files that processes may be given here: what is wanted, else what the machine allows.
fn grantable_files() -> anyhow::Result<u64> {
    let wanted = Command::new("prlimit").arg(format!("--nofile={FILES}:{FILES}")).arg("true").output();
    let granted = wanted.context("starting prlimit (package util-linux)")?.status.success();
    if granted { Ok(FILES) } else { limit() }
}

/// The hard limit of this process.
fn limit() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/self/limits").context("reading the limits of this process")?;
    hard_limit(&text).context("no limit of open files in /proc/self/limits")
}

fn hard_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_has_an_address_of_its_own_below_the_route() {
        assert_eq!(pod_address(0), Ipv4Addr::new(10, 10, 0, 0));
        assert_eq!(pod_address(258), Ipv4Addr::new(10, 10, 1, 2));
        assert_eq!(pod_address(65_536), Ipv4Addr::new(10, 11, 0, 0));
        let all: std::collections::BTreeSet<_> = (0..70_000).map(pod_address).collect();
        assert_eq!(all.len(), 70_000);
        assert!(all.iter().all(|a| a.octets()[1] < 128));
    }

    #[test]
    fn a_limit_of_open_files_bounds_the_pairs() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 20000                files\n";
        assert_eq!(hard_limit(limits), Some(20_000));
        assert_eq!(pairs_of(20_000), 9_800);
    }
}
