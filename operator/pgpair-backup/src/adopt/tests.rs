use super::*;
use pgpair_core::timeline::Ancestry;
use proptest::prelude::*;
use rstest::rstest;

fn history(timeline: u32, left: &[(u32, u64)]) -> TimelineHistory {
    let ancestors = left.iter().map(|&(t, l)| (TimelineId(t), Lsn(l))).collect();
    TimelineHistory { timeline: TimelineId(timeline), ancestors }
}

fn state(term: u32, primary: bool) -> State {
    State {
        term: Term(term),
        primary,
        mode: Mode::Paired,
        durability: Durability::Sync,
        began: began(Beginning::Lapse),
    }
}

/// From `Paired`.
fn began(how: Beginning) -> Option<Began> {
    Some(Began { how, before: Mode::Paired })
}

#[test]
fn what_an_agent_remembers_counts_for_the_directory_that_it_was_written_for() {
    let durable = Durable {
        term: Term(3),
        primary: true,
        volume: Some(VolumeId(7)),
        mode: Some(Mode::Solo),
        durability: Some(Durability::Sync),
        began: began(Beginning::Resigned),
        ..Durable::default()
    };

    let told = State { mode: Mode::Solo, began: began(Beginning::Resigned), ..state(3, true) };
    assert_eq!(State::of(&durable, VolumeId(7)), Some(told));
    assert_eq!(State::of(&durable, VolumeId(8)), None, "another directory lies there");
    let standby = Durable { primary: false, volume: None, ..durable };
    assert_eq!(State::of(&standby, VolumeId(8)), Some(State { primary: false, ..told }));
    for earlier in [Durable { mode: None, ..durable }, Durable { durability: None, ..durable }] {
        assert_eq!(State::of(&earlier, VolumeId(7)), None, "written by an agent that did not know of it");
    }
}

fn volume(id: u64, history: TimelineHistory, end: u64, state: State) -> Volume {
    Volume {
        id: VolumeId(id),
        system: SystemIdentifier(7),
        lineage: Some(Lineage(1)),
        version: 17,
        lock: Lock::Free,
        history,
        end: Some(Lsn(end)),
        state: Some(state),
        closed: None,
    }
}

/// The primary of term 1, and its standby, which has less.
fn pair() -> (Volume, Volume) {
    (volume(1, history(1, &[]), 100, state(1, true)), volume(2, history(1, &[]), 90, state(1, false)))
}

/// The primary of term 1 with a tail of its own, and the standby that took over before it.
fn parted() -> (Volume, Volume) {
    let (a, _) = pair();
    (a, volume(2, history(2, &[(1, 90)]), 200, state(2, true)))
}

fn adopted(a: &Volume, b: &Volume) -> Adoption {
    adopt(&Found::Volume(a.clone()), &Found::Volume(b.clone()))
}

#[test]
fn the_one_that_contains_the_other_is_the_primary() {
    let (a, b) = pair();
    let first = Adoption::Primary { side: Side::A, other: Other::Follow };
    assert_eq!(adopted(&a, &b), first);
    let nothing_remembered = |v: &Volume| Volume { state: None, ..v.clone() };
    assert_eq!(adopted(&nothing_remembered(&a), &nothing_remembered(&b)), first, "the WAL says enough");
    for end in [60, 90] {
        let before_the_fork = Volume { end: Some(Lsn(end)), ..a.clone() };
        let second = Adoption::Primary { side: Side::B, other: Other::Follow };
        assert_eq!(adopted(&before_the_fork, &parted().1), second, "{end}");
    }
}

#[test]
fn of_two_with_the_same_wal_the_last_primary_goes_on() {
    let (a, _) = pair();
    let standby = Volume { id: VolumeId(9), state: Some(state(1, false)), ..a.clone() };
    assert_eq!(adopted(&a, &standby), Adoption::Primary { side: Side::A, other: Other::Follow });
    let later = Volume { state: Some(state(2, false)), ..standby };
    assert_eq!(adopted(&a, &later), Adoption::Primary { side: Side::B, other: Other::Follow });
}

#[test]
fn a_tail_that_was_never_acknowledged_gives_way() {
    let (a, b) = parted();
    assert_eq!(adopted(&a, &b), Adoption::Primary { side: Side::B, other: Other::Rewind });
}

