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
    /// Participant whose tracks were recorded; empty for a room.
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
    /// Sid, of a TrackComposite egress.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub video_track_id: String,
    /// In the order of EgressInfo's `file_results`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<ManifestFile>,
    /// Of the HLS outputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub playlists: Vec<ManifestPlaylist>,
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

impl Manifest {
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
    fn what_is_empty_is_left_out_and_nothing_is_escaped_for_html() {
        let manifest = Manifest {
            egress_id: "EG_x".into(),
            room_name: "a&b <c>".into(),
            started_at: 1_700_000_000_000_000_001,
            files: vec![ManifestFile { filename: "d/a.mp4".into(), location: "/out/d/a.mp4".into() }],
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
