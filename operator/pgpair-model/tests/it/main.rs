//! The claims, explored as far as each `cargo test` can; `make model` goes further.

mod exploration;
mod journal;
mod page;
mod scenarios;
mod scene;
mod timed;
mod troubles;
