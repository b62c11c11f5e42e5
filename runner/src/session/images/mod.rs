//! The image outputs of a recording, each with one owner of its state from opening to result. Events of the media process come
//! in and are passed on to the upload of their output; progress, facts for the EgressInfo and results come out. Runs in the
//! session's task; blocks for no disk and no store except in the calls that are `async`.

mod facts;
mod interrupted;
mod resumed;

use std::cell::LazyCell;
use std::path::{Path, PathBuf};

use chrono::NaiveDateTime;
use futures_util::future::join_all;
use spillway_ipc::{MediaEvent, Quality, TrackFacts};
use spillway_plan::image_name::ImageNames;
use spillway_plan::manifest;
use spillway_plan::{EgressPlan, ImageCodec, ImagesOutput};
use tokio::task::spawn_blocking;

use crate::report::FilesProgress;
use crate::results::{self, ImageResult};
use crate::upload::checkpoint::CheckpointWriter;
use crate::upload::images::{
    ImageTotals, ImagesMachine, ImagesPlan, ImagesResult, ImagesStatus, ImagesUpload, ImagesUploader, SpooledImage,
    remove_images,
};
use crate::upload::{ObjectNames, ObjectPlace, UploadProgress, UploadSettings};

pub use facts::image_facts;

/// One image output before anything of it is recorded.
#[derive(Clone, Debug)]
pub struct ImagesJob {
    /// Number of the output in the plan.
    pub output: u32,
    /// What the request says.
    pub images: ImagesOutput,
    /// Where its objects go.
    pub place: ObjectPlace,
    /// Bytes that may wait in the spool.
    pub spool_cap: u64,
}

/// All image outputs of one recording.
pub struct SessionImages {
    outputs: Vec<ImageOutput>,
    /// The spool, which the media process writes to.
    folder: PathBuf,
    settings: UploadSettings,
    checkpoint_writer: CheckpointWriter,
    /// Unix nanoseconds at media time zero.
    started_at: Option<i64>,
    /// From there to the begin of what the media process records that writes now, nanoseconds; `None`: it has not begun.
    offset_ns: Option<u64>,
}

struct ImageOutput {
    job: ImagesJob,
    /// Names in its stores, or on the disk.
    object_names: ObjectNames,
    /// What came before its names or its place in time were known, with the times of the media process; it is passed on then.
    early: Vec<SpooledImage>,
    /// Behind every image that the media process has named.
    next_n: u32,
    /// For names, from the first media of the recording or the first image on.
    facts: Option<TrackFacts>,
    /// From the first media of the recording on, also while there is no image.
    names: Option<ImageNames>,
    /// From the first image on.
    upload: Option<ImagesUpload>,
    /// It takes nothing more.
    failed: bool,
    /// The EgressInfo has its prefix.
    told: bool,
    quality: Option<Quality>,
    /// As they were reported last.
    reported: ImageTotals,
    result: Option<ImagesResult>,
}

/// What the image outputs of a recording have in the spool.
pub struct SpooledImages {
    folder: PathBuf,
    outputs: Vec<(u32, ImageCodec)>,
}

impl SpooledImages {
    /// Removes it, and the folder if it is empty then. Nothing writes there any more.
    pub async fn remove(self) {
        let removed = spawn_blocking(move || {
            for (output, codec) in self.outputs {
                remove_images(&self.folder, output, codec);
            }
        });
        let _ = removed.await;
    }
}

impl SessionImages {
    /// Nothing is recorded yet; `folder` is `StartCommand::spool`. Jobs are in the order of the plan's outputs.
    pub fn new(
        jobs: Vec<ImagesJob>,
        folder: PathBuf,
        settings: UploadSettings,
        checkpoint_writer: CheckpointWriter,
    ) -> Self {
        let output = |job| ImageOutput {
            job,
            object_names: ObjectNames::default(),
            early: vec![],
            next_n: 0,
            facts: None,
            names: None,
            upload: None,
            failed: false,
            told: false,
            quality: None,
            reported: ImageTotals::default(),
            result: None,
        };
        let outputs = jobs.into_iter().map(output).collect();
        Self { outputs, folder, settings, checkpoint_writer, started_at: None, offset_ns: None }
    }

    /// Of a recording without images, or whose outputs are not opened yet.
    pub fn none(settings: UploadSettings, checkpoint_writer: CheckpointWriter) -> Self {
        Self::new(vec![], PathBuf::new(), settings, checkpoint_writer)
    }

