//! What a forced promotion may lose, told before it is sent. What is not known is said, never taken for nothing.

use std::time::Duration;

use pgpair_core::authority::Durability;
use pgpair_core::ids::InstanceId;
use pgpair_core::lag::Lag;
use pgpair_core::record::{Mode, Record};

use crate::observed::Observed;

/// Of what was acknowledged.
const NOTHING: Option<Lag> = Some(Lag { bytes: 0, millis: 0 });

/// What the promotion of `to` may lose: for people, and as numbers if both are known.
pub(super) fn estimate(observed: &Observed, record: &Record, to: InstanceId) -> (String, Option<Lag>) {
    if to == record.primary.instance {
        return ("it goes on with its own log: nothing is lost".into(), NOTHING);
    }
    match (record.mode, record.durability) {
        (Mode::Paired, Durability::Sync | Durability::SyncStrict) => {
            ("commits waited for the standby: no acknowledged commit is lost".into(), NOTHING)
        }
        (Mode::Solo, Durability::SyncStrict) => {
            ("no commit returned without the standby: none that was acknowledged is lost".into(), NOTHING)
        }
        (Mode::Paired, Durability::Async) | (Mode::Solo, Durability::Sync | Durability::Async) => {
            when_last_seen(observed, record)
        }
    }
}

/// Log of the primary that the standby had not got: by the primary's last word, else by the status as last written, which outlives
/// this process and the primary.
fn when_last_seen(observed: &Observed, record: &Record) -> (String, Option<Lag>) {
    let lost = "they are lost, and what was written since";
    if let Some((lag, age)) = by_report(observed, record) {
        let (bytes, seconds, ago) = (lag.bytes, seconds(lag), age.as_secs());
        let message = format!(
            "the standby lacked {bytes} bytes ({seconds:.1} s) of the log {ago} s ago, when the primary last said so; {lost}"
        );
        let millis = lag.millis + u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        return (message, Some(Lag { bytes, millis }));
    }
    if let Some(lag) = by_status(observed, record) {
        let (bytes, seconds) = (lag.bytes, seconds(lag));
        let message = format!(
            "the standby lacked {bytes} bytes ({seconds:.1} s) of the log by what the status last told of it; {lost}"
        );
        return (message, Some(lag));
    }
    match by_positions(observed, record) {
        Some(bytes) => {
            let message = format!(
                "the standby lacked about {bytes} bytes of the log by the positions last seen, of how many seconds is not known; {lost}"
            );
            (message, None)
        }
        None => (
            "what the standby lacks is not known: it may lose anything written since it last followed".into(),
            None,
        ),
    }
}

fn by_report(observed: &Observed, record: &Record) -> Option<(Lag, Duration)> {
    let (report, age) = observed.instance(record.primary.instance).last_report.as_ref()?;
    let of_this_term = report.authority.term == record.term;
    Some((report.standby.as_ref().filter(|_| of_this_term)?.receive?, *age))
}

/// A number of another mode is not believed: what a standby lacked while it was `Paired` says nothing of a primary alone.
fn by_status(observed: &Observed, record: &Record) -> Option<Lag> {
    let told = &observed.log_told;
    told.lacking.filter(|_| told.reign == Some((record.term, record.mode)))
}

/// A position says something only together with its timeline.
fn by_positions(observed: &Observed, record: &Record) -> Option<u64> {
    let end = |i: InstanceId| {
        let seen = observed.instance(i).report.fresh();
        let seen = seen.and_then(|r| r.postgres.timeline.zip(r.postgres.flush_lsn));
        seen.or_else(|| observed.log_told.ends.get(&i).copied())
    };
    let primary = record.primary.instance;
    let ((timeline, end), (other, received)) = (end(primary)?, end(primary.peer())?);
    (timeline == other).then(|| end.0.saturating_sub(received.0))
}

