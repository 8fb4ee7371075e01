//! The versions of an agent's reports: by them a listener is told at once what matters, and no more often than it wants what only
//! counts on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ArchiveReport, InstanceReport, PostgresReport, SpaceReport, StandbyLag};

/// A share of a volume below which a change of its free space is not told.
const SPACE_STEP: u64 = 100;

/// Which of an agent process's reports it is: two counts, each of which goes on with a change of its part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportVersion {
    /// Of everything but the numbers: states, roles, orders, needs, messages.
    pub words: u64,
    /// Of positions, lag, the archive's progress, and free space in steps of a hundredth.
    pub numbers: u64,
}

impl fmt::Display for ReportVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.words, self.numbers)
    }
}

/// A text that is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a version of a report is two counts with a dot between them, such as 12.340")]
pub struct NoVersion;

impl FromStr for ReportVersion {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let (words, numbers) = text.split_once('.').ok_or(NoVersion)?;
        let count = |text: &str| text.parse().map_err(|_| NoVersion);
        Ok(ReportVersion { words: count(words)?, numbers: count(numbers)? })
    }
}

impl InstanceReport {
    /// Numbers this report as the one that comes after `before`; `false` if it says the same.
    pub fn follow(&mut self, before: &InstanceReport) -> bool {
        let version = before.version.unwrap_or_default();
        let (words, numbers) = self.differs(before);
        self.version = Some(ReportVersion {
            words: version.words + u64::from(words),
            numbers: version.numbers + u64::from(numbers),
        });
        words || numbers || before.version.is_none()
    }

    /// Whether words, and whether numbers differ.
    fn differs(&self, other: &InstanceReport) -> (bool, bool) {
        // Without `..`: a new field belongs to one of the two.
        let InstanceReport {
            instance,
            incarnation,
            node,
            volume,
            system_identifier,
            authority,
            postgres,
            standby,
            archive,
            need,
            last_failover,
            order,
            refused_order,
            preparing,
            config_generation,
            pending_restart,
            raised,
            logical_slots,
            rejoin,
            space,
            trouble,
            login_refused,
            passwords,
            definitions,
            certificates,
            version: _,
        } = self;
        let (postgres_words, positions) = differs_postgres(postgres, &other.postgres);
        let (standby_words, lag) = differs_standby(standby.as_ref(), other.standby.as_ref());
        let (archive_words, archived) = differs_archive(archive, &other.archive);
        let words = postgres_words
            || standby_words
            || archive_words
            || *instance != other.instance
            || *incarnation != other.incarnation
            || *node != other.node
            || *volume != other.volume
            || *system_identifier != other.system_identifier
            || *authority != other.authority
            || *need != other.need
            || *last_failover != other.last_failover
            || *order != other.order
            || *refused_order != other.refused_order
            || *preparing != other.preparing
            || *config_generation != other.config_generation
            || *pending_restart != other.pending_restart
            || *raised != other.raised
            || *logical_slots != other.logical_slots
            || *rejoin != other.rejoin
            || *trouble != other.trouble
            || *login_refused != other.login_refused
            || *passwords != other.passwords
            || *definitions != other.definitions
            || *certificates != other.certificates;
        (words, positions || lag || archived || fullness(space) != fullness(&other.space))
    }
}

fn differs_postgres(one: &PostgresReport, other: &PostgresReport) -> (bool, bool) {
    let PostgresReport { state, version_num, timeline, flush_lsn, replay_lsn, streaming } = one;
    let words = *state != other.state
        || *version_num != other.version_num
        || *timeline != other.timeline
        || *streaming != other.streaming;
    (words, *flush_lsn != other.flush_lsn || *replay_lsn != other.replay_lsn)
}

fn differs_standby(one: Option<&StandbyLag>, other: Option<&StandbyLag>) -> (bool, bool) {
    let (Some(one), Some(other)) = (one, other) else { return (one.is_some() != other.is_some(), false) };
    let StandbyLag { streaming, synchronous, receive, replay, total } = one;
    let words = *streaming != other.streaming || *synchronous != other.synchronous;
    (words, *receive != other.receive || *replay != other.replay || *total != other.total)
}

