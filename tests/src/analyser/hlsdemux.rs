//! GStreamer as a player of HLS: `hlsdemux` reads a finished playlist over HTTP, and everything in it is decoded. Blocks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gstreamer as gst;
use gstreamer::prelude::*;

/// Longer than it takes to decode a minute on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What came out of the decoder of one kind of media.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DecodedStream {
    /// Frames of video, or buffers of sound.
    pub buffers: u64,
    /// From the first to the end of the last, seconds of running time.
    pub seconds: f64,
    /// Longest time without media between two of them, seconds.
    pub gap: f64,
    begin: Option<f64>,
    end: f64,
}

/// What GStreamer made of a playlist.
#[derive(Clone, Debug)]
pub struct DecodedHls {
    /// Decoded video.
    pub pictures: DecodedStream,
    /// Decoded sound.
    pub sound: DecodedStream,
    /// Texts of its warnings.
    pub warnings: Vec<String>,
}

/// Plays the playlist at `url`, with pictures and sound, as fast as it can. An error where a part of the pipeline fails or
/// the end does not come.
pub fn decoded(url: &str) -> Result<DecodedHls> {
    gst::init().context("start GStreamer")?;
    let text = "souphttpsrc name=source ! hlsdemux ! decodebin name=decoder \
                decoder. ! videoconvert ! fakesink name=pictures sync=false \
                decoder. ! audioconvert ! fakesink name=sound sync=false";
    let pipeline = gst::parse::launch(text).context("make the pipeline")?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().ok().context("it is no pipeline")?;
    pipeline.by_name("source").context("no source")?.set_property("location", url);
    let [pictures, sound] = [watched(&pipeline, "pictures")?, watched(&pipeline, "sound")?];
    let bus = pipeline.bus().context("no bus")?;
    let played = pipeline.set_state(gst::State::Playing).context("start the pipeline").and_then(|_| to_the_end(&bus));
    // It must not run on, whatever came.
    pipeline.set_state(gst::State::Null).context("stop the pipeline")?;
    let warnings = played.with_context(|| format!("GStreamer plays {url}"))?;
    let of = |stream: &Mutex<DecodedStream>| *stream.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = DecodedHls { pictures: of(&pictures), sound: of(&sound), warnings };
    ensure!(seen.pictures.buffers > 0 && seen.sound.buffers > 0, "nothing came out: {seen:?}");
    Ok(seen)
}

/// Texts of the warnings on the way there.
fn to_the_end(bus: &gst::Bus) -> Result<Vec<String>> {
    let (give_up, mut warnings) = (Instant::now() + TIMEOUT, vec![]);
    while Instant::now() < give_up {
        let Some(message) = bus.timed_pop(gst::ClockTime::from_mseconds(200)) else { continue };
        match message.view() {
            gst::MessageView::Eos(_) => return Ok(warnings),
            gst::MessageView::Error(error) => bail!("{} ({:?})", error.error(), error.debug()),
            gst::MessageView::Warning(warning) => warnings.push(warning.error().to_string()),
            _ => {}
        }
    }
    bail!("no end after {TIMEOUT:?}, warnings: {warnings:?}")
}

/// Counts what comes to a sink.
fn watched(pipeline: &gst::Pipeline, sink: &str) -> Result<Arc<Mutex<DecodedStream>>> {
    let pad = pipeline.by_name(sink).and_then(|sink| sink.static_pad("sink")).context("no sink")?;
    let stream: Arc<Mutex<DecodedStream>> = Arc::default();
    let shared = stream.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data
            && let Some(begin) = running_time(pad, buffer)
        {
            let length = buffer.duration().map_or(0.0, |length| length.nseconds() as f64 / 1e9);
            shared.lock().unwrap_or_else(PoisonError::into_inner).add(begin, length);
        }
        gst::PadProbeReturn::Ok
    });
    Ok(stream)
}

/// Each segment of HLS may be one of GStreamer too; running time goes on through all of them.
fn running_time(pad: &gst::Pad, buffer: &gst::Buffer) -> Option<f64> {
    let event = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = event.segment().downcast_ref::<gst::ClockTime>()?;
    Some(segment.to_running_time(buffer.pts()?)?.nseconds() as f64 / 1e9)
}

impl DecodedStream {
    fn add(&mut self, begin: f64, length: f64) {
        if self.begin.is_some() {
            self.gap = self.gap.max(begin - self.end);
        }
        let first = *self.begin.get_or_insert(begin);
        self.end = self.end.max(begin + length);
        self.buffers += 1;
        self.seconds = self.end - first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_seen() {
        let mut stream = DecodedStream::default();
        for begin in [0.5, 1.0, 1.5, 3.0] {
            stream.add(begin, 0.5);
        }
        assert_eq!((stream.buffers, stream.seconds, stream.gap), (4, 3.0, 1.0));
    }
}
