//! What the programs of PgReplicaPair say to each other: an agent's report, orders, the configuration of a pair, and the ports,
//! paths and fields by which they travel. Agent, operator, plug-in and tests share it; none of them knows another.

pub mod adopt;
pub mod certificates;
#[cfg(feature = "client")]
pub mod client;
pub mod config;
#[cfg(feature = "server")]
pub mod door;
#[cfg(feature = "server")]
pub mod hold;
pub mod lease;
pub mod names;
pub mod order;
pub mod parameters;
pub mod paths;
pub mod report;
#[cfg(feature = "scram")]
pub mod scram;
pub mod seed;
pub mod wal;
pub mod words;