fn differs_archive(one: &ArchiveReport, other: &ArchiveReport) -> (bool, bool) {
    let ArchiveReport {
        last_segment,
        last_archived_at_ms,
        backlog_segments,
        failures,
        last_failure,
        unknown,
        stalled,
        two_pasts,
    } = one;
    // Whether it fails at all is news; how often is not.
    let fails = |failures: &Option<u64>| failures.map(|f| f > 0);
    let words = *last_failure != other.last_failure
        || *unknown != other.unknown
        || *stalled != other.stalled
        || *two_pasts != other.two_pasts
        || fails(failures) != fails(&other.failures);
    let numbers = *last_segment != other.last_segment
        || *last_archived_at_ms != other.last_archived_at_ms
        || *backlog_segments != other.backlog_segments
        || *failures != other.failures;
    (words, numbers)
}

/// Free hundredths of both volumes, and whether one of them fills.
fn fullness(space: &SpaceReport) -> (Option<u64>, Option<u64>, bool) {
    let SpaceReport { data_bytes, data_free, archive_bytes, archive_free, full_in_seconds } = space;
    let free = |bytes: Option<u64>, free: Option<u64>| {
        Some(free?.saturating_mul(SPACE_STEP) / bytes.filter(|b| *b > 0)?)
    };
    (free(*data_bytes, *data_free), free(*archive_bytes, *archive_free), full_in_seconds.is_some())
}

#[cfg(test)]
mod tests {
    use pgpair_core::ids::{Incarnation, InstanceId};
    use pgpair_core::lag::Lag;
    use pgpair_core::lsn::Lsn;

    use super::*;
    use crate::report::Need;

    #[test]
    fn a_version_is_read_as_it_is_written() {
        let version = ReportVersion { words: 12, numbers: 340 };
        assert_eq!(version.to_string(), "12.340");
        assert_eq!("12.340".parse(), Ok(version));
        for not in ["", "12", "12.", ".1", "a.b", "1.2.3"] {
            assert_eq!(not.parse::<ReportVersion>(), Err(NoVersion), "{not}");
        }
    }

    #[test]
    fn words_and_numbers_are_counted_apart_and_what_is_the_same_is_not_counted() {
        let mut before = InstanceReport::empty(InstanceId::A, Incarnation(1));
        assert!(before.follow(&before.clone()), "the first one is numbered");
        let after = |change: &dyn Fn(&mut InstanceReport)| {
            let mut next = before.clone();
            change(&mut next);
            next.follow(&before).then(|| next.version.unwrap().to_string())
        };
        let space = |free: u64| SpaceReport {
            data_bytes: Some(10_000),
            data_free: Some(free),
            ..SpaceReport::default()
        };
        assert_eq!(after(&|_| ()), None);
        assert_eq!(after(&|r| r.need = Some(Need::Seed)).as_deref(), Some("1.0"));
        assert_eq!(after(&|r| r.authority.gate_open = true).as_deref(), Some("1.0"));
        assert_eq!(after(&|r| r.postgres.streaming = Some(true)).as_deref(), Some("1.0"));
        assert_eq!(after(&|r| r.postgres.flush_lsn = Some(Lsn(1))).as_deref(), Some("0.1"));
        assert_eq!(after(&|r| r.archive.last_archived_at_ms = Some(1)).as_deref(), Some("0.1"));
        assert_eq!(after(&|r| r.archive.failures = Some(1)).as_deref(), Some("1.1"));
        assert_eq!(after(&|r| r.space = space(5_000)).as_deref(), Some("0.1"));
        let lag = |bytes| StandbyLag {
            streaming: true,
            synchronous: true,
            receive: Some(Lag { bytes, millis: 0 }),
            replay: None,
            total: None,
        };
        assert_eq!(after(&|r| r.standby = Some(lag(0))).as_deref(), Some("1.0"));
        let mut lags = before.clone();
        lags.standby = Some(lag(0));
        let mut more = before.clone();
        more.standby = Some(lag(1));
        assert!(more.follow(&lags));
        assert_eq!(more.version.unwrap().to_string(), "0.1");
        let (mut one, mut other) = (before.clone(), before.clone());
        one.space = space(5_001);
        other.space = space(5_002);
        assert!(!other.follow(&one), "less than a hundredth of the volume");
    }
}
