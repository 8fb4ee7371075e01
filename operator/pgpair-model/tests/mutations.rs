//! Alone in its process: what is taken away is taken away for all of it.

use pgpair_model::mutations::MUTATIONS;

#[test]
fn whatever_is_taken_away_breaks_the_claim_that_is_named() {
    for m in MUTATIONS {
        let found = m.explore(6_000_000);
        let broken: Vec<_> = found.broken.iter().map(|(claim, _)| *claim).collect();
        let name = (m.clauses, m.bounds.without);
        assert!(broken.iter().any(|c| c.starts_with(m.breaks)), "{name:?}: {broken:?}");
    }
}
