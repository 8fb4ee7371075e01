//! Faults of every kind, each made, undone and judged.
//!
//! - [`act`]: what can be done; [`kind`] and [`catalog`]: the kinds, as data; [`stage`]: does it; [`clock`]: wrong clocks;
//! - [`stand`]: a pair that cases share; [`trial`]: one case; [`round`]: one fault for several pairs, with what they have in [`common`]; [`compare`]: whether both instances are equal; [`lives`]: whether a process has ended;
//!   [`load`]: clients that keep the pair busy;
//! - [`matrix`]: all of them; [`soak`]: at random for minutes; [`calm`]: none at all;
//! - [`row`]: what came of it; [`page`]: the same for people; [`dice`]: what is random.

pub mod act;
pub mod calm;
pub mod catalog;
pub mod clock;
pub mod common;
pub mod compare;
pub mod dice;
pub mod kind;
pub mod lives;
pub mod load;
pub mod matrix;
pub mod page;
pub mod round;
pub mod row;
pub mod soak;
pub mod stage;
pub mod stand;
pub mod trial;