#[rstest]
#[case(|_: &mut State, b: &mut State| b.began = began(Beginning::Forced))]
#[case(|_: &mut State, b: &mut State| b.began = began(Beginning::Adopted))]
#[case(|_: &mut State, b: &mut State| b.began = began(Beginning::TakenBack))]
#[case(|_: &mut State, b: &mut State| b.began = None)]
#[case(|_: &mut State, b: &mut State| b.began.as_mut().unwrap().before = Mode::Solo)]
#[case(|_: &mut State, b: &mut State| b.durability = Durability::Async)]
#[case(|a: &mut State, _: &mut State| a.durability = Durability::Async)]
#[case(|a: &mut State, _: &mut State| a.mode = Mode::Solo)]
#[case(|_: &mut State, b: &mut State| b.primary = false)]
#[case(|_: &mut State, b: &mut State| b.term = Term(3))]
#[case(|_: &mut State, b: &mut State| b.term = Term(1))]
fn a_tail_that_may_have_been_acknowledged_is_for_a_person(#[case] change: fn(&mut State, &mut State)) {
    let (mut a, mut b) = parted();
    change(a.state.as_mut().unwrap(), b.state.as_mut().unwrap());
    let ask = Adoption::Ask {
        why: Doubt::BothMayHaveAcknowledged,
        a: Some(Loss::Bytes(110)),
        b: Some(Loss::Bytes(10)),
    };
    assert_eq!(adopted(&a, &b), ask);
}

#[test]
fn what_is_not_known_is_for_a_person() {
    let (a, b) = parted();
    for unknown in [Volume { state: None, ..a.clone() }, Volume { end: None, ..a.clone() }] {
        assert!(matches!(adopted(&unknown, &b), Adoption::Ask { .. }), "{unknown:?}");
    }
    let twice = volume(1, history(2, &[(1, 80)]), 100, state(1, true));
    assert!(matches!(adopted(&twice, &b), Adoption::Ask { why: Doubt::TimelineWithTwoPasts, .. }));
}

#[test]
fn two_that_were_promoted_from_one_past_have_parted_there() {
    let (_, b) = parted();
    for left in [90, 70] {
        let other = volume(1, history(3, &[(1, left)]), 120, state(1, true));
        let ask = Adoption::Ask {
            why: Doubt::BothMayHaveAcknowledged,
            a: Some(Loss::Bytes(200 - left)),
            b: Some(Loss::Bytes(120 - left)),
        };
        assert_eq!(adopted(&Volume { state: None, ..other }, &b), ask);
    }
}

#[test]
fn one_volume_decides_by_itself_only_if_the_pair_was_closed_in_order() {
    let (a, _) = pair();
    let alone = |v: Volume| {
        (adopt(&Found::Volume(v.clone()), &Found::Absent), adopt(&Found::Unreadable, &Found::Volume(v)))
    };
    let ask = |why| {
        let of = |a, b| Adoption::Ask { why, a, b };
        (of(Some(Loss::Unknown), None), of(None, Some(Loss::Unknown)))
    };
    assert_eq!(alone(a.clone()), ask(Doubt::OtherNotThere));
    let solo = State { mode: Mode::Solo, ..state(1, true) };
    assert_eq!(alone(Volume { state: Some(solo), ..a.clone() }), ask(Doubt::OtherMayHaveBeenForced));
    let closed = Closed { term: Term(1), end: Lsn(100), volumes: [VolumeId(2), VolumeId(1)] };
    let primary = |side| Adoption::Primary { side, other: Other::Rebuild };
    let with = |closed| Volume { closed: Some(closed), ..a.clone() };
    assert_eq!(alone(with(closed)), (primary(Side::A), primary(Side::B)));
    for stale in [
        Closed { term: Term(2), ..closed },
        Closed { end: Lsn(99), ..closed },
        Closed { volumes: [VolumeId(2), VolumeId(3)], ..closed },
    ] {
        assert_eq!(alone(with(stale)), ask(Doubt::OtherNotThere), "{stale:?}");
    }
}

#[test]
fn what_is_not_of_one_pair_or_is_in_use_is_left_alone() {
    let (a, b) = pair();
    for (other, why) in [
        (Volume { system: SystemIdentifier(8), ..b.clone() }, Refusal::OtherSystem),
        (Volume { lineage: Some(Lineage(2)), ..b.clone() }, Refusal::OtherLineage),
        (Volume { version: 18, ..b.clone() }, Refusal::OtherVersion),
        (Volume { id: a.id, ..b.clone() }, Refusal::SameVolume),
        (Volume { lock: Lock::Held, ..b.clone() }, Refusal::InUse),
        (Volume { lock: Lock::Unknown, ..b }, Refusal::InUse),
    ] {
        assert_eq!(adopted(&a, &other), Adoption::Refuse(why));
        assert_eq!(adopted(&other, &a), Adoption::Refuse(why));
    }
    for nothing in [Found::Absent, Found::Unreadable] {
        assert_eq!(adopt(&nothing, &Found::Absent), Adoption::Refuse(Refusal::Nothing));
    }
}

