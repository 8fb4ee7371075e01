//! What the end-to-end tests, the demo and the benchmark stand on: the write oracle, faults, and a harness over a real cluster.

pub mod bench;
pub mod faults;
pub mod harness;
pub mod oracle;
pub mod repository;
pub mod results;
pub mod scale;
pub mod specs;
