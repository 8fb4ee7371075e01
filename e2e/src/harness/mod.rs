//! A real cluster, a pair in it, faults, and waits that name what did not come.

pub mod archive;
pub mod audit;
pub mod cluster;
pub mod describe;
pub mod eviction;
pub mod exec;
pub mod failover;
pub mod faults;
pub mod operator;
pub mod oracle_pod;
pub mod pair;
pub mod plugin;
pub mod record;
pub mod refusal;
pub mod rolls;
pub mod status;
pub mod wait;
