//! Tests that run one after the other, with what they share.

use std::ops::Add;
use std::time::Instant;

use crate::context::Context;
use crate::{Outcome, Test};

/// A test that failed.
pub struct Failure {
    /// The test.
    pub name: &'static str,
    /// Its first line says why.
    pub error: String,
}

/// What came of tests.
#[derive(Default)]
pub struct Done {
    pub passed: usize,
    pub ignored: usize,
    pub failures: Vec<Failure>,
}

impl Add for Done {
    type Output = Done;
    fn add(mut self, other: Done) -> Done {
        self.failures.extend(other.failures);
        Done { passed: self.passed + other.passed, ignored: self.ignored + other.ignored, ..self }
    }
}

/// Tests that use one context.
pub struct Lane {
    context: Context,
    done: Done,
}

impl Lane {
    /// In a namespace that begins like this.
    pub async fn new(prefix: &'static str) -> Lane {
        Lane { context: Context::new(prefix).await, done: Done::default() }
    }

    /// Runs those of the tests that are chosen, and tells of each when it has ended.
    pub async fn run(&mut self, tests: &'static [Test], is_chosen: &dyn Fn(&str) -> bool) {
        for (name, test) in tests.iter().filter(|(name, _)| is_chosen(name)) {
            let since = Instant::now();
            let outcome = test(&mut self.context).await;
            let seconds = since.elapsed().as_secs_f64();
            match outcome {
                Ok(Outcome::Passed) => {
                    self.done.passed += 1;
                    println!("test {name} ... ok ({seconds:.1} s)");
                }
                Ok(Outcome::Skipped(reason)) => {
                    self.done.ignored += 1;
                    println!("test {name} ... ignored: {reason}");
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    println!("test {name} ... FAILED ({seconds:.1} s)\n{error}\n");
                    self.done.failures.push(Failure { name, error });
                }
            }
        }
    }

    /// Deletes what they shared.
    pub async fn end(mut self) -> Done {
        if let Err(error) = self.context.clean_up(self.done.failures.is_empty()).await {
            self.done.failures.push(Failure { name: "clean_up", error: format!("{error:#}") });
        }
        self.done
    }
}
