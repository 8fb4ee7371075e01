//! What makes a write impossible: the end of all processes by two ways that do not share a failure, and the lock that proves it.

pub(crate) mod clock;
pub(crate) mod deadman;
pub mod init;
pub mod lock;
pub mod witness;
pub(crate) mod writable;
