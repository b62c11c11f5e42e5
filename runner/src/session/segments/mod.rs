//! The HLS outputs of a recording, each with one owner of its state from opening to result. Events of the media process come
//! in and are passed on to the upload of their output; progress and results come out. Runs in the session's task; blocks for
//! no disk and no store except in the calls that are `async`.

mod facts;
mod interrupted;
mod naming;
mod results;
mod resumed;

use std::cell::LazyCell;
use std::path::{Path, PathBuf};

use chrono::NaiveDateTime;
use futures_util::future::join_all;
use spillway_ipc::{MediaEvent, Quality, TrackFacts};
use spillway_plan::EgressPlan;
use spillway_plan::segment_name::{SegmentFormat, SegmentNames, SegmentNaming};
use spillway_process::LocalRoot;
use tokio::task::spawn_blocking;

use crate::report::FilesProgress;
use crate::results::claim::Claim;
use crate::upload::checkpoint::CheckpointWriter;
use crate::upload::segments::{
    SegmentTotals, SegmentsMachine, SegmentsPlan, SegmentsResult, SegmentsStatus, SegmentsUpload, SegmentsUploader,
    SpooledSegment, remove_segments,
};
use crate::upload::{ObjectNames, ObjectPlace, UploadProgress, UploadSettings};

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
    /// From there to the begin of what the media process records that writes now, nanoseconds; `None`: it has not begun.
    offset_ns: Option<u64>,
}

struct SegmentedOutput {
    job: SegmentsJob,
    /// Names in its stores.
    object_names: ObjectNames,
    /// Its names on this machine's disk, which are held until it is finished.
    claimed: Option<(SegmentNames, Vec<Claim>)>,
    /// The same, held by the task before this one.
    held: Option<HeldNames>,
    /// What came before its names or its place in time were known; it is passed on then.
    early: Vec<MediaEvent>,
    /// Behind every segment that the media process has named.
    next_n: u32,
    /// For names, from the first media of the recording or the first segment on.
    facts: Option<TrackFacts>,
    /// From the first media of the recording on, also while there is no segment.
    names: Option<SegmentNames>,
    /// From the first segment on.
    upload: Option<SegmentsUpload>,
    /// It takes nothing more.
    failed: bool,
    /// The EgressInfo has its names.
    told: bool,
    quality: Option<Quality>,
    /// As they were reported last.
    reported: SegmentTotals,
    result: Option<SegmentsResult>,
}

