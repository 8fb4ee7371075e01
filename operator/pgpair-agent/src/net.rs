//! Requests to the peer's agent and to the API server, over connections whose other end has proven who it is.

pub(crate) mod caller;
pub(crate) mod endpoint;
pub(crate) mod lease;
pub(crate) mod listener;
pub(crate) mod peer;
pub mod tls;
