//! Two agents, real postgres, and an API server of a hundred lines that can be taken away.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of a test that cannot go on fails the test")]

mod adopt;
mod api;
mod certificates;
mod config;
mod explain;
mod failover;
mod floods;
mod frozen;
mod leaving;
mod logical;
mod orders;
mod owned;
mod pair;
mod passwords;
mod people;
mod refusal;
mod remembered;
mod stalled;
