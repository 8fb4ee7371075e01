//! The state machine is written down and read back.

use super::rng::Rng;
use super::world::{Fault, World};
use crate::authority::Durability;
use crate::ids::InstanceId;

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
        let mut world = World::new(rng.next_u64(), durability).with_slow_parts().with_twins();
        world.run_for(10_000);
        for _ in 0..15 {
            world.inject(Fault::any(&mut rng));
            world.run_for(rng.below(6_000));
        }
        world.heal();
        for i in InstanceId::ALL {
            world.tell_to_leave(i);
            world.run_for(5_000);
        }
        assert!(world.term() > 0, "{}", world.tail());
    }
}