fn seconds(lag: Lag) -> f64 {
    Duration::from_millis(lag.millis).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use pgpair_core::ids::InstanceId::{A, B};
    use pgpair_core::ids::Term;
    use pgpair_core::lsn::Lsn;
    use pgpair_core::timeline::TimelineId;
    use rstest::rstest;

    use super::*;
    use crate::fixtures::{lag, record, report, steady};
    use crate::observed::LogTold;
    use pgpair_core::instance::PostgresState;

    /// The primary a is lost, and this process has never heard of it.
    fn unheard() -> Observed {
        let mut observed = steady().a_silent();
        observed.a.last_report = None;
        observed
    }

    fn of(observed: &Observed, mode: Mode, durability: Durability) -> (String, Option<Lag>) {
        estimate(observed, &Record { durability, ..record(A, mode) }, B)
    }

    #[rstest]
    #[case::waited(Mode::Paired, Durability::Sync)]
    #[case::waited_strictly(Mode::Paired, Durability::SyncStrict)]
    #[case::never_alone(Mode::Solo, Durability::SyncStrict)]
    fn what_returned_only_with_the_standby_is_not_lost(#[case] mode: Mode, #[case] durability: Durability) {
        let mut behind = steady().a_silent();
        let mut primary = report(A, PostgresState::Primary);
        primary.standby = Some(lag(48 << 20));
        behind.a.last_report = Some((Box::new(primary), Duration::from_secs(12)));
        for observed in [behind, unheard()] {
            let (message, loss) = of(&observed, mode, durability);
            assert_eq!(loss, NOTHING);
            assert!(message.contains("acknowledged") && !message.contains("they are lost"), "{message}");
        }
    }

    #[test]
    fn an_instance_that_goes_on_loses_nothing() {
        assert_eq!(estimate(&unheard(), &record(A, Mode::Solo), A).1, NOTHING);
    }

    /// The status as another operator process left it.
    fn told(term: u32, mode: Mode) -> Observed {
        let ends = [(A, (TimelineId(2), Lsn(0x0700_0000))), (B, (TimelineId(2), Lsn(0x0500_0000)))];
        let lacking = Some(Lag { bytes: 2048, millis: 1500 });
        let log_told = LogTold { reign: Some((Term(term), mode)), lacking, ends: ends.into() };
        Observed { log_told, ..unheard() }
    }

    #[test]
    fn without_a_report_the_status_as_last_written_counts() {
        let (message, loss) = of(&told(3, Mode::Solo), Mode::Solo, Durability::Sync);
        assert_eq!(loss, Some(Lag { bytes: 2048, millis: 1500 }));
        assert!(message.contains("2048 bytes (1.5 s)") && message.contains("written since"), "{message}");
        let mut earlier = told(3, Mode::Solo);
        let mut of_term_1 = report(A, PostgresState::Primary);
        (of_term_1.authority.term, of_term_1.standby) = (Term(1), Some(lag(1)));
        earlier.a.last_report = Some((Box::new(of_term_1), Duration::from_secs(60)));
        assert_eq!(of(&earlier, Mode::Solo, Durability::Sync).1, loss, "nor with one of an earlier term");
    }

    #[test]
    fn a_number_of_another_mode_or_term_is_not_believed_but_positions_are() {
        for other in [told(3, Mode::Paired), told(2, Mode::Solo)] {
            let (message, loss) = of(&other, Mode::Solo, Durability::Sync);
            assert_eq!(loss, None, "seconds are not known");
            assert!(message.contains("about 33554432 bytes"), "{message}");
        }
    }

    #[test]
    fn positions_of_two_timelines_say_nothing() {
        let mut parted = told(3, Mode::Paired);
        parted.log_told.ends.insert(A, (TimelineId(3), Lsn(0x0700_0000)));
        let (message, loss) = of(&parted, Mode::Solo, Durability::Async);
        assert_eq!(loss, None);
        assert!(message.contains("not known"), "{message}");
    }
}
