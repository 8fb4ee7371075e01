//! Which of the kept volumes of a pair becomes its primary when their pair is made anew. Pure: what was found on both comes in.
//!
//! # Guarantees
//! - The answer does not depend on the order of the two, and equal findings have equal answers.
//! - A volume is never chosen while the other holds WAL that may have been acknowledged and that it lacks: either it contains all of the other's
//!   WAL, or the other's surplus is known never to have been acknowledged.
//! - Where that is not known a person is asked, with what each choice loses. Where it is not even clear whose volumes they are, or whether
//!   a process still uses them, nothing is done.

use pgpair_core::authority::Durable;
use pgpair_core::ids::{Lineage, SystemIdentifier, Term, VolumeId};
use pgpair_core::lsn::Lsn;
use pgpair_core::record::{Began, Beginning, Durability, Mode};
use pgpair_core::timeline::{TimelineHistory, TimelineId};

/// One of two places: the arguments of [`adopt`], in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }
}

/// What was found where a volume is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There is none.
    Absent,
    /// There is one, and it cannot be read.
    Unreadable,
    /// A volume.
    Volume(Volume),
}

/// A data volume at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Given when it was initialised or seeded.
    pub id: VolumeId,
    /// The cluster.
    pub system: SystemIdentifier,
    /// Whose past it is; `None`: of the pair that made the cluster.
    pub lineage: Option<Lineage>,
    /// The major version of PostgreSQL.
    pub version: u32,
    /// Whether a process uses it.
    pub lock: Lock,
    /// The history of the timeline on which its WAL ends.
    pub history: TimelineHistory,
    /// Behind the last record of its WAL; `None`: not known.
    pub end: Option<Lsn>,
    /// What its agent remembered; `None`: not known.
    pub state: Option<State>,
    /// Written when both instances stopped in order.
    pub closed: Option<Closed>,
}

/// Whether a process uses a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// It was taken and given back.
    Free,
    /// A process has it.
    Held,
    /// It could not be tried.
    Unknown,
}

/// What an agent remembers on its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The highest term seen.
    pub term: Term,
    /// Whether it was primary in that term.
    pub primary: bool,
    /// Mode of the record, as far as it was seen. On the primary's volume `Solo` before commits stopped waiting for the standby, and `Paired` before
    /// the standby could take over.
    pub mode: Mode,
    /// Which commits wait for the standby.
    pub durability: Durability,
    /// How that term began; `None`: not known.
    pub began: Option<Began>,
}

impl State {
    /// What an agent remembers, as far as it is about this volume and tells everything.
    #[must_use]
    pub fn of(durable: &Durable, volume: VolumeId) -> Option<State> {
        let is_meant = !durable.primary || durable.volume == Some(volume);
        let (mode, durability) = durable.mode.zip(durable.durability).filter(|_| is_meant)?;
        let Durable { term, primary, began, .. } = *durable;
        Some(State { term, primary, mode, durability, began })
    }
}

/// Both instances have stopped, the standby after it had all of the primary's WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// In which term.
    pub term: Term,
    /// Where the WAL of both ends.
    pub end: Lsn,
    /// Both volumes.
    pub volumes: [VolumeId; 2],
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// This one is the primary. Nothing that was acknowledged is lost.
    Primary {
        /// Which.
        side: Side,
        /// What becomes of the other.
        other: Other,
    },
    /// A person chooses.
    Ask {
        /// Why.
        why: Doubt,
        /// What a choice of the first loses; `None`: there is nothing to choose.
        a: Option<Loss>,
        /// What a choice of the second loses.
        b: Option<Loss>,
    },
    /// Nothing is done.
    Refuse(Refusal),
}

/// What becomes of the volume that is not chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Other {
    /// It follows: all of its WAL belongs to the primary's past.
    Follow,
    /// Its branch is kept aside, and it is rewound.
    Rewind,
    /// It is seeded.
    Rebuild,
}

/// What a choice loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing that the other has.
    Nothing,
    /// So many bytes of WAL that only the other has. They are kept aside.
    Bytes(u64),
    /// Not known.
    Unknown,
}

/// Why a person is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum Doubt {
    /// Both have WAL that the other lacks, and either may have been acknowledged.
    BothMayHaveAcknowledged,
    /// Only one is there, and it was not closed in order with the other.
    OtherNotThere,
    /// Only one is there. It was the primary without a standby, so it has everything that it acknowledged; but a person may have forced the
    /// other one to take over since.
    OtherMayHaveBeenForced,
    /// It is not known where the WAL of one of them ends.
    EndUnknown,
    /// One timeline number has two pasts.
    TimelineWithTwoPasts,
}

/// Why nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum Refusal {
    /// There is no volume.
    Nothing,
    /// A process uses one of them, or the lock could not be tried.
    InUse,
    /// Not of one cluster.
    OtherSystem,
    /// Not of one pair.
    OtherLineage,
    /// Not of one version.
    OtherVersion,
    /// One is a copy of the other.
    SameVolume,
}

/// Decides about two kept volumes.
#[must_use]
pub fn adopt(a: &Found, b: &Found) -> Adoption {
    let in_use = |found: &Found| matches!(found, Found::Volume(v) if v.lock != Lock::Free);
    if in_use(a) || in_use(b) {
        return Adoption::Refuse(Refusal::InUse);
    }
    match (a, b) {
        (Found::Volume(a), Found::Volume(b)) => both(a, b),
        (Found::Volume(a), Found::Absent | Found::Unreadable) => alone(a, Side::A),
        (Found::Absent | Found::Unreadable, Found::Volume(b)) => alone(b, Side::B),
        _ => Adoption::Refuse(Refusal::Nothing),
    }
}

