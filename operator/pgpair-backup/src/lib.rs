//! The pure foundation of backups: names, entries, chains and windows, retention, the verdict of a recovery, and the cutting of a tar.
//!
//! Knows nothing of Kubernetes, HTTP and async runtimes. Bytes flow through `std::io` traits; `now`, random ids and what lies in a place are
//! arguments. Nothing of it is used by a failover or waited for by a commit.

pub mod adopt;
pub mod chain;
pub mod contents;
pub mod cut;
pub mod digest;
pub mod entry;
#[cfg(test)]
mod fixtures;
pub mod ids;
pub mod join;
pub mod layout;
pub mod names;
pub mod past;
pub mod retain;
pub mod target;
pub mod verdict;
pub mod window;
