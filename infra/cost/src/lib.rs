//! Cost of a recording: `shape` goes from a plan to the smallest machine of a platform, `price` from a machine to the amount,
//! by a versioned price list.
//!
//! Pure: durations and amounts are arguments. Amounts are US dollars before discounts.
#![warn(missing_docs)]

mod price;
mod shape;

pub use price::{Bill, Overheads, PriceError, PriceList, Rate, Usage, bill, estimate, puts};
pub use shape::{ACI_DISK, FARGATE_DISK, TooLarge, load, shape, shape_for};
pub use spillway_model::{Capacity, Load, Platform, Shape};
