//! Two processes that delete, a reader, and backups that are made; each process may die between any two steps, any number of times. All
//! orders of events are tried.
//! What is decided is the shipped [`retain`], and what is done about it the shipped [`Deletion`].

use std::collections::{HashMap, HashSet, VecDeque};

use super::*;

/// Backups that there can be.
const MOST: usize = 4;
const OBJECTS: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Stored {
    parent: Option<u8>,
    entry: bool,
    mark: bool,
    objects: u8,
}

/// A process that deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Runner {
    Idle,
    /// By a list that may be old: what is left to do (a bit each), the backup in hand, and how far it is.
    At {
        left: u8,
        in_hand: u8,
        deletion: Deletion,
    },
}

/// What a reader is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum For {
    Restore,
    /// To make an incremental backup on top. One backup is made at a time.
    Increment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reader {
    Away,
    /// It has found the backup in a list, which may be old by now.
    Chosen(u8, For),
    /// Its hold is there, and it has not looked for the mark.
    Announced(u8, For),
    Reads(u8, For),
    /// It has died, and its hold is there until its end.
    Dead(u8),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    stored: Vec<Stored>,
    runners: [Runner; 2],
    reader: Reader,
}

/// A mistake in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// Objects are removed without a mark.
    NoMark,
    /// The process that deletes does not look for readers.
    NoLookForReaders,
    /// The reader does not look for the mark.
    NoLookForMark,
    /// The entry is removed before the objects.
    EntryFirst,
    /// Parents are deleted together with what needs them.
    ParentsToo,
    /// The mark goes before the objects.
    MarkFirst,
}

struct Model {
    wrong: Option<Wrong>,
    decided: HashMap<(Vec<Stored>, Option<u8>), Vec<u8>>,
}

impl State {
    fn first() -> State {
        let whole = |parent| Stored { parent, entry: true, mark: false, objects: OBJECTS };
        State {
            stored: vec![whole(None), whole(Some(0)), whole(None)],
            runners: [Runner::Idle; 2],
            reader: Reader::Away,
        }
    }

    /// The backup that has a hold.
    fn held(&self) -> Option<u8> {
        match self.reader {
            Reader::Away | Reader::Chosen(..) => None,
            Reader::Announced(b, _) | Reader::Reads(b, _) | Reader::Dead(b) => Some(b),
        }
    }

    fn newest(&self) -> Option<u8> {
        let whole = |b: &&u8| self.exists(**b);
        (0..u8::try_from(self.stored.len()).unwrap()).collect::<Vec<_>>().iter().rev().find(whole).copied()
    }

    fn exists(&self, backup: u8) -> bool {
        let stored = self.stored[usize::from(backup)];
        stored.entry && !stored.mark
    }

    /// A backup and all below it.
    fn chain(&self, backup: u8) -> impl Iterator<Item = u8> {
        std::iter::successors(Some(backup), |b| self.stored[usize::from(*b)].parent)
    }

    fn is_whole(&self, backup: u8) -> bool {
        self.chain(backup).all(|b| self.stored[usize::from(b)].objects == OBJECTS)
    }

    /// What must never be, by name.
    fn broken(&self) -> Option<&'static str> {
        let all = || 0..u8::try_from(self.stored.len()).unwrap();
        if all().any(|b| self.exists(b) && !self.chain(b).all(|p| self.exists(p))) {
            return Some("a backup lacks its parent");
        }
        if all().any(|b| self.exists(b) && !self.is_whole(b)) {
            return Some("a backup is neither whole nor marked");
        }
        if matches!(self.reader, Reader::Reads(b, _) if !self.is_whole(b)) {
            return Some("what is read is removed");
        }
        if !all().any(|b| self.exists(b)) {
            return Some("none is left");
        }
        let nameless = |s: &Stored| s.objects > 0 && !s.entry && !s.mark;
        self.stored.iter().any(nameless).then_some("objects without a name")
    }
}

impl Model {
    fn new(wrong: Option<Wrong>) -> Model {
        Model { wrong, decided: HashMap::new() }
    }

