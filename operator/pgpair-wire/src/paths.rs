//! Ports and paths on which the agents and the operator meet.

use std::time::Duration;

use crate::report::ReportVersion;

/// mTLS: agents and operator.
pub const PEER_PORT: u16 = 8443;
/// Plain HTTP: probes and metrics, nothing secret.
pub const PROBE_PORT: u16 = 8080;
/// Header of an agent's requests to its peer: the address of its pod.
pub const HERE: &str = "x-pgpair-here";
/// Header of an answer to [`WAL`] whose file comes from `pg_wal` of a dead postgres, not from its archive: it may be incomplete.
pub const LIVE_WAL: &str = "x-pgpair-live";
/// Header of an answer to [`WAL`] that ends where the log does: how many bytes the file has. The rest of it means nothing.
pub const WAL_SIZE: &str = "x-pgpair-size";
/// `GET`: [`crate::report::InstanceReport`] as JSON. With `?after=VERSION&hold=MILLISECONDS`, see [`report_after`].
pub const REPORT: &str = "/v1/report";
/// `POST` heartbeat -> answer.
pub const HEARTBEAT: &str = "/v1/heartbeat";
/// `POST` "can you take it?".
pub const CAN_TAKE: &str = "/v1/can-take";
/// `POST` resignation.
pub const RESIGN: &str = "/v1/resign";
/// `POST` evidence of death.
pub const EVIDENCE: &str = "/v1/evidence";
/// `GET`: names and sizes of the archive's files. `GET /v1/wal/FILE`: one of them, or, after a resignation, of `pg_wal`.
pub const WAL: &str = "/v1/wal";
/// `POST` [`crate::order::Order`] -> [`pgpair_core::order::OrderReply`].
pub const ORDER: &str = "/v1/order";
/// `PUT` [`crate::config::PairConfig`].
pub const CONFIG: &str = "/v1/config";
/// `PUT` [`crate::scram::GivenPasswords`].
pub const PASSWORDS: &str = "/v1/passwords";
/// `PUT` [`crate::certificates::GivenCertificates`].
pub const CERTIFICATES: &str = "/v1/certificates";
/// `GET`: state that a rejoining instance compares itself with.
pub const TIMELINE: &str = "/v1/timeline";
/// `GET`: what of the log an instance needs to start again; older log may be removed from the peer's archive.
pub const NEEDS: &str = "/v1/needs";
/// `GET` of a seeding pod, on [`PROBE_PORT`]: [`crate::seed::SeedProgress`].
pub const SEED: &str = "/v1/seed";

/// Path of a request for a report newer than `version`. It is answered as soon as there is one, and after `hold` with 204 if there
/// is none. Older agents answer at once.
#[must_use]
pub fn report_after(version: ReportVersion, hold: Duration) -> String {
    format!("{REPORT}?after={version}&hold={}", hold.as_millis())
}
