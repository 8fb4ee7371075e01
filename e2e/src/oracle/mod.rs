//! The write oracle: a client that writes one number after another, each as a transaction of its own, and records every
//! acknowledged one with the times of sending and of acknowledgement and with the server that acknowledged it.
//!
//! - [`event`]: what is recorded, one JSON object a line;
//! - [`writer`]: the client;
//! - [`verdict`]: what the records and the rows found at the end say, as a pure function;
//! - [`flood`]: no oracle, but a stranger who comes in numbers, in the same image.
//!
//! What it cannot see: sessions that lower `synchronous_commit` themselves, and commits whose wait a client cancels. The
//! writer does neither. A number without an acknowledgement may be in the table or not; it is never counted as lost.

pub mod event;
pub mod flood;
pub mod tls;
pub mod verdict;
pub mod writer;
