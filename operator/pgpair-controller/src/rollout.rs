//! The roll-out over all pairs: how many restart at the same time, and when it stops.
//!
//! A newer operator, or a change that a person makes in many pairs, makes pods of many pairs outdated at once. Each pair rolls in its
//! own steps (`decide/roll.rs`); this decides which pair may take them. Rules: a pair that has begun goes on, and counts until it
//! is `Paired` again with nothing pending; one more may begin while fewer than the limit have begun; nothing begins while
//! a pair has begun and is not `Paired` again within a bound. A restart for parameters, which a person asked for in that very pair, does not
//! wait for a roll that has failed elsewhere.
//!
//! What has begun survives a change of the leader: condition `UpdatePending` of the pair says so (reason `Rolling`). A new leader begins
//! nothing before it has had the time to see all pairs.
//!
//! The cost of one look does not depend on the number of pairs, only on that of those that roll.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgpair_api::names::PairName;
use tokio::time::Instant;

/// A pair that is not `Paired` again for so long after its last step has failed: a base backup is no part of a roll, a restart takes seconds,
/// and a long recovery minutes.
const PAIRED_WITHIN: Duration = Duration::from_secs(600);
/// Nothing begins for so long after this replica began to lead: by then it has seen all pairs.
const FIRST_LOOK: Duration = Duration::from_secs(60);

/// What a pair may do about pending changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Turn {
    /// Begin.
    #[default]
    Free,
    /// Go on: it has begun.
    Begun,
    /// Wait for this pair, which has begun.
    After(PairName),
    /// Wait until this pair, whose roll has failed, is mended, paused or deleted.
    Stopped(PairName),
    /// Wait until this replica has seen all pairs.
    FirstLook,
}

/// The roll-out, shared by all reconciles.
#[derive(Debug)]
pub struct Rollout {
    limit: usize,
    began: Instant,
    rolling: Mutex<BTreeMap<PairName, Instant>>,
    waiting: Mutex<BTreeSet<PairName>>,
}

