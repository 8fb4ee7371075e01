//! Ways to a state as text, one event a line, and back.

use std::fmt::Write as _;

use pgpair_core::ids::InstanceId;

use crate::action::Action;
use crate::bounds::Bounds;
use crate::claims::CLAIMS;
use crate::pair::{Pair, tell};
use crate::world::World;

/// What is possible now and reads like this.
#[must_use]
pub fn event(world: &World, bounds: &Bounds, line: &str) -> Option<Action> {
    let mut possible = Vec::new();
    world.possible(bounds, &mut possible);
    possible.into_iter().find(|action| action.to_string() == line)
}

/// A way that was played.
#[derive(Debug)]
pub struct Played {
    /// Where it led.
    pub end: World,
    /// Lines that could not happen, and were left out.
    pub skipped: Vec<String>,
    /// Claims that broke on the way, in that order.
    pub broken: Vec<&'static str>,
}

/// Plays a way, and holds each state against the claims.
#[must_use]
pub fn play(bounds: &Bounds, lines: &str) -> Played {
    let mut played = Played { end: Pair::new(*bounds, &[]).first, skipped: Vec::new(), broken: Vec::new() };
    for line in lines.lines().filter(|l| !l.is_empty()) {
        match event(&played.end, bounds, line) {
            Some(action) => played.end.take(action, bounds),
            None => played.skipped.push(line.to_owned()),
        }
        let broken = CLAIMS.iter().filter(|claim| !(claim.holds)(&played.end, bounds)).map(|c| c.name);
        let new: Vec<_> = broken.filter(|b| !played.broken.contains(b)).collect();
        played.broken.extend(new);
    }
    played
}

/// What each event leads to.
#[must_use]
pub fn tale(first: &World, bounds: &Bounds, events: &[Action]) -> String {
    let mut world = first.clone();
    let mut text = format!("{bounds:?}\n");
    tell_world(&mut text, &world);
    for action in events {
        world.take(*action, bounds);
        let _ = writeln!(text, "{action}");
        tell_world(&mut text, &world);
    }
    text
}

fn tell_world(text: &mut String, world: &World) {
    let r = &world.record;
    let _ = writeln!(text, "      record: term {} {} of {}", r.term, r.mode, r.primary.instance);
    for i in InstanceId::ALL {
        let _ = writeln!(text, "      {}", tell(world, i));
    }
}
