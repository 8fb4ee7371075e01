//! The driver without coverage: inputs of the corpus, changed at random from a fixed seed, for a fixed budget of processor time.

use std::fs;
use std::io;
use std::panic::{RefUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Target;

/// No input is longer.
const LONGEST: usize = 16 * 1024;
/// No input takes longer: a parser that does hangs.
const SLOW: Duration = Duration::from_secs(2);
/// Numbers at which something ends.
const NUMBERS: [&str; 10] = [
    "0",
    "1",
    "-1",
    "255",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
];

/// How much is tried.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Of all that is drawn.
    pub seed: u64,
    /// So many inputs, beside the corpus,
    pub inputs: u32,
    /// or as many as this processor time is enough for.
    pub time: Duration,
}

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// Of the corpus.
    pub of_corpus: usize,
    /// Made from it.
    pub made: u32,
}

/// An input that breaks a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The input.
    pub input: Vec<u8>,
    /// What it breaks.
    pub why: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: mend it, and put the input into the corpus: \"{}\"",
            self.why,
            self.input.escape_ascii()
        )
    }
}

/// Where the corpus of a target is.
#[must_use]
pub fn corpus_dir(target: &Target) -> PathBuf {
    // At run time: clones share build outputs, so a path that the compiler saw may be that of another clone.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    package.join("corpus").join(target.name)
}

/// The inputs in a folder, in the order of their names.
///
/// # Errors
/// It cannot be read.
pub fn read_corpus(dir: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.sort();
    paths.iter().map(fs::read).collect()
}

/// Tries the corpus, and then what is made from it.
///
/// # Errors
/// The first input that breaks a claim.
pub fn drive(target: &Target, corpus: &[Vec<u8>], budget: Budget) -> Result<Tried, Broken> {
    for input in corpus {
        try_one(target.run, input)?;
    }
    let begun = processor_time();
    let mut dice = Dice(budget.seed | 1);
    let mut made = 0;
    while made < budget.inputs && processor_time().saturating_sub(begun) < budget.time {
        try_one(target.run, &dice.input(corpus, target.words))?;
        made += 1;
    }
    Ok(Tried { of_corpus: corpus.len(), made })
}

fn try_one(run: impl Fn(&[u8]) + RefUnwindSafe, input: &[u8]) -> Result<(), Broken> {
    let begun = processor_time();
    let ended = catch_unwind(|| run(input));
    let took = processor_time().saturating_sub(begun);
    let broken = |why: String| Broken { input: input.to_owned(), why };
    match ended {
        Err(why) => {
            let text = why
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| why.downcast_ref::<&str>().copied());
            Err(broken(text.unwrap_or("it panics").to_owned()))
        }
        Ok(()) if took > SLOW => Err(broken(format!("it takes {took:?}"))),
        Ok(()) => Ok(()),
    }
}

/// Of this thread: a machine that is busy with something else makes nothing slow.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Xorshift: the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default() % sides.max(1)
    }

    /// One of the corpus, with one to eight changes.
    fn input(&mut self, corpus: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
        let mut input = corpus.get(self.roll(corpus.len())).cloned().unwrap_or_default();
        for _ in 0..=self.roll(8) {
            self.change(&mut input, corpus, words);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&str]) {
        let at = self.roll(input.len() + 1);
        let some = (at + 1 + self.roll(16)).min(input.len());
        match self.roll(8) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.roll(8);
                }
            }
            1 => drop(input.drain(at..some.max(at))),
            2 => drop(input.splice(at..at, words.get(self.roll(words.len())).unwrap_or(&"").bytes())),
            3 => {
                let again = input[at..some.max(at)].to_vec();
                drop(input.splice(at..at, again));
            }
            4 => self.number(input, at),
            5 => {
                let other = corpus.get(self.roll(corpus.len())).map_or(&[][..], Vec::as_slice);
                let from = self.roll(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            6 => {
                let byte = u8::try_from(self.roll(256)).unwrap_or_default();
                input.insert(at, byte);
            }
            _ => self.swap_lines(input),
        }
    }

    /// Another number in the place of the next one.
    fn number(&mut self, input: &mut Vec<u8>, at: usize) {
        let Some(begin) = input.iter().skip(at).position(u8::is_ascii_digit).map(|n| at + n) else { return };
        let digits = input[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        drop(input.splice(begin..begin + digits, NUMBERS[self.roll(NUMBERS.len())].bytes()));
    }

    fn swap_lines(&mut self, input: &mut Vec<u8>) {
        let mut lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
        let (one, other) = (self.roll(lines.len()), self.roll(lines.len()));
        lines.swap(one, other);
        *input = lines.join(&b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { seed: 7, inputs: 20_000, time: Duration::from_secs(20) };

    fn target(run: fn(&[u8])) -> Target {
        Target { name: "x", run, words: &["needle"] }
    }

    #[test]
    fn an_input_that_breaks_a_claim_is_found_and_named() {
        let needle = target(|data| assert!(!data.windows(6).any(|w| w == b"needle"), "found"));
        let broken = drive(&needle, &[b"hay".to_vec()], BUDGET).unwrap_err();
        assert!(broken.to_string().starts_with("found: mend it"), "{broken}");
        assert_eq!(
            drive(&needle, &[b"hay".to_vec()], BUDGET),
            Err(broken),
            "the same again from the same seed"
        );
    }

    #[test]
    fn numbers_become_those_at_which_something_ends() {
        let overflow = target(|data| {
            let number = std::str::from_utf8(data).ok().and_then(|text| text.parse::<u64>().ok());
            assert!(number.is_none_or(|n| n.checked_add(1).is_some()), "too large");
        });
        assert!(drive(&overflow, &[b"12".to_vec()], BUDGET).is_err());
    }

    #[test]
    fn what_takes_too_long_is_told_and_the_budget_ends_the_rest() {
        let slow = target(|_| {
            let begun = processor_time();
            while processor_time() - begun < SLOW + Duration::from_millis(10) {}
        });
        let told = drive(&slow, &[Vec::new()], BUDGET).unwrap_err();
        assert!(told.why.starts_with("it takes"), "{told}");
        let none = Budget { inputs: 0, ..BUDGET };
        assert_eq!(drive(&target(|_| ()), &[Vec::new()], none), Ok(Tried { of_corpus: 1, made: 0 }));
    }
}
