//! Names by which the programs know each other: in certificates, and as roles of the database.

use pgpair_core::ids::InstanceId;

/// Common name of the operator's client certificate.
pub const OPERATOR: &str = "pgpair-operator";
/// Common name of the client certificate for replication, and name of the role that streams, takes base backups and rewinds.
pub const REPLICATION_ROLE: &str = "pgpair_replication";
/// The agent's own role, a superuser; it logs in over the socket only.
pub const AGENT_ROLE: &str = "pgpair_agent";
/// The superuser that `initdb` makes.
pub const SUPERUSER: &str = "postgres";
/// Behind the name of an instance: the certificate of its postgres.
const OF_SERVER: &str = "-server";
/// Behind the name of an instance: the certificate of its `wal-restore`.
const OF_RESTORE: &str = "-restore";

/// Common name of the certificate of an agent.
#[must_use]
pub fn agent(pair: &str, instance: InstanceId) -> String {
    format!("{pair}-{instance}")
}

/// Common name of the certificate that an instance's postgres shows.
#[must_use]
pub fn server(pair: &str, instance: InstanceId) -> String {
    agent(pair, instance) + OF_SERVER
}

/// Common name of the certificate with which an instance's `wal-restore` asks the peer for log files.
#[must_use]
pub fn restore(pair: &str, instance: InstanceId) -> String {
    agent(pair, instance) + OF_RESTORE
}
