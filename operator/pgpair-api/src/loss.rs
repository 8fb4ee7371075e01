//! What a promotion may lose, told before it is ordered: one estimate for the operator and for the plug-in. What is not known is
//! said, and never counts as nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use pgpair_core::authority::Durability;
use pgpair_core::ids::{InstanceId, Term};
use pgpair_core::lag::Lag;
use pgpair_core::lsn::Lsn;
use pgpair_core::record::{Mode, Record};
use pgpair_core::timeline::TimelineId;

use crate::convert::{ago, bytes, lag_of, span};
use crate::names::PairName;
use crate::status::{ConditionType, PgReplicaPairStatus};
use crate::word::Word;

/// What is known of the WAL of a pair.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KnownWal {
    /// What the standby had not received, as the primary of this term last reported it, and the age of that report.
    pub reported: Option<(Lag, Duration)>,
    /// The term and the mode that the status is about.
    pub reign: Option<(Term, Mode)>,
    /// What the standby had not received, by the status in that term and mode.
    pub lacking: Option<Lag>,
    /// Timeline and end of the WAL of each instance.
    pub ends: BTreeMap<InstanceId, (TimelineId, Lsn)>,
    /// Since when the primary has no standby that may take over.
    pub solo_since: Option<Timestamp>,
}

impl KnownWal {
    /// What the status tells, as last written, by this operator process or an earlier one. Numbers that move are written when
    /// they have moved far, so this is that coarse.
    #[must_use]
    pub fn of_status(name: &PairName, status: &PgReplicaPairStatus) -> KnownWal {
        let mode = status.mode.as_ref().and_then(Word::known);
        let term = status.term.and_then(|term| u32::try_from(term).ok()).map(Term);
        let end = |i: InstanceId| {
            let instance = status.instances.iter().find(|s| s.name == name.instance(i))?;
            let timeline = TimelineId(u32::try_from(instance.timeline?).ok()?);
            Some((i, (timeline, instance.flush_lsn.as_deref()?.parse::<Lsn>().ok()?)))
        };
        let failover_ready = ConditionType::FailoverReady.as_str();
        let solo = status.conditions.iter().find(|c| c.type_ == failover_ready && c.status == "False");
        KnownWal {
            reported: None,
            reign: term.zip(mode),
            lacking: status.lag.as_ref().and_then(|lag| lag_of(lag.receive?)),
            ends: InstanceId::ALL.into_iter().filter_map(end).collect(),
            solo_since: solo.map(|c| c.last_transition_time.0),
        }
    }

    /// A number of another mode is not believed: what a standby lacked while the pair was `Paired` says nothing about a primary
    /// that has run without it since.
    fn lacking_in(&self, record: &Record) -> Option<Lag> {
        self.lacking.filter(|_| self.reign == Some((record.term, record.mode)))
    }

    /// What the primary has beyond the standby. A position says something only together with its timeline.
    fn lead_of(&self, primary: InstanceId) -> Option<u64> {
        let ((timeline, end), (other, received)) =
            (self.ends.get(&primary)?, self.ends.get(&primary.peer())?);
        (timeline == other).then(|| end.bytes_since(*received))
    }
}

/// What a promotion may lose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// What the estimate rests on.
    pub basis: LossBasis,
    /// The primary has had no standby that may take over: since when, if that is known.
    pub solo: Option<Option<Timestamp>>,
}

/// What an estimate rests on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LossBasis {
    /// The instance is the primary already.
    Continues,
    /// Commits waited for the standby.
    Waited,
    /// No commit is acknowledged without the standby.
    NeverAlone,
    /// What the standby lacked by the primary's last report, and the age of that report.
    Reported(Lag, Duration),
    /// What the standby lacked by the status.
    Written(Lag),
    /// Bytes that the primary had beyond the standby by their positions; the time is not known.
    Positions(u64),
    /// Nothing is known.
    Unknown,
}

/// Estimates what the promotion of `to` may lose. The record is newer than anything else, so it decides what is believed.
#[must_use]
pub fn estimate(record: &Record, to: InstanceId, known: &KnownWal) -> Loss {
    let certain = |basis| Loss { basis, solo: None };
    if to == record.primary.instance {
        return certain(LossBasis::Continues);
    }
    match (record.mode, record.durability) {
        (Mode::Paired, Durability::Sync | Durability::SyncStrict) => certain(LossBasis::Waited),
        (Mode::Solo, Durability::SyncStrict) => certain(LossBasis::NeverAlone),
        (Mode::Paired, Durability::Async) => Loss { basis: when_last_seen(record, known), solo: None },
        (Mode::Solo, Durability::Sync | Durability::Async) => {
            Loss { basis: when_last_seen(record, known), solo: Some(known.solo_since) }
        }
    }
}

