//! What one agent does, told by hand; and the shape of the state machine. Two agents in a world are `pgpair-model`'s.

mod alone;
mod files;
mod page;