fn both(a: &Volume, b: &Volume) -> Adoption {
    let same = [
        (a.system == b.system, Refusal::OtherSystem),
        (a.lineage == b.lineage, Refusal::OtherLineage),
        (a.version == b.version, Refusal::OtherVersion),
        (a.id != b.id, Refusal::SameVolume),
    ];
    if let Some((_, why)) = same.iter().find(|(holds, _)| !holds) {
        return Adoption::Refuse(*why);
    }
    let (Some(end_a), Some(end_b)) = (a.end, b.end) else { return ask(Doubt::EndUnknown, None) };
    let Some(fork) = fork(a, b) else { return ask(Doubt::TimelineWithTwoPasts, None) };
    let (only_a, only_b) = (end_a.bytes_since(fork.at), end_b.bytes_since(fork.at));
    let primary = |side, other| Adoption::Primary { side, other };
    match (fork.contains(a, end_a), fork.contains(b, end_b)) {
        // All of a's WAL is b's too, and the other way round.
        (true, true) => primary(last(a, b), Other::Follow),
        (true, false) => primary(Side::B, Other::Follow),
        (false, true) => primary(Side::A, Other::Follow),
        (false, false) => match later(a, b) {
            Some(side) => primary(side, Other::Rewind),
            None => ask(Doubt::BothMayHaveAcknowledged, Some((only_a, only_b))),
        },
    }
}

fn ask(why: Doubt, only: Option<(u64, u64)>) -> Adoption {
    let loss = |bytes: Option<u64>| bytes.map_or(Loss::Unknown, Loss::Bytes);
    let (only_a, only_b) = (only.map(|o| o.0), only.map(|o| o.1));
    Adoption::Ask { why, a: Some(loss(only_b)), b: Some(loss(only_a)) }
}

/// Where two pasts part.
struct Fork {
    timeline: TimelineId,
    at: Lsn,
}

impl Fork {
    /// Whether a volume has nothing behind the fork.
    fn contains(&self, volume: &Volume, end: Lsn) -> bool {
        end <= self.at && volume.history.timeline == self.timeline
    }
}

/// The last position that both pasts have. `None` if one timeline number means two things.
fn fork(a: &Volume, b: &Volume) -> Option<Fork> {
    let legs = |v: &Volume| -> Vec<(TimelineId, Lsn)> {
        let last = (v.history.timeline, v.end.unwrap_or(Lsn(0)));
        v.history.ancestors.iter().copied().chain([last]).collect()
    };
    let (a, b) = (legs(a), legs(b));
    let common = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let shared = common.checked_sub(1).map(|last| Fork { timeline: a[last].0, at: a[last].1 });
    let (rest_a, rest_b) = (&a[common..], &b[common..]);
    let (fork, rest_a, rest_b) = match (rest_a, rest_b) {
        // Both were on this timeline, and one of them left it, or ended, first.
        ([(t, end), rest_a @ ..], [(u, other), rest_b @ ..]) if t == u => {
            (Some(Fork { timeline: *t, at: *end.min(other) }), rest_a, rest_b)
        }
        _ => (shared, rest_a, rest_b),
    };
    let twice = rest_a.iter().any(|(t, _)| rest_b.iter().any(|(u, _)| t == u));
    fork.filter(|_| !twice)
}

/// Of two with the same WAL: the last primary of the highest term; if that does not tell them apart, any, but always the same.
fn last(a: &Volume, b: &Volume) -> Side {
    let rank = |v: &Volume| (v.state.map(|s| (s.term, s.primary)), v.id);
    if rank(a) >= rank(b) { Side::A } else { Side::B }
}

/// Of two that have parted: the one whose term began while the other's surplus cannot have been acknowledged.
fn later(a: &Volume, b: &Volume) -> Option<Side> {
    let (of_a, of_b) = (a.state?, b.state?);
    let succeeds = |later: State, earlier: State| {
        let in_order = |how| matches!(how, Beginning::Lapse | Beginning::Resigned | Beginning::Evidence);
        let waited = later.durability != Durability::Async && earlier.durability != Durability::Async;
        let began = later.began.is_some_and(|began| in_order(began.how) && began.before == Mode::Paired);
        let next = later.primary && later.term == earlier.term.next();
        next && began && waited && earlier.mode == Mode::Paired
    };
    match (succeeds(of_a, of_b), succeeds(of_b, of_a)) {
        (true, false) => Some(Side::A),
        (false, true) => Some(Side::B),
        _ => None,
    }
}

/// Only one volume is there, or can be read.
fn alone(volume: &Volume, side: Side) -> Adoption {
    let closed_here = volume.closed.is_some_and(|closed| {
        let of_its_term = volume.state.is_some_and(|state| state.term == closed.term);
        of_its_term && volume.end == Some(closed.end) && closed.volumes.contains(&volume.id)
    });
    if closed_here {
        return Adoption::Primary { side, other: Other::Rebuild };
    }
    let was_alone = volume.state.is_some_and(|state| {
        state.primary && state.mode == Mode::Solo && state.durability != Durability::Async
    });
    let why = if was_alone { Doubt::OtherMayHaveBeenForced } else { Doubt::OtherNotThere };
    let choice = |of: Side| (of == side).then_some(Loss::Unknown);
    Adoption::Ask { why, a: choice(Side::A), b: choice(Side::B) }
}

#[cfg(test)]
mod tests;
