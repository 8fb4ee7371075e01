//! `status`: once, or again and again.

use std::io::{self, IsTerminal};
use std::time::Duration;

use jiff::Timestamp;
use pgpair_api::PgReplicaPair;

use crate::args::Output;
use crate::cluster::Cluster;
use crate::page;

/// Time between two looks: ages are in seconds.
const PAUSE: Duration = Duration::from_secs(1);
/// To the upper left corner, and everything away.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows it.
///
/// # Errors
/// It cannot be read.
pub async fn once(cluster: &Cluster, name: &str, output: Output) -> anyhow::Result<()> {
    print!("{}", text(&cluster.pair(name).await?, output)?);
    Ok(())
}

/// Shows it until the process is interrupted. On a terminal the page is drawn anew each second; elsewhere it is printed
/// when the status has changed.
///
/// # Errors
/// The first look failed. Later the error is shown, and the next look may succeed.
pub async fn watch(cluster: &Cluster, name: &str, output: Output) -> anyhow::Result<()> {
    let mut pair = cluster.pair(name).await?;
    let terminal = io::stdout().is_terminal() && output == Output::Page;
    let mut shown = None;
    let mut trouble = None;
    loop {
        let news = (pair.metadata.resource_version.clone(), trouble);
        if terminal || shown.as_ref() != Some(&news) {
            let clear = if terminal { CLEAR } else { "" };
            print!("{clear}{}", text(&pair, output)?);
            if let Some(trouble) = &news.1 {
                eprintln!("as of a moment ago: {trouble}");
            }
            io::Write::flush(&mut io::stdout())?;
        }
        shown = Some(news);
        tokio::time::sleep(PAUSE).await;
        trouble = match cluster.pair(name).await {
            Ok(now) => {
                pair = now;
                None
            }
            Err(e) => Some(format!("{e:#}")),
        };
    }
}

fn text(pair: &PgReplicaPair, output: Output) -> anyhow::Result<String> {
    Ok(match output {
        Output::Json => serde_json::to_string_pretty(&pair.status)? + "\n",
        Output::Page => page::render(pair, Timestamp::now()),
    })
}
