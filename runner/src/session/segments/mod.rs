//! The HLS outputs of a recording, each with one owner of its state from opening to result. Events of the media process come
//! in and are passed on to the upload of their output; progress and results come out. Runs in the session's task; blocks for
//! no disk and no store except in the calls that are `async`.

mod facts;

use std::cell::LazyCell;
use std::path::{Path, PathBuf};

use chrono::NaiveDateTime;
use futures_util::future::join_all;
use spillway_ipc::{MediaEvent, Quality, TrackFacts};
use spillway_plan::EgressPlan;
use spillway_plan::manifest;
use spillway_plan::segment_name::{SegmentFormat, SegmentNames, SegmentNaming};
use tokio::task::spawn_blocking;

use crate::report::FilesProgress;
use crate::results::{self, PlaylistResult};
use crate::upload::checkpoint::CheckpointWriter;
use crate::upload::segments::{
    SegmentTotals, SegmentsMachine, SegmentsPlan, SegmentsResult, SegmentsStatus, SegmentsUpload, SegmentsUploader,
    SpooledSegment, remove_segments,
};
use crate::upload::{ObjectPlace, UploadProgress, UploadSettings};

pub use facts::{opened_fact, result_facts};

/// One HLS output before anything of it is recorded.
#[derive(Clone, Debug)]
pub struct SegmentsJob {
    /// Number of the output in the plan.
    pub output: u32,
    /// What the request says of names.
    pub naming: SegmentNaming,
    /// Length of a segment, nanoseconds.
    pub segment_ns: u64,
    /// Where its objects go.
    pub place: ObjectPlace,
    /// Bytes that may wait in the spool.
    pub spool_cap: u64,
}

/// All HLS outputs of one recording.
pub struct SessionSegments {
    outputs: Vec<SegmentedOutput>,
    /// The spool, which the media process writes to.
    folder: PathBuf,
    settings: UploadSettings,
    checkpoint_writer: CheckpointWriter,
    /// Unix nanoseconds at media time zero.
    started_at: Option<i64>,
}

struct SegmentedOutput {
    job: SegmentsJob,
    /// What came before both the time and the facts for names were known; they are passed on then.
    early: Vec<MediaEvent>,
    /// For names, from the first segment on.
    facts: Option<TrackFacts>,
    running: Option<RunningOutput>,
    /// The EgressInfo has its names.
    told: bool,
    quality: Option<Quality>,
    /// As they were reported last.
    reported: SegmentTotals,
    result: Option<SegmentsResult>,
}

struct RunningOutput {
    names: SegmentNames,
    upload: SegmentsUpload,
}

/// What the outputs of a recording have in the spool.
pub struct SpooledOutputs {
    folder: PathBuf,
    outputs: Vec<(u32, SegmentFormat)>,
}

impl SpooledOutputs {
    /// Removes it, and the folder if it is empty then. Nothing writes there any more.
    pub async fn remove(self) {
        let removed = spawn_blocking(move || {
            for (output, format) in self.outputs {
                remove_segments(&self.folder, output, format);
            }
        });
        let _ = removed.await;
    }
}

impl SessionSegments {
    /// Nothing is recorded yet; `folder` is `StartCommand::spool`. Jobs are in the order of the plan's outputs.
    pub fn new(
        jobs: Vec<SegmentsJob>,
        folder: PathBuf,
        settings: UploadSettings,
        checkpoint_writer: CheckpointWriter,
    ) -> Self {
        let output = |job| SegmentedOutput {
            job,
            early: vec![],
            facts: None,
            running: None,
            told: false,
            quality: None,
            reported: SegmentTotals::default(),
            result: None,
        };
        let outputs = jobs.into_iter().map(output).collect();
        Self { outputs, folder, settings, checkpoint_writer, started_at: None }
    }

    /// Of a recording without HLS outputs, or whose outputs are not opened yet.
    pub fn none(settings: UploadSettings, checkpoint_writer: CheckpointWriter) -> Self {
        Self::new(vec![], PathBuf::new(), settings, checkpoint_writer)
    }

    /// Where the media process writes segments; `None`: no output has any.
    pub fn folder(&self) -> Option<&Path> {
        (!self.outputs.is_empty()).then_some(self.folder.as_path())
    }

    /// The media process said this; `now` answers the local time, for names. Never waits. True: an output has got its
    /// names.
    pub fn on_media_event(
        &mut self,
        media_event: &MediaEvent,
        plan: &EgressPlan,
        now: impl FnOnce() -> NaiveDateTime,
    ) -> bool {
        let output = match media_event {
            MediaEvent::Started { at } => {
                self.started_at = self.started_at.or(Some(*at));
                return self.begin_known(plan, now);
            }
            MediaEvent::SegmentOpen { output, .. }
            | MediaEvent::SegmentWrote { output, .. }
            | MediaEvent::Segment { output, .. } => *output,
            MediaEvent::SegmentsEnded { output, quality } => {
                if let Some(known) = self.outputs.iter_mut().find(|known| known.job.output == *output) {
                    known.quality = Some(quality.clone());
                }
                return false;
            }
            _ => return false,
        };
        let Some(known) = self.outputs.iter_mut().find(|known| known.job.output == output) else { return false };
        if let Some(running) = &known.running {
            running.pass_on(media_event);
            return false;
        }
        if let MediaEvent::SegmentOpen { facts, .. } = media_event {
            known.facts = known.facts.take().or_else(|| Some(facts.clone().unwrap_or_default()));
        }
        known.early.push(media_event.clone());
        self.begin_known(plan, now)
    }

