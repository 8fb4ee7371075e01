//! `pgpair witness`: a second, tiny container of the pod that proves the death of the agent within milliseconds.
//!
//! The agent holds a lock of its own for as long as it lives, with its incarnation in the file. Whoever gets that lock, and then
//! the volume's, knows that this incarnation is dead and that no process of its postgres is left. The witness tells the peer,
//! which need not wait for its promise to lapse. It never decides anything, and keeps no lock for longer than the proof takes.

use std::fs::File;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pgpair_core::authority::messages::{Evidence, EvidenceKind};
use pgpair_core::ids::Incarnation;
use pgpair_core::instance::PostgresState;
use rustix::fs::{FlockOperation, flock};
use tokio::signal::unix::{SignalKind, signal};

use crate::fence::lock;
use crate::instance::env::InstanceEnv;
use crate::instance::layout::Layout;
use crate::net::peer::Peer;
use crate::net::tls::Identity;

/// The processes of a dead container are gone in milliseconds.
const TREE: Duration = Duration::from_secs(10);
/// Time between two looks for a new agent, and between two tries to tell the peer.
const PAUSE: Duration = Duration::from_millis(200);
/// One try to tell the peer.
const TELL: Duration = Duration::from_millis(500);
/// After this many tries its promise has lapsed anyway.
const TRIES: u32 = 20;
/// The same when the pod is about to go: its successor waits for it.
const LAST_TRIES: u32 = 3;
/// Inside the longest grace of a pod, 165 s.
const LAST_WATCH: Duration = Duration::from_secs(160);
/// For the peer to be primary, at the end of the pod.
const LINGER: Duration = Duration::from_millis(2500);
/// For the proxies of all nodes to follow the Service then.
const PROXIES: Duration = Duration::from_millis(500);

/// The lock of a living agent. The file goes with the process; no child inherits it.
#[derive(Debug)]
pub struct AgentLock {
    _file: File,
}

impl AgentLock {
    /// Takes it for this incarnation; waits while the witness of a predecessor still has it.
    ///
    /// # Errors
    /// The file cannot be opened, locked or written.
    pub async fn acquire(layout: &Layout, incarnation: Incarnation) -> io::Result<AgentLock> {
        let file = open(layout)?;
        let mut complain = Instant::now() + TREE;
        while !lock::take(&file)? {
            if Instant::now() >= complain {
                complain += TREE;
                tracing::warn!(
                    "another agent of this volume lives, or its witness waits for its postgres to end; waiting"
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::fs::write(layout.agent_lock(), incarnation.to_string())?;
        Ok(AgentLock { _file: file })
    }
}

fn open(layout: &Layout) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(layout.agent_lock())
}

/// The command. Told to end (the whole pod is), it outlives the agent all the same, for its death may still be of use.
#[must_use]
pub fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.and_then(|runtime| {
        let result = runtime.block_on(async {
            let mut term = signal(SignalKind::terminate())?;
            let mut int = signal(SignalKind::interrupt())?;
            tokio::select! {
                result = watch() => return result,
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            // Too late is no failure: the agent has had its time, and the kubelet ends both.
            tokio::time::timeout(LAST_WATCH, last_word()).await.unwrap_or(Ok(()))
        });
        // A thread may be waiting for the lock.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!(error = %e, "the witness ends");
            ExitCode::FAILURE
        }
    }
}

fn settings() -> io::Result<InstanceEnv> {
    InstanceEnv::from_env().map_err(io::Error::other)
}

/// Made when there is something to tell: until then this process, which may wait for years, has touched little memory; and
/// the certificates are those of today.
fn peer(settings: &InstanceEnv) -> io::Result<Peer> {
    let identity = Identity::of(&settings.layout).map_err(io::Error::other)?;
    let peer = Peer::new(settings, identity);
    learn_address(&settings.layout, &peer);
    Ok(peer)
}

/// An agent that does not end in the grace of its pod is killed, without having resigned.
async fn last_word() -> io::Result<()> {
    let settings = settings()?;
    let dead = death(&settings.layout).await?;
    let peer = peer(&settings)?;
    if let Some(incarnation) = dead {
        tell(&peer, incarnation, LAST_TRIES).await;
    }
    linger(&peer).await;
    Ok(())
}

/// The pod keeps its address as long as one of its containers runs. Clients that the Service still leads here are refused at once
/// then; without the address they would wait a second for an answer that never comes.
async fn linger(peer: &Peer) {
    let end = Instant::now() + LINGER;
    while Instant::now() < end {
        if peer.report(TELL).await.is_ok_and(|r| r.postgres.state == PostgresState::Primary) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    tokio::time::sleep(PROXIES).await;
}

async fn watch() -> io::Result<()> {
    let settings = settings()?;
    let mut told = None;
    loop {
        let dead = death(&settings.layout).await?;
        if dead.is_some() && dead != told {
            told = dead;
            if let Some(incarnation) = dead {
                tell(&peer(&settings)?, incarnation, TRIES).await;
            }
        }
        // Nobody lives here at the moment: a new agent comes, or the pod goes.
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits for the end of the present agent; the incarnation that is dead then, with all of its postgres.
async fn death(layout: &Layout) -> io::Result<Option<Incarnation>> {
    let file = open(layout)?;
    let file =
        tokio::task::spawn_blocking(move || flock(&file, FlockOperation::LockExclusive).map(|()| file))
            .await
            .map_err(io::Error::other)??;
    // Read with the lock in hand: what stands there is the last one that had it.
    let incarnation = std::fs::read_to_string(layout.agent_lock())?.parse().ok();
    let tree = lock::wait_free(&layout.lock(), Instant::now() + TREE).await?;
    drop(file);
    Ok(incarnation.filter(|_| tree.is_some()))
}

/// What the agent knew of its peer counts for more than a name server, which may not know a new pod for half a minute.
fn learn_address(layout: &Layout, peer: &Peer) {
    let known = std::fs::read_to_string(layout.peer_address()).ok();
    if let Some(address) = known.and_then(|known| known.trim().parse().ok()) {
        peer.meet(address);
    }
}

async fn tell(peer: &Peer, incarnation: Incarnation, tries: u32) {
    let evidence = Evidence { incarnation, kind: EvidenceKind::VolumeLock };
    for _ in 0..tries {
        match peer.evidence(&evidence, TELL).await {
            Ok(()) => {
                tracing::warn!(%incarnation, "the agent and its postgres are dead: the peer knows");
                return;
            }
            Err(e) => {
                tracing::warn!(%incarnation, error = %e, "the agent is dead, and the peer cannot be told yet")
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_death_of_an_agent_is_proven_by_both_locks() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { data: dir.path().into(), ..Layout::under(dir.path()) };
        let agent = AgentLock::acquire(&layout, Incarnation(7)).await.unwrap();
        let postgres = lock::VolumeLock::try_acquire(&layout.lock()).unwrap().unwrap();
        let watching = tokio::spawn({
            let layout = layout.clone();
            async move { death(&layout).await.unwrap() }
        });
        drop(agent);
        // Its postgres still runs: no proof yet.
        tokio::time::timeout(Duration::from_millis(50), async {
            while !watching.is_finished() {
                tokio::task::yield_now().await
            }
        })
        .await
        .unwrap_err();
        drop(postgres);
        let dead = tokio::time::timeout(TREE, watching).await.unwrap().unwrap();
        assert_eq!(dead, Some(Incarnation(7)));
        AgentLock::acquire(&layout, Incarnation(8)).await.unwrap();
    }
}