    /// What the shipped code would delete next, by what lies in the place now.
    fn decide(&mut self, state: &State) -> Vec<u8> {
        let key = (state.stored.clone(), state.held());
        if let Some(known) = self.decided.get(&key) {
            return known.clone();
        }
        let listed = |(n, s): (usize, &Stored)| {
            let mut found = backup(n, 1, 2 + n as u64, s.parent.map(usize::from));
            found.deleting = s.mark;
            if let Found::Entry { restorable, .. } = &mut found.entry {
                *restorable = if s.objects == OBJECTS { Restorable::Yes } else { Restorable::No };
            }
            if !s.entry {
                found.entry = Found::Gone;
            }
            (s.entry || s.mark).then_some(found)
        };
        let mut all = All::of(state.stored.iter().enumerate().filter_map(listed).collect());
        all.holds = (state.held().into_iter())
            .map(|b| Hold { id: HoldId(1), on: Held::Backup(id(usize::from(b))), until: at(99) })
            .collect();
        let place = all.place(&[]);
        let retention = retain(&place, &policy(1, 0, 0, false), at(31));
        let next = if self.wrong == Some(Wrong::ParentsToo) {
            deleted(&retention).into_iter().collect()
        } else {
            retention.next(&place, 10)
        };
        let number = |wanted: BackupId| (0u8..).find(|n| id(usize::from(*n)) == wanted).unwrap();
        let numbers: Vec<u8> = next.into_iter().map(number).collect();
        self.decided.insert(key, numbers.clone());
        numbers
    }

    fn next(&mut self, state: &State) -> Vec<State> {
        let mut out = Vec::new();
        for i in 0..2 {
            out.extend(self.run(state, i));
            if state.runners[i] != Runner::Idle {
                // It dies: what it knew is gone.
                let mut after = state.clone();
                after.runners[i] = Runner::Idle;
                out.push(after);
            }
        }
        self.read(state, &mut out);
        let making = matches!(
            state.reader,
            Reader::Chosen(_, For::Increment)
                | Reader::Announced(_, For::Increment)
                | Reader::Reads(_, For::Increment)
        );
        if state.stored.len() < MOST && !making {
            let mut after = state.clone();
            after.stored.push(Stored { parent: None, entry: true, mark: false, objects: OBJECTS });
            out.push(after);
        }
        out
    }

    /// One step of a process that deletes.
    fn run(&mut self, state: &State, i: usize) -> Option<State> {
        let mut after = state.clone();
        let Runner::At { left, in_hand, deletion } = state.runners[i] else {
            let decided = self.decide(state);
            let first = *decided.first()?;
            let left = decided[1..].iter().fold(0, |bits, b| bits | 1 << b);
            after.runners[i] = Runner::At { left, in_hand: first, deletion: Deletion::default() };
            return Some(after);
        };
        let step = deletion.next().unwrap();
        let held = state.held() == Some(in_hand);
        let stored = &mut after.stored[usize::from(in_hand)];
        if let Some(answer) = self.carry_out(step, stored, held) {
            let deletion = deletion.after(answer);
            after.runners[i] = if deletion.next().is_some() {
                Runner::At { left, in_hand, deletion }
            } else if left == 0 {
                Runner::Idle
            } else {
                let in_hand = u8::try_from(left.trailing_zeros()).unwrap();
                Runner::At { left: left & (left - 1), in_hand, deletion: Deletion::default() }
            };
        }
        Some(after)
    }

