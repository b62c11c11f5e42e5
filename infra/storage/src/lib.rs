//! Where recordings end: S3, Azure, GCS, a directory, RAM, behind one trait.
//!
//! `storage` is the trait and its values, `error` what can go wrong; `open` makes a [`Storage`] out of a destination of
//! the plan; `ram` and `disk` are the small backends; `unreliable` fails on purpose; `conformance` is what
//! every backend has to pass.

pub mod storage;
pub mod error;
mod open;
mod placed;
pub mod checksum;
pub mod ram;
pub mod disk;
pub mod unreliable;
pub mod conformance;

pub use disk::DiskStorage;
pub use error::{Kind, StorageError};
pub use open::{Options, open};
pub use ram::RamStorage;
pub use storage::{Meta, Object, Part, PartRules, PartTag, Storage, Stored, Upload};
pub use unreliable::Unreliable;
