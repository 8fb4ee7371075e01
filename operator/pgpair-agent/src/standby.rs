//! How an instance becomes the standby of a primary: as it is, rewound, or seeded.

pub mod base_backup;
pub mod rejoin;
mod room;
