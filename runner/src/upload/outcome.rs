//! How far the upload of one file is and what became of it, and why parts of an output are lost. Values between the upload
//! tasks, the session and the report.

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

/// Why parts of an output will never be stored: the first of each reason, three at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LossReasons(Vec<String>);

impl LossReasons {
    /// One more was lost, for this reason.
    pub(super) fn add(&mut self, message: String) {
        if !self.0.contains(&message) && self.0.len() < 3 {
            self.0.push(message);
        }
    }

    /// The first of all.
    pub(super) fn first(&self) -> Option<&String> {
        self.0.first()
    }

    /// For `details`, of an output that lacks so many: `2 segments are missing in a.m3u8: denied`.
    pub(super) fn notes(&self, lost: u64, what: &str, place: &str) -> Vec<String> {
        let missing = match lost {
            0 => return self.0.clone(),
            1 => format!("1 {what} is missing {place}"),
            _ => format!("{lost} {what}s are missing {place}"),
        };
        vec![if self.0.is_empty() { missing } else { format!("{missing}: {}", self.0.join("; ")) }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_each_reason_once() {
        let mut losses = LossReasons::default();
        assert_eq!(losses.notes(1, "image", "of d/a"), ["1 image is missing of d/a"]);
        ["denied", "no room", "denied", "no disk", "a fourth"].into_iter().for_each(|why| losses.add(why.to_owned()));
        assert_eq!(losses.first().map(String::as_str), Some("denied"));
        let expected = ["2 segments are missing in a.m3u8: denied; no room; no disk"];
        assert_eq!(losses.notes(2, "segment", "in a.m3u8"), expected);
    }
}
