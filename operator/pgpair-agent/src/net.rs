//! Requests to the peer's agent and to the API server, over connections whose other end has proven who it is.

pub mod endpoint;
pub mod lease;
pub mod peer;
pub mod tls;