/// A pair as it lives, with what it has acknowledged.
#[derive(Debug, Clone)]
struct Life {
    volumes: [Volume; 2],
    primary: usize,
    mode: Mode,
    /// Timelines with their ends that were acknowledged while that meant something.
    acknowledged: Vec<(TimelineId, Lsn)>,
    timelines: u32,
}

#[derive(Debug, Clone, Copy)]
enum Happens {
    /// The primary writes so many bytes, and the standby gets so many of what it lacks.
    Writes(u64, u64),
    /// The primary goes on alone.
    Solo,
    /// The standby follows again, with everything.
    Pairs,
    /// The standby takes over from `Paired`.
    TakesOver(Beginning),
    /// A person makes the other one the primary, whatever is lost.
    Forces,
}

impl Life {
    fn born(durability: Durability) -> Life {
        let of = |id, primary| {
            let state = State { durability, began: began(Beginning::Born), ..state(1, primary) };
            volume(id, history(1, &[]), 10, state)
        };
        Life {
            volumes: [of(1, true), of(2, false)],
            primary: 0,
            mode: Mode::Paired,
            acknowledged: Vec::new(),
            timelines: 1,
        }
    }

    fn end(&self, of: usize) -> u64 {
        self.volumes[of].end.unwrap().0
    }

    fn state(&mut self, of: usize) -> &mut State {
        self.volumes[of].state.as_mut().unwrap()
    }

    fn happens(&mut self, what: Happens) {
        let (p, s) = (self.primary, 1 - self.primary);
        let paired = self.mode == Mode::Paired;
        match what {
            Happens::Writes(bytes, shipped) => {
                self.volumes[p].end = Some(Lsn(self.end(p) + bytes));
                if paired {
                    let shipped = (self.end(s) + shipped).min(self.end(p));
                    self.volumes[s].end = Some(Lsn(shipped));
                }
                let durability = self.state(p).durability;
                let safe = if !paired && durability != Durability::Async { self.end(p) } else { self.end(s) };
                let on = self.volumes[p].history.timeline;
                if durability != Durability::Async && (!paired || self.volumes[s].history.timeline == on) {
                    self.acknowledged.push((on, Lsn(safe.min(self.end(p)))));
                }
            }
            Happens::Solo => {
                self.mode = Mode::Solo;
                self.state(p).mode = Mode::Solo; // on the disk before a commit rests on it
            }
            Happens::Pairs => {
                self.mode = Mode::Paired;
                let (mode, term) = (Mode::Paired, self.state(p).term);
                self.state(p).mode = mode;
                let of_primary = self.volumes[p].state.unwrap();
                self.volumes[s].history = self.volumes[p].history.clone();
                self.volumes[s].end = self.volumes[p].end;
                *self.state(s) = State { primary: false, term, mode, ..of_primary };
            }
            Happens::TakesOver(how) if paired => self.promote(s, Began { how, before: Mode::Paired }),
            Happens::TakesOver(_) => {}
            Happens::Forces => {
                let before = self.mode;
                self.promote(s, Began { how: Beginning::Forced, before });
                // What a person has given up does not count any more.
                let new = &self.volumes[s];
                let kept =
                    |(t, l): &(TimelineId, Lsn)| new.history.ancestry_of(*t, *l) == Ancestry::Contained;
                let kept: Vec<_> = self.acknowledged.iter().copied().filter(kept).collect();
                self.acknowledged = kept;
            }
        }
    }

    /// A new term, of the other instance, without the first.
    fn promote(&mut self, new: usize, began: Began) {
        let term = self.state(self.primary).term.next();
        let durability = self.state(self.primary).durability;
        self.timelines += 1;
        let (from, at) = (self.volumes[new].history.timeline, self.volumes[new].end.unwrap());
        let history = &mut self.volumes[new].history;
        history.ancestors.push((from, at));
        history.timeline = TimelineId(self.timelines);
        *self.state(new) = State { term, primary: true, mode: Mode::Solo, durability, began: Some(began) };
        self.volumes[new].end = Some(Lsn(at.0 + 1));
        (self.primary, self.mode) = (new, Mode::Solo);
    }
}

