//! The end of all faults: everything that is due happens, and both clocks run alike. A pair must find together then.

use pgpair_core::ids::InstanceId;
use pgpair_core::instance::PostgresState;
use pgpair_core::record::Mode;

use crate::action::Action;
use crate::bounds::Bounds;
use crate::world::{Kind, UID, World};

/// Time within which it must happen, in `ttl`.
pub const LIMIT_TTLS: u64 = 12;

/// `Paired`, one writes and the other streams.
#[must_use]
pub fn is_paired(world: &World) -> bool {
    let primary = world.record.primary.instance;
    world.record.mode == Mode::Paired
        && world.server(primary).writes()
        && world.server(primary).open
        && world.streams(primary.peer())
        && world.authority(primary).is_some_and(|a| a.record() == Some(&world.record))
}

/// `Solo`, one writes, the other streams and knows the record.
#[must_use]
pub fn is_alone(world: &World) -> bool {
    let primary = world.record.primary.instance;
    world.record.mode == Mode::Solo
        && world.server(primary).writes()
        && world.server(primary).open
        && world.streams(primary.peer())
        && InstanceId::ALL
            .iter()
            .all(|i| world.authority(*i).is_some_and(|a| a.record() == Some(&world.record)))
}

/// [`is_paired`], or all volumes gone that the record names: only a person can say that their last commits are not to be
/// waited for. And without a record of its own a pair does nothing for ever, which is asked for.
#[must_use]
pub fn is_paired_or_lost(world: &World) -> bool {
    let named = |i| {
        let volume = world.server(i).volume;
        volume.is_some() && (volume == world.record.primary_volume || volume == world.record.standby_volume)
    };
    is_paired(world) || !InstanceId::ALL.into_iter().any(named) || world.uid != Some(UID)
}

/// Lets time pass until nothing is young any more.
pub fn rest(world: &mut World, bounds: &Bounds) {
    let calm = self::bounds(bounds);
    for _ in 0..4 * bounds.grain {
        for i in InstanceId::ALL {
            world.take(Action::Clock(i), &calm);
        }
        settle(world, &calm, |_| false, Some);
    }
}

/// What is asked for, without a fault.
pub(crate) fn bounds(asked: &Bounds) -> Bounds {
    let Bounds { start, durability, grain, terms, refusals, taken, without, progress_of, fine, .. } = *asked;
    Bounds { start, durability, grain, terms, refusals, taken, without, progress_of, fine, ..Bounds::CALM }
}

/// Runs without faults until `goal`.
#[must_use]
pub fn run(from: &World, bounds: &Bounds, goal: fn(&World) -> bool) -> Option<World> {
    let calm = self::bounds(bounds);
    let mut world = from.clone();
    world.late.clear();
    for _ in 0..LIMIT_TTLS * bounds.grain {
        settle(&mut world, &calm, goal, Some);
        if goal(&world) {
            return Some(world);
        }
        for i in InstanceId::ALL {
            world.take(Action::Clock(i), &calm);
        }
    }
    None
}

/// Lets everything happen that is due, as far as `allows` lets it, until nothing changes any more or the goal is reached.
pub(crate) fn settle(
    world: &mut World,
    calm: &Bounds,
    goal: fn(&World) -> bool,
    allows: impl Fn(Action) -> Option<Action>,
) {
    for _ in 0..64 {
        let before = world.clone();
        for i in InstanceId::ALL {
            for action in [Action::Start(i), Action::Stored(i), Action::Look(i), Action::Tick(i)] {
                if matches!(action, Action::Start(_)) != world.node(i).agent.is_some()
                    && let Some(action) = allows(action)
                {
                    world.take(action, calm);
                }
            }
        }
        let mut actions = Vec::new();
        world.possible(calm, &mut actions);
        for action in actions {
            if is_due(world, action, calm)
                && let Some(action) = allows(action)
            {
                world.take(action, calm);
                if goal(world) {
                    return;
                }
            }
        }
        if *world == before {
            return;
        }
    }
}

/// What is due.
pub(crate) fn due(world: &World, calm: &Bounds) -> Vec<Action> {
    let mut actions = Vec::new();
    world.possible(calm, &mut actions);
    actions.retain(|action| matches!(action, Action::Start(_)) || is_due(world, *action, calm));
    actions
}

fn is_due(world: &World, action: Action, calm: &Bounds) -> bool {
    match action {
        Action::Arrives(_, Kind::Heartbeat | Kind::Resign) if !calm.fine => false,
        Action::Arrives(i, kind) | Action::Answers(i, kind) => {
            world.node(i.peer()).sent.iter().any(|m| m.kind() == kind)
        }
        Action::ReadDone(i) => world.node(i).agent.as_ref().is_some_and(|a| a.read.is_some()),
        Action::Landed(i, n) => world.node(i).writes.get(n).is_some_and(|w| w.outcome.is_none()),
        Action::Written(i, n) => {
            world.node(i).writes.get(n).is_some_and(|w| w.outcome.is_none() && w.awaited)
        }
        Action::WriteDone(i, n) => {
            world.node(i).writes.get(n).is_some_and(|w| w.outcome.is_some() && w.awaited)
        }
        Action::Works(i) => world.node(i).agent.is_some(),
        Action::Ready(i) => {
            matches!(world.server(i).state, PostgresState::Starting | PostgresState::Promoting)
        }
        Action::Switched(i) => world.server(i).switching.is_some(),
        Action::Replays(i) => world.server(i).unreplayed > 0,
        Action::Log(i) => world.streams(i) || world.fetches(i),
        // People end what they began, and mend what broke.
        Action::Unfence(i) => world.node(i).disk.fenced,
        Action::Mended(i) => world.server(i).broken,
        Action::Unsticks(_) => true,
        Action::Copied(i) => !world.node(i).rebuild,
        Action::Seeded(i) => world.server(i.peer()).writes() && world.node(i).agent.is_some(),
        _ => false,
    }
}
