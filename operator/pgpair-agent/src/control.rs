//! The loop around the state machine, with all that it hears and says.

mod callers;
pub mod driver;
pub mod health;
pub mod inbox;
pub mod intake;
pub mod journal;
pub mod observed;
mod prepare;
pub mod report;
pub mod server;
pub mod wish;