fn lives() -> impl Strategy<Value = (Durability, Vec<Happens>)> {
    let durability = prop::sample::select(vec![Durability::Sync, Durability::SyncStrict, Durability::Async]);
    let how = prop::sample::select(vec![Beginning::Lapse, Beginning::Resigned, Beginning::Evidence]);
    let what = prop_oneof![
        4 => (0u64..30, 0u64..40).prop_map(|(bytes, shipped)| Happens::Writes(bytes, shipped)),
        1 => Just(Happens::Solo),
        2 => Just(Happens::Pairs),
        2 => how.prop_map(Happens::TakesOver),
        1 => Just(Happens::Forces),
    ];
    (durability, prop::collection::vec(what, 0..14))
}

fn mirrored(adoption: Adoption) -> Adoption {
    match adoption {
        Adoption::Primary { side, other } => Adoption::Primary { side: side.other(), other },
        Adoption::Ask { why, a, b } => Adoption::Ask { why, a: b, b: a },
        refuse @ Adoption::Refuse(_) => refuse,
    }
}

fn found() -> impl Strategy<Value = Found> {
    let legs = (0u64..3, 0u64..3, 0u64..4, prop::option::weighted(0.9, 0u64..3));
    let term = (
        0u32..3,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        prop::sample::select(vec![Beginning::Born, Beginning::Lapse, Beginning::Forced, Beginning::Adopted]),
    );
    let kind = prop::sample::select(vec![0, 1, 2, 2, 2, 2, 2, 2]);
    (kind, 1u64..3, legs, prop::option::weighted(0.9, term)).prop_map(|(kind, id, legs, state)| {
        let (one, two, timeline, end) = legs;
        let history = match timeline {
            0 => history(1, &[]),
            1 => history(2, &[(1, one)]),
            2 => history(3, &[(1, one)]),
            _ => history(3, &[(1, one), (2, one + two)]),
        };
        let after = history.ancestors.last().map_or(0, |(_, l)| l.0);
        let state = state.map(|(term, primary, paired, was_paired, how)| {
            let mode = |paired| if paired { Mode::Paired } else { Mode::Solo };
            let began = Some(Began { how, before: mode(was_paired) });
            State { mode: mode(paired), began, ..self::state(term, primary) }
        });
        let volume = volume(id, history, 0, self::state(0, false));
        let volume = Volume { state, end: end.map(|e| Lsn(after + e)), ..volume };
        match kind {
            0 => Found::Absent,
            1 => Found::Unreadable,
            _ => Found::Volume(volume),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_the_two_does_not_matter(a in found(), b in found()) {
        prop_assert_eq!(adopt(&a, &b), mirrored(adopt(&b, &a)));
        prop_assert_eq!(adopt(&a, &b), adopt(&a.clone(), &b.clone()));
    }

    #[test]
    fn what_is_contained_is_never_chosen_over_what_contains_it(a in found(), b in found()) {
        let (Found::Volume(x), Found::Volume(y)) = (&a, &b) else { return Ok(()) };
        let (Some(end_x), Some(end_y)) = (x.end, y.end) else { return Ok(()) };
        let within = |v: &Volume, end, of: &Volume, whole: Lsn| {
            of.history.ancestry_of(v.history.timeline, end) == Ancestry::Contained
                && (v.history.timeline != of.history.timeline || end <= whole)
        };
        if let Adoption::Primary { side: Side::A, .. } = adopt(&a, &b) {
            let less = within(x, end_x, y, end_y) && !within(y, end_y, x, end_x);
            prop_assert!(!less, "{:?} {:?}", x, y);
        }
    }

    /// Whenever a pair is given up, and whichever of its volumes are kept.
    #[test]
    fn nothing_that_was_acknowledged_is_lost_without_a_person(
        (durability, life) in lives(), keeps in prop::sample::select(vec![(true, true), (true, false), (false, true)]),
    ) {
        let mut pair = Life::born(durability);
        for what in life {
            pair.happens(what);
        }
        let [a, b] = pair.volumes.clone();
        let kept = |there, v| if there { Found::Volume(v) } else { Found::Absent };
        let adoption = adopt(&kept(keeps.0, a), &kept(keeps.1, b));
        if let Adoption::Primary { side, .. } = adoption {
            let chosen = &pair.volumes[if side == Side::A { 0 } else { 1 }];
            for (timeline, lsn) in &pair.acknowledged {
                let within = chosen.history.ancestry_of(*timeline, *lsn) == Ancestry::Contained
                    && (*timeline != chosen.history.timeline || Some(*lsn) <= chosen.end);
                prop_assert!(within, "{:?} {:?} in {:?}", timeline, lsn, pair);
            }
        }
        prop_assert!(!matches!(adoption, Adoption::Refuse(_)), "{:?}", pair);
    }
}
