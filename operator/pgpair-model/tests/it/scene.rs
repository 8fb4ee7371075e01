//! A pair, and what happens to it in a fixed order. Each event must be possible, and after each the claims must hold.

use pgpair_core::authority::{Authority, Gate, Refusal};
use pgpair_core::ids::{InstanceId, Term};
use pgpair_core::record::Mode;
use pgpair_model::action::Action;
use pgpair_model::bounds::{Bounds, Start};
use pgpair_model::calm;
use pgpair_model::claims::CLAIMS;
use pgpair_model::pair::{Pair, tell};
use pgpair_model::world::{NOW, Server, World};

pub const PAIRED: Bounds = Bounds { commits: 9, unknown: 9, late: 2, refusals: true, ..Bounds::CALM };
pub const ALONE: Bounds = Bounds { start: Start::Alone, ..PAIRED };

pub struct Scene {
    pub world: World,
    bounds: Bounds,
}

impl Scene {
    /// Everything may happen as often as it has to.
    pub fn new(bounds: Bounds) -> Scene {
        let bounds = Bounds {
            crashes: 9,
            postgres_crashes: 9,
            proofs: 9,
            wipes: 9,
            leaves: 9,
            orders: 9,
            foreign: 1,
            promotions: 9,
            stuck: 9,
            terms: 9,
            ..bounds
        };
        Scene { world: Pair::new(bounds, &[]).first, bounds }
    }

    pub fn then(mut self, events: &[Action]) -> Scene {
        for event in events {
            let mut possible = Vec::new();
            self.world.possible(&self.bounds, &mut possible);
            assert!(possible.contains(event), "not possible: {event:?}\n{}\n{possible:?}", self.tell());
            self.world.take(*event, &self.bounds);
            for claim in CLAIMS {
                assert!(
                    (claim.holds)(&self.world, &self.bounds),
                    "{event:?}: {}\n{}",
                    claim.name,
                    self.tell()
                );
            }
        }
        self
    }

    pub fn agent(&self, i: InstanceId) -> &Authority {
        self.world.authority(i).expect("its agent runs")
    }

    pub fn server(&self, i: InstanceId) -> &Server {
        self.world.server(i)
    }

    pub fn refused(&self, i: InstanceId) -> Option<Refusal> {
        match self.agent(i).gate(NOW) {
            Gate::Open { .. } => None,
            Gate::Closed(why) => Some(why),
        }
    }

    pub fn writers(&self) -> Vec<InstanceId> {
        InstanceId::ALL.into_iter().filter(|i| self.server(*i).writes()).collect()
    }

    /// Whether a write of the record by it is under way.
    pub fn asks_for_the_record(&self, i: InstanceId) -> bool {
        self.world.node(i).writes.iter().any(|w| w.awaited)
    }

    pub fn record(&self) -> (Term, Mode, InstanceId) {
        (self.world.record.term, self.world.record.mode, self.world.record.primary.instance)
    }

    /// Without further faults it becomes a pair again.
    pub fn ends_well(&self) {
        assert!(calm::run(&self.world, &self.bounds, calm::is_paired).is_some(), "{}", self.tell());
    }

    pub fn tell(&self) -> String {
        format!(
            "{:?}\n{}\n{}",
            self.record(),
            tell(&self.world, InstanceId::A),
            tell(&self.world, InstanceId::B)
        )
    }
}
