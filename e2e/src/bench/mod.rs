//! What `make bench` measures.
//!
//! - [`gaps`]: rows of `target/bench/failover.json`;
//! - [`footprint`]: memory of operator and agents;
//! - [`environment`]: the machine, for a number means nothing without it;
//! - [`rounds`]: one fault, many times;
//! - [`parts`]: where the time of a gap goes;
//! - [`page`]: all of it for people.

pub mod environment;
pub mod footprint;
pub mod gaps;
pub mod page;
pub mod parts;
pub mod rounds;
