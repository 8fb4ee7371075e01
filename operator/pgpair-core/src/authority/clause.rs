//! Clauses of the rules that a mutation test can take away (feature `mutations`). Without the feature all are kept, and
//! [`keeps`] costs nothing: it is a constant.

macro_rules! clauses {
    ($($(#[doc = $words:literal])+ $name:ident,)+) => {
        /// One clause. What breaks without it stands in `docs/model.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Clause {
            $($(#[doc = $words])+ $name,)+
        }

        impl Clause {
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

/// Whether the clause is in force.
#[cfg(feature = "mutations")]
pub(super) fn keeps(clause: Clause) -> bool {
    TAKEN.get() & (1 << clause as u64) == 0
}

/// Whether the clause is in force.
#[cfg(not(feature = "mutations"))]
pub(super) const fn keeps(_clause: Clause) -> bool {
    true
}
