//! One postgres: its data directory, its configuration, its process, its SQL.

mod confine;
pub mod control_file;
pub mod end_of_wal;
pub mod handshake;
pub(crate) mod libraries;
pub mod objection;
pub(crate) mod pair_config;
pub mod pgdata;
pub mod postmaster;
pub mod promote;
pub mod render;
pub mod slots;
pub mod sql;
pub mod tablespaces;
pub mod tool;
pub mod trust;
