//! Who and where this instance is: the pod's environment, the volumes and what lies where on them, files that survive a power loss.

pub mod env;
pub(crate) mod fsx;
pub mod layout;
pub(crate) mod space;
pub(crate) mod state;
