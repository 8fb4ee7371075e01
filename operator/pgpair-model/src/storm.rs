//! Long random runs over more than any exhaustive run can hold: many crashes, orders, late messages at once. The same seed
//! makes the same run, and a run that breaks a claim is cut down to the events that matter.

use pgpair_core::authority::Durability;

use crate::action::Action;
use crate::bounds::{Bounds, Start};
use crate::calm;
use crate::claims::CLAIMS;
use crate::pair::Pair;
use crate::rng::Rng;
use crate::world::World;

/// Events of one storm; then comes the next one, from a new pair.
pub const EVENTS: u64 = 400;

/// One storm.
#[derive(Debug)]
pub struct Storm {
    /// What may happen in it.
    pub bounds: Bounds,
    /// What happened.
    pub events: Vec<Action>,
    /// How it ended.
    pub end: World,
    /// The claim that broke.
    pub broken: Option<&'static str>,
}

/// What many storms came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Storms.
    pub storms: u64,
    /// Events.
    pub events: u64,
    /// Changes of term.
    pub terms: u64,
    /// Commits that were acknowledged.
    pub commits: u64,
}

/// What stays away for a while, besides what chance leaves out.
#[derive(Debug, Clone, Copy, Default)]
struct Mood {
    /// Messages that the instance sent.
    mute: [bool; 2],
    /// Requests of the instance.
    no_api: [bool; 2],
    /// Everything of the instance, its clock too.
    still: [bool; 2],
}

/// Makes `steps` events in storms of [`EVENTS`].
///
/// # Errors
/// The first storm that broke a claim, and its number.
pub fn storms(
    seed: u64,
    steps: u64,
    taken: &'static [pgpair_core::authority::clause::Clause],
) -> Result<Tally, Box<(u64, Storm)>> {
    let mut tally = Tally::default();
    for n in 0..steps.div_ceil(EVENTS) {
        let storm = storm(seed, n, taken);
        if storm.broken.is_some() {
            return Err(Box::new((n, storm)));
        }
        tally.storms += 1;
        tally.events += storm.events.len() as u64;
        tally.terms += u64::from(storm.end.record.term.0) - 1;
        tally.commits += storm.end.acked.len() as u64;
    }
    Ok(tally)
}

/// The `n`th storm of this seed.
#[must_use]
pub fn storm(seed: u64, n: u64, taken: &'static [pgpair_core::authority::clause::Clause]) -> Storm {
    let mut rng = Rng::new(seed.wrapping_mul(0x1_0000_0001).wrapping_add(n));
    let bounds = Bounds { taken, ..draw(&mut rng) };
    let mut world = Pair::new(bounds, &[]).first;
    let (mut events, mut mood) = (Vec::new(), Mood::default());
    for _ in 0..EVENTS {
        if rng.chance(4) {
            mood = Mood::draw(&mut rng);
        }
        let Some(action) = choose(&world, &bounds, mood, &mut rng) else { continue };
        events.push(action);
        world.take(action, &bounds);
        if let Some(broken) = broken_in(&world, &bounds) {
            return Storm { bounds, events, end: world, broken: Some(broken) };
        }
    }
    let found = calm::run(&world, &bounds, calm::is_paired_or_lost).is_some();
    let broken = (!found).then_some(CLAIMS[CLAIMS.len() - 1].name);
    Storm { bounds, events, end: world, broken }
}

fn broken_in(world: &World, bounds: &Bounds) -> Option<&'static str> {
    CLAIMS.iter().find(|c| !c.name.starts_with('P') && !(c.holds)(world, bounds)).map(|c| c.name)
}

/// What may happen in one storm: each kind of fault in about half of them.
fn draw(rng: &mut Rng) -> Bounds {
    let start = [Start::Solo, Start::Alone, Start::Paired];
    let mut some =
        |most: u64| if rng.chance(50) { u8::try_from(rng.below(most + 1)).unwrap_or(0) } else { 0 };
    let foreign = u8::from(some(9) == 9);
    let counts = Bounds {
        crashes: some(6),
        postgres_crashes: some(4),
        proofs: some(3),
        // A new volume knows no Lease yet, and takes the one that it finds.
        wipes: if foreign > 0 { 0 } else { some(2) },
        unknown: some(4),
        late: some(2),
        leaves: some(3),
        switchovers: some(3),
        orders: some(4),
        foreign,
        unstartable: some(2),
        hangs: some(2),
        promotions: some(2),
        stuck: some(2),
        ..Bounds::CALM
    };
    Bounds {
        start: rng.pick(&start).unwrap_or(Start::Paired),
        durability: if rng.chance(25) { Durability::Async } else { Durability::Sync },
        grain: if rng.chance(50) { 2 } else { 4 },
        terms: u32::MAX,
        commits: 200,
        stale_reads: rng.chance(50),
        stalls: rng.chance(30),
        slow_node: rng.chance(30),
        slow_replay: rng.chance(30),
        refusals: rng.chance(50),
        fine: rng.chance(40),
        ..counts
    }
}

