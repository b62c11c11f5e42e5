//! The manifest `<egress_id>.json` beside a recording: what was recorded, where the files are, and their quality. Written by
//! the runner, read by dispatcher and salvage.

use serde::{Deserialize, Serialize};

/// Fields and names are livekit/egress'; `quality` is ours. Empty fields are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// As in EgressInfo.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub egress_id: String,
    /// Sid of the room.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room_id: String,
    /// As in EgressInfo.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room_name: String,
    /// Unix nanoseconds, as in EgressInfo.
    #[serde(skip_serializing_if = "is_zero")]
    pub started_at: i64,
    /// Unix nanoseconds, as in EgressInfo.
    #[serde(skip_serializing_if = "is_zero")]
    pub ended_at: i64,
    /// Participant whose tracks were recorded, of a media source whose video was; empty for a room.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub publisher_identity: String,
    /// Sid of the track of a Track egress.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub track_id: String,
    /// `audio` or `video`, of a Track egress.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub track_kind: String,
    /// Lower-case proto name, e.g. `screen_share`, of a Track egress.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub track_source: String,
    /// Sid, of a TrackComposite egress.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub audio_track_id: String,
    /// Sid, of a TrackComposite egress or a media source.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub video_track_id: String,
    /// In the order of EgressInfo's `file_results`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<ManifestFile>,
    /// Of the HLS outputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub playlists: Vec<ManifestPlaylist>,
    /// Of the image outputs, in the order of their stored objects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ManifestImage>,
    /// Poster, contact sheet and thumbnails. Ours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sheets: Vec<ManifestSheet>,
    /// What was really recorded, as measured by the media process; its type is the media process' own.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub quality: serde_json::Value,
}

/// One file of the recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ManifestFile {
    /// Storage path, without the prefix of the installation.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filename: String,
    /// Path or URL that a client opens.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// Unix nanoseconds; 0 where it is the manifest's own. Ours.
    #[serde(skip_serializing_if = "is_zero")]
    pub started_at: i64,
    /// Unix nanoseconds; 0 where it is the manifest's own. Ours.
    #[serde(skip_serializing_if = "is_zero")]
    pub ended_at: i64,
}

/// The playlist of an HLS output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ManifestPlaylist {
    /// Path or URL that a client opens.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// In the order of the playlist.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<ManifestFile>,
}

/// One image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ManifestImage {
    /// Storage path, without the prefix of the installation.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filename: String,
    /// When it was captured: RFC 3339 with nanoseconds.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub timestamp: String,
    /// Path or URL that a client opens.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub location: String,
}

/// A small picture beside the recording, or the WebVTT file that says which part of which sprite sheet is shown when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ManifestSheet {
    /// `poster`, `contact_sheet`, `sprite_sheet` or `thumbnails`.
    pub kind: String,
    /// Storage path, without the prefix of the installation.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filename: String,
    /// Path or URL that a client opens.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub location: String,
}

impl Manifest {
    /// The entry of a file, by its storage path or by its location.
    pub fn file(&self, path: &str) -> Option<&ManifestFile> {
        self.files.iter().find(|file| file.filename == path || file.location == path)
    }

    /// First and last instant of a file; those of the recording where the file has none of its own. Unix nanoseconds.
    pub fn times_of(&self, path: &str) -> (i64, i64) {
        match self.file(path) {
            Some(file) if file.started_at != 0 => (file.started_at, file.ended_at),
            _ => (self.started_at, self.ended_at),
        }
    }

    /// One line with a line end.
    ///
    /// # Errors
    ///
    /// `quality` cannot be written as JSON. A retry is useless.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string(self)? + "\n")
    }
}

/// Storage path of the manifest of a file: in the directory of the file's storage path.
pub fn path(file: &str, egress_id: &str) -> String {
    match file.rfind('/') {
        Some(end) => format!("{}/{egress_id}.json", &file[..end]),
        None => format!("{egress_id}.json"),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_has_no_times_of_its_own_has_those_of_the_recording() {
        let text = r#"{"started_at":1,"ended_at":9,"files":[{"filename":"a.mp4","location":"ram://a.mp4"},
            {"filename":"b.mp4","location":"ram://b.mp4","started_at":5,"ended_at":9}]}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        assert_eq!((manifest.times_of("a.mp4"), manifest.times_of("ram://b.mp4")), ((1, 9), (5, 9)));
        assert_eq!(manifest.times_of("another"), (1, 9));
    }

    #[test]
    fn what_is_empty_is_left_out_and_nothing_is_escaped_for_html() {
        let manifest = Manifest {
            egress_id: "EG_x".into(),
            room_name: "a&b <c>".into(),
            started_at: 1_700_000_000_000_000_001,
            files: vec![ManifestFile {
                filename: "d/a.mp4".into(),
                location: "/out/d/a.mp4".into(),
                ..ManifestFile::default()
            }],
            quality: serde_json::json!({ "longest_freeze_ms": 33 }),
            ..Manifest::default()
        };
        assert_eq!(
            manifest.to_json().unwrap(),
            concat!(
                r#"{"egress_id":"EG_x","room_name":"a&b <c>","started_at":1700000000000000001,"#,
                r#""files":[{"filename":"d/a.mp4","location":"/out/d/a.mp4"}],"quality":{"longest_freeze_ms":33}}"#,
                "\n"
            )
        );
        assert_eq!(Manifest::default().to_json().unwrap(), "{}\n");
    }

    #[test]
    fn it_lies_beside_the_file() {
        assert_eq!(path("a.mp4", "EG_x"), "EG_x.json");
        assert_eq!(path("d/e/a.mp4", "EG_x"), "d/e/EG_x.json");
        assert_eq!(path("/a.mp4", "EG_x"), "/EG_x.json");
    }
}
