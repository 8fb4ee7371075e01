//! A promotion that is cut off.

use std::time::Duration;

use pgpair_agent::fence::init::Tree;
use pgpair_agent::postgres::control_file::control_data;
use pgpair_agent::postgres::postmaster::StartAs;
use pgpair_agent::postgres::promote::{Settled, promote, settle, take_request};
use pgpair_core::timeline::TimelineId;

use crate::fixture::{Instance, LIMIT, run};

/// How often a promotion is cut off until one is hit between its steps; each goes on from the last.
const ATTEMPTS: usize = 40;

async fn newest(i: &Instance) -> TimelineId {
    control_data(&i.bin, &i.settings.layout.pgdata()).await.unwrap().newest_timeline()
}

/// Promotes, and kills everything so long after `standby.signal` is gone.
pub async fn cut_off(i: &Instance, role: StartAs, after: Duration) {
    let postmaster = i.start(role).await;
    let signal = i.settings.layout.in_pgdata("standby.signal");
    let killer = std::thread::spawn(move || {
        while signal.exists() {
            std::hint::spin_loop();
        }
        let begun = std::time::Instant::now();
        while begun.elapsed() < after {
            std::hint::spin_loop();
        }
        Tree::of_agent().kill(Duration::from_secs(5))
    });
    let _ = promote(&i.settings, &postmaster, &i.sql, LIMIT).await;
    assert_eq!(killer.join().unwrap().left, Some(0));
    postmaster.exited().await;
    assert!(i.free().await.is_some());
    i.sql.forget().await;
}

#[test]
fn a_promotion_that_is_cut_off_ends_in_a_new_timeline_or_in_a_standby() {
    run(async |w| {
        let (a, b) = w.pair().await;
        w.a.stop(&a).await;
        w.b.stop(&b).await;
        let (layout, bin) = (&w.b.settings.layout, &w.b.bin);
        let signal = layout.in_pgdata("standby.signal");
        let (mut done, mut undone) = (0, 0);
        for n in 0..ATTEMPTS {
            let from = newest(&w.b).await;
            cut_off(&w.b, w.b.standby_of(&w.a), Duration::from_micros(250 * n as u64)).await;
            match settle(layout, bin).await.unwrap() {
                Settled::Undone => {
                    assert_eq!(newest(&w.b).await, from);
                    assert!(signal.exists(), "it is a standby again");
                    undone += 1;
                }
                Settled::Done | Settled::None => {
                    assert!(newest(&w.b).await > from && !signal.exists());
                    assert!(!layout.promoting_json().exists());
                    std::fs::write(&signal, "").unwrap();
                    done += 1;
                }
            }
            if done > 0 && undone > 0 {
                break;
            }
        }
        println!("{undone} cut off between, {done} after the timeline had begun");
        assert!(undone > 0, "no kill came between");
        let from = newest(&w.b).await;
        let b = w.b.start(w.b.standby_of(&w.a)).await;
        promote(&w.b.settings, &b, &w.b.sql, LIMIT).await.unwrap();
        assert!(w.b.facts().await.timeline > Some(from), "another number than any before");
        assert_eq!(w.b.count().await, 1000);
        assert_eq!(settle(layout, bin).await.unwrap(), Settled::None);
    });
}

#[test]
fn a_promotion_that_fails_leaves_nothing_that_is_taken_for_an_order() {
    run(async |w| {
        let (a, b) = w.pair().await;
        w.a.stop(&a).await;
        let layout = &w.b.settings.layout;
        promote(&w.b.settings, &b, &w.b.sql, Duration::ZERO).await.unwrap_err();
        assert!(!layout.trigger().exists() && !layout.alone().exists());
        assert!(!take_request(layout).unwrap());
        // The same of an agent that is killed meanwhile.
        std::fs::write(layout.trigger(), "pgpair: a promotion is under way\n").unwrap();
        assert!(!take_request(layout).unwrap() && !layout.trigger().exists());
        for persons in ["", "now\n"] {
            std::fs::write(layout.trigger(), persons).unwrap();
            assert!(take_request(layout).unwrap() && !layout.trigger().exists(), "{persons:?}");
        }
        promote(&w.b.settings, &b, &w.b.sql, LIMIT).await.unwrap();
    });
}