/// WAL of the primary that the standby had not received: by the primary's last report, else by the status, which outlives the
/// primary and the operator process, else by positions.
fn when_last_seen(record: &Record, known: &KnownWal) -> LossBasis {
    if let Some((lag, age)) = known.reported {
        return LossBasis::Reported(lag, age);
    }
    if let Some(lag) = known.lacking_in(record) {
        return LossBasis::Written(lag);
    }
    known.lead_of(record.primary.instance).map_or(LossBasis::Unknown, LossBasis::Positions)
}

impl Loss {
    /// Bytes and time, if both are known; zero if no acknowledged commit is lost.
    #[must_use]
    pub fn amount(self) -> Option<Lag> {
        match self.basis {
            LossBasis::Continues | LossBasis::Waited | LossBasis::NeverAlone => {
                Some(Lag { bytes: 0, millis: 0 })
            }
            LossBasis::Reported(lag, age) => {
                let since = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                Some(Lag { millis: lag.millis.saturating_add(since), ..lag })
            }
            LossBasis::Written(lag) => Some(lag),
            LossBasis::Positions(_) | LossBasis::Unknown => None,
        }
    }
}

impl Loss {
    /// For people: what comes after "estimated loss:".
    #[must_use]
    pub fn sentence(self, now: Timestamp) -> String {
        let since = match self.solo {
            None => String::new(),
            Some(Some(since)) => {
                format!("; the primary has run without a standby since {since}, {}", ago(since, now))
            }
            Some(None) => "; since when the primary has run without a standby is not known".into(),
        };
        format!("{}{since}", self.basis)
    }
}

impl fmt::Display for LossBasis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = "and everything written since";
        match *self {
            LossBasis::Continues => f.write_str("none, because the instance is the primary already"),
            LossBasis::Waited => {
                f.write_str("no acknowledged commit, because every commit waited for the standby")
            }
            LossBasis::NeverAlone => {
                f.write_str("no acknowledged commit, because none is acknowledged without the standby")
            }
            LossBasis::Reported(lag, age) => {
                let age = span(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
                let lag = wal(lag);
                write!(f, "{lag} that the standby lacked when the primary last reported, {age} ago, {since}")
            }
            LossBasis::Written(lag) => {
                write!(f, "{} that the standby lacked when the status was last written, {since}", wal(lag))
            }
            LossBasis::Positions(lead) => {
                let lead = bytes(lead);
                write!(
                    f,
                    "about {lead} of WAL by the positions last seen, {since}; how many seconds is not known"
                )
            }
            LossBasis::Unknown => {
                f.write_str("not known: everything written since the standby last streamed may be lost")
            }
        }
    }
}

