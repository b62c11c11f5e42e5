//! What a plan needs of a machine, and what that costs. Pure: time and amounts come in as arguments, prices from a
//! versioned list.
//!
//! `load` says what a plan keeps busy; `shape` turns that into a machine the platform sells; `price` is the list;
//! `bill` multiplies.

mod load;
mod shape;
mod price;
mod bill;

pub use bill::{Bill, Usage, bill, expected, puts};
pub use load::{Load, load};
pub use price::{Capacity, PriceError, PriceList, Rate};
pub use shape::{Platform, Shape, TooLarge, shape, shape_for};
