//! What files of an egress are called, where they lie on this machine's disk, and what is told about them in the end. `output`
//! resolves names, `claim` makes the files that stay on the disk, and here are results and the manifest. Blocks where it
//! touches the disk; knows no store.

pub mod claim;
mod output;

use std::io;
use std::path::Path;

use spillway_ipc::{Quality, TrackFacts};
use spillway_plan::manifest::{self, Manifest, ManifestFile};
use spillway_plan::{EgressPlan, Output};

pub use output::{OutputError, OutputPath};
pub(crate) use output::{filename, numbered};

use claim::Claim;

/// What the EgressInfo says about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileResult {
    /// Number of the output.
    pub file: u32,
    /// Its place in the list of files of the EgressInfo.
    pub index: usize,
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
}

/// The manifest beside the files, if the request or `wanted_anyway` asks for it and there is a file: name and content.
/// `track` and `quality` are those of the first file.
///
/// # Errors
/// The content is no JSON: a number is not finite. A retry changes nothing.
pub fn manifest(
    plan: &EgressPlan,
    track: TrackFacts,
    quality: Option<&Quality>,
    results: &[FileResult],
    wanted_anyway: bool,
) -> io::Result<Option<(String, String)>> {
    let wanted = wanted_anyway || plan.outputs.iter().any(|Output::File(file)| file.manifest);
    let (true, Some(first)) = (wanted, results.first()) else {
        return Ok(None);
    };
    let manifest = Manifest {
        egress_id: plan.egress_id.clone(),
        room_id: plan.room_id.clone(),
        room_name: plan.room_name.clone(),
        started_at: first.started_at,
        ended_at: first.ended_at,
        publisher_identity: track.publisher_identity,
        track_id: track.track_id,
        track_kind: track.track_kind,
        track_source: track.track_source,
        audio_track_id: track.audio_track_id,
        video_track_id: track.video_track_id,
        files: results
            .iter()
            .map(|file| ManifestFile { filename: file.filename.clone(), location: file.location.clone() })
            .collect(),
        quality: serde_json::to_value(quality)?,
    };
    Ok(Some((manifest::path(&first.filename, &plan.egress_id), manifest.to_json()?)))
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
