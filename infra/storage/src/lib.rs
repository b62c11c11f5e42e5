//! Where recordings end: S3, Azure, GCS, a directory, RAM, behind one trait.
//!
//! `storage` is the trait and its values, `error` what can go wrong; `open` makes a [`Storage`] out of a destination of
//! the plan; `s3`, `azure` and `gcs` are the clouds; `ram` and `disk` are the small backends; `unreliable` fails on
//! purpose; `conformance` is what every backend has to pass.

pub mod storage;
pub mod error;
mod open;
mod prefixed;
pub mod checksum;
#[cfg(any(feature = "s3", feature = "gcs"))]
mod proxy;
#[cfg(any(feature = "azure", feature = "gcs", feature = "s3"))]
mod escape;
#[cfg(any(feature = "azure", feature = "gcs"))]
mod attempts;
#[cfg(feature = "s3")]
mod s3;
#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "gcs")]
mod gcs;
pub mod ram;
pub mod disk;
pub mod unreliable;
pub mod conformance;

pub use disk::DiskStorage;
pub use error::{StorageError, StorageErrorKind};
pub use open::{Options, open};
pub use ram::RamStorage;
pub use storage::{Meta, Object, Part, PartRules, PartTag, Storage, Stored, Upload};
pub use unreliable::Unreliable;
