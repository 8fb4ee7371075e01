//! The archive of WAL: writing, reading, filling gaps, cleaning.

pub mod archive;
pub(crate) mod backfill;
pub mod cleanup;
pub mod content;
mod histories;
pub mod restore;
mod twice;
