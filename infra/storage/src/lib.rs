//! Where recordings are stored: S3, Azure, GCS, AliOSS or a directory, behind one trait. Used by the runner only.
//!
//! `storage` is the trait with its values, `error` its errors, `options` the limits of a call; `open` makes a [`Storage`]
//! of a destination of the plan; `s3`, `azure`, `gcs` and `disk` are the backends, `guarded` what they connect to. With the cargo feature `testing`: `ram`, a
//! bucket in memory; `unreliable`, which injects faults; `conformance`, the suite that every backend has to pass.

#![warn(missing_docs, clippy::missing_errors_doc)]

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod unreliable;
#[cfg(feature = "testing")]
pub mod ram;
mod open;
mod prefixed;
pub mod disk;
#[cfg(feature = "gcs")]
mod gcs;
#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "s3")]
mod s3;
#[cfg(any(feature = "azure", feature = "gcs"))]
mod attempts;
#[cfg(any(feature = "azure", feature = "gcs", feature = "s3"))]
mod escape;
#[cfg(any(feature = "s3", feature = "gcs"))]
mod proxy;
#[cfg(any(feature = "azure", feature = "gcs", feature = "s3"))]
mod guarded;
pub mod checksum;
mod options;
pub mod storage;
pub mod error;

pub use disk::DiskStorage;
pub use error::{StorageError, StorageErrorKind};
pub use open::open;
pub use options::Options;
#[cfg(feature = "testing")]
pub use ram::RamStorage;
pub use storage::{Meta, Object, Part, PartRules, PartTag, Storage, Stored, Upload};
#[cfg(feature = "testing")]
pub use unreliable::Unreliable;
