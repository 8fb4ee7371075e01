//! Whether a recovery that has come to rest may be opened.
//!
//! PostgreSQL stops at a time only at the end of a later transaction. On a quiet database there is none, and it says "not reached" although
//! everything is there. To tell that from missing WAL, it must be known which moments the place covers.
//!
//! # Guarantees
//! - What ended by the end of the WAL is opened only if all WAL of the stretch was replayed, and only if the stretch is known to cover what was
//!   asked for. An unknown end covers no time.
//! - Nothing is opened that is not consistent, that is on another timeline, or that has replayed more than was asked for.

use jiff::Timestamp;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineId;
use pgpair_core::wal::SegmentSize;

use crate::target::{Point, Target};
use crate::window::Stretch;

/// What a recovery that has come to rest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Why it rests.
    pub how: How,
    /// The timeline that it has followed.
    pub timeline: TimelineId,
    /// Behind the last record that was replayed.
    pub lsn: Lsn,
    /// When the last transaction ended that was replayed; `None`: none was, or it is not known.
    pub last_commit: Option<Timestamp>,
}

/// Why replay rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// PostgreSQL has stopped at the target.
    AtTarget,
    /// There is no more WAL in the place: it was asked, and has said so.
    EndOfWal,
}

/// What is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is opened.
    Open {
        /// The same stop is given to PostgreSQL again when it starts to be opened.
        stop: Stop,
        /// It holds all that was asked for, though PostgreSQL has not met the target.
        quiet: Option<Quiet>,
    },
    /// It is not, and the directory is kept.
    Failed(Short),
}

/// Where the opened database begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Before this position; there is more WAL behind it, which must not be replayed.
    Before(Lsn),
    /// At the end of the WAL.
    AtEnd,
}

/// No transaction ended between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiet {
    /// After the last transaction that was replayed; `None`: there was none.
    pub since: Option<Timestamp>,
    /// Up to the time that was asked for.
    pub until: Timestamp,
}

/// Why a recovery is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Short {
    /// It has followed another timeline.
    #[error("recovery has followed timeline {reached} instead of {wanted}")]
    OtherTimeline {
        /// That of the stretch.
        wanted: TimelineId,
        /// That it is on.
        reached: TimelineId,
    },
    /// The backup itself is not complete.
    #[error("recovery has reached {reached}, and the backup is consistent from {stop} on")]
    NotConsistent {
        /// Stop of the backup.
        stop: Lsn,
        /// Where it is.
        reached: Lsn,
    },
    /// The place has more WAL than was replayed.
    #[error("recovery has ended at {reached}, and the place has WAL up to {until}")]
    EndedEarly {
        /// Where it is.
        reached: Lsn,
        /// End of the last segment.
        until: Lsn,
    },
    /// The WAL ends before the time.
    #[error("{asked} was asked for, and the WAL reaches {until}")]
    Time {
        /// The target.
        asked: Timestamp,
        /// The last moment that can be had.
        until: Timestamp,
    },
    /// The end of the WAL has no time.
    #[error(
        "no transaction ended after {asked}, and it is not known up to when the WAL in this place reaches"
    )]
    EndNotKnown {
        /// The target.
        asked: Timestamp,
    },
    /// The WAL ends before the position.
    #[error("{asked} was asked for, and the WAL reaches {reached}")]
    Lsn {
        /// The target.
        asked: Lsn,
        /// Where it is.
        reached: Lsn,
    },
    /// There is no such restore point, or no such transaction ended.
    #[error("what was asked for is not in the WAL up to {reached}")]
    NotFound {
        /// Where it is.
        reached: Lsn,
    },
    /// It has replayed a transaction that was not asked for, or has met a target that was not given.
    #[error("recovery has gone beyond its target{}", .last_commit.map(|at| format!(": a transaction of {at} was replayed")).unwrap_or_default())]
    Beyond {
        /// The last transaction.
        last_commit: Option<Timestamp>,
    },
}

/// Judges a recovery. `stretch` is what the place covers from the backup that was restored, asked anew after the recovery came to rest.
#[must_use]
pub fn verdict(target: &Target, reached: Reached, stretch: &Stretch, size: SegmentSize) -> Verdict {
    match judge(target, reached, stretch, size) {
        Ok((stop, quiet)) => Verdict::Open { stop, quiet },
        Err(short) => Verdict::Failed(short),
    }
}

fn judge(
    target: &Target,
    reached: Reached,
    stretch: &Stretch,
    size: SegmentSize,
) -> Result<(Stop, Option<Quiet>), Short> {
    if reached.timeline != stretch.timeline {
        return Err(Short::OtherTimeline { wanted: stretch.timeline, reached: reached.timeline });
    }
    if reached.lsn < stretch.base.stop {
        return Err(Short::NotConsistent { stop: stretch.base.stop, reached: reached.lsn });
    }
    let too_late = |last: Timestamp| match &target.point {
        Point::Time(at) if target.exclusive => last >= *at,
        Point::Time(at) => last > *at,
        _ => false,
    };
    if reached.last_commit.is_some_and(too_late) {
        return Err(Short::Beyond { last_commit: reached.last_commit });
    }
    match reached.how {
        How::AtTarget if target.point == Point::Latest => {
            Err(Short::Beyond { last_commit: reached.last_commit })
        }
        How::AtTarget => Ok((Stop::Before(reached.lsn), None)),
        How::EndOfWal => at_the_end(target, reached, stretch, size).map(|quiet| (Stop::AtEnd, quiet)),
    }
}

fn at_the_end(
    target: &Target,
    reached: Reached,
    stretch: &Stretch,
    size: SegmentSize,
) -> Result<Option<Quiet>, Short> {
    let until = stretch.until.lsn;
    // Every segment holds at least one record, so a recovery that has read the last one is behind its beginning.
    let last_segment = Lsn(until.0.saturating_sub(size.bytes()));
    if last_segment >= stretch.base.stop && reached.lsn <= last_segment {
        return Err(Short::EndedEarly { reached: reached.lsn, until });
    }
    match target.point {
        Point::Latest => Ok(None),
        Point::Time(asked) => match stretch.until.at {
            Some(until) if asked <= until => Ok(Some(Quiet { since: reached.last_commit, until: asked })),
            Some(until) => Err(Short::Time { asked, until }),
            None => Err(Short::EndNotKnown { asked }),
        },
        Point::Lsn(asked) if asked <= reached.lsn => Ok(None),
        Point::Lsn(asked) => Err(Short::Lsn { asked, reached: reached.lsn }),
        Point::Name(_) | Point::Xid(_) => Err(Short::NotFound { reached: reached.lsn }),
    }
}

#[cfg(test)]
mod tests;
