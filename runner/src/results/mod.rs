//! What files of an egress are called, where they lie on this machine's disk, and what is told about them in the end. `output`
//! resolves names, `claim` makes the files that stay on the disk, `playlist` writes HLS playlists, and here are results and
//! the manifest. Blocks where it touches the disk; knows no store.

pub mod claim;
pub mod playlist;
mod output;

use std::io;
use std::path::Path;

use spillway_ipc::{Quality, TrackFacts};
use spillway_plan::EgressPlan;
use spillway_plan::manifest::{self, Manifest, ManifestFile, ManifestPlaylist};

pub use output::{OutputError, OutputPath};
pub(crate) use output::{filename, numbered, private_folder, segment_names};

use claim::Claim;

/// Which file of the recording, which output of the plan it is made for, and which result of the EgressInfo it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileNumber {
    /// As the media process numbers its files ([`spillway_ipc::MediaEvent::Opening`]).
    pub file: u32,
    /// Place in the plan's outputs.
    pub output: u32,
    /// Place in the EgressInfo's list of files: one for each file that was asked for, in the order of the request, then those
    /// that follow one after a change of codec.
    pub index: usize,
}

impl FileNumber {
    /// File `file`, made for output `output`.
    pub fn new(plan: &EgressPlan, file: u32, output: u32) -> Self {
        let is_file = |output: &u32| plan.file(*output).is_some();
        let outputs = u32::try_from(plan.outputs.len()).unwrap_or(u32::MAX);
        let index = if file == output {
            (0..output).filter(is_file).count()
        } else {
            (0..outputs).filter(is_file).count() + file.saturating_sub(outputs) as usize
        };
        Self { file, output, index }
    }
}

/// What the EgressInfo says about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileResult {
    /// Which file.
    pub number: FileNumber,
    /// As users see it, variables filled in.
    pub filename: String,
    /// A path on this machine's disk or a store's location.
    pub location: String,
    /// Its size.
    pub bytes: u64,
    /// Unix nanoseconds of the first recorded instant.
    pub started_at: i64,
    /// Unix nanoseconds of the last recorded instant.
    pub ended_at: i64,
    /// It is in its second destination.
    pub used_backup: bool,
}

/// What the EgressInfo says about an HLS output whose playlist is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaylistResult {
    /// Place in the EgressInfo's list of segments.
    pub index: usize,
    /// A path on this machine's disk or a store's location.
    pub location: String,
    /// Name and location of each listed segment.
    pub segments: Vec<(String, String)>,
    /// Unix nanoseconds of the first recorded instant.
    pub started_at: i64,
    /// Unix nanoseconds of the last recorded instant.
    pub ended_at: i64,
}

/// Content of the manifest beside files and playlists. `track` and `quality` are those of the first file, or of the first
/// playlist where there is no file.
///
/// # Errors
/// The content is no JSON: a number is not finite. A retry changes nothing.
pub fn manifest(
    plan: &EgressPlan,
    track: TrackFacts,
    quality: Option<&Quality>,
    results: &[FileResult],
    playlists: &[PlaylistResult],
) -> io::Result<String> {
    let begins = results.iter().map(|file| file.started_at).chain(playlists.iter().map(|list| list.started_at));
    let ends = results.iter().map(|file| file.ended_at).chain(playlists.iter().map(|list| list.ended_at));
    let (started_at, ended_at) = (begins.min().unwrap_or_default(), ends.max().unwrap_or_default());
    let file = |file: &FileResult| {
        let own = (file.started_at, file.ended_at) != (started_at, ended_at);
        ManifestFile {
            filename: file.filename.clone(),
            location: file.location.clone(),
            started_at: if own { file.started_at } else { 0 },
            ended_at: if own { file.ended_at } else { 0 },
        }
    };
    let segment = |(filename, location): &(String, String)| ManifestFile {
        filename: filename.clone(),
        location: location.clone(),
        ..ManifestFile::default()
    };
    let playlist = |playlist: &PlaylistResult| ManifestPlaylist {
        location: playlist.location.clone(),
        segments: playlist.segments.iter().map(segment).collect(),
    };
    let manifest = Manifest {
        egress_id: plan.egress_id.clone(),
        room_id: plan.room_id.clone(),
        room_name: plan.room_name.clone(),
        started_at,
        ended_at,
        publisher_identity: track.publisher_identity,
        track_id: track.track_id,
        track_kind: track.track_kind,
        track_source: track.track_source,
        audio_track_id: track.audio_track_id,
        video_track_id: track.video_track_id,
        files: results.iter().map(file).collect(),
        playlists: playlists.iter().map(playlist).collect(),
        quality: serde_json::to_value(quality)?,
    };
    Ok(manifest.to_json()?)
}

/// Writes the manifest on this machine's disk beside `file`, which is `claim`; answers where it lies.
///
/// # Errors
/// The operating system's; `AlreadyExists` where every numbered variant of the name is taken. The recording is whole
/// without it.
pub fn write_manifest(claim: &Claim, file: &Path, egress_id: &str, content: &str) -> io::Result<String> {
    // An earlier attempt of this egress may have written one.
    let is_ours = |content: &[u8]| {
        let json: Option<serde_json::Value> = serde_json::from_slice(content).ok();
        json.is_some_and(|json| json["egress_id"] == egress_id)
    };
    let name = claim.write_beside(&manifest::path("", egress_id), content.as_bytes(), is_ours)?;
    Ok(file.with_file_name(name).display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_request_and_files_that_follow_come_behind() {
        let file = serde_json::json!({"file": {"container": null, "path": "a", "manifest": true}});
        let text = serde_json::json!({
            "egress_id": "EG_1", "room_name": "r", "room_id": "", "kind": "room_composite", "source": "room",
            "picture": null, "sound": null, "outputs": [file, file],
            "limits": {"max_duration_ns": null, "max_file_bytes": null}, "retry_count": 0
        });
        let plan: EgressPlan = serde_json::from_value(text).unwrap();
        let index = |file, output| FileNumber::new(&plan, file, output).index;
        assert_eq!([index(0, 0), index(1, 1), index(2, 1), index(3, 0)], [0, 1, 2, 3]);
    }
}
