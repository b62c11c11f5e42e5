//! Spool files → stores, while they are still being written. `prepare` opens the stores and starts an upload per file,
//! `task` is that upload and its handle. `plan` says where a file is cut, `parts` is one part and `machine` what is sent
//! when (all pure). `objects` sends small whole objects to where `object_place` says, `segments` is the upload of an HLS
//! output and `images` that of an image output; `sheets` puts poster and thumbnails beside a recording that is over.
//! `outage` is what `task` and `objects` know of a store that fails. `checkpoint` is what another process needs to go on,
//! `candidates` what it may complete, and `quiet` whether a dead one's files are still written to.

pub mod prepare;
mod task;
mod candidates;
pub mod checkpoint;
pub mod machine;
mod object_place;
pub mod objects;
pub mod parts;
pub mod plan;
pub mod segments;
pub mod images;
pub mod sheets;
mod settings;
mod names;
mod spool;
mod quiet;
pub mod stores;
mod abort;
mod attempts;
mod outage;
mod outcome;

pub(crate) use abort::abort;
pub(crate) use attempts::until as retry_until;
pub(crate) use candidates::candidates;
pub(crate) use names::ObjectNames;
pub use object_place::ObjectPlace;
pub use outcome::{StoredObject, UploadFailure, UploadProgress};
pub use prepare::{PreparedOutputs, UploadResources, spool_share};
pub(crate) use quiet::{until_file_is_quiet, until_quiet};
pub use settings::UploadSettings;
pub(crate) use spool::{free_bytes, remove as remove_spooled};
pub use task::FileUpload;
