//! The guide says what the code says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, outside of test functions")]

mod architecture;
mod fields;
mod links;
mod repository;
mod words;
