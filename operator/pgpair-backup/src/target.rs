//! To which moment a recovery goes, and from which backup.
//!
//! # Guarantees
//! - A time has a zone: without one the reader and PostgreSQL may mean different moments. PostgreSQL is given the moment in UTC.
//! - The timeline is always a number. PostgreSQL's `latest` follows the newest history file, which may be another pair's.
//! - What the place is known not to have is refused before anything is copied, with what can be had. What is not known is not refused.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use pgpair_core::ids::ParseIdError;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineId;

use crate::ids::BackupId;
use crate::window::Stretch;

/// PostgreSQL's `MAXFNAMELEN` less the zero at its end: names of restore points are not longer.
const MOST_NAME: usize = 63;
/// PostgreSQL's `FirstNormalTransactionId`.
const FIRST_XID: u32 = 3;

/// A target as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// As far as there is WAL.
    pub latest: bool,
    /// A time with a zone, such as `2026-11-27T02:00:00+01:00`.
    pub time: Option<String>,
    /// A position.
    pub lsn: Option<String>,
    /// A restore point.
    pub name: Option<String>,
    /// A transaction.
    pub xid: Option<u64>,
    /// Up to, not including. Of a time, a position or a transaction.
    pub exclusive: Option<bool>,
    /// The timeline, if not that of the pair.
    pub timeline: Option<u32>,
}

/// Where recovery stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// At the end of the WAL.
    Latest,
    /// Before the first transaction that ended later.
    Time(Timestamp),
    /// At the first record that starts there or later.
    Lsn(Lsn),
    /// At the first restore point of this name.
    Name(String),
    /// At the end of this transaction.
    Xid(u32),
}

/// A target that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it stops.
    pub point: Point,
    /// Whether what the point names is left out.
    pub exclusive: bool,
    /// The timeline; `None`: that of the pair.
    pub timeline: Option<TimelineId>,
}

/// A target that makes none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing was asked for.
    #[error("there is no target: give one of latest, time, lsn, name and xid")]
    None,
    /// Too much was.
    #[error("there are several targets ({}): give one", .0.join(", "))]
    Several(Vec<&'static str>),
    /// A time that means another moment in each zone.
    #[error(
        "the time {0:?} has no zone: write it as 2026-11-27T02:00:00+01:00, or with Z at the end for UTC"
    )]
    NoZone(String),
    /// No time.
    #[error("{0:?} is not a time such as 2026-11-27T02:00:00+01:00")]
    Time(String),
    /// PostgreSQL does not tell such times apart.
    #[error("the time {0:?} has more than six digits after the second")]
    TooFine(String),
    /// No position.
    #[error(transparent)]
    Lsn(#[from] ParseIdError),
    /// No name of a restore point.
    #[error("a restore point has a name of 1 to {MOST_NAME} bytes without control characters")]
    Name,
    /// No transaction.
    #[error("{0} is not the number of a transaction: from {FIRST_XID} to 4294967295, without the epoch")]
    Xid(u64),
    /// There is nothing to leave out.
    #[error("exclusive goes with time, lsn and xid, not with {0}")]
    Exclusive(&'static str),
    /// No timeline.
    #[error("timelines are numbered from 1")]
    Timeline,
}

impl Asked {
    /// What is meant.
    ///
    /// # Errors
    /// It makes no sense, whatever the place has.
    pub fn parse(&self) -> Result<Target, TargetError> {
        let given = [
            ("latest", self.latest),
            ("time", self.time.is_some()),
            ("lsn", self.lsn.is_some()),
            ("name", self.name.is_some()),
            ("xid", self.xid.is_some()),
        ];
        let given: Vec<&'static str> =
            given.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
        let [kind] = given[..] else {
            return Err(if given.is_empty() { TargetError::None } else { TargetError::Several(given) });
        };
        let point = self.point()?;
        if self.exclusive.is_some() && matches!(point, Point::Latest | Point::Name(_)) {
            return Err(TargetError::Exclusive(kind));
        }
        if self.timeline == Some(0) {
            return Err(TargetError::Timeline);
        }
        let exclusive = self.exclusive.unwrap_or(false);
        Ok(Target { point, exclusive, timeline: self.timeline.map(TimelineId) })
    }

    fn point(&self) -> Result<Point, TargetError> {
        if let Some(time) = &self.time {
            return parse_time(time).map(Point::Time);
        }
        if let Some(lsn) = &self.lsn {
            return Ok(Point::Lsn(lsn.parse::<Lsn>()?));
        }
        if let Some(name) = &self.name {
            let is_name = (1..=MOST_NAME).contains(&name.len()) && !name.contains(char::is_control);
            return if is_name { Ok(Point::Name(name.clone())) } else { Err(TargetError::Name) };
        }
        if let Some(xid) = self.xid {
            let number = u32::try_from(xid).ok().filter(|n| *n >= FIRST_XID);
            return number.map(Point::Xid).ok_or(TargetError::Xid(xid));
        }
        Ok(Point::Latest)
    }
}

fn parse_time(text: &str) -> Result<Timestamp, TargetError> {
    let Ok(time) = text.parse::<Timestamp>() else {
        let without_zone = text.parse::<DateTime>().is_ok();
        let text = text.to_owned();
        return Err(if without_zone { TargetError::NoZone(text) } else { TargetError::Time(text) });
    };
    if time.subsec_nanosecond() % 1000 == 0 { Ok(time) } else { Err(TargetError::TooFine(text.to_owned())) }
}

impl Target {
    /// Parameters of PostgreSQL, without quotes.
    #[must_use]
    pub fn parameters(&self, timeline: TimelineId) -> Vec<(&'static str, String)> {
        let mut out = vec![("recovery_target_timeline", timeline.to_string())];
        match &self.point {
            Point::Latest => return out,
            Point::Name(name) => {
                out.push(("recovery_target_name", name.clone()));
                return out;
            }
            Point::Time(at) => out.push(("recovery_target_time", in_utc(*at))),
            Point::Lsn(lsn) => out.push(("recovery_target_lsn", lsn.to_string())),
            Point::Xid(xid) => out.push(("recovery_target_xid", xid.to_string())),
        }
        let inclusive = if self.exclusive { "off" } else { "on" };
        out.push(("recovery_target_inclusive", inclusive.to_owned()));
        out
    }
}

/// `YYYY-MM-DD HH:MM:SS.ffffff+00`, which PostgreSQL reads as the same moment whatever its time zone is.
fn in_utc(at: Timestamp) -> String {
    let civil = Offset::UTC.to_datetime(at);
    let (date, time) = (civil.date(), civil.time());
    let micros = time.subsec_nanosecond() / 1000;
    format!("{date} {:02}:{:02}:{:02}.{micros:06}+00", time.hour(), time.minute(), time.second())
}

/// Where a recovery begins, and along which timeline it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// What is restored, and what its WAL covers.
    pub stretch: Stretch,
}

