//! How far one exploration goes.

use pgpair_core::authority::Durability;
use pgpair_core::authority::clause::Clause;

/// From where it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Term 1 of A, `Solo`, postgres of both just about to be started.
    Solo,
    /// Term 1 of A, `Solo`, postgres of both run, and nothing but the pairing is left to do.
    Alone,
    /// Term 1 of A, `Paired`, everything calm.
    Paired,
}

/// A part of the world that can be broken, to see that the claims rest on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Rule 9: the deadman kills at the fence.
    Deadman,
    /// The two clocks run alike, within the margin.
    Clocks,
    /// A write with an old version is refused.
    CompareAndSet,
    /// Rule 11: what only a former primary has is cut off before it follows.
    Rewind,
    /// A promotion ends when everything that was received is replayed.
    Replay,
    /// A promotion that was cut off before its timeline had begun is made once more.
    Settle,
    /// What an agent saw of its standby does not count for ever.
    Sight,
}

impl Part {
    /// What it says.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Part::Deadman => "Rule 9: the deadman kills at the fence.",
            Part::Clocks => "The world: two clocks run alike, within the margin.",
            Part::CompareAndSet => "The world: a write with an old version is refused.",
            Part::Rewind => "Rule 11: what only a former primary has is cut off before it follows.",
            Part::Sight => "What an agent saw of its standby does not count for ever.",
            Part::Replay => "The world: a promotion ends when everything that was received is replayed.",
            Part::Settle => "A promotion that was cut off before its timeline had begun is made once more.",
        }
    }
}

/// What may happen, and how often. Messages, requests and replies may always be lost or be late, clocks may always run,
/// any process may always stand still: none of these has a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Where it begins.
    pub start: Start,
    /// What an acknowledged commit is worth.
    pub durability: Durability,
    /// Steps in which a clock walks through one `ttl`.
    pub grain: u64,
    /// States beyond this term are not looked into.
    pub terms: u32,
    /// Containers killed, agent and postgres together; they may start again at once.
    pub crashes: u8,
    /// Postmasters killed while their agent lives.
    pub postgres_crashes: u8,
    /// Commits tried.
    pub commits: u8,
    /// Proofs of death that reach a standby.
    pub proofs: u8,
    /// Data volumes replaced by a new one.
    pub wipes: u8,
    /// Writes of the record whose sender gives up waiting for the reply; they may still land, or have landed.
    pub unknown: u8,
    /// Messages that arrive after later ones, as often as they like.
    pub late: u8,
    /// Politely stopped instances (SIGTERM).
    pub leaves: u8,
    /// Switchovers ordered.
    pub switchovers: u8,
    /// Other orders of people.
    pub orders: u8,
    /// Records deleted, and made anew by somebody with another uid.
    pub foreign: u8,
    /// Postgres that cannot be started any more, until it is mended.
    pub unstartable: u8,
    /// Primaries that hang.
    pub hangs: u8,
    /// Promotions between whose steps other things may happen; with [`Bounds::fine`] they may in each.
    pub promotions: u8,
    /// Workers of standbys that are stuck.
    pub stuck: u8,
    /// Copies kept of a volume.
    pub copies: u8,
    /// Times that Kubernetes is restored while nothing runs: the record says again that the pair is `Paired` in term 1.
    pub restores: u8,
    /// A read may be answered by a record that is no longer the newest.
    pub stale_reads: bool,
    /// The agent may see the new time later than its clock shows it: it is stalled.
    pub stalls: bool,
    /// A write may be refused before it leaves, at once and not only with the next step of the clock.
    pub refusals: bool,
    /// Clauses of the rules that are taken away (feature `mutations`).
    pub taken: &'static [Clause],
    /// What does not work.
    pub without: Option<Part>,
    /// From one state in so many it is tried whether the pair finds together again; 0: from none.
    pub progress_of: u64,
    /// Between any two steps of postgres and its worker, and between the landing of a write and its reply, other things
    /// may happen; otherwise the worker goes on until nothing is left to do, and a reply arrives or is lost at once.
    pub fine: bool,
    /// A standby replays later than it receives.
    pub slow_replay: bool,
    /// The disk and the look at postgres may lag behind the agent.
    pub slow_node: bool,
    /// A primary sees what its standby has received. Asked for only where a standby may lack more than `maxLag`.
    pub lag: bool,
}

impl Bounds {
    /// A pair without any fault but those that have no bound.
    pub const CALM: Bounds = Bounds {
        start: Start::Paired,
        durability: Durability::Sync,
        grain: 2,
        terms: 2,
        crashes: 0,
        postgres_crashes: 0,
        commits: 0,
        proofs: 0,
        wipes: 0,
        unknown: 0,
        late: 0,
        leaves: 0,
        switchovers: 0,
        orders: 0,
        foreign: 0,
        unstartable: 0,
        hangs: 0,
        promotions: 0,
        stuck: 0,
        copies: 0,
        restores: 0,
        stale_reads: false,
        stalls: false,
        refusals: false,
        taken: &[],
        without: None,
        progress_of: 0,
        fine: false,
        slow_replay: false,
        slow_node: false,
        lag: false,
    };
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds::CALM
    }
}

/// Length of a promise: the longest that is allowed, so that the protocol's fixed times are all short against it.
pub const TTL_MS: u32 = pgpair_core::authority::timing::MAX_TTL_MS;

impl Bounds {
    /// One step of a clock. So many as [`Bounds::grain`] are one `ttl` and its margin.
    #[must_use]
    pub fn unit(&self) -> u64 {
        let ttl = u64::from(TTL_MS);
        (ttl + pgpair_core::authority::timing::Timing::margin(ttl)).div_ceil(self.grain)
    }
}