    /// Starts the uploads of outputs of which everything is known now.
    fn begin_known(&mut self, plan: &EgressPlan, now: impl FnOnce() -> NaiveDateTime) -> bool {
        let Some(started_at) = self.started_at else { return false };
        // One time for all of them.
        let now = LazyCell::new(now);
        let mut begun = false;
        for output in &mut self.outputs {
            let (None, Some(facts)) = (&output.running, &output.facts) else { continue };
            let names = results::segment_names(plan, &output.job.naming, facts, *now);
            let machine = SegmentsMachine::new(SegmentsPlan {
                output: output.job.output,
                names: names.clone(),
                segment_ns: output.job.segment_ns,
                folder: self.folder.clone(),
                started_at,
                locate: output.job.place.locate(),
            });
            let upload = SegmentsUpload::start(SegmentsUploader {
                machine,
                objects: output.job.place.clone().uploads(self.settings.clone()),
                checkpoint_writer: self.checkpoint_writer.clone(),
                spool_cap: output.job.spool_cap,
            });
            let running = RunningOutput { names, upload };
            output.early.drain(..).for_each(|early| running.pass_on(&early));
            output.running = Some(running);
            begun = true;
        }
        begun
    }

    /// Something was recorded.
    pub fn any(&self) -> bool {
        self.outputs.iter().any(|output| output.running.is_some())
    }

    /// Name of the playlist of an output of the plan, once it is known.
    pub fn name_of(&self, output: u32) -> Option<String> {
        let names = &self.outputs.iter().find(|known| known.job.output == output)?.running.as_ref()?.names;
        Some(names.playlist_path())
    }

    /// Adds how far they are to a heartbeat.
    pub fn add_progress(&self, to: &mut FilesProgress) {
        for output in &self.outputs {
            let Some((location, status)) = output.progress() else { continue };
            to.bytes.insert(location, status.totals.bytes + status.spooled_bytes);
            if output.job.place.is_remote() {
                let SegmentsStatus { totals, error, .. } = status;
                to.uploads.push(UploadProgress { stored: totals.bytes, error, ..UploadProgress::default() });
            }
        }
    }

    /// Totals that have changed since the last call: index among the HLS outputs, totals.
    pub fn changed_totals(&mut self) -> Vec<(usize, SegmentTotals)> {
        let mut changed = vec![];
        for (index, output) in self.outputs.iter_mut().enumerate() {
            let now = match (&output.result, &output.running) {
                (Some(result), _) => result.totals,
                (None, Some(running)) => running.upload.status().totals,
                (None, None) => continue,
            };
            if now != std::mem::replace(&mut output.reported, now) {
                changed.push((index, now));
            }
        }
        changed
    }

    /// The media process is gone or has ended: all outputs are finished at once. Bounded by `max_outage_ms`.
    pub async fn finish(&mut self) {
        let results = join_all(self.outputs.iter().map(|output| async move {
            match &output.running {
                Some(running) => Some(running.upload.finish().await),
                None => None,
            }
        }));
        let results = results.await;
        for (output, result) in self.outputs.iter_mut().zip(results) {
            output.result = result;
        }
        self.spooled_of(|output| output.running.is_none()).remove().await;
    }

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
        let first = self.outputs.iter().find(|output| output.running.is_some())?;
        Some((first.facts.as_ref()?, first.quality.as_ref()))
    }

    /// What was really recorded of each output.
    pub fn qualities(&self) -> impl Iterator<Item = &Quality> {
        self.outputs.iter().filter_map(|output| output.quality.as_ref())
    }

    /// What lies in the spool.
    pub fn spooled(&self) -> SpooledOutputs {
        self.spooled_of(|_| true)
    }

    fn spooled_of(&self, which: impl Fn(&SegmentedOutput) -> bool) -> SpooledOutputs {
        let of = |output: &SegmentedOutput| (output.job.output, output.job.naming.format);
        let outputs = self.outputs.iter().filter(|output| which(output)).map(of).collect();
        SpooledOutputs { folder: self.folder.clone(), outputs }
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
        let Some(running) = self.outputs.get(index).and_then(|output| output.running.as_ref()) else { return Ok(None) };
        let name = manifest::path(&running.names.playlist_path(), egress_id);
        running.upload.put_beside(name, content.into()).await.map(Some)
    }

    /// Nothing was recorded, or nothing of it is wanted: nothing stays in the spool.
    pub async fn abandon(&mut self) {
        for running in self.outputs.iter().filter_map(|output| output.running.as_ref()) {
            running.upload.abandon().await;
        }
        self.spooled().remove().await;
    }

    /// After [`Self::finish`]: index among the HLS outputs, names, what it came to. Outputs in which nothing was recorded
    /// are not there.
    pub fn results(&self) -> impl Iterator<Item = (usize, &SegmentNames, &SegmentsResult)> {
        self.outputs
            .iter()
            .enumerate()
            .filter_map(|(index, output)| Some((index, &output.running.as_ref()?.names, output.result.as_ref()?)))
    }
}

impl SegmentedOutput {
    fn progress(&self) -> Option<(String, SegmentsStatus)> {
        let running = self.running.as_ref()?;
        let playlist = running.names.playlist_path();
        Some((self.job.place.locate()(&playlist), running.upload.status()))
    }
}

impl RunningOutput {
    fn pass_on(&self, media_event: &MediaEvent) {
        match media_event {
            MediaEvent::SegmentOpen { n, at_ns, .. } => self.upload.opened(*n, *at_ns),
            MediaEvent::SegmentWrote { n, bytes, .. } => self.upload.wrote(*n, *bytes),
            MediaEvent::Segment { n, gap: true, .. } => self.upload.lost(*n),
            MediaEvent::Segment { n, at_ns, length_ns, bytes, .. } => {
                self.upload.closed(SpooledSegment { n: *n, at_ns: *at_ns, length_ns: *length_ns, bytes: *bytes });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
