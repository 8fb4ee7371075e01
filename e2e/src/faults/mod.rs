//! Faults of every kind, each made, undone and judged.
//!
//! - [`act`]: what can be done; [`kind`] and [`catalog`]: the kinds, as data; [`stage`]: does it; [`clock`]: wrong clocks;
//! - [`stand`]: the pair that all cases share; [`trial`]: one case; [`compare`]: whether both instances are equal;
//!   [`load`]: clients that keep the pair busy;
//! - [`soak`]: at random for minutes; [`calm`]: none at all;
//! - [`row`]: what came of it; [`page`]: the same for people; [`dice`]: what is random.

pub mod act;
pub mod calm;
pub mod catalog;
pub mod clock;
pub mod compare;
pub mod dice;
pub mod kind;
pub mod load;
pub mod page;
pub mod row;
pub mod soak;
pub mod stage;
pub mod stand;
pub mod trial;