    /// `None`: it goes on with the next object.
    fn carry_out(&self, step: Do, stored: &mut Stored, held: bool) -> Option<Answer> {
        let step = match (self.wrong, step) {
            (Some(Wrong::EntryFirst), Do::RemoveObjects) => Do::RemoveEntry,
            (Some(Wrong::EntryFirst), Do::RemoveEntry) => Do::RemoveMark,
            (Some(Wrong::EntryFirst), Do::RemoveMark) => Do::RemoveObjects,
            (Some(Wrong::MarkFirst), Do::RemoveObjects) => Do::RemoveMark,
            (Some(Wrong::MarkFirst), Do::RemoveMark) => Do::RemoveObjects,
            (_, step) => step,
        };
        match step {
            Do::PutMark => stored.mark = self.wrong != Some(Wrong::NoMark),
            Do::LookForReaders if held && self.wrong != Some(Wrong::NoLookForReaders) => {
                return Some(Answer::Read);
            }
            Do::LookForReaders => {}
            Do::RemoveObjects if stored.objects > 0 => {
                stored.objects -= 1;
                return None;
            }
            Do::RemoveObjects => {}
            Do::RemoveEntry => stored.entry = false,
            Do::RemoveMark => stored.mark = false,
        }
        Some(Answer::Done)
    }

    fn read(&self, state: &State, out: &mut Vec<State>) {
        let with = |reader| State { reader, ..state.clone() };
        match state.reader {
            Reader::Away => {
                let all = 0..u8::try_from(state.stored.len()).unwrap();
                let restores = all.filter(|b| state.exists(*b)).map(|b| Reader::Chosen(b, For::Restore));
                out.extend(restores.map(with));
                if let Some(parent) = state.newest().filter(|_| state.stored.len() < MOST) {
                    out.push(with(Reader::Chosen(parent, For::Increment)));
                }
            }
            Reader::Chosen(b, why) => out.push(with(Reader::Announced(b, why))),
            Reader::Announced(b, why) => {
                let sees_it = !state.exists(b) && self.wrong != Some(Wrong::NoLookForMark);
                out.push(with(if sees_it { Reader::Away } else { Reader::Reads(b, why) }));
                out.push(with(Reader::Dead(b)));
            }
            Reader::Reads(b, why) => {
                out.push(with(Reader::Dead(b)));
                let mut done = with(Reader::Away);
                if why == For::Increment {
                    done.stored.push(Stored { parent: Some(b), entry: true, mark: false, objects: OBJECTS });
                }
                out.push(done);
            }
            Reader::Dead(_) => out.push(with(Reader::Away)),
        }
    }

    /// What is there after one process has worked alone until nothing is left to do.
    fn settle(&mut self, state: &State) -> State {
        let mut state = state.clone();
        loop {
            match self.run(&state, 0) {
                Some(after) => state = after,
                None => return state,
            }
        }
    }

    /// All states that can be reached, until one is broken: how many, and what broke.
    fn explore(&mut self) -> (usize, Option<&'static str>) {
        let mut seen = HashSet::from([State::first()]);
        let mut queue = VecDeque::from([State::first()]);
        while let Some(state) = queue.pop_front() {
            if let Some(broken) = self.broken(&state) {
                return (seen.len(), Some(broken));
            }
            for mut after in self.next(&state) {
                after.runners.sort(); // which of the two it is does not matter
                if seen.insert(after.clone()) {
                    queue.push_back(after);
                }
            }
        }
        (seen.len(), None)
    }

    fn broken(&mut self, state: &State) -> Option<&'static str> {
        if let Some(broken) = state.broken() {
            return Some(broken);
        }
        if state.runners != [Runner::Idle; 2] || state.reader != Reader::Away {
            return None;
        }
        let settled = self.settle(state);
        let half = settled.stored.iter().any(|s| s.mark || (s.objects > 0) != s.entry);
        half.then_some("something is left that no later round removes")
    }
}

#[test]
fn a_backup_is_whole_or_not_there_in_every_order_of_events() {
    assert_eq!(Model::new(None).explore(), (429_889, None));
}

#[test]
fn without_each_rule_something_breaks() {
    for (wrong, breaks) in [
        (Wrong::NoMark, "a backup is neither whole nor marked"),
        (Wrong::NoLookForReaders, "what is read is removed"),
        (Wrong::NoLookForMark, "what is read is removed"),
        (Wrong::EntryFirst, "objects without a name"),
        (Wrong::ParentsToo, "a backup lacks its parent"),
        (Wrong::MarkFirst, "objects without a name"),
    ] {
        assert_eq!(Model::new(Some(wrong)).explore().1, Some(breaks), "{wrong:?}");
    }
}
