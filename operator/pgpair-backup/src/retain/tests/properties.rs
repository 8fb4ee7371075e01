//! The guarantees of [`retain`] over random places: gaps, forks, branches, damaged backups, marks and readers.

use proptest::prelude::*;

use super::*;

/// Any place, with a sane clock.
fn places() -> impl Strategy<Value = All> {
    let one = (
        1u32..=3,
        0u64..10,
        prop::option::weighted(0.4, any::<prop::sample::Index>()),
        prop::sample::select(vec![Restorable::Yes, Restorable::Yes, Restorable::Yes, Restorable::No]),
        (prop::bool::weighted(0.1), prop::bool::weighted(0.1), prop::option::weighted(0.2, 0u64..40)),
    );
    let gaps = prop::collection::vec((1u32..=3, 1u64..32), 0..5);
    let timeline = prop::option::weighted(0.9, 1u32..=3);
    let unknown = prop::collection::btree_set(1u64..32, 0..4);
    let ends = [14u64..32, 24u64..32, 20u64..32];
    let holds = prop::collection::vec((0usize..8, any::<bool>(), 1u64..60, 1u64..30), 0..2);
    (prop::collection::vec(one, 0..7), gaps, timeline, unknown, ends, holds).prop_map(
        |(drawn, gaps, timeline, unknown, ends, holds)| {
            let mut all = All::of(Vec::new());
            for (number, (timeline, n, parent, how, (deleting, keep, proven))) in
                drawn.into_iter().enumerate()
            {
                let n = u64::from(timeline - 1) * 10 + 2 + n;
                // A parent is older than what is based on it.
                let older =
                    |parent: &usize| all.backups[*parent].order() < backup(number, timeline, n, None).order();
                let parent = parent.filter(|_| number > 0).map(|index| index.index(number)).filter(older);
                let mut backup = backup(number, timeline, n, parent);
                if let Found::Entry { restorable, .. } = &mut backup.entry {
                    *restorable = how;
                }
                (backup.deleting, backup.keep, backup.proven) = (deleting, keep, proven.map(at));
                all.backups.push(backup);
            }
            all.pasts = (1..=3).map(past).collect();
            all.timeline = timeline.map(TimelineId);
            all.unknown = unknown;
            all.names = Names::default();
            for (t, end) in (1u32..=3).zip(ends) {
                all.names.insert_segments(OWN, TimelineId(t), u64::from(t - 1) * 10 + 1..end);
                all.names.insert(OWN, WalFile::History(TimelineId(t)));
            }
            for (t, n) in gaps {
                all.names.remove_segments(OWN, TimelineId(t), &(n..n + 1));
            }
            all.holds = (0..)
                .zip(holds)
                .map(|(n, (of, whole, until, from))| {
                    let wal = Held::WalFrom(TimelineId(1), Lsn(from * SEG));
                    Hold {
                        id: HoldId(n),
                        on: if whole { Held::Backup(id(of)) } else { wal },
                        until: at(until),
                    }
                })
                .collect();
            all
        },
    )
}

fn policies() -> impl Strategy<Value = Policy> {
    (1u32..4, 0u64..40, 0u64..40, any::<bool>())
        .prop_map(|(last, window, young, p)| policy(last, window, young, p))
}

