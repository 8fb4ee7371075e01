//! The operator as a process: the real program, with what it takes from the machine.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use pgpair_wire::client::{self, Call, Connection};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::bench::footprint::{self, Footprint};
use crate::scale::plane::{Plane, SYSTEM};

/// Longest wait for its metrics.
const SCRAPE: Duration = Duration::from_secs(60);
/// Longest text of its metrics, in bytes.
const MAX_METRICS: usize = 1 << 30;
/// For it to be ready.
const READY: Duration = Duration::from_secs(60);

/// One process of it. It is killed when this is dropped.
#[derive(Debug)]
pub struct Operator {
    process: Child,
    pid: i32,
    listens: SocketAddr,
}

/// Its metrics.
#[derive(Debug, Clone, Copy)]
pub struct Scrape {
    /// Series in them.
    pub series: usize,
    /// How long they took.
    pub took: Duration,
}

impl Operator {
    /// Starts replica `number` with `program`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, plane: &Plane, number: u16) -> anyhow::Result<Operator> {
        let listens = SocketAddr::from(([127, 0, 0, 1], 9000 + number));
        let log = fs::File::create(plane.folder.join(format!("operator-{number}.log")))?;
        let process = Command::new(program)
            .args(["operator", &format!("--namespace={SYSTEM}"), &format!("--identity=replica-{number}")])
            .args([format!("--listen={listens}"), "--agent-image=registry.example/pgpair:scale".into()])
            .env("KUBECONFIG", &plane.operator_kubeconfig)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!("starting {}: build it with cargo build --release -p pgpair", program.display())
            })?;
        let pid = process.id().context("the operator has ended at once")?;
        Ok(Operator { process, pid: i32::try_from(pid)?, listens })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What it takes now.
    ///
    /// # Errors
    /// It has ended.
    pub fn footprint(&mut self) -> anyhow::Result<Footprint> {
        if let Some(status) = self.process.try_wait()? {
            bail!("the operator has ended: {status}");
        }
        footprint::of_process(self.pid)
    }

    /// The most memory it ever had, in bytes.
    #[must_use]
    pub fn peak(&self) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// Kills it, as a node does that loses power.
    ///
    /// # Errors
    /// When it has ended before.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill().await.context("killing the operator")
    }

    /// Waits until it says that it is ready: also a replica that only stands by.
    ///
    /// # Errors
    /// When that does not come in time.
    pub async fn await_ready(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + READY;
        while let Err(error) = self.get("/readyz").await {
            self.footprint()?;
            if Instant::now() >= end {
                return Err(error).context("the operator was not ready within a minute");
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Asks for its metrics.
    ///
    /// # Errors
    /// When they do not come.
    pub async fn scrape(&self) -> anyhow::Result<Scrape> {
        let begin = Instant::now();
        let text = String::from_utf8(self.get("/metrics").await?)?;
        let took = begin.elapsed();
        let series = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        Ok(Scrape { series, took })
    }

    async fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let get = async {
            let stream = client::connect(self.listens).await?;
            Connection::plain(stream, "operator").await?.exchange(&Call::get(path), MAX_METRICS).await
        };
        Ok(timeout(SCRAPE, get).await.with_context(|| format!("{path} did not come within {SCRAPE:?}"))??)
    }
}
