//! One postgres: its data directory, its configuration, its process, its SQL.

pub(crate) mod pair_config;
pub mod pgdata;
pub mod postmaster;
pub mod promote;
pub mod render;
pub mod sql;
pub mod tool;
