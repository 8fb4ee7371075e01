//! Every kind in each durability and both directions: one pair for each durability, their primaries on the same node, all struck
//! at once. A third of the time, and what is broken is broken for several pairs, as it would be.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::bail;
use futures::future::join_all;
use pgpair_core::authority::Durability;
use pgpair_core::ids::InstanceId;

use crate::faults::dice::Dice;
use crate::faults::kind::Entry;
use crate::faults::round;
use crate::faults::row::{Case, Rows};
use crate::faults::stand::{Stand, folder};
use crate::harness::cluster::Cluster;
use crate::harness::record;

/// Every case of these kinds, with what is random about it drawn from `seed`: the same for all durabilities, so that pairs are
/// struck in the same moment.
#[must_use]
pub fn cases(
    entries: &[&'static Entry],
    durabilities: &[Durability],
    primaries: &[InstanceId],
    seed: u64,
) -> Vec<Case> {
    let mut cases = Vec::new();
    for entry in entries {
        let seed = Dice::part(seed, entry.name);
        for primary in primaries {
            let one =
                |durability: &Durability| Case { entry, durability: *durability, primary: *primary, seed };
            cases.extend(durabilities.iter().map(one));
        }
    }
    cases
}

/// Runs what is left until `stop` says so; each row is in `faults.json` of `out` as soon as it is known.
///
/// # Errors
/// When no pair comes up or the rows cannot be written; at the end, when a row does not hold.
pub async fn matrix(
    cluster: &Cluster,
    mut left: Vec<Case>,
    out: &Path,
    stop: impl Fn() -> bool,
) -> anyhow::Result<()> {
    let path = out.join("faults.json");
    let mut rows = Rows::load(&path)?;
    let mut seats = Seat::bring_up(cluster, &left).await?;
    let mut bad = BTreeSet::new();
    while !left.is_empty() && !stop() {
        join_all(seats.iter_mut().map(Seat::look)).await;
        let Some(next) = next(&left, &rows, &seats) else { break };
        let parts = seats.iter().filter_map(|s| Some((&s.stand, s.case(&left, &next)?)));
        for outcome in round::run_all(parts.collect()).await {
            let case = outcome.case;
            println!("{}", outcome.row);
            if !outcome.row.holds() {
                bad.insert(format!("{} {} {}", case.entry.name, case.durability.as_str(), case.primary));
            }
            left.retain(|c| !outcome.row.is_of(c));
            rows.put(outcome.row);
            rows.store(&path)?;
            if !outcome.reusable {
                Seat::replace(&mut seats, &case, out).await?;
            }
        }
    }
    for seat in seats {
        seat.stand.tear_down().await?;
    }
    println!("rows in {}; {} cases left", path.display(), left.len());
    match bad.len() {
        0 => Ok(()),
        n => bail!("{n} not as they should be: {}", bad.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

/// A kind, made where the primaries are on that node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Next {
    fault: &'static str,
    node: String,
}

/// A pair with its durability.
#[derive(Debug)]
struct Seat<S> {
    durability: Durability,
    stand: S,
    /// Of a and of b. Their volumes keep them there.
    nodes: [String; 2],
    /// At the last look.
    primary: Option<InstanceId>,
}

impl Seat<Stand> {
    async fn bring_up(cluster: &Cluster, left: &[Case]) -> anyhow::Result<Vec<Seat<Stand>>> {
        let all = [Durability::Sync, Durability::SyncStrict, Durability::Async];
        let wanted: Vec<Durability> =
            all.into_iter().filter(|d| left.iter().any(|c| c.durability == *d)).collect();
        let sets: Vec<String> = wanted.iter().map(|d| d.as_str().to_lowercase()).collect();
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let mut seats = Vec::new();
        for (durability, stand) in wanted.into_iter().zip(Stand::bring_up_all(cluster, &sets).await?) {
            seats.push(Seat::new(durability, stand).await?);
        }
        Ok(seats)
    }

    async fn new(durability: Durability, stand: Stand) -> anyhow::Result<Seat<Stand>> {
        let nodes = [stand.pair.node(InstanceId::A).await?, stand.pair.node(InstanceId::B).await?];
        Ok(Seat { durability, stand, nodes, primary: None })
    }

    async fn look(&mut self) {
        let record = record::read(&self.stand.pair).await;
        self.primary = record.ok().map(|r| r.primary.instance);
    }

    /// Another pair in the place of the one that is not whole again.
    async fn replace(seats: &mut Vec<Seat<Stand>>, case: &Case, out: &Path) -> anyhow::Result<()> {
        let Some(at) = seats.iter().position(|s| s.durability == case.durability) else { return Ok(()) };
        let stand = seats.remove(at).stand.replace(&folder(out, case)).await?;
        seats.insert(at, Seat::new(case.durability, stand).await?);
        Ok(())
    }
}

impl<S> Seat<S> {
    fn node(&self, instance: InstanceId) -> &str {
        &self.nodes[usize::from(instance == InstanceId::B)]
    }

    /// Its part in the round, if that is left.
    fn case(&self, left: &[Case], next: &Next) -> Option<Case> {
        let mine = |c: &&Case| {
            c.entry.name == next.fault && c.durability == self.durability && self.node(c.primary) == next.node
        };
        left.iter().find(mine).copied()
    }
}

/// What needs the fewest switchovers before it, and of that the kinds that have the fewest rows, so that a run which is cut has
/// seen as many kinds as it could.
fn next<S>(left: &[Case], rows: &Rows, seats: &[Seat<S>]) -> Option<Next> {
    let mut all: Vec<(usize, usize, Next)> = Vec::new();
    for case in left {
        let Some(seat) = seats.iter().find(|s| s.durability == case.durability) else { continue };
        let next = Next { fault: case.entry.name, node: seat.node(case.primary).to_owned() };
        if all.iter().any(|(_, _, known)| *known == next) {
            continue;
        }
        let elsewhere = |s: &&Seat<S>| s.primary.is_none_or(|p| s.node(p) != next.node);
        let switchovers = seats.iter().filter(elsewhere).count();
        let seen = rows.0.iter().filter(|r| r.fault == next.fault).count();
        all.push((switchovers, seen, next));
    }
    all.into_iter().min_by_key(|(switchovers, seen, _)| (*switchovers, *seen)).map(|(_, _, next)| next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::kind::Kind;
    use crate::faults::row::tests::row;

    fn seat(durability: Durability, nodes: [&str; 2], primary: InstanceId) -> Seat<()> {
        Seat { durability, stand: (), nodes: nodes.map(str::to_owned), primary: Some(primary) }
    }

    #[test]
    fn pairs_whose_instances_lie_the_other_way_round_are_struck_on_the_same_node() {
        let kinds: Vec<&Entry> =
            [Kind::AgentKill, Kind::NodeLoss].into_iter().filter_map(Kind::entry).collect();
        let (sync, lazy) = (Durability::Sync, Durability::Async);
        let mut left = cases(&kinds, &[sync, lazy], &InstanceId::ALL, 1);
        assert_eq!(left.len(), 8);
        let mut seats = [seat(sync, ["n1", "n2"], InstanceId::B), seat(lazy, ["n2", "n1"], InstanceId::A)];
        let rows = Rows(vec![row("agent-kill", "Sync", "a")]);
        let first = next(&left, &rows, &seats).unwrap();
        assert_eq!(first, Next { fault: "node-loss", node: "n2".into() }, "no switchover, and no row yet");
        let parts: Vec<InstanceId> =
            seats.iter().filter_map(|s| s.case(&left, &first)).map(|c| c.primary).collect();
        assert_eq!(parts, [InstanceId::B, InstanceId::A]);
        left.retain(|c| c.entry.name != "node-loss");
        seats[0].primary = Some(InstanceId::A);
        seats[1].primary = Some(InstanceId::B);
        assert_eq!(next(&left, &rows, &seats), Some(Next { fault: "agent-kill", node: "n1".into() }));
        assert_eq!(next(&[], &rows, &seats), None);
    }
}
