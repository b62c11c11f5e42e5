//! Cost of a recording. `load` estimates what a plan needs (cores, memory, traffic), `shape` finds the smallest machine of a
//! platform for it, `price` is a versioned price list, `bill` computes the amount.
//!
//! Pure: durations and amounts are arguments. Amounts are US dollars before discounts.
#![warn(missing_docs)]

mod bill;
mod price;
mod shape;
mod load;

pub use bill::{Bill, Usage, bill, expected, puts};
pub use load::{Load, load};
pub use price::{Capacity, PriceError, PriceList, Rate};
pub use shape::{Platform, Shape, TooLarge, shape, shape_for};
