//! Every order of events, so many deep.

use pgpair_model::runs::{QUICK, story};

#[test]
fn every_claim_holds_in_every_state_of_the_quick_runs() {
    for run in QUICK {
        let found = run.explore(usize::MAX, 1);
        let broken: Vec<_> =
            found.broken.into_iter().map(|(claim, path)| (claim, story(&run.bounds, path))).collect();
        assert!(broken.is_empty(), "{}: {}\n{}", run.name, broken[0].0, broken[0].1);
        assert_eq!(Some(found.unique), run.unique, "{}: unique states", run.name);
    }
}
