//! What each kind of fault does, and what is expected of the pair. Data only.

mod control;
mod disks;
mod network;
mod pods;
mod processes;

use crate::faults::act::Act;
use crate::faults::kind::{Entry, Expected, Kind, Successor};

/// All entries.
pub const GROUPS: [&[Entry]; 5] =
    [processes::ENTRIES, pods::ENTRIES, network::ENTRIES, control::ENTRIES, disks::ENTRIES];

/// Somebody alive hands over, or a witness proves the death.
const HANDED_OVER: Expected = takes_over("below 1 s");
/// The same, after a shutdown.
const SHUT_DOWN: Expected = takes_over("1 s and the shutdown");
/// Nobody can say a last word.
const LAPSES: Expected = takes_over("`ttl` + 1 to 2 s");
/// A hang is believed after `hangTimeoutSeconds`.
const HANGS: Expected = takes_over("10 s + 1 s, or 10 s + `ttl` + 1 s");
/// Nothing is asked of what is broken.
const UNHARMED: Expected = nobody("none");
/// The same, and no process of the pair ends either.
const UNDISTURBED: Expected = Expected { undisturbed: true, ..UNHARMED };
/// The primary goes on alone.
const ALONE: Expected = nobody("`ttl/2` + 0.5 s; none in `Async`; in `SyncStrict` until the standby is back");
/// Only the primary has, or may have, the last commits.
const WAITS: Expected = nobody("until the primary is back");
/// A race that both may win.
const RACE: Expected = either("`ttl` + 1 to 2 s, or until one is back");

const fn takes_over(gap: &'static str) -> Expected {
    Expected { successor: Successor::Standby, gap, undisturbed: false }
}

const fn nobody(gap: &'static str) -> Expected {
    Expected { successor: Successor::Nobody, gap, undisturbed: false }
}

const fn either(gap: &'static str) -> Expected {
    Expected { successor: Successor::Either, gap, undisturbed: false }
}

const fn entry(
    kind: Kind,
    name: &'static str,
    what: &'static str,
    undone: &'static str,
    expected: Expected,
    script: &'static [Act],
) -> Entry {
    Entry { kind, name, what, undone, expected, script }
}
