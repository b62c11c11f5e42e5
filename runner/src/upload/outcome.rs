//! How far the upload of one file is and what became of it. Values between the upload task, the session and the report.

/// An object that is in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// The object's name; numbered when the upload had to begin again, so not always the one that was asked for.
    pub filename: String,
    /// For the user: a URL, presigned where that was asked for.
    pub location: String,
    /// Its size.
    pub bytes: u64,
    /// It is in the second of the file's destinations.
    pub used_backup: bool,
    /// Media of the recording before the object's beginning, nanoseconds.
    pub skipped_ns: u64,
}

/// Why a file is not where it was asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadFailure {
    /// The store's error, for the user; of both stores where both failed.
    pub message: String,
    /// An object of the beginning of the file, and how many nanoseconds of media are in it.
    pub kept: Option<(StoredObject, u64)>,
    /// A later attempt of this egress has completed or aborted the upload and reports it.
    pub gone: bool,
}

impl UploadFailure {
    pub(super) fn nothing() -> Self {
        Self { message: "nothing was recorded".to_owned(), kept: None, gone: false }
    }

    pub(super) fn lost() -> Self {
        Self { message: "upload was lost".to_owned(), kept: None, gone: true }
    }
}

/// How far one upload is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadProgress {
    /// Bytes of the object that survive the death of this machine.
    pub stored: u64,
    /// How much media those bytes are behind what is in the file.
    pub behind_ms: u64,
    /// The store's error while it fails; else empty.
    pub error: String,
    /// The object's name; it changes when another has to be begun.
    pub name: String,
    /// For `details`: objects that were begun again, and why.
    pub notes: Vec<String>,
}
