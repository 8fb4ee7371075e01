//! What a loss of the primary at this moment would cost: bytes (RPO) and seconds (RTO). Estimates, and said to be.

use std::time::Duration;

use pgpair_api::convert::lag_value;
use pgpair_api::status::{OutageCause, PgReplicaPairStatus, RpoBasis, RpoStatus, RtoEstimate, RtoStatus};
use pgpair_core::authority::{Durability, OnPostgresCrash};
use pgpair_core::record::Mode;
use pgpair_wire::report::StandbyLag;

use crate::observed::Observed;

/// From the moment at which the way is open to the first commit on the other side: compare-and-set, promotion, endpoint
/// and the clients' reconnect. Measured by `make bench`: about 0.2 s; rounded up.
const TAKE_OVER: f64 = 0.5;
/// Until the witness of the pod has proven the death of a killed container.
const WITNESS: f64 = 0.2;
/// A polite shutdown of postgres without a long checkpoint.
const SHUTDOWN: f64 = 0.5;
/// Until the last promise has lapsed: `ttl` and its drift margin.
const LAPSE: f64 = 1.01;

pub(super) fn rpo(observed: &Observed, status: &PgReplicaPairStatus) -> Option<RpoStatus> {
    let record = observed.record()?;
    let measured = status.last_failover.as_ref().filter(|f| f.bytes_lost.is_some());
    let (basis, lag) = match (standby(observed), record.mode, record.durability) {
        (None, ..) => (RpoBasis::Unknown, None),
        (Some(_), Mode::Paired, Durability::Sync | Durability::SyncStrict) => {
            (RpoBasis::Synchronous, Some(pgpair_core::lag::Lag { bytes: 0, millis: 0 }))
        }
        (Some(standby), Mode::Paired, Durability::Async) => (RpoBasis::Lag, standby.receive),
        (Some(standby), Mode::Solo, _) => (RpoBasis::NotProtected, standby.receive),
    };
    let lag = lag.map(lag_value);
    Some(RpoStatus {
        basis: basis.into(),
        bytes: lag.map(|l| l.bytes),
        seconds: lag.map(|l| l.seconds),
        last_measured_bytes: measured.and_then(|f| f.bytes_lost).or(before(status).0),
        last_measured_term: measured.map(|f| f.term).or(before(status).1),
    })
}

/// A measured loss outlives the next failover until that one is measured.
fn before(status: &PgReplicaPairStatus) -> (Option<i64>, Option<i64>) {
    status.rpo.as_ref().map_or((None, None), |r| (r.last_measured_bytes, r.last_measured_term))
}

pub(super) fn rto(observed: &Observed, status: &PgReplicaPairStatus) -> Option<RtoStatus> {
    let record = observed.record()?;
    let protected = record.mode == Mode::Paired && observed.config.automatic;
    // What is received but not replayed has to be replayed first.
    let replay = standby(observed).filter(|_| protected).and_then(|s| s.replay);
    let estimates = replay.map(|lag| by_cause(observed, Duration::from_millis(lag.millis).as_secs_f64()));
    let last = status.last_failover.as_ref();
    let rto = RtoStatus {
        estimates: estimates.unwrap_or_default(),
        last_measured_seconds: last.and_then(|f| f.gap_estimate_seconds),
        last_measured_cause: last.map(|f| f.cause.clone()),
    };
    (rto != RtoStatus::default()).then_some(rto)
}

fn by_cause(observed: &Observed, replay: f64) -> Vec<RtoEstimate> {
    let ttl = f64::from(observed.config.ttl_ms) / 1000.0;
    let mut causes = vec![
        (OutageCause::PodDeleted, SHUTDOWN + TAKE_OVER),
        (OutageCause::ContainerKilled, WITNESS + TAKE_OVER),
        (OutageCause::NodeLost, ttl * LAPSE + TAKE_OVER),
    ];
    // A restart in place takes as long as the crash recovery, which nobody knows.
    if observed.config.on_postgres_crash == OnPostgresCrash::Failover {
        causes.insert(0, (OutageCause::PostgresKilled, TAKE_OVER));
    }
    let estimate = |(cause, seconds): (OutageCause, f64)| {
        let tenths = ((seconds + replay) * 10.0).ceil();
        RtoEstimate { cause: cause.into(), seconds: tenths / 10.0 }
    };
    causes.into_iter().map(estimate).collect()
}

fn standby(observed: &Observed) -> Option<&StandbyLag> {
    observed.served_lately()?.1.standby.as_ref()
}
