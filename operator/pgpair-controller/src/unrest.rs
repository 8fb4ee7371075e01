//! How soon a pair is looked at again with which something is under way. What is new makes a look of its own; this is for what time
//! alone changes.

use std::time::{Duration, Instant};

use crate::plan::Plan;

/// Next look while there is something to carry out.
const QUICK: Duration = Duration::from_secs(1);
/// Shortest wait while there is not, but something is not as it should be.
const SHORTEST: Duration = Duration::from_secs(2);
/// Longest wait. An instance that is away for days must not cost a look a second, and a whole zone of them not the turns of all others.
const LONGEST: Duration = Duration::from_secs(10);
/// A look comes when the pair has stood as it does for this much longer: what time alone changes is noticed late by an eighth of it.
const PART: u32 = 8;

/// What is under way with a pair, and since when it has stood like that.
#[derive(Debug, Default)]
pub struct Unrest(Option<Box<(Plan, Instant)>>);

impl Unrest {
    /// Whether something was under way at the last look.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Takes down what was decided; the time until the next look, `None` if nothing is under way.
    pub fn note(&mut self, plan: &Plan, now: Instant) -> Option<Duration> {
        if plan.is_idle() {
            self.0 = None;
            return None;
        }
        let since = match self.0.as_deref() {
            Some((before, since)) if before == plan => *since,
            _ => {
                self.0 = Some(Box::new((plan.clone(), now)));
                now
            }
        };
        let stands_for = now.saturating_duration_since(since);
        Some(if plan.moves() { QUICK } else { (stands_for / PART).clamp(SHORTEST, LONGEST) })
    }
}

#[cfg(test)]
mod tests {
    use pgpair_core::ids::InstanceId;

    use super::*;
    use crate::decide::decide;
    use crate::fixtures::steady;
    use crate::observed::ReportView;
    use crate::plan::RwPlan;

    fn at(begun: Instant, seconds: u64) -> Instant {
        begun + Duration::from_secs(seconds)
    }

    #[test]
    fn a_pair_that_stands_as_it_does_is_looked_at_less_and_less_often() {
        let begun = Instant::now();
        let mut unrest = Unrest::default();
        assert_eq!((unrest.note(&decide(&steady()), begun), unrest.is_there()), (None, false));
        let mut silent = steady();
        silent.b.report = ReportView::Unreachable;
        // It was taken out of the Service of all instances.
        silent.any = silent.rw.clone();
        let plan = decide(&silent);
        let waits =
            [0, 15, 16, 60, 3600].map(|after| unrest.note(&plan, at(begun, after)).unwrap().as_secs_f64());
        assert_eq!(waits, [2.0, 2.0, 2.0, 7.5, 10.0]);
        assert!(unrest.is_there());
        let news = Plan { delete_jobs: vec![(InstanceId::B, 1)], ..plan.clone() };
        assert_eq!(unrest.note(&news, at(begun, 3700)), Some(SHORTEST), "something has changed");
        assert_eq!(unrest.note(&decide(&steady()), at(begun, 3701)), None);
    }

    #[test]
    fn a_pair_with_which_something_is_to_be_done_is_looked_at_each_second() {
        let begun = Instant::now();
        let mut unrest = Unrest::default();
        let plan = Plan { rw: RwPlan::Suspect, ..decide(&steady()) };
        for after in [0, 60, 3600] {
            assert_eq!(unrest.note(&plan, at(begun, after)), Some(QUICK));
        }
    }
}
