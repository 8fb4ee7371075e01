//! The volumes of a pair that is given up at this moment, and what an adoption makes of them.

use pgpair_backup::adopt::{Adoption, Doubt, Found, Lock, Side, State, Volume, adopt};
use pgpair_core::authority::{Durability, Durable};
use pgpair_core::ids::{InstanceId, SystemIdentifier};
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::{TimelineHistory, TimelineId};

use crate::claims::commits_that_count;
use crate::world::{KeptVolume, Server, World};

/// Nothing runs any more: what is on the disk counts, and no lock is held.
fn found(disk: &Durable, server: &Server) -> Found {
    let Some(id) = server.volume else { return Found::Absent };
    let left = |(timeline, end): &(u32, usize)| (TimelineId(*timeline), Lsn(*end as u64));
    Found::Volume(Volume {
        id,
        system: SystemIdentifier(1),
        lineage: None,
        version: 17,
        lock: Lock::Free,
        history: TimelineHistory {
            timeline: TimelineId(server.timeline),
            ancestors: server.history.iter().map(left).collect(),
        },
        end: Some(Lsn(server.log.len() as u64)),
        state: State::of(disk, id),
        closed: None,
    })
}

/// What is chosen without a person has every acknowledged commit that one of the two has; also where one of them is an older copy.
pub(crate) fn nothing_is_given_up_unasked(w: &World) -> bool {
    let now = InstanceId::ALL.map(|i| (&w.node(i).disk, w.server(i)));
    let with_copy = w.copy.iter().map(|KeptVolume { of, disk, server }| match of {
        InstanceId::A => [(disk, server), now[1]],
        InstanceId::B => [now[0], (disk, server)],
    });
    [now].into_iter().chain(with_copy).all(|[a, b]| {
        let Adoption::Primary { side, .. } = adopt(&found(a.0, a.1), &found(b.0, b.1)) else { return true };
        let (chosen, other) = if side == Side::A { (a.1, b.1) } else { (b.1, a.1) };
        let has = |server: &Server, commit: &u32| server.log.binary_search(commit).is_ok();
        w.acked.iter().all(|commit| has(chosen, commit) || !has(other, commit))
    })
}

/// A volume that says of itself that it has everything which was acknowledged, but for what a person has done, has it.
pub(crate) fn a_volume_that_was_alone_is_whole(w: &World) -> bool {
    let spent = &w.spent;
    if spent.orders > 0 || spent.restores > 0 || w.settings.durability == Durability::Async {
        return true;
    }
    InstanceId::ALL.iter().all(|i| {
        let server = w.server(*i);
        let alone = adopt(&found(&w.node(*i).disk, server), &Found::Absent);
        let says = matches!(alone, Adoption::Ask { why: Doubt::OtherMayHaveBeenForced, .. });
        !says || commits_that_count(w).all(|commit| server.log.binary_search(commit).is_ok())
    })
}
