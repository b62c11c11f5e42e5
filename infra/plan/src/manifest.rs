//! `<egress_id>.json` beside the file: what was recorded, where it lies, and how good it is.

use serde::{Deserialize, Serialize};

/// Fields and names are livekit/egress'; `quality` is ours. What is empty is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub egress_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room_name: String,
    /// Unix nanoseconds, as in EgressInfo.
    #[serde(skip_serializing_if = "is_zero")]
    pub started_at: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub ended_at: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub publisher_identity: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub track_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub track_kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub track_source: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub audio_track_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub video_track_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<ManifestFile>,
    /// What was really recorded, as measured by the media process.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub quality: serde_json::Value,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ManifestFile {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filename: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub location: String,
}

impl Manifest {
    /// One line and a line end.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string(self)? + "\n")
    }
}

/// Where the manifest of a file with storage path `file` goes: into its directory.
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