impl Rollout {
    /// Of a replica that begins to lead now. `limit`: pairs that roll at the same time.
    #[must_use]
    pub fn new(limit: usize) -> Rollout {
        Rollout { limit, began: Instant::now(), rolling: Mutex::default(), waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<PairName>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rolling(&self) -> MutexGuard<'_, BTreeMap<PairName, Instant>> {
        self.rolling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this pair may do. `told`: its status says that it has begun.
    #[must_use]
    pub fn turn(&self, pair: &PairName, told: bool) -> Turn {
        let (mut rolling, now) = (self.rolling(), Instant::now());
        if told {
            rolling.entry(pair.clone()).or_insert(now);
        }
        decide_turn(&rolling, pair, self.limit, now, now - self.began)
    }

    /// Takes the turn for a step of this pair; what it has to wait for if it is another one's by now. `own`: a restart that a person asked for in
    /// this very pair.
    ///
    /// # Errors
    /// It may not begin.
    pub fn begin(&self, pair: &PairName, own: bool) -> Result<(), Turn> {
        let (mut rolling, now) = (self.rolling(), Instant::now());
        match decide_turn(&rolling, pair, self.limit, now, now - self.began) {
            Turn::Free | Turn::Begun => {}
            Turn::Stopped(_) if own => {}
            turn => return Err(turn),
        }
        rolling.insert(pair.clone(), now);
        Ok(())
    }

    /// Notes that this pair waits for its turn.
    pub fn wait(&self, pair: &PairName) {
        self.waiting().insert(pair.clone());
    }

    /// Notes that nothing of this pair is pending and it is `Paired`, or that it is held or gone. Gives a pair that may have its turn
    /// now.
    pub fn end(&self, pair: &PairName) -> Option<PairName> {
        let mut waiting = self.waiting();
        waiting.remove(pair);
        self.rolling().remove(pair).and_then(|_| waiting.pop_first())
    }

    /// Pairs that have begun, and those of them that have failed.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let (rolling, now) = (self.rolling(), Instant::now());
        (rolling.len(), rolling.values().filter(|since| has_failed(**since, now)).count())
    }
}

fn has_failed(since: Instant, now: Instant) -> bool {
    now - since >= PAIRED_WITHIN
}

/// Decides. `rolling`: the pairs that have begun, and when each took its last step. `leading`: how long this replica has led.
fn decide_turn(
    rolling: &BTreeMap<PairName, Instant>,
    pair: &PairName,
    limit: usize,
    now: Instant,
    leading: Duration,
) -> Turn {
    if rolling.contains_key(pair) {
        return Turn::Begun;
    }
    let (failed, under_way): (Vec<_>, Vec<_>) =
        rolling.iter().partition(|(_, since)| has_failed(**since, now));
    if under_way.len() >= limit
        && let Some((other, _)) = under_way.first()
    {
        return Turn::After((*other).clone());
    }
    if let Some((other, _)) = failed.first() {
        return Turn::Stopped((*other).clone());
    }
    if leading < FIRST_LOOK {
        return Turn::FirstLook;
    }
    Turn::Free
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn name(name: &str) -> PairName {
        PairName { namespace: "shop".into(), name: name.into() }
    }

    async fn rollout(limit: usize) -> Rollout {
        let rollout = Rollout::new(limit);
        advance(FIRST_LOOK).await;
        rollout
    }

    #[tokio::test(start_paused = true)]
    async fn pairs_roll_one_after_the_other() {
        let rollout = rollout(1).await;
        let (a, b) = (name("a"), name("b"));
        assert_eq!((rollout.turn(&a, false), rollout.turn(&b, false)), (Turn::Free, Turn::Free));
        rollout.begin(&a, false).unwrap();
        assert_eq!((rollout.turn(&a, false), rollout.turn(&b, false)), (Turn::Begun, Turn::After(a.clone())));
        assert_eq!(rollout.begin(&b, false), Err(Turn::After(a.clone())), "two looks at once");
        rollout.end(&a);
        rollout.begin(&b, false).unwrap();
        assert_eq!(rollout.count(), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_roll_as_the_limit_says() {
        let rollout = rollout(2).await;
        rollout.begin(&name("a"), false).unwrap();
        rollout.begin(&name("b"), false).unwrap();
        assert_eq!(rollout.begin(&name("c"), false), Err(Turn::After(name("a"))));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_pair_that_does_not_come_back_stops_the_roll_out_until_it_does() {
        let rollout = rollout(2).await;
        let (a, b) = (name("a"), name("b"));
        rollout.begin(&a, false).unwrap();
        advance(PAIRED_WITHIN - Duration::from_secs(1)).await;
        assert_eq!(rollout.turn(&b, false), Turn::Free);
        rollout.begin(&a, false).unwrap(); // its next step: the primary hands over
        advance(PAIRED_WITHIN).await;
        assert_eq!(rollout.turn(&b, false), Turn::Stopped(a.clone()));
        assert_eq!(rollout.turn(&a, false), Turn::Begun, "it may still be mended by going on");
        assert_eq!(rollout.count(), (1, 1));
        rollout.end(&a);
        assert_eq!(rollout.turn(&b, false), Turn::Free);
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_that_a_person_asked_for_does_not_wait_for_a_failed_roll_but_for_one_under_way() {
        let rollout = rollout(1).await;
        rollout.begin(&name("a"), false).unwrap();
        assert!(rollout.begin(&name("b"), true).is_err());
        advance(PAIRED_WITHIN).await;
        rollout.begin(&name("b"), true).unwrap();
        assert_eq!(rollout.begin(&name("c"), true), Err(Turn::After(name("b"))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_goes_on_with_what_has_begun_and_begins_nothing_before_it_has_seen_all() {
        let rollout = Rollout::new(1);
        let (a, b) = (name("a"), name("b"));
        assert_eq!(rollout.turn(&b, false), Turn::FirstLook);
        assert_eq!(rollout.turn(&a, true), Turn::Begun);
        advance(FIRST_LOOK).await;
        assert_eq!(rollout.turn(&b, false), Turn::After(a));
    }
}
