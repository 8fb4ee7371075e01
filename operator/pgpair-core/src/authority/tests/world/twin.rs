//! Twins: each agent's state goes through JSON now and then, and what comes out is fed with what went in.

use super::{World, index};
use crate::authority::messages::{Evidence, EvidenceKind};
use crate::authority::timing::Ms;
use crate::authority::{Authority, Command, Event};
use crate::ids::{Incarnation, InstanceId};
use crate::journal::replay::Replay;
use crate::journal::shorthand::Shorthand;
use crate::journal::{FORMAT, Line, Snapshot, VERSION};

/// A prime, so that the snapshots fall on all kinds of events.
const EVENTS_OF_A_TWIN: u64 = 211;

#[derive(Default)]
pub(super) struct Twins {
    /// What was read back, and the shorthand of the lines that it is fed with.
    replays: [Option<(Replay, Shorthand)>; 2],
    handled: u64,
}

fn through_json(line: &Line) -> Line {
    let read = serde_json::from_str(&serde_json::to_string(line).unwrap()).unwrap();
    assert_eq!(&read, line);
    read
}

fn snapshot(agent: &Authority, at: Ms, number: u64) -> Snapshot {
    let (pgpair, authority) = (VERSION.to_owned(), agent.clone());
    let line = Line::Snapshot(Box::new(Snapshot {
        journal: FORMAT,
        pgpair,
        at,
        unix_ms: 0,
        number,
        lost: 0,
        authority,
    }));
    match through_json(&line) {
        Line::Snapshot(s) => *s,
        Line::Event(..) | Line::Short(..) => unreachable!(),
    }
}

impl World {
    pub fn with_twins(self) -> World {
        World { twins: Some(Twins::default()), ..self }
    }

    /// SIGTERM, and evidence of the death of a process that nobody knows: no fault of a storm is one of these.
    pub fn tell_to_leave(&mut self, i: InstanceId) {
        let dead = Evidence { incarnation: Incarnation(u64::MAX), kind: EvidenceKind::Person };
        let at = self.now;
        self.nodes[index(i)].inbox.extend([(at, Event::Evidence(dead)), (at, Event::Leave)]);
    }

    pub(super) fn handle(
        &mut self,
        i: InstanceId,
        agent: &mut Authority,
        clock: Ms,
        event: Event,
    ) -> Vec<Command> {
        let Some(twins) = &mut self.twins else { return agent.handle(clock, event) };
        twins.handled += 1;
        let slot = &mut twins.replays[index(i)];
        let same = slot.take().filter(|(t, _)| t.authority().me() == agent.me());
        let (mut twin, mut shorthand) = same
            .filter(|_| twins.handled % EVENTS_OF_A_TWIN > 1)
            .unwrap_or_else(|| (Replay::new(snapshot(agent, clock, 0)), Shorthand::default()));
        let line = through_json(&shorthand.line(clock, 0, event.clone()));
        let mut by_hand = twin.authority().clone();
        let commands = agent.handle(clock, event.clone());
        assert_eq!(by_hand.handle(clock, event), commands);
        twin.take(line).unwrap();
        assert_eq!(twin.authority(), agent);
        *slot = Some((twin, shorthand));
        commands
    }
}
