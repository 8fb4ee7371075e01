//! The pure core of PgReplicaPair: identities, positions, the record, and the authority protocol.
//!
//! Knows nothing of clusters, networks, async runtimes, files, clocks or random numbers: `now` and random ids are arguments. What the
//! programs say to each other about it, and how, is pgpair-wire's.

pub mod authority;
pub mod ids;
pub mod instance;
pub mod journal;
pub mod lag;
pub mod lsn;
pub mod order;
pub mod record;
pub mod timeline;
pub mod wal;
