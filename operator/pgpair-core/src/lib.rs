//! The pure core of PgReplicaPair: identities, positions, the record, and the authority protocol.
//!
//! Knows nothing of Kubernetes, tokio, files, clocks or random numbers: `now` and random ids are arguments.

pub mod authority;
pub mod config;
pub mod ids;
pub mod journal;
pub mod lag;
pub mod lsn;
pub mod order;
pub mod record;
pub mod report;
pub mod timeline;
pub mod wal;
