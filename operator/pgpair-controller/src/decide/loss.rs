//! What a forced promotion may lose, by the status, the last report of the primary and what the agents say now.

use std::time::Duration;

use pgpair_api::loss::{KnownWal, Loss};
use pgpair_core::ids::InstanceId;
use pgpair_core::lag::Lag;
use pgpair_core::record::Record;

use crate::observed::Observed;

/// What the promotion of `to` may lose.
pub(super) fn estimate(observed: &Observed, record: &Record, to: InstanceId) -> Loss {
    let mut known = KnownWal { reported: reported(observed, record), ..observed.known_wal.clone() };
    for i in InstanceId::ALL {
        let report = observed.instance(i).report.fresh();
        if let Some(end) = report.and_then(|r| r.postgres.timeline.zip(r.postgres.flush_lsn)) {
            known.ends.insert(i, end);
        }
    }
    pgpair_api::loss::estimate(record, to, &known)
}

/// By the last report of the primary in this term, and its age.
fn reported(observed: &Observed, record: &Record) -> Option<(Lag, Duration)> {
    let (report, age) = observed.instance(record.primary.instance).last_report.as_ref()?;
    let of_this_term = report.authority.term == record.term;
    Some((report.standby.as_ref().filter(|_| of_this_term)?.receive?, *age))
}

#[cfg(test)]
mod tests {
    use pgpair_api::loss::LossBasis;
    use pgpair_core::authority::Durability;
    use pgpair_core::ids::InstanceId::{A, B};
    use pgpair_core::ids::Term;
    use pgpair_core::lsn::Lsn;
    use pgpair_core::record::Mode;
    use pgpair_core::timeline::TimelineId;

    use super::*;
    use crate::fixtures::{lag, record, report, steady};
    use pgpair_core::instance::PostgresState;

    const WRITTEN: Lag = Lag { bytes: 2048, millis: 1500 };

    /// The primary a is lost after a report of that term; the status was written by another operator process.
    fn lost(reported_in: Option<Term>) -> Observed {
        let mut observed = steady().a_silent();
        let ends = [(A, (TimelineId(2), Lsn(0x0700_0000))), (B, (TimelineId(2), Lsn(0x0300_0000)))];
        observed.known_wal = KnownWal {
            reign: Some((Term(3), Mode::Solo)),
            lacking: Some(WRITTEN),
            ends: ends.into(),
            ..KnownWal::default()
        };
        observed.a.last_report = reported_in.map(|term| {
            let mut primary = report(A, PostgresState::Primary);
            (primary.authority.term, primary.standby) = (term, Some(lag(4096)));
            (Box::new(primary), Duration::from_secs(60))
        });
        observed
    }

    fn basis(observed: &Observed, mode: Mode) -> LossBasis {
        let record = Record { durability: Durability::Async, ..record(A, mode) };
        estimate(observed, &record, B).basis
    }

    #[test]
    fn the_last_report_of_the_primary_counts_if_it_is_of_this_term() {
        let reported = LossBasis::Reported(Lag { bytes: 4096, millis: 0 }, Duration::from_secs(60));
        assert_eq!(basis(&lost(Some(Term(3))), Mode::Solo), reported);
        assert_eq!(basis(&lost(Some(Term(1))), Mode::Solo), LossBasis::Written(WRITTEN));
        assert_eq!(basis(&lost(None), Mode::Solo), LossBasis::Written(WRITTEN));
    }

    #[test]
    fn a_position_that_an_agent_reports_now_counts_before_that_of_the_status() {
        assert_eq!(basis(&lost(None), Mode::Paired), LossBasis::Positions(0x0200_0000), "b is at 0/5000000");
    }
}
