//! The `PgReplicaPair` resource: what a user writes, what the status tells, and the names of everything that belongs
//! to a pair. Pure: no client, no clock.

pub mod convert;
pub mod crd;
pub mod events;
pub mod loss;
pub mod names;
pub mod order;
pub mod pair_order;
pub mod quantity;
pub mod settings;
pub mod spec;
pub mod status;
pub mod validate;
pub mod word;

pub use pair_order::{PgPairOrder, PgPairOrderSpec};
pub use spec::{PgReplicaPair, PgReplicaPairSpec};
pub use status::PgReplicaPairStatus;
