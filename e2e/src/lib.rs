//! What the end-to-end tests and the demo stand on: the write oracle, and a harness over a real cluster.

pub mod harness;
pub mod oracle;