/// Moments from `start` on that can be restored: the ends of segments, along each timeline.
fn moments(stretches: &[Stretch], start: Timestamp) -> BTreeSet<(u32, u64)> {
    let of = |s: &Stretch| {
        let (first, end) = (s.base.stop.0 / SEG, s.until.lsn.0 / SEG);
        let timeline = s.timeline.0;
        (first..end).filter(move |n| at(n + 1) >= start).map(move |n| (timeline, n))
    };
    stretches.iter().flat_map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn p1_a_hold_a_mark_or_a_larger_policy_never_lets_more_go(
        all in places(), policy in policies(), now in 30u64..50, more in 0u64..20, which in 0u8..7, of in 0usize..7,
    ) {
        let before = all.retain(&policy, at(now));
        let (mut larger, mut changed) = (policy, all.clone());
        match which {
            0 => larger.keep_last = larger.keep_last.saturating_add(u32::try_from(more).unwrap()),
            1 => larger.window += minutes(more),
            2 => larger.keep_for += minutes(more),
            3 => larger.keep_proven = true,
            4 => changed.backups.iter_mut().skip(of).take(1).for_each(|b| b.keep = true),
            5 => changed.holds.push(Hold { id: HoldId(9), on: Held::Backup(id(of)), until: at(99) }),
            _ => {
                let on = Held::WalFrom(TimelineId(1), Lsn(more * SEG));
                changed.holds.push(Hold { id: HoldId(9), on, until: at(99) });
            }
        }
        let after = changed.retain(&larger, at(now));
        prop_assert!(deleted(&after).is_subset(&deleted(&before)), "{:?} {:?}", after, before);
        prop_assert!(deleted_wal(&after).is_subset(&deleted_wal(&before)), "{:?} {:?}", after, before);
    }

    #[test]
    fn p1_one_backup_more_lets_only_older_ones_go(
        all in places(), policy in policies(), now in 30u64..50, t in 1u32..=3, n in 2u64..11, restorable: bool,
    ) {
        let before = all.retain(&policy, at(now));
        let new = backup(8, t, u64::from(t - 1) * 10 + n, None);
        let new = if restorable { new } else { broken(new) };
        let mut with = all.clone();
        with.backups.push(new);
        let after = with.retain(&policy, at(now));
        if before.doubt.is_none() {
            for id in deleted(&after).difference(&deleted(&before)).filter(|id| **id != new.id) {
                let old = all.backups.iter().find(|b| b.id == *id).unwrap();
                prop_assert!(restorable && old.order() < new.order(), "{:?}", old);
            }
        }
    }

    #[test]
    fn p2_every_moment_of_the_window_stays(all in places(), policy in policies(), now in 30u64..50) {
        let left = all.without(&all.retain(&policy, at(now)));
        let start = window_start(&policy, at(now));
        let (before, after) = (all.stretches(), left.stretches());
        let (promised, kept) = (moments(&before, start), moments(&after, start));
        prop_assert!(promised.is_subset(&kept), "{:?}", promised.difference(&kept));
        // And the end of the present, however old it is.
        let present = |all: &All| {
            let own = all.timeline.map(|t| past(t.0))?;
            let alone = All { pasts: vec![own], ..all.clone() };
            alone.stretches().iter().map(|s| s.until.lsn).max()
        };
        prop_assert_eq!(present(&all), present(&left));
    }

    #[test]
    fn p3_as_many_as_promised_can_be_restored(all in places(), policy in policies(), now in 30u64..50) {
        let left = all.without(&all.retain(&policy, at(now)));
        let promised = all.restorable().len().min(policy.keep_last.get() as usize);
        prop_assert!(left.restorable().len() >= promised);
    }

    #[test]
    fn p4_what_is_kept_keeps_its_parents_and_can_be_restored_as_before(
        all in places(), policy in policies(), now in 30u64..50,
    ) {
        let retention = all.retain(&policy, at(now));
        let left = all.without(&retention);
        for backup in left.backups.iter().filter(|b| !b.deleting) {
            let exists = |id: &BackupId| all.backups.iter().any(|b| b.id == *id && !b.deleting);
            if let Some(parent) = backup.parent().filter(exists) {
                prop_assert!(left.backups.iter().any(|b| b.id == parent), "{:?}", backup);
            }
        }
        let ids = |all: &All| all.restorable().iter().map(|b| b.id).collect::<BTreeSet<_>>();
        let kept: BTreeSet<_> = ids(&all).difference(&deleted(&retention)).copied().collect();
        prop_assert_eq!(ids(&left), kept);
    }

    #[test]
    fn p5_a_doubt_keeps_everything(all in places(), policy in policies(), now in 30u64..50, which in 0u8..5) {
        let (mut all, mut now) = (all, at(now));
        let any = all.backups.iter().any(|b| !b.deleting);
        match which {
            0 => all.listed = Listed::Incomplete,
            1 => all.backups.push(Backup { entry: Found::Unreadable, ..backup(8, 1, 3, None) }),
            2 => all.timeline = None,
            3 if any => now = at(1),
            _ if any => now = at(60 * 24 * 366 + 50),
            _ => {}
        }
        let retention = all.retain(&policy, now);
        prop_assert!(retention.doubt.is_some());
        prop_assert!(deleted(&retention).is_empty() && deleted_wal(&retention).is_empty(), "{:?}", retention);
    }

    #[test]
    fn p6_a_second_run_deletes_nothing(all in places(), policy in policies(), now in 30u64..50) {
        let left = all.without(&all.retain(&policy, at(now)));
        let again = left.retain(&policy, at(now));
        prop_assert!(deleted(&again).is_empty() && deleted_wal(&again).is_empty(), "{:?}", again);
    }

    #[test]
    fn p7_a_backup_with_the_mark_of_a_deletion_counts_for_nothing(all in places(), policy in policies(), now in 30u64..50) {
        let retention = all.retain(&policy, at(now));
        for marked in all.backups.iter().filter(|b| b.deleting) {
            prop_assert!(!matches!(retention.backups[&marked.id], Verdict::Keep(_)));
        }
        let mut without = all.clone();
        without.backups.retain(|b| !b.deleting);
        let others = |r: &Retention| {
            r.backups.iter().filter(|(id, _)| without.backups.iter().any(|b| b.id == **id)).map(|(i, v)| (*i, *v)).collect::<Vec<_>>()
        };
        let alone = without.retain(&policy, at(now));
        prop_assert_eq!(others(&retention), others(&alone));
        prop_assert_eq!(retention.wal, alone.wal);
    }

    #[test]
    fn p8_everything_that_is_there_and_nothing_else_has_a_verdict(
        all in places(), policy in policies(), now in 30u64..50,
    ) {
        let mut all = all;
        all.names.insert_segments(Lineage(2), TimelineId(1), 0..40);
        let retention = all.retain(&policy, at(now));
        let ids: BTreeSet<BackupId> = all.backups.iter().map(|b| b.id).collect();
        prop_assert_eq!(retention.backups.keys().copied().collect::<BTreeSet<_>>(), ids);
        let judged: Vec<(u32, u64)> =
            retention.wal.iter().flat_map(|w| w.numbers.clone().map(|n| (w.timeline.0, n))).collect();
        let there: Vec<(u32, u64)> =
            all.names.of(OWN).flat_map(|(t, r)| r.map(move |n| (t.0, n))).collect();
        prop_assert_eq!(judged, there, "each segment of the own lineage once");
    }
}
