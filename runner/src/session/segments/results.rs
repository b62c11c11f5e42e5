//! What the HLS outputs of a recording came to, for EgressInfo and manifest. Reads what is known; only a manifest goes to a store.

use spillway_ipc::{Quality, TrackFacts};
use spillway_plan::manifest;
use spillway_plan::segment_name::SegmentNames;

use super::{SegmentedOutput, SessionSegments};
use crate::results::PlaylistResult;
use crate::upload::segments::SegmentsResult;

impl SessionSegments {
    /// After [`Self::finish`]: outputs whose playlists are stored, for a manifest.
    pub fn playlist_results(&self) -> Vec<PlaylistResult> {
        let stored =
            self.results().filter(|(_, _, result)| result.failure.is_none() && !result.gone && result.totals.count > 0);
        let results = stored.filter_map(|(index, _, result)| {
            Some(PlaylistResult {
                index,
                location: result.playlist_location.clone()?,
                segments: result.segments.clone(),
                started_at: result.started_at,
                ended_at: result.ended_at,
            })
        });
        results.collect()
    }

    /// Number in the plan of the output `index`, among the HLS outputs.
    pub fn output(&self, index: usize) -> Option<u32> {
        self.outputs.get(index).map(|output| output.job.output)
    }

    /// Facts and quality of the first output in which something was recorded, for a manifest.
    pub fn first(&self) -> Option<(&TrackFacts, Option<&Quality>)> {
        let first = self.outputs.iter().find(|output| output.upload.is_some())?;
        Some((first.facts.as_ref()?, first.quality.as_ref()))
    }

    /// What was really recorded of each output.
    pub fn qualities(&self) -> impl Iterator<Item = &Quality> {
        self.outputs.iter().filter_map(|output| output.quality.as_ref())
    }

    /// After [`Self::finish`]: index among the HLS outputs, names, what it came to. Outputs in which nothing was recorded
    /// are not there.
    pub fn results(&self) -> impl Iterator<Item = (usize, &SegmentNames, &SegmentsResult)> {
        self.outputs
            .iter()
            .enumerate()
            .filter_map(|(index, output)| Some((index, output.names.as_ref()?, output.result.as_ref()?)))
    }

    /// An output has a backup store. `index` among the HLS outputs.
    pub fn has_backup(&self, index: usize) -> bool {
        self.outputs.get(index).is_some_and(|output| output.job.place.has_backup())
    }

    /// After [`Self::finish`]: puts the manifest beside the playlists of an output. Answers where it is.
    ///
    /// # Errors
    /// The store's message; it was retried for up to 30 s.
    pub async fn put_manifest(&self, index: usize, egress_id: &str, content: String) -> Result<Option<String>, String> {
        let begun = self.outputs.get(index).and_then(SegmentedOutput::begun);
        let Some((names, upload)) = begun else { return Ok(None) };
        let name = manifest::path(&names.playlist_path(), egress_id);
        upload.put_beside(name, content.into()).await.map(Some)
    }
}