/// Names on this machine's disk that a dead task has held.
#[derive(Clone, Debug)]
struct HeldNames {
    names: SegmentNames,
    root: LocalRoot,
    holder: String,
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
            object_names: ObjectNames::default(),
            claimed: None,
            held: None,
            early: vec![],
            next_n: 0,
            facts: None,
            names: None,
            upload: None,
            failed: false,
            told: false,
            quality: None,
            reported: SegmentTotals::default(),
            result: None,
        };
        let outputs = jobs.into_iter().map(output).collect();
        Self { outputs, folder, settings, checkpoint_writer, started_at: None, offset_ns: None }
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
        let (output, n) = match media_event {
            MediaEvent::Started { at, facts } => {
                let first = *self.started_at.get_or_insert(*at);
                self.offset_ns = Some(u64::try_from(at.saturating_sub(first)).unwrap_or_default());
                // An output that has failed without a segment gets no names.
                for output in self.outputs.iter_mut().filter(|output| !output.failed) {
                    output.facts = output.facts.take().or_else(|| facts.clone());
                }
                return self.begin_known(plan, now);
            }
            MediaEvent::OutputFailed { output, .. } => {
                if let Some(known) = self.outputs.iter_mut().find(|known| known.job.output == *output) {
                    known.failed = true;
                }
                return false;
            }
            MediaEvent::SegmentOpen { output, n, .. }
            | MediaEvent::SegmentWrote { output, n, .. }
            | MediaEvent::Segment { output, n, .. } => (*output, *n),
            MediaEvent::SegmentsEnded { output, quality } => {
                if let Some(known) = self.outputs.iter_mut().find(|known| known.job.output == *output) {
                    known.quality = Some(quality.clone());
                }
                return false;
            }
            _ => return false,
        };
        let Some(known) = self.outputs.iter_mut().find(|known| known.job.output == output) else { return false };
        known.next_n = known.next_n.max(n.saturating_add(1));
        if let MediaEvent::SegmentOpen { facts, .. } = media_event {
            known.facts = known.facts.take().or_else(|| Some(facts.clone().unwrap_or_default()));
        }
        if let (Some(upload), Some(offset_ns)) = (&known.upload, self.offset_ns) {
            pass_on(upload, media_event, offset_ns);
            return false;
        }
        known.early.push(media_event.clone());
        self.begin_known(plan, now)
    }

    /// Names outputs of which everything is known now, and starts the uploads of those that have a segment. True: an output
    /// has got its names.
    fn begin_known(&mut self, plan: &EgressPlan, now: impl FnOnce() -> NaiveDateTime) -> bool {
        let Some((started_at, offset_ns)) = self.started_at.zip(self.offset_ns) else { return false };
        // One time for all of them.
        let now = LazyCell::new(now);
        let mut named = false;
        for output in &mut self.outputs {
            named |= output.take_names(plan, || *now);
            let (Some(names), false) = (&output.names, output.early.is_empty()) else { continue };
            if let Some(upload) = &output.upload {
                output.early.drain(..).for_each(|early| pass_on(upload, &early, offset_ns));
                continue;
            }
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
            output.early.drain(..).for_each(|early| pass_on(&upload, &early, offset_ns));
            output.upload = Some(upload);
        }
        named
    }

    /// Something was recorded.
    pub fn any(&self) -> bool {
        self.outputs.iter().any(|output| output.upload.is_some())
    }

    /// Name of the playlist of an output of the plan, once it is known.
    pub fn name_of(&self, output: u32) -> Option<String> {
        let names = self.outputs.iter().find(|known| known.job.output == output)?.names.as_ref()?;
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
            let now = match (&output.result, &output.upload) {
                (Some(result), _) => result.totals,
                (None, Some(upload)) => upload.status().totals,
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
            match &output.upload {
                Some(upload) => Some(upload.finish().await),
                None => None,
            }
        }));
        let results = results.await;
        for (output, result) in self.outputs.iter_mut().zip(results) {
            output.result = result;
        }
        self.release_names().await;
        self.spooled_of(|output| output.upload.is_none()).remove().await;
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

    /// Nothing was recorded, or nothing of it is wanted: nothing stays in the spool.
    pub async fn abandon(&mut self) {
        for upload in self.outputs.iter().filter_map(|output| output.upload.as_ref()) {
            upload.abandon().await;
        }
        self.spooled().remove().await;
    }
}

impl SegmentedOutput {
    /// Its names and upload, once it has a segment.
    fn begun(&self) -> Option<(&SegmentNames, &SegmentsUpload)> {
        self.names.as_ref().zip(self.upload.as_ref())
    }

    fn progress(&self) -> Option<(String, SegmentsStatus)> {
        let (names, upload) = self.begun()?;
        Some((self.job.place.locate()(&names.playlist_path()), upload.status()))
    }
}

/// `offset_ns`: where the times of the media process begin in those of the recording.
fn pass_on(upload: &SegmentsUpload, media_event: &MediaEvent, offset_ns: u64) {
    match media_event {
        MediaEvent::SegmentOpen { n, at_ns, .. } => upload.opened(*n, at_ns.saturating_add(offset_ns)),
        MediaEvent::SegmentWrote { n, bytes, .. } => upload.wrote(*n, *bytes),
        MediaEvent::Segment { n, gap: true, .. } => upload.lost(*n),
        MediaEvent::Segment { n, at_ns, length_ns, bytes, .. } => {
            let at_ns = at_ns.saturating_add(offset_ns);
            upload.closed(SpooledSegment { n: *n, at_ns, length_ns: *length_ns, bytes: *bytes });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