impl Choice {
    /// The backup.
    #[must_use]
    pub fn base(&self) -> BackupId {
        self.stretch.base.id
    }
}

/// Why a target cannot be had from this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Of this timeline.
    #[error("no backup in this place can be restored along timeline {0}")]
    NothingOn(TimelineId),
    /// Before the first backup.
    #[error("the first moment that can be restored is {at} ({lsn})")]
    BeforeTheFirst {
        /// When the oldest backup ended.
        at: Timestamp,
        /// Where it did.
        lsn: Lsn,
    },
    /// Between two stretches.
    #[error("WAL is missing from {from} to the end of the next backup, {to}")]
    InAGap {
        /// The last position that can be had before it.
        from: Lsn,
        /// The first that can be had after it.
        to: Lsn,
    },
    /// After all that is there.
    #[error("the WAL in this place reaches {lsn}{}", .at.map(|at| format!(", {at}")).unwrap_or_default())]
    BehindTheEnd {
        /// When its last segment was closed.
        at: Option<Timestamp>,
        /// Its end.
        lsn: Lsn,
    },
}

/// The newest backup from which the target can be reached. The position of a name or a transaction is not known, so for these it is the oldest
/// backup from which the end can be reached. `own` is the timeline of the pair.
///
/// # Errors
/// Why the target cannot be had.
pub fn choose(target: &Target, stretches: &[Stretch], own: TimelineId) -> Result<Choice, Refusal> {
    let timeline = target.timeline.unwrap_or(own);
    let mut on: Vec<&Stretch> = stretches.iter().filter(|s| s.timeline == timeline).collect();
    on.sort_by_key(|s| (s.base.stop, s.base.stopped_at, s.base.id));
    let first = on.first().ok_or(Refusal::NothingOn(timeline))?;
    let end = on.iter().map(|s| s.until.lsn).max().unwrap_or(first.until.lsn);
    let mut to_the_end = on.iter().filter(|s| s.until.lsn == end);
    let chosen = match &target.point {
        Point::Latest => to_the_end.next_back(),
        Point::Name(_) | Point::Xid(_) => to_the_end.next(),
        Point::Time(at) => on.iter().rev().find(|s| begins_before(s, *at) && reaches(s, *at)),
        Point::Lsn(lsn) => on.iter().rev().find(|s| s.base.stop <= *lsn && *lsn <= s.until.lsn),
    };
    match (chosen, &target.point) {
        (Some(stretch), _) => Ok(Choice { stretch: **stretch }),
        (None, Point::Time(at)) => Err(refusal(&on, first, |s| begins_before(s, *at))),
        (None, Point::Lsn(lsn)) => Err(refusal(&on, first, |s| s.base.stop <= *lsn)),
        (None, _) => Err(Refusal::NothingOn(timeline)),
    }
}

/// Recovery cannot stop before the backup itself has ended.
fn begins_before(stretch: &Stretch, at: Timestamp) -> bool {
    stretch.base.stopped_at < at
}

/// Whether a stretch covers a time, as far as is known.
fn reaches(stretch: &Stretch, at: Timestamp) -> bool {
    stretch.until.at.is_none_or(|until| at <= until)
}

/// Stretches of one timeline, oldest first, none of which covers the target; `begins` before it.
fn refusal(on: &[&Stretch], first: &Stretch, begins: impl Fn(&Stretch) -> bool) -> Refusal {
    let before = on.iter().filter(|s| begins(s)).max_by_key(|s| s.until.lsn);
    let after = on.iter().find(|s| !begins(s));
    match (before, after) {
        (Some(before), Some(after)) => Refusal::InAGap { from: before.until.lsn, to: after.base.stop },
        (Some(before), None) => Refusal::BehindTheEnd { at: before.until.at, lsn: before.until.lsn },
        (None, _) => Refusal::BeforeTheFirst { at: first.base.stopped_at, lsn: first.base.stop },
    }
}

#[cfg(test)]
pub(crate) mod tests;
