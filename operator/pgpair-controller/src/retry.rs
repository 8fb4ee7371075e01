//! When a step that failed is tried again: later and later, and at once when the spec has changed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::outcome::{Fault, Step, StepFailure};

/// Before the second try, doubled with each failure in a row.
const FIRST: Duration = Duration::from_secs(1);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// Longest wait of what leads clients to the primary, or is bound to a moment.
const LONGEST_URGENT: Duration = Duration::from_secs(5);

/// Steps of one pair that failed.
#[derive(Debug, Default)]
pub struct Retries(BTreeMap<Step, Retry>);

#[derive(Debug)]
struct Retry {
    failure: StepFailure,
    /// Generation of the spec that was tried.
    generation: i64,
    not_before: Instant,
}

impl Retries {
    /// The failure of a step that is not to be tried yet with this generation of the spec.
    #[must_use]
    pub fn waits(&self, step: Step, generation: i64, now: Instant) -> Option<StepFailure> {
        let retry = self.0.get(&step)?;
        (retry.generation == generation && now < retry.not_before).then(|| retry.failure.clone())
    }

    /// A step failed.
    pub fn failed(&mut self, step: Step, generation: i64, fault: Fault, now: Instant) -> StepFailure {
        let before = self.0.get(&step).filter(|retry| retry.generation == generation);
        let times = before.map_or(1, |retry| retry.failure.times.saturating_add(1));
        let failure = StepFailure { step, fault, times };
        let longest = match step {
            Step::Slices
            | Step::Jobs
            | Step::Release
            | Step::Roll
            | Step::Settings
            | Step::RotatePassword
            | Step::Revocation
            | Step::ServerCertificate
            | Step::GiveCertificates
            | Step::Passwords
            | Step::GivePasswords => LONGEST_URGENT,
            Step::Names
            | Step::Base(_)
            | Step::Secrets
            | Step::Issuer
            | Step::Adoption
            | Step::Record
            | Step::Set(_)
            | Step::SeedJob => LONGEST,
        };
        let wait = FIRST.saturating_mul(1 << (times - 1).min(6)).min(longest);
        // Up to a tenth longer, so that many pairs do not keep step.
        let wait = wait.mul_f64(1.0 + rand::rng().random_range(0.0..0.1));
        self.0.insert(step, Retry { failure: failure.clone(), generation, not_before: now + wait });
        failure
    }

    /// A step was carried out.
    pub fn forget(&mut self, step: Step) {
        self.0.remove(&step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Child, FaultKind};

    #[test]
    fn a_refused_step_is_tried_later_and_later_and_at_once_with_another_spec() {
        let step = Step::Base(Child::Config);
        let fault = || Fault { kind: FaultKind::Lasting, sentence: "no".into() };
        let (mut retries, mut now) = (Retries::default(), Instant::now());
        let mut waits = Vec::new();
        for times in 1..=9 {
            assert_eq!(retries.failed(step, 3, fault(), now).times, times);
            assert!(retries.waits(step, 4, now).is_none(), "the spec has changed");
            assert!(retries.waits(Step::Secrets, 3, now).is_none(), "another step");
            let begun = now;
            while retries.waits(step, 3, now).is_some() {
                now += Duration::from_millis(100);
            }
            waits.push((now - begun).as_secs());
        }
        assert_eq!((waits[0], waits[1], waits[2]), (1, 2, 4));
        assert!(waits[8] >= 60 && waits[8] <= 66, "{waits:?}");
        retries.forget(step);
        assert_eq!(retries.failed(step, 3, fault(), now).times, 1);
    }
}
