//! A pair at which nothing happens costs the API server nothing.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use pgpair_e2e::harness::archive::{settle, wake};
use pgpair_e2e::harness::audit::{AuditLog, Write};
use pgpair_e2e::harness::pair::Pair;
use pgpair_e2e::harness::status::changes;
use tokio::time::sleep;

use crate::Outcome;
use crate::context::Context;

/// Without a write for so long (and longer than the pair's `archive_timeout`), what happened before has been told.
const QUIET: Duration = Duration::from_secs(40);
/// For that to come.
const CALM_DOWN: Duration = Duration::from_secs(120);
/// Counted for so long: several periods of everything that the operator does by the clock.
const COUNT: Duration = Duration::from_secs(60);

/// Neither the operator nor the agents write anything while the pair is healthy and nobody uses it.
pub async fn an_idle_pair_causes_no_writes(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let Some(audit) = AuditLog::of(&pair.cluster) else {
        return Ok(Outcome::Skipped("the API server's audit log is not to be had".into()));
    };
    let status = pair.await_paired(1, Duration::from_secs(120)).await?;
    let primary = pair.primary_of(&status)?;
    settle(&pair, primary).await?;
    let counted = count(&pair, &audit).await;
    wake(&pair, primary).await?;
    counted
}

async fn count(pair: &Pair, audit: &AuditLog) -> anyhow::Result<Outcome> {
    let begin = audit.await_quiet(&pair.names, QUIET, CALM_DOWN).await?;

    let before = pair.status().await?;
    let end = Instant::now() + COUNT;
    while Instant::now() < end {
        let writes = of_pair(pair, audit.since(begin)?);
        if !writes.is_empty() {
            let changed = changes(&before, &pair.status().await?)?;
            bail!("an idle pair caused {} writes: {}; status: {changed:?}", writes.len(), writes.join("; "));
        }
        sleep(Duration::from_secs(1)).await;
    }
    let all = audit.since(begin)?;
    ensure!(!all.is_empty(), "the audit log did not grow: not even the operator's own lease is in it");
    println!("  0 writes in {} s ({} by the operator for its own lease)", COUNT.as_secs(), all.len());
    Ok(Outcome::Passed)
}

fn of_pair(pair: &Pair, writes: Vec<Write>) -> Vec<String> {
    writes.iter().filter(|w| w.is_for(&pair.names)).map(ToString::to_string).collect()
}
