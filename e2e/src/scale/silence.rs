//! Agents that do not answer: what is sent to their addresses is dropped, so that a connection neither comes about nor breaks.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use pgpair_core::ids::InstanceId;
use pgpair_wire::paths::PEER_PORT;

use crate::scale::agents::Agents;
use crate::scale::pairs::AgentId;

/// A zone that is cut off: one agent of each of the last `pairs` pairs, the primary's and the standby's in turn.
#[must_use]
pub fn zone(all: usize, pairs: usize) -> Vec<AgentId> {
    let instance = |pair: usize| if pair.is_multiple_of(2) { InstanceId::A } else { InstanceId::B };
    (all.saturating_sub(pairs)..all).map(|pair| AgentId { pair, instance: instance(pair) }).collect()
}

/// Drops what is sent to these agents and what they send.
///
/// # Errors
/// When nft fails.
pub fn begin(silent: &[AgentId]) -> anyhow::Result<()> {
    nft(&rules(silent))
}

/// Lets everything through again. Connections from before are ended first: nothing would come of them.
///
/// # Errors
/// When nft fails.
pub fn end(agents: &Agents, silent: &[AgentId]) -> anyhow::Result<()> {
    for agent in silent.iter().filter_map(|id| agents.get(*id)) {
        agent.cut.notify_waiters();
    }
    nft("delete table inet scale\n")
}

fn rules(silent: &[AgentId]) -> String {
    let addresses: Vec<String> = silent.iter().map(|id| id.address().to_string()).collect();
    format!(
        "table inet scale {{\n set silent {{ type ipv4_addr; elements = {{ {} }} }}\n chain arriving {{\n  type filter hook input priority 0;\n  \
         ip daddr @silent tcp dport {PEER_PORT} drop\n  ip saddr @silent tcp sport {PEER_PORT} drop\n }}\n}}\n",
        addresses.join(", ")
    )
}

fn nft(script: &str) -> anyhow::Result<()> {
    let mut child =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("starting nft")?;
    child.stdin.take().context("nft has no input")?.write_all(script.as_bytes())?;
    ensure!(child.wait()?.success(), "nft refused its rules");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_has_one_agent_of_a_pair_in_both_roles() {
        let zone = zone(100, 10);
        assert_eq!((zone.len(), zone[0].pair, zone[9].pair), (10, 90, 99));
        assert_eq!(zone.iter().filter(|id| id.instance == InstanceId::A).count(), 5);
        let rules = rules(&zone[..2]);
        assert!(rules.contains("elements = { 10.10.0.180, 10.10.0.183 }"), "{rules}");
    }
}
