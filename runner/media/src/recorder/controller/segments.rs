//! HLS outputs: they begin with the first recorder, and report their segments themselves. Part of the controller, on its
//! thread.

use std::sync::Arc;

use spillway_ipc::TrackFacts;
use spillway_plan::{Output, SegmentsOutput};

use super::{RecorderController, first_number};
use crate::element::build;
use crate::output::Fanout;
use crate::output::segments::SegmentsTakerOptions;
use crate::recorder::recorded_file::FileError;
use crate::recorder::recorded_series::RecordedSeries;

impl RecorderController {
    /// Those that the next recorder writes. A second recorder, after a change of codec, would number its segments from 0
    /// again; a plan with segments has its pictures encoded, so that there is none.
    pub(super) fn segments_to_begin(&self) -> Vec<(u32, SegmentsOutput)> {
        if self.recorder_count > 0 {
            return vec![];
        }
        let outputs = (0..).zip(&self.start.plan.outputs);
        let segments = outputs.filter_map(|(output, of)| match of {
            Output::Segments(segments) if !self.ended_outputs.contains(&output) => Some((output, segments.clone())),
            _ => None,
        });
        segments.collect()
    }

    /// Adds one to the outputs.
    pub(super) fn open_segments(
        &self,
        fanout: &Arc<Fanout>,
        output: u32,
        segments: &SegmentsOutput,
        facts: &TrackFacts,
    ) -> Result<RecordedSeries, FileError> {
        let Some(folder) = self.start.spool.clone() else {
            return Err(build("there is no folder for segments").into());
        };
        let options = SegmentsTakerOptions {
            output,
            folder,
            format: segments.naming.format,
            length_ns: segments.segment_ns,
            first_n: first_number(&self.start, output),
            facts: facts.clone(),
        };
        RecordedSeries::segments(fanout, options, &self.tell)
    }
}