fn wal(lag: Lag) -> String {
    format!(
        "{} of WAL ({:.1} s of commits)",
        bytes(lag.bytes),
        Duration::from_millis(lag.millis).as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use pgpair_core::ids::InstanceId::{A, B};
    use serde_json::json;

    use super::*;

    const BEHIND: Lag = Lag { bytes: 2048, millis: 1500 };

    fn record(mode: Mode, durability: Durability) -> Record {
        Record { term: Term(3), mode, durability, ..Record::initial() }
    }

    /// The status of a primary a that is lost, written in that term and mode.
    fn written(term: u32, mode: Mode) -> KnownWal {
        let ends = [(A, (TimelineId(2), Lsn(0x0700_0000))), (B, (TimelineId(2), Lsn(0x0500_0000)))];
        KnownWal {
            reign: Some((Term(term), mode)),
            lacking: Some(BEHIND),
            ends: ends.into(),
            ..KnownWal::default()
        }
    }

    fn of(known: &KnownWal, mode: Mode, durability: Durability) -> Loss {
        estimate(&record(mode, durability), B, known)
    }

    #[test]
    fn what_is_acknowledged_only_with_the_standby_is_not_lost() {
        let behind =
            KnownWal { reported: Some((BEHIND, Duration::from_secs(12))), ..written(3, Mode::Paired) };
        let with_the_standby = [
            (Mode::Paired, Durability::Sync),
            (Mode::Paired, Durability::SyncStrict),
            (Mode::Solo, Durability::SyncStrict),
        ];
        for (mode, durability) in with_the_standby {
            for known in [&behind, &KnownWal::default()] {
                let loss = of(known, mode, durability);
                assert_eq!(loss.amount(), Some(Lag { bytes: 0, millis: 0 }));
                assert!(loss.basis.to_string().starts_with("no acknowledged commit"), "{}", loss.basis);
            }
        }
    }

    #[test]
    fn an_instance_that_goes_on_loses_nothing() {
        let loss = estimate(&record(Mode::Solo, Durability::Sync), A, &KnownWal::default());
        assert_eq!(loss.amount(), Some(Lag { bytes: 0, millis: 0 }));
        assert_eq!(loss.basis.to_string(), "none, because the instance is the primary already");
    }

    #[test]
    fn the_primarys_last_report_counts_before_the_status_and_its_age_is_lost_too() {
        let known =
            KnownWal { reported: Some((BEHIND, Duration::from_secs(12))), ..written(3, Mode::Paired) };
        let loss = of(&known, Mode::Paired, Durability::Async);
        assert_eq!(loss.amount(), Some(Lag { bytes: 2048, millis: 13_500 }));
        assert_eq!(
            loss.basis.to_string(),
            "2 KiB of WAL (1.5 s of commits) that the standby lacked when the primary last reported, 12 s ago, and everything written since"
        );
    }

    #[test]
    fn without_a_report_the_status_as_last_written_counts() {
        let loss = of(&written(3, Mode::Paired), Mode::Paired, Durability::Async);
        assert_eq!(loss.amount(), Some(BEHIND));
        assert_eq!(
            loss.basis.to_string(),
            "2 KiB of WAL (1.5 s of commits) that the standby lacked when the status was last written, and everything written since"
        );
    }

    #[test]
    fn a_number_of_another_mode_or_term_is_not_believed_but_positions_are() {
        for other in [written(3, Mode::Paired), written(2, Mode::Solo)] {
            let loss = of(&other, Mode::Solo, Durability::Sync);
            assert_eq!(loss.basis, LossBasis::Positions(32 << 20));
            assert_eq!(loss.amount(), None, "seconds are not known");
            assert!(
                loss.basis.to_string().starts_with("about 32 MiB of WAL by the positions last seen"),
                "{}",
                loss.basis
            );
        }
    }

    #[test]
    fn positions_of_two_timelines_say_nothing() {
        let mut parted = written(3, Mode::Paired);
        parted.ends.insert(A, (TimelineId(3), Lsn(0x0700_0000)));
        for known in [parted, KnownWal::default()] {
            let loss = of(&known, Mode::Solo, Durability::Async);
            assert_eq!(loss.basis, LossBasis::Unknown);
            assert_eq!(loss.amount(), None);
        }
    }

    #[test]
    fn a_primary_without_a_standby_is_told_with_its_time() {
        let since = "2026-01-01T00:00:00Z".parse().ok();
        let alone = KnownWal { solo_since: since, ..written(3, Mode::Solo) };
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        let end = "; the primary has run without a standby since 2026-01-01T00:00:00Z, 5 min ago";
        assert!(of(&alone, Mode::Solo, Durability::Sync).sentence(now).ends_with(end));
        let end = "; since when the primary has run without a standby is not known";
        assert!(of(&written(3, Mode::Solo), Mode::Solo, Durability::Async).sentence(now).ends_with(end));
        let paired = of(&alone, Mode::Paired, Durability::Async).sentence(now);
        assert!(!paired.contains("without a standby"), "{paired}");
    }

    #[test]
    fn what_an_earlier_operator_told_is_read_from_the_status() {
        let name = PairName { namespace: "shop".into(), name: "orders".into() };
        let status = serde_json::from_value(json!({
            "term": 3, "mode": "Solo", "lag": {"summary": "", "receive": {"bytes": 2048, "seconds": 1.5}},
            "conditions": [{"type": "FailoverReady", "status": "False", "reason": "Solo", "message": "",
                            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "instances": [{"name": "orders-b", "role": "Standby", "ready": true, "state": "Standby", "timeline": 2,
                           "flushLsn": "0/5000000"}],
        }))
        .unwrap();
        let expected = KnownWal {
            reported: None,
            reign: Some((Term(3), Mode::Solo)),
            lacking: Some(BEHIND),
            ends: [(B, (TimelineId(2), Lsn(0x0500_0000)))].into(),
            solo_since: "2026-01-01T00:00:00Z".parse().ok(),
        };
        assert_eq!(KnownWal::of_status(&name, &status), expected);
        assert_eq!(KnownWal::of_status(&name, &PgReplicaPairStatus::default()), KnownWal::default());
    }
}
