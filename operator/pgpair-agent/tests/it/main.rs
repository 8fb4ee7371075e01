//! The agent's parts against real postgres processes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, outside of test functions")]

mod adopt;
mod archive;
mod certificates;
mod clients;
mod config;
mod confined;
mod decoding;
mod definitions;
mod fixture;
mod init;
mod own_memory;
mod pair;
mod passwords;
mod promotion;
mod rejoin;
mod server;
mod sessions;
