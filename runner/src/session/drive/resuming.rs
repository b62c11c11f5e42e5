//! What another task has recorded goes on: files and segments count on, limits count both, and the gap between them is told.
//! Runs in the session's task; waits for nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use spillway_ipc::ResumePoint;
use spillway_protocol::ledger::Fact;

use super::Driver;
use crate::session::earlier::{EarlierRecording, SavedFiles};
use crate::session::gaps::RecordingGaps;
use crate::upload::checkpoint::FileCheckpoint;

impl Driver<'_> {
    /// Before anything else. `None`: the recording begins with this task.
    pub(super) fn go_on(&mut self, earlier: Option<&EarlierRecording>) {
        let Some(earlier) = earlier else { return };
        let now = self.job.clock.unix_ns();
        let recorded_to = earlier.recorded_to().min(now);
        let since = |at: i64| u64::try_from(at.saturating_sub(earlier.started_at)).unwrap_or_default();
        self.files.go_on(earlier.files().map(|(place, file)| file.number(place)).collect());
        let of_file = |(_, file): (usize, &FileCheckpoint)| {
            let written = file.media.last().map_or(0, |(bytes, _)| *bytes);
            (file.file, file.output(), file.saved.as_ref().map_or(written, |saved| saved.bytes))
        };
        let files: Vec<(u32, u32, u64)> = earlier.files().map(of_file).collect();
        let segments: Vec<(u32, u64)> =
            earlier.checkpoint.segments.iter().map(|left| (left.output, left.bytes())).collect();
        self.session.go_on(Duration::from_nanos(since(now)), &files, &segments);
        self.gaps = RecordingGaps::after_a_task(earlier.checkpoint.gaps.clone(), recorded_to, &earlier.why);
        // Something at least.
        self.media_before_ns = since(recorded_to).max(1);
        for fact in self.streams.retried(recorded_to, &earlier.why) {
            self.reporter.report(fact);
        }
    }

    /// It is known what is kept of the files of the task before.
    pub(super) fn settle(&mut self, saved: &SavedFiles) {
        let told = self.gaps.settle(saved.kept_to());
        self.tell_gap(told);
    }

    /// Tells of a gap that is over, if there is a message, and keeps what a task after this one has to know.
    pub(super) fn tell_gap(&mut self, told: Option<String>) {
        if let Some(message) = told {
            self.reporter.report(Fact::Noted(message));
        }
        self.job.resources.checkpoint_writer.gaps(self.gaps.so_far());
    }

    /// Where the first media process of this task goes on.
    pub(super) fn first_point(&self) -> ResumePoint {
        let (first_files, next_file) = self.files.next_numbers(&self.job.plan);
        let mut first_numbers: BTreeMap<u32, u32> = self.segments.next_numbers();
        first_numbers.extend(self.images.next_numbers());
        let outputs = u32::try_from(self.job.plan.outputs.len()).unwrap_or(u32::MAX);
        ResumePoint { first_files, next_file, first_numbers, ended_outputs: self.session.ended_outputs(outputs) }
    }
}
