//! How an instance becomes the standby of a primary: as it is, rewound, or seeded.

pub mod adopt;
pub mod base_backup;
mod job;
pub mod rejoin;
mod room;
