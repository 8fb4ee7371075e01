//! Clauses of the rules, and the tables of conditions that the rules are. A mutation test can take a clause away (feature
//! `mutations`); only the functions of this file ask whether one has. Without the feature none is ever away, by a constant.

macro_rules! clauses {
    ($($(#[doc = $words:literal])+ $name:ident,)+) => {
        /// One clause. What breaks without it stands in `docs/model.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Clause {
            $($(#[doc = $words])+ $name,)+
        }

        impl Clause {
            /// Every one.
            pub const ALL: &[Clause] = &[$(Clause::$name),+];

            /// What it says.
            #[must_use]
            pub fn words(self) -> &'static str {
                match self {
                    $(Clause::$name => concat!($($words),+).trim_ascii(),)+
                }
            }
        }
    };
}

clauses! {
    /// Rule 0: postgres stays down while a promise of our own is open.
    OwnPromise,
    /// Rule 0: who has resigned never writes again in that term.
    Resigned,
    /// Rule 0: the data directory is the one that the record names.
    PrimaryVolume,
    /// Rule 0: `Solo` counts only for the incarnation that the record names.
    NamedIncarnation,
    /// Rule 0: a promise ends at the fence.
    Fence,
    /// Promises are kept for each incarnation; the last to end decides.
    PromisePerIncarnation,
    /// Rule 2: only when every promise has lapsed.
    LapseFirst,
    /// Rule 2: the record names this standby's volume.
    StandbyVolume,
    /// Rule 3: a read of the same version settles nothing.
    NewerVersion,
    /// Rule 3: what is open is not hoped for.
    OpenIsUnknown,
    /// Rule 4: commits wait, proven, and the standby has what was written before.
    SyncProven,
    /// Commits wait until the record is settled `Solo`.
    SyncUntilSolo,
    /// Rule 5: the standby has the log up to the end.
    LogUpToEnd,
    /// Rule 6: evidence voids the promise to one incarnation.
    OneIncarnation,
    /// Rule 6: evidence opens `Solo` in `Async` only.
    EvidenceInAsync,
    /// Rule 7: nothing is promoted within the quarantine.
    Quarantine,
    /// Rule 7: only a resignation to this very process ends its quarantine.
    ResignedToMe,
    /// Rule 0: the term is on disk before postgres is writable.
    StoredFirst,
    /// Rule 1: `Solo` is on disk before commits stop waiting.
    SoloStored,
    /// Rules 4 and 5: before the standby may take over, the disk does not say any more that it may not.
    SharedStored,
    /// The promise: an answer repeated proves the way back.
    WayBack,
    /// Rule 1: the write to `Solo` follows a read that was asked after the loss was noticed.
    FreshRead,
    /// Rule 2: each change of primary is a new term.
    NextTerm,
    /// Rule 2: nobody is primary by a write that has not won.
    WonFirst,
    /// Rule 2: no answers while a take-over is under way.
    SilentTakeover,
    /// Rule 5: the standby is asked first.
    AskFirst,
    /// Rule 5: who takes its resignation back does so in the next term.
    TakeBackTerm,
    /// Rule 5: also in `Solo`, when postgres cannot be started.
    ResignInSolo,
    /// Rule 7: without API server a standby answers by its disk.
    AnswersByDisk,
    /// Rule 8: a standby that gets no further must not stay `Paired`.
    Stalls,
    /// Rule 8: a standby that does not stream must not stay `Paired`.
    Streams,
    /// Rule 1: a primary without a young promise goes `Solo`.
    GoesSolo,
    /// Rule 5: what not even a kill ends is silent, so that its promise lapses.
    SilentWedge,
    /// A standby has what it has replayed, also before it has received anything.
    HasReplayed,
    /// Rule 4: the proof that commits wait is one for this very wish.
    ProofOfThisWish,
    /// Rule 10: forced is the way past the incarnation that the order names, and past no other.
    NamedDead,
    /// A record with another uid is not the pair's.
    OwnRecord,
}

#[cfg(feature = "mutations")]
thread_local! {
    static TAKEN: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Takes these clauses away, and no others, for this thread.
#[cfg(feature = "mutations")]
pub fn take_away(clauses: &[Clause]) {
    TAKEN.set(clauses.iter().fold(0, |set, c| set | 1 << *c as u64));
}

impl Clause {
    /// Whether what the clause asks for is the case. One that is taken away asks for nothing.
    pub(super) fn demands(self, is_the_case: bool) -> bool {
        is_the_case || self.is_taken_away()
    }

    /// Whether this is the case, and the clause allows to go by it. One that is taken away allows nothing.
    pub(super) fn permits(self, is_the_case: bool) -> bool {
        is_the_case && !self.is_taken_away()
    }

    /// For what is done in the place of a rule while a mutation test has taken it away.
    #[cfg(feature = "mutations")]
    pub(super) fn is_taken_away(self) -> bool {
        TAKEN.get() & (1 << self as u64) != 0
    }

    /// For what is done in the place of a rule while a mutation test has taken it away.
    #[cfg(not(feature = "mutations"))]
    pub(super) const fn is_taken_away(self) -> bool {
        false
    }
}

/// One row in the table of a rule: what must be the case, and what is said or done otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Condition<Otherwise, Holds> {
    /// The clause that asks for it. `None`: no mutation test takes it away.
    pub(super) clause: Option<Clause>,
    /// In the words of `docs/authority.md`.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the page, which a test compares"))]
    pub(super) words: &'static str,
    pub(super) otherwise: Otherwise,
    pub(super) holds: Holds,
}

impl<Otherwise, Holds> Condition<Otherwise, Holds> {
    pub(super) const fn new(words: &'static str, otherwise: Otherwise, holds: Holds) -> Self {
        Condition { clause: None, words, otherwise, holds }
    }

    pub(super) const fn of(clause: Clause, words: &'static str, otherwise: Otherwise, holds: Holds) -> Self {
        Condition { clause: Some(clause), words, otherwise, holds }
    }
}

/// Goes through a table in its order: what the first row says that does not hold. `None`: all hold.
pub(super) fn first_unmet<Otherwise: Copy, Holds: Copy>(
    table: &[Condition<Otherwise, Holds>],
    ask: impl Fn(Holds) -> bool,
) -> Option<Otherwise> {
    let is_met = |row: &&Condition<Otherwise, Holds>| match row.clause {
        Some(clause) => clause.demands(ask(row.holds)),
        None => ask(row.holds),
    };
    table.iter().find(|row| !is_met(row)).map(|row| row.otherwise)
}

/// Whether every row holds.
pub(super) fn all_hold<Holds: Copy>(table: &[Condition<(), Holds>], ask: impl Fn(Holds) -> bool) -> bool {
    first_unmet(table, ask).is_none()
}