impl Mood {
    fn draw(rng: &mut Rng) -> Mood {
        let mut pair = |percent| [rng.chance(percent), rng.chance(percent)];
        Mood { mute: pair(20), no_api: pair(20), still: pair(10) }
    }

    fn allows(self, action: Action) -> bool {
        let at = |of: [bool; 2], i| of[crate::world::index(i)];
        match action {
            Action::Arrives(i, _) => !at(self.mute, i.peer()) && !at(self.still, i),
            Action::Answers(i, _) => !at(self.mute, i.peer()) && !at(self.mute, i) && !at(self.still, i),
            Action::Answered(i) | Action::Landed(i, _) | Action::Written(i, _) => !at(self.no_api, i),
            Action::ReadDone(i) | Action::WriteDone(i, _) => !at(self.no_api, i) && !at(self.still, i),
            Action::Tick(i) | Action::Look(i) | Action::Stored(i) | Action::Works(i) => !at(self.still, i),
            _ => true,
        }
    }
}

/// How often: what keeps a pair going often, what breaks it seldom, so that there is something to break.
fn weight(action: Action) -> u64 {
    match action {
        Action::Clock(_) => 12,
        Action::Answers(..) | Action::Log(_) | Action::Start(_) => 30,
        Action::Arrives(..) | Action::ReadDone(_) | Action::Written(..) | Action::Landed(..) => 20,
        Action::WriteDone(..) | Action::Stored(_) | Action::Look(_) | Action::Works(_) => 20,
        Action::Promotes(_) | Action::Replays(_) => 10,
        Action::Tick(_) | Action::Ready(_) | Action::Switched(_) | Action::Answered(_) => 15,
        Action::Commit(_) | Action::Seeded(_) | Action::Copied(_) => 10,
        Action::MadeAnew(_) | Action::Unfence(_) | Action::Mended(_) | Action::Unsticks(_) => 3,
        _ => 2,
    }
}

/// One of the events that change something.
fn choose(world: &World, bounds: &Bounds, mood: Mood, rng: &mut Rng) -> Option<Action> {
    let mut actions = Vec::new();
    world.possible(bounds, &mut actions);
    actions.retain(|a| mood.allows(*a));
    for _ in 0..8 {
        let all: u64 = actions.iter().map(|a| weight(*a)).sum();
        let mut at = rng.below(all);
        let n = actions.iter().position(|a| {
            let here = at < weight(*a);
            at = at.saturating_sub(weight(*a));
            here
        })?;
        let action = actions.swap_remove(n);
        let mut next = world.clone();
        next.take(action, bounds);
        if next != *world {
            return Some(action);
        }
    }
    None
}

/// The events of a storm that its end needs: what can be left out is. Events that cannot happen any more are skipped.
#[must_use]
pub fn cut_down(storm: &Storm) -> Vec<Action> {
    let Some(broken) = storm.broken else { return storm.events.clone() };
    let mut events = storm.events.clone();
    let mut chunk = events.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < events.len() {
            let mut fewer = events.clone();
            fewer.drain(at..(at + chunk).min(fewer.len()));
            match again(&storm.bounds, &fewer) {
                (taken, Some(claim)) if claim == broken => events = taken,
                _ => at += chunk,
            }
        }
        chunk /= 2;
    }
    events
}

/// Plays events again; those that were possible, and the claim that broke.
#[must_use]
pub fn again(bounds: &Bounds, events: &[Action]) -> (Vec<Action>, Option<&'static str>) {
    let mut world = Pair::new(*bounds, &[]).first;
    let mut taken = Vec::new();
    for action in events {
        let mut possible = Vec::new();
        world.possible(bounds, &mut possible);
        if !possible.contains(action) {
            continue;
        }
        taken.push(*action);
        world.take(*action, bounds);
        if let Some(broken) = broken_in(&world, bounds) {
            return (taken, Some(broken));
        }
    }
    let found = calm::run(&world, bounds, calm::is_paired_or_lost).is_some();
    (taken, (!found).then_some(CLAIMS[CLAIMS.len() - 1].name))
}
