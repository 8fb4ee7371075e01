//! The state machine is written down and read back: each agent has twins that went through JSON now and then, and are told what it
//! is told.

use pgpair_core::authority::Authority;
use pgpair_core::authority::Durability;
use pgpair_core::authority::timing::Ms;
use pgpair_core::ids::InstanceId;
use pgpair_core::journal::replay::Replay;
use pgpair_core::journal::shorthand::Shorthand;
use pgpair_core::journal::{FORMAT, Line, Snapshot, VERSION};
use pgpair_model::rng::Rng;
use pgpair_model::timed::{Fault, Timed};
use pgpair_model::world::{Told, index};

/// A prime, so that the snapshots fall on all kinds of events.
const EVENTS_OF_A_TWIN: u64 = 211;

struct Twin {
    replay: Replay,
    /// Of the lines that it is fed with.
    shorthand: Shorthand,
    events: u64,
}

fn through_json(line: &Line) -> Line {
    let written = serde_json::to_string(line).expect("a line is written");
    let read = serde_json::from_str(&written).expect("and read");
    assert_eq!(&read, line);
    read
}

impl Twin {
    fn of(agent: &Authority, at: Ms) -> Twin {
        let (pgpair, authority) = (VERSION.to_owned(), agent.clone());
        let snapshot = Snapshot { journal: FORMAT, pgpair, at, unix_ms: 0, number: 0, lost: 0, authority };
        let Line::Snapshot(read) = through_json(&Line::Snapshot(Box::new(snapshot))) else { unreachable!() };
        Twin { replay: Replay::new(*read), shorthand: Shorthand::default(), events: 0 }
    }

    fn take(&mut self, told: Told) {
        self.events += 1;
        let mut by_hand = self.replay.authority().clone();
        assert_eq!(by_hand.handle(told.at, told.event.clone()), told.commands);
        let line = through_json(&self.shorthand.line(told.at, 0, told.event));
        self.replay.take(line).expect("it is played");
    }
}

fn run_for(w: &mut Timed, twins: &mut [Option<Twin>; 2], millis: u64) {
    let end = w.now() + millis;
    while w.now() < end {
        w.step();
        for told in w.told() {
            if let Some(twin) = &mut twins[index(told.who)] {
                twin.take(told);
            }
        }
        for i in InstanceId::ALL {
            let twin = &mut twins[index(i)];
            let Some(agent) = w.agent(i) else {
                *twin = None;
                continue;
            };
            if let Some(twin) = twin {
                assert_eq!(twin.replay.authority(), agent, "{}", w.tail());
            }
            if twin.as_ref().is_none_or(|t| t.events > EVENTS_OF_A_TWIN) {
                *twin = Some(Twin::of(agent, w.clock(i)));
            }
        }
    }
}

/// What is read back equals what was written, and decides as it does, whatever has happened and will happen.
#[test]
fn a_snapshot_is_read_back_equal_and_goes_on_alike() {
    for (seed, durability) in [
        (31, Durability::Sync),
        (32, Durability::Async),
        (33, Durability::SyncStrict),
        (34, Durability::Sync),
    ] {
        let mut rng = Rng::new(seed);
        let mut world = Timed::new(rng.next_u64(), durability).with_slow_parts().listening();
        let mut twins = [None, None];
        run_for(&mut world, &mut twins, 10_000);
        for _ in 0..15 {
            world.inject(Fault::any(&mut rng));
            run_for(&mut world, &mut twins, rng.below(6_000));
        }
        world.heal();
        for i in InstanceId::ALL {
            world.tell_to_leave(i);
            run_for(&mut world, &mut twins, 5_000);
        }
        assert!(world.term() > 0, "{}", world.tail());
    }
}
