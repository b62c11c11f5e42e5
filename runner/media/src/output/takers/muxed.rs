//! Units into a muxer of GStreamer's: a small pipeline of its own, `appsrc` and parser for each stream, muxer, spool sink.
//! Its threads mux and write; the threads that give units never wait for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_audio as gst_audio;
use spillway_ipc::SpoolFile;
use spillway_plan::Container;

use crate::element::{PipelineError, build, element_error};
use crate::encode;
use crate::encoded::{EncodedFormat, EncodedUnit, StreamNumber, opus_duration_ns};
use crate::mux::{self, SpoolSink};
use crate::output::fanout::TakerReporter;
use crate::output::feed::frame_buffer;
use crate::output::link::{connect, static_pad};
use crate::output::taker::{OutputTaker, TakerEnd, TakerError, TakerProgress};

/// An Ogg or MP3 file that is being written. Dropping it stops its threads and closes the file.
pub(super) struct MuxedFile {
    pipeline: gst::Pipeline,
    sink: SpoolSink,
    inputs: Vec<MuxerInput>,
    progress: Arc<TakerProgress>,
}

struct MuxerInput {
    stream: StreamNumber,
    appsrc: gst_app::AppSrc,
    /// Opus of our own encoder: a shorter last packet is said to the muxer.
    clipped: bool,
}

impl MuxedFile {
    pub(super) fn open(
        file: SpoolFile,
        container: Container,
        inputs: &[(StreamNumber, EncodedFormat)],
        reporter: TakerReporter,
        progress: Arc<TakerProgress>,
    ) -> Result<Self, PipelineError> {
        let mut muxed = Self { pipeline: gst::Pipeline::new(), sink: SpoolSink::new(file), inputs: vec![], progress };
        let mux = mux::muxer(container)?;
        muxed.pipeline.add_many([&mux, muxed.sink.upcast_ref()]).map_err(build)?;
        mux.link(&muxed.sink).map_err(build)?;
        for (stream, format) in inputs {
            let (appsrc, chain) = encode::muxer_input(format)?;
            let out = connect(&muxed.pipeline, &appsrc, chain)?;
            let way_in = mux_pad(&mux)?;
            out.link(&way_in).map_err(build)?;
            let clipped = matches!(format, EncodedFormat::Opus { pre_skip: 1.., .. });
            muxed.inputs.push(MuxerInput { stream: *stream, appsrc, clipped });
        }
        muxed.watch_bus(reporter)?;
        muxed.pipeline.set_state(gst::State::Playing).map_err(build)?;
        Ok(muxed)
    }

    /// The one place where its bus messages are read. What they mean is reported from another thread than the one that
    /// posts them: the report drops this file, which waits for that one.
    fn watch_bus(&self, reporter: TakerReporter) -> Result<(), PipelineError> {
        let bus = self.pipeline.bus().ok_or_else(|| build("no bus"))?;
        let weak = self.pipeline.downgrade();
        let over = AtomicBool::new(false);
        bus.set_sync_handler(move |_, message| {
            let outcome = match message.view() {
                gst::MessageView::Eos(_) => Some(Ok(())),
                gst::MessageView::Error(error) => Some(Err(fault(error))),
                _ => None,
            };
            // One fault makes several elements complain; the first one is the reason.
            if let (Some(outcome), Some(pipeline)) = (outcome, weak.upgrade())
                && !over.swap(true, Ordering::AcqRel)
            {
                let reporter = reporter.clone();
                pipeline.call_async(move |_| match outcome {
                    Ok(()) => reporter.ended(),
                    Err(error) => reporter.failed(TakerError::Pipeline(error)),
                });
            }
            gst::BusSyncReply::Drop
        });
        Ok(())
    }
}

impl OutputTaker for MuxedFile {
    fn take(&mut self, unit: &EncodedUnit) -> Result<(), TakerError> {
        let Some(input) = self.inputs.iter().find(|input| input.stream == unit.stream) else { return Ok(()) };
        let mut buffer = frame_buffer(unit.data.clone(), unit.at_ns, unit.key);
        if let Some(buffer) = buffer.get_mut()
            && unit.duration_ns > 0
        {
            buffer.set_duration(gst::ClockTime::from_nseconds(unit.duration_ns));
            if input.clipped {
                clip(buffer, unit);
            }
        }
        // Refused only after an error, which is reported by itself.
        let _ = input.appsrc.push_buffer(buffer);
        self.progress.wait_with(self.inputs.iter().map(|input| input.appsrc.current_level_bytes()).sum());
        Ok(())
    }

    fn end(&mut self, _: u64) -> Result<TakerEnd, TakerError> {
        for input in &self.inputs {
            let _ = input.appsrc.end_of_stream();
        }
        Ok(TakerEnd::Later)
    }
}

impl Drop for MuxedFile {
    fn drop(&mut self) {
        // Going down cannot fail for these elements.
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
        self.sink.close();
        self.progress.wait_with(0);
    }
}

/// By name: a source that says its caps later would be given the first pad there is, oggmux' for pictures.
fn mux_pad(mux: &gst::Element) -> Result<gst::Pad, PipelineError> {
    match mux.request_pad_simple("audio_%u") {
        Some(pad) => Ok(pad),
        None => static_pad(mux, "sink"),
    }
}

/// Tells the muxer how many samples of the packet are not heard, for the last time stamp of the file. The first packet's
/// are in the header.
fn clip(buffer: &mut gst::BufferRef, unit: &EncodedUnit) {
    let silent_ns = opus_duration_ns(&unit.data).saturating_sub(unit.duration_ns);
    let samples = (silent_ns * 48_000 + 500_000_000) / 1_000_000_000;
    if samples > 0 {
        let (start, end) = (gst::format::Default::ZERO, gst::format::Default::from_u64(samples));
        gst_audio::AudioClippingMeta::add(buffer, start, end);
    }
}

fn fault(error: &gst::message::Error) -> PipelineError {
    let sink = error.src().and_then(|source| source.downcast_ref::<SpoolSink>());
    match sink.and_then(SpoolSink::take_error) {
        Some(source) => PipelineError::Write { source },
        None => element_error(error),
    }
}
