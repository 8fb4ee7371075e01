//! Where the numbers were measured.

use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::harness::cluster::Cluster;
use crate::repository;

/// The machine and the versions. What could not be found out is absent.
#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    /// Processors that this process may use.
    pub cores: Option<usize>,
    /// Memory of the machine in bytes.
    pub memory_bytes: Option<u64>,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// Version of the API server.
    pub kubernetes: Option<String>,
    /// Commit of this repository, with `-dirty` when files differ from it.
    pub commit: Option<String>,
    /// When the run began.
    pub began: jiff::Timestamp,
}

/// Looks around.
pub async fn observe(cluster: &Cluster) -> Environment {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|v| v.trim().to_owned());
    let version = cluster.client.apiserver_version().await.ok();
    Environment {
        cores: std::thread::available_parallelism().ok().map(usize::from),
        memory_bytes: fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_total(&text)),
        kernel,
        kubernetes: version.map(|v| v.git_version),
        commit: commit(),
        began: jiff::Timestamp::now(),
    }
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Commit of this repository, with `-dirty` when files differ from it.
#[must_use]
pub fn commit() -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .current_dir(repository::root())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(memory_total("MemTotal:       24650000 kB\nMemFree: 1 kB\n"), Some(25_241_600_000));
        assert_eq!(memory_total("MemFree: 1 kB\n"), None);
    }
}
