//! A deletion that is carried out, one step at a time. The process that deletes may die after any step, another process may begin the same
//! deletion at the same time, and a reader may come in between.
//!
//! # Protocol
//! The process that deletes puts the mark and then looks for readers. Only if there is none it removes the objects, then the entry, then the
//! mark. A reader puts its hold and then looks for the mark of the backup; only if there is none it reads. Both announce themselves before
//! they look, so at least one of them sees the other. A mark is never taken back, because another process may have removed objects already.
//!
//! # Guarantees
//! - Objects are removed only behind a mark, and no reader that has not seen the mark reads them.
//! - Until the last object is gone, the mark says that the backup does not exist, so a backup is whole or not there after any crash.
//! - The entry goes after the objects, so no object is left without a name by which it is found.
//! - What the place does not let go (an object lock) is [`Progress::Retained`]: expected, counted, and tried again later.

/// How far a deletion has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Progress {
    /// Nothing has been done.
    Decided,
    /// The mark is there; whether there are readers has not been looked at since.
    Marked,
    /// There was no reader when the mark was there.
    Free,
    /// The objects are gone.
    WithoutObjects,
    /// So is the entry.
    WithoutEntry,
    /// Nothing is left.
    Gone,
    /// A reader has the backup: another round, later.
    Read,
    /// The place does not let all objects go: another round, later.
    Retained,
}

/// The next step. Each may be repeated, and what is gone already counts as removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Do {
    /// Puts the mark. If it is there already, that is success.
    PutMark,
    /// Reads the holds, anew.
    LookForReaders,
    /// Removes all objects of all attempts.
    RemoveObjects,
    /// Removes the entry, and what a person has put beside it.
    RemoveEntry,
    /// Removes the mark.
    RemoveMark,
}

/// How a step has ended. A step that has failed has no answer: the deletion ends, and another round begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// It is done; of [`Do::LookForReaders`]: there is none.
    Done,
    /// A reader has the backup, or it is not known whether one has it.
    Read,
    /// The place refused to let something go.
    Retained,
}

/// One deletion in the hands of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deletion {
    progress: Progress,
}

impl Default for Deletion {
    fn default() -> Self {
        Deletion { progress: Progress::Decided }
    }
}

impl Deletion {
    /// How far it has come.
    #[must_use]
    pub fn progress(self) -> Progress {
        self.progress
    }

    /// What is to be done; `None`: nothing more in this round. A deletion that another process has begun starts from the beginning: the mark is put again.
    #[must_use]
    pub fn next(self) -> Option<Do> {
        match self.progress {
            Progress::Decided => Some(Do::PutMark),
            Progress::Marked => Some(Do::LookForReaders),
            Progress::Free => Some(Do::RemoveObjects),
            Progress::WithoutObjects => Some(Do::RemoveEntry),
            Progress::WithoutEntry => Some(Do::RemoveMark),
            Progress::Gone | Progress::Read | Progress::Retained => None,
        }
    }

    /// After a step.
    #[must_use]
    pub fn after(self, answer: Answer) -> Deletion {
        let progress = match (self.progress, answer) {
            (_, Answer::Read) => Progress::Read,
            (_, Answer::Retained) => Progress::Retained,
            (Progress::Decided, Answer::Done) => Progress::Marked,
            (Progress::Marked, Answer::Done) => Progress::Free,
            (Progress::Free, Answer::Done) => Progress::WithoutObjects,
            (Progress::WithoutObjects, Answer::Done) => Progress::WithoutEntry,
            (Progress::WithoutEntry, Answer::Done) => Progress::Gone,
            (ended @ (Progress::Gone | Progress::Read | Progress::Retained), Answer::Done) => ended,
        };
        Deletion { progress }
    }
}
