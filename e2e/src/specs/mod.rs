//! What `make fuzz-specs` does: thousands of specs drawn at random go to a real API server, with the real operator behind it and one good
//! pair beside them.
//!
//! - [`draw`]: specs from the schema, most of them nearly right;
//! - [`judge`]: what became of one;
//! - [`run`]: the control plane, the batches, and the claims about the operator;
//! - [`row`]: what was counted.

pub mod draw;
pub mod judge;
pub mod row;
pub mod run;
