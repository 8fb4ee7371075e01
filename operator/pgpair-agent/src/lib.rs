//! The agent of one instance: owns its postmaster, its data directory and its archive.
//!
//! Its rooms, from the ground up. Each uses only itself and the rooms before it in this list, which a test checks.
//!
//! 1. `instance`: where everything of this instance is
//! 2. `net`: requests to the peer's agent and to the API server
//! 3. `fence`: what makes a write impossible
//! 4. `postgres`: its directory, its configuration, its process, its SQL
//! 5. `wal`: the archive
//! 6. `standby`: how an instance joins a primary
//! 7. `control`: the loop around the state machine
//! 8. `worker`: postgres as the state machine wishes it
//!
//! [`run`] puts them together.

mod control;
pub mod fence;
pub mod instance;
pub mod net;
pub mod postgres;
pub mod run;
pub mod standby;
pub mod wal;
mod worker;

#[cfg(test)]
mod tests;
