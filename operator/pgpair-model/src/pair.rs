//! The model that stateright explores.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pgpair_core::authority::{Authority, Directory, Durable};
use pgpair_core::ids::{InstanceId, SystemIdentifier, Term, VolumeId};
use pgpair_core::record::{Holder, Mode, Record, Version};
use stateright::{Model, Property};

use crate::action::Action;
use crate::bounds::{Bounds, Start, TTL_MS};
use crate::calm;
use crate::claims::CLAIMS;
use crate::fault::first_incarnation;
use crate::step::settings;
use crate::world::{NOW, Node, Server, Spent, UID, World, index};

/// Two agents and their world, within bounds.
#[derive(Debug, Clone)]
pub struct Pair {
    /// How far it goes.
    pub bounds: Bounds,
    /// Where it begins.
    pub first: World,
    /// The claim that is looked at, by its first letters; `None`: all.
    pub only: Option<&'static str>,
    /// States held against the claims.
    pub checked: Arc<AtomicUsize>,
    /// Claims that have been found not to hold.
    broken: Arc<[AtomicBool; CLAIMS.len()]>,
}

impl Pair {
    /// Begins where [`Bounds::start`] says, and after these events.
    ///
    /// # Panics
    /// If one of them cannot happen there.
    #[must_use]
    pub fn new(bounds: Bounds, before: &[Action]) -> Pair {
        let mut world = born(&bounds);
        world.tidy(&bounds);
        // Until there all rules are kept.
        let whole = Bounds { taken: &[], without: None, ..bounds };
        world = match bounds.start {
            Start::Solo => world,
            // Where pairing is a matter of one step it is over before both know of `Solo`: then from the beginning.
            Start::Alone => calm::run(&world, &whole, calm::is_alone).unwrap_or(world),
            Start::Paired => {
                let mut paired = calm::run(&world, &whole, calm::is_paired)
                    .unwrap_or_else(|| unreachable!("without faults it gets there"));
                calm::rest(&mut paired, &whole);
                paired
            }
        };
        for action in before {
            let mut possible = Vec::new();
            world.possible(&bounds, &mut possible);
            assert!(possible.contains(action), "not possible: {action}; possible: {possible:?}");
            world.take(*action, &bounds);
        }
        Pair { bounds, first: world, only: None, checked: Arc::default(), broken: Arc::default() }
    }

    /// Says no once: of all states of a block in which a claim does not hold, stateright keeps the way to the last, and only the way to
    /// the first is the shortest.
    fn holds(&self, n: usize, world: &World) -> bool {
        let claim = &CLAIMS[n];
        let is_asked = self.only.is_none_or(|only| claim.name.starts_with(only));
        !is_asked || (claim.holds)(world, &self.bounds) || self.broken[n].swap(true, Ordering::Relaxed)
    }
}

/// Term 1 of A, `Solo`; both volumes hold the same data; nothing runs.
fn born(bounds: &Bounds) -> World {
    let holder = |i| Holder { instance: i, incarnation: first_incarnation(i) };
    let volume = |i| VolumeId(1 + index(i) as u64);
    let record = Record {
        term: Term(1),
        primary: holder(InstanceId::A),
        mode: Mode::Solo,
        primary_volume: Some(volume(InstanceId::A)),
        standby_volume: None,
        system_identifier: Some(SystemIdentifier(1)),
        durability: bounds.durability,
    };
    let node = |i: InstanceId| {
        let primary = i == InstanceId::A;
        Node {
            agent: None,
            disk: Durable {
                record_uid: Some(UID),
                term: Term(1),
                primary,
                volume: primary.then_some(volume(i)),
                longest_ttl_ms: TTL_MS,
                mode: Some(Mode::Solo),
                durability: Some(bounds.durability),
                ..Durable::default()
            },
            server: Server {
                directory: if primary { Directory::Primary } else { Directory::Standby },
                volume: Some(volume(i)),
                ..Server::empty()
            },
            sent: Vec::new(),
            writes: Vec::new(),
            dead: Some(first_incarnation(i)),
            rebuild: false,
        }
    };
    World {
        nodes: [node(InstanceId::A), node(InstanceId::B)],
        now: [NOW; 2],
        settings: settings(bounds.durability),
        stream_cut: false,
        uid: Some(UID),
        version: Version(1),
        record,
        bonds: [Vec::new(), Vec::new()],
        late: Vec::new(),
        acked: Vec::new(),
        excused: 0,
        commits: 0,
        reigns: Vec::new(),
        two_reigned: false,
        wrote_foreign: false,
        took_unseen: false,
        forced: None,
        copy: None,
        spent: Spent::default(),
        told: None,
    }
}

impl Model for Pair {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.first.clone()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.possible(&self.bounds, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.take(action, &self.bounds);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Pair>> {
        vec![
            Property::always(CLAIMS[0].name, |m: &Pair, w| {
                m.checked.fetch_add(1, Ordering::Relaxed);
                m.holds(0, w)
            }),
            Property::always(CLAIMS[1].name, |m: &Pair, w| m.holds(1, w)),
            Property::always(CLAIMS[2].name, |m: &Pair, w| m.holds(2, w)),
            Property::always(CLAIMS[3].name, |m: &Pair, w| m.holds(3, w)),
            Property::always(CLAIMS[4].name, |m: &Pair, w| m.holds(4, w)),
            Property::always(CLAIMS[5].name, |m: &Pair, w| m.holds(5, w)),
            Property::always(CLAIMS[6].name, |m: &Pair, w| m.holds(6, w)),
            Property::always(CLAIMS[7].name, |m: &Pair, w| m.holds(7, w)),
            Property::always(CLAIMS[8].name, |m: &Pair, w| m.holds(8, w)),
            Property::always(CLAIMS[9].name, |m: &Pair, w| m.holds(9, w)),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.record.term.0 <= self.bounds.terms
    }
}

/// What an agent says of itself, for a readable trace.
#[must_use]
pub fn tell(world: &World, i: InstanceId) -> String {
    let s = world.server(i);
    let agent = world.authority(i).map(|a: &Authority| {
        let now = world.now(i);
        format!("{:?} wants {:?} gate {:?}", a.role(), a.desired(now).postgres, a.gate(now))
    });
    format!(
        "{i} {:?} {:?} log {:?} tl {} {}",
        s.directory,
        s.state,
        s.log,
        s.timeline,
        agent.unwrap_or("no agent".into())
    )
}