    /// Before anything is recorded: an output gets names that no other of this egress has in its stores, which `object_names`
    /// knows by the output's number. On a disk no two image outputs have the same names.
    pub(in crate::session) fn share_names(&mut self, object_names: impl Fn(u32) -> ObjectNames) {
        let on_disk = ObjectNames::default().for_stores(vec![0]);
        for output in &mut self.outputs {
            let is_remote = output.job.place.is_remote();
            output.object_names = if is_remote { object_names(output.job.output) } else { on_disk.clone() };
        }
    }

    /// Where the media process writes images; `None`: no output has any.
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
        match media_event {
            MediaEvent::Started { at, facts } => {
                let first = *self.started_at.get_or_insert(*at);
                self.offset_ns = Some(u64::try_from(at.saturating_sub(first)).unwrap_or_default());
                // An output that has failed without an image gets no names.
                for output in self.outputs.iter_mut().filter(|output| !output.failed) {
                    output.facts = output.facts.take().or_else(|| facts.clone());
                }
                self.begin_known(plan, now)
            }
            MediaEvent::OutputFailed { output, .. } => {
                if let Some(known) = self.find(*output) {
                    known.failed = true;
                }
                false
            }
            MediaEvent::Image { output, n, at_ns, bytes, facts } => {
                let offset_ns = self.offset_ns;
                let Some(known) = self.find(*output) else { return false };
                known.next_n = known.next_n.max(n.saturating_add(1));
                let image = SpooledImage { n: *n, at_ns: *at_ns, bytes: *bytes };
                known.facts = known.facts.take().or_else(|| Some(facts.clone().unwrap_or_default()));
                if let (Some(upload), Some(offset_ns)) = (&known.upload, offset_ns) {
                    upload.captured(image.later_by(offset_ns));
                    return false;
                }
                known.early.push(image);
                self.begin_known(plan, now)
            }
            MediaEvent::ImagesEnded { output, quality } => {
                if let Some(known) = self.find(*output) {
                    known.quality = Some(quality.clone());
                }
                false
            }
            _ => false,
        }
    }

    fn find(&mut self, output: u32) -> Option<&mut ImageOutput> {
        self.outputs.iter_mut().find(|known| known.job.output == output)
    }

    /// Names outputs of which everything is known now, and starts the uploads of those that have an image. True: an output
    /// has got its names.
    fn begin_known(&mut self, plan: &EgressPlan, now: impl FnOnce() -> NaiveDateTime) -> bool {
        let Some((started_at, offset_ns)) = self.started_at.zip(self.offset_ns) else { return false };
        // One time for all of them.
        let now = LazyCell::new(now);
        let mut named = false;
        for (index, output) in self.outputs.iter_mut().enumerate() {
            named |= output.take_names(plan, || *now);
            let (Some(names), false) = (&output.names, output.early.is_empty()) else { continue };
            if let Some(upload) = &output.upload {
                output.early.drain(..).for_each(|early| upload.captured(early.later_by(offset_ns)));
                continue;
            }
            let machine = ImagesMachine::new(ImagesPlan {
                output: output.job.output,
                index,
                names: names.clone(),
                interval_ns: output.job.images.interval_ns,
                folder: self.folder.clone(),
                started_at,
            });
            let upload = ImagesUpload::start(ImagesUploader {
                machine,
                objects: output.job.place.clone().uploads(self.settings.clone()),
                locate: output.job.place.locate(),
                checkpoint_writer: self.checkpoint_writer.clone(),
                spool_cap: output.job.spool_cap,
            });
            output.early.drain(..).for_each(|early| upload.captured(early.later_by(offset_ns)));
            output.upload = Some(upload);
        }
        named
    }

    /// Something was recorded.
    pub fn any(&self) -> bool {
        self.outputs.iter().any(|output| output.upload.is_some())
    }

    /// Prefix of an output of the plan, once it is known.
    pub fn name_of(&self, output: u32) -> Option<String> {
        let known = self.outputs.iter().find(|known| known.job.output == output)?;
        Some(known.names.as_ref()?.prefix.clone())
    }

    /// Adds how far the outputs are to a heartbeat.
    pub fn add_progress(&self, to: &mut FilesProgress) {
        for output in &self.outputs {
            let Some((names, upload)) = output.begun() else { continue };
            let ImagesStatus { totals, spooled_bytes, error } = upload.status();
            let location = output.job.place.locate()(&names.prefix);
            to.bytes.insert(location, totals.bytes + spooled_bytes);
            if output.job.place.is_remote() {
                to.uploads.push(UploadProgress { stored: totals.bytes, error, ..UploadProgress::default() });
            }
        }
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
        self.spooled_of(|output| output.upload.is_none()).remove().await;
    }

    /// After [`Self::finish`]: index among the image outputs, names, what it came to. Outputs of which nothing was recorded
    /// are not there.
    pub fn results(&self) -> impl Iterator<Item = (usize, &ImageNames, &ImagesResult)> {
        self.outputs
            .iter()
            .enumerate()
            .filter_map(|(index, output)| Some((index, output.names.as_ref()?, output.result.as_ref()?)))
    }

    /// After [`Self::finish`]: outputs of which images are stored, for a manifest.
    pub fn image_results(&self) -> Vec<ImageResult> {
        let stored =
            self.results().filter(|(_, _, result)| result.failure.is_none() && !result.gone && result.totals.count > 0);
        let results = stored.map(|(index, _, result)| ImageResult {
            index,
            images: result.images.clone(),
            started_at: result.started_at,
            ended_at: result.ended_at,
        });
        results.collect()
    }

    /// The request of the output `index`, among the image outputs.
    pub fn asked(&self, index: usize) -> Option<&ImagesOutput> {
        self.outputs.get(index).map(|output| &output.job.images)
    }

    /// An output has a backup store. `index` among the image outputs.
    pub fn has_backup(&self, index: usize) -> bool {
        self.outputs.get(index).is_some_and(|output| output.job.place.has_backup())
    }

    /// Facts and quality of the first output of which something was recorded, for a manifest.
    pub fn first(&self) -> Option<(&TrackFacts, Option<&Quality>)> {
        let first = self.outputs.iter().find(|output| output.upload.is_some())?;
        Some((first.facts.as_ref()?, first.quality.as_ref()))
    }

    /// What was really recorded of each output.
    pub fn qualities(&self) -> impl Iterator<Item = &Quality> {
        self.outputs.iter().filter_map(|output| output.quality.as_ref())
    }

    /// After [`Self::finish`]: puts the manifest beside the images of an output. Answers where it is.
    ///
    /// # Errors
    /// The store's message; it was retried for up to 30 s.
    pub async fn put_manifest(&self, index: usize, egress_id: &str, content: String) -> Result<Option<String>, String> {
        let Some((names, upload)) = self.outputs.get(index).and_then(ImageOutput::begun) else { return Ok(None) };
        let name = manifest::path(&names.prefix, egress_id);
        upload.put_beside(name, content.into()).await.map(Some)
    }

    /// What lies in the spool.
    pub fn spooled(&self) -> SpooledImages {
        self.spooled_of(|_| true)
    }

    fn spooled_of(&self, which: impl Fn(&ImageOutput) -> bool) -> SpooledImages {
        let of = |output: &ImageOutput| (output.job.output, output.job.images.codec);
        let outputs = self.outputs.iter().filter(|output| which(output)).map(of).collect();
        SpooledImages { folder: self.folder.clone(), outputs }
    }

    /// Nothing was recorded, or nothing of it is wanted: nothing stays in the spool.
    pub async fn abandon(&mut self) {
        for upload in self.outputs.iter().filter_map(|output| output.upload.as_ref()) {
            upload.abandon().await;
        }
        self.spooled().remove().await;
    }
}

impl ImageOutput {
    /// Names it as it is called with its facts at the time `now`; asks no disk and no store. False: it has its names, or its
    /// facts are not known yet.
    fn take_names(&mut self, plan: &EgressPlan, now: impl FnOnce() -> NaiveDateTime) -> bool {
        let (None, Some(facts)) = (&self.names, &self.facts) else { return false };
        let asked = results::image_names(plan, &self.job.images, facts, now());
        let number = self.object_names.take_all(|number| vec![asked.numbered(number).reserved()]);
        self.names = Some(asked.numbered(number));
        true
    }

    /// Its names and upload, once it has an image.
    fn begun(&self) -> Option<(&ImageNames, &ImagesUpload)> {
        self.names.as_ref().zip(self.upload.as_ref())
    }
}

#[cfg(test)]
mod tests;
