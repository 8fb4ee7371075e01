//! What a forced promotion may lose, as far as the status tells. What is not known is said, never taken for nothing.

use jiff::Timestamp;
use pgpair_api::PgReplicaPair;
use pgpair_api::status::{ConditionType, PgReplicaPairStatus, RpoBasis};
use pgpair_core::authority::Durability;
use pgpair_core::ids::InstanceId;
use pgpair_core::lsn::Lsn;
use pgpair_core::record::{Mode, Record};

use crate::page::{ago, bytes};

/// The estimate as one line. The record is newer than the status, so it decides what the numbers are worth.
#[must_use]
pub fn estimate(pair: &PgReplicaPair, record: &Record, now: Timestamp) -> String {
    let status = pair.status.clone().unwrap_or_default();
    match (record.mode, record.durability) {
        (Mode::Paired, Durability::Sync | Durability::SyncStrict) => {
            "none: the standby has every commit that was acknowledged".into()
        }
        (Mode::Solo, Durability::SyncStrict) => {
            "none that was acknowledged: no commit returned without the standby".into()
        }
        (Mode::Paired, Durability::Async) => when_last_seen(pair, &status, record),
        (Mode::Solo, Durability::Sync | Durability::Async) => {
            let since = solo_since(&status).map_or_else(
                || "not known since when the primary was alone".to_owned(),
                |then| format!("the primary was alone since {then}, {}", ago(then, now)),
            );
            format!("{}; {since}", when_last_seen(pair, &status, record))
        }
    }
}

/// Log of the primary that the standby had not got, by the last status.
fn when_last_seen(pair: &PgReplicaPair, status: &PgReplicaPairStatus, record: &Record) -> String {
    let rpo = status.rpo.as_ref().filter(|rpo| match rpo.basis {
        RpoBasis::Lag | RpoBasis::NotProtected => true,
        // Of another mode, or of nobody.
        RpoBasis::Synchronous | RpoBasis::Unknown => false,
    });
    let of_wal = rpo.and_then(|r| r.bytes).map(|b| format!("{} of WAL", bytes(b)));
    let of_time = rpo.and_then(|r| r.seconds).map(|s| format!("the last {s:.1} s of commits"));
    let known: Vec<String> = [of_wal, of_time].into_iter().flatten().collect();
    if !known.is_empty() {
        return format!("{} when last seen", known.join(", "));
    }
    by_positions(pair, status, record).map_or_else(
        || "bytes and seconds not known".into(),
        |lost| format!("about {} of WAL by the positions last seen, seconds not known", bytes(lost)),
    )
}

/// The status keeps the last position of an instance that is silent now. Positions are written when they have moved by a
/// segment, so this is that coarse.
fn by_positions(pair: &PgReplicaPair, status: &PgReplicaPairStatus, record: &Record) -> Option<i64> {
    let name = pair.metadata.name.as_deref()?;
    let flushed = |i: InstanceId| {
        let instance = status.instances.iter().find(|s| s.name == format!("{name}-{i}"))?;
        Some((instance.timeline?, instance.flush_lsn.as_deref()?.parse::<Lsn>().ok()?))
    };
    let primary = record.primary.instance;
    let ((timeline, end), (other, received)) = (flushed(primary)?, flushed(primary.peer())?);
    // A position says something only together with its timeline.
    (timeline == other).then(|| i64::try_from(end.0.saturating_sub(received.0)).unwrap_or(i64::MAX))
}

/// When `FailoverReady` ended: everything that was acknowledged before is on the standby in the `Sync` modes.
fn solo_since(status: &PgReplicaPairStatus) -> Option<Timestamp> {
    let type_ = ConditionType::FailoverReady.as_str();
    let condition = status.conditions.iter().find(|c| c.type_ == type_ && c.status == "False")?;
    Some(condition.last_transition_time.0)
}

#[cfg(test)]
mod tests {
    use pgpair_core::record::Record;
    use serde_json::{Value, json};

    use super::*;
    use crate::mock;

    fn line(mode: Mode, durability: Durability, status: Value) -> String {
        let pair = serde_json::from_value(mock::pair(status)).unwrap();
        let record = Record { mode, durability, ..Record::initial() };
        estimate(&pair, &record, "2026-01-01T00:05:00Z".parse().unwrap())
    }

    fn rpo(basis: &str) -> Value {
        json!({"rpo": {"basis": basis, "bytes": 2048, "seconds": 1.5}})
    }

    #[test]
    fn only_a_synchronous_standby_loses_nothing() {
        assert!(line(Mode::Paired, Durability::Sync, json!({})).starts_with("none"));
        assert!(line(Mode::Paired, Durability::SyncStrict, json!({})).starts_with("none"));
        assert!(line(Mode::Solo, Durability::SyncStrict, json!({})).starts_with("none"));
        assert_eq!(line(Mode::Paired, Durability::Async, json!({})), "bytes and seconds not known");
        assert_eq!(
            line(Mode::Paired, Durability::Async, rpo("Lag")),
            "2 KiB of WAL, the last 1.5 s of commits when last seen"
        );
    }

    #[test]
    fn a_pair_that_is_solo_tells_since_when() {
        let mut status = rpo("NotProtected");
        status["conditions"] = json!([{"type": "FailoverReady", "status": "False", "reason": "Solo", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        assert_eq!(
            line(Mode::Solo, Durability::Sync, status),
            "2 KiB of WAL, the last 1.5 s of commits when last seen; the primary was alone since 2026-01-01T00:00:00Z, 5 min ago"
        );
    }

    #[test]
    fn a_primary_that_is_silent_left_its_last_position() {
        let status = |timeline: u32| {
            json!({"rpo": {"basis": "Unknown"}, "instances": [
                {"name": "orders-a", "role": "Unknown", "ready": false, "state": "Unreachable", "timeline": 1,
                 "flushLsn": "0/5000000"},
                {"name": "orders-b", "role": "Standby", "ready": true, "state": "Standby", "timeline": timeline,
                 "flushLsn": "0/4000000"}]})
        };
        let line = |timeline| line(Mode::Solo, Durability::Sync, status(timeline));
        assert!(line(1).starts_with("about 16 MiB of WAL by the positions last seen"), "{}", line(1));
        assert!(line(2).starts_with("bytes and seconds not known"), "{}", line(2));
    }

    #[test]
    fn a_number_of_another_mode_is_not_believed() {
        // Written while it was Paired: nothing would have been lost then.
        let line = line(Mode::Solo, Durability::Sync, rpo("Synchronous"));
        assert_eq!(line, "bytes and seconds not known; not known since when the primary was alone");
    }
}
