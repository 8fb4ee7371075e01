//! Who and where this instance is: the pod's environment, the volumes and what lies where on them, files that survive a power loss.

pub mod env;
pub mod fsx;
pub mod layout;
pub mod space;
pub mod state;
