//! Clients that keep a pair busy: pgbench, from the stock image, in the pod of whoever is primary.

use std::time::Duration;

use anyhow::Context as _;
use pgpair_core::ids::InstanceId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::harness::exec::exec;
use crate::harness::pair::{CONTAINER, Pair};
use crate::harness::record;

/// One run of pgbench, in seconds: so long a stop has to wait.
const RUN_S: u64 = 5;
/// When there is no primary.
const RETRY: Duration = Duration::from_millis(500);
/// Rows of pgbench's tables: scale 3 is 300,000 accounts, some 50 MB.
const SCALE: u32 = 3;

/// How busy.
#[derive(Debug, Clone, Copy)]
pub struct Clients {
    /// Each changes accounts, in a transaction that must be acknowledged.
    pub writers: usize,
    /// Each only reads, as fast as it can.
    pub readers: usize,
}

/// Beside faults: enough to have transactions under way at any moment, and to leave the machine to others.
pub const BESIDE_FAULTS: Clients = Clients { writers: 4, readers: 0 };

/// A load that is on until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<u64>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Makes pgbench's tables.
///
/// # Errors
/// What pgbench said.
pub async fn prepare(pair: &Pair, primary: InstanceId) -> anyhow::Result<()> {
    let database = pair.app_secret("dbname").await?;
    let script = format!("pgbench -i -q -s {SCALE} -h /pgpair/run/pg -U postgres {database} 2>&1");
    pair.shell(primary, &script).await.map(|_| ()).context("making pgbench's tables")
}

impl Load {
    /// Begins.
    #[must_use]
    pub fn start(pair: &Pair, clients: Clients) -> Load {
        let (stop, stopped) = watch::channel(false);
        let kinds = [("-N", clients.writers), ("-S", clients.readers)];
        let busy = kinds.into_iter().filter(|(_, clients)| *clients > 0);
        let tasks = busy
            .map(|(kind, clients)| tokio::spawn(run(pair.clone(), kind, clients, stopped.clone())))
            .collect();
        Load { stop, tasks }
    }

    /// Ends it; returns how many transactions were acknowledged, as pgbench counts them, of runs that came to their end.
    pub async fn stop(mut self) -> u64 {
        // Without a listener there is nothing to stop.
        let _ = self.stop.send(true);
        let mut sum = 0;
        for task in std::mem::take(&mut self.tasks) {
            sum += task.await.unwrap_or(0);
        }
        sum
    }
}

/// A run that a fault ends is followed by another one, where the primary then is.
async fn run(pair: Pair, kind: &'static str, clients: usize, stopped: watch::Receiver<bool>) -> u64 {
    let mut sum = 0;
    while !*stopped.borrow() {
        match once(&pair, kind, clients).await {
            Ok(transactions) => sum += transactions,
            Err(_) => sleep(RETRY).await,
        }
    }
    sum
}

async fn once(pair: &Pair, kind: &str, clients: usize) -> anyhow::Result<u64> {
    let primary = record::read(pair).await?.primary.instance;
    let database = pair.app_secret("dbname").await?;
    let script = format!(
        "pgbench -n {kind} -c {clients} -j 2 -T {RUN_S} -h /pgpair/run/pg -U postgres {database} 2>&1"
    );
    let told = exec(&pair.pods(), &pair.names.pod(primary), CONTAINER, &["sh", "-c", &script]).await?;
    transactions(&told).context("pgbench told no number")
}

fn transactions(told: &str) -> Option<u64> {
    let line = told.lines().find_map(|l| l.strip_prefix("number of transactions actually processed:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_counted_is_read() {
        let told =
            "scaling factor: 1\nnumber of transactions actually processed: 1234\nlatency average = 1 ms\n";
        assert_eq!(transactions(told), Some(1234));
        assert_eq!(transactions("pgbench: error: connection refused"), None);
    }
}
