//! Puts the encoders together: every input that is encoded ends in an `appsink` whose callback gives units to the
//! fan-out; what is copied or not encoded goes there directly. Runs once per recording; the callbacks run in GStreamer's threads.

use std::sync::Arc;

use bytes::Bytes;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_audio as gst_audio;

use super::fanout::Fanout;
use super::feed::Feed;
use super::key_frames::KeyFrameRequests;
use crate::element::{PipelineError, build};
use crate::encode::{self, AudioInputFormat, EncoderChain, VideoInputFormat};
use crate::encoded::{EncodedFormat, EncodedUnit, MediaKind, StreamNumber};
use crate::key_grid::KeyGrid;

/// What opusenc counts clipped samples in.
const OPUS_RATE: u64 = 48_000;

/// What goes in. Its streams are numbered in this order.
#[derive(Clone, Debug)]
pub struct PipelinePlan {
    /// Pictures, if the recording has any.
    pub video: Option<VideoInputFormat>,
    /// Sound: one stream for each encoding that an output asks for.
    pub audio: Vec<AudioInputFormat>,
    /// Where encoded pictures have key frames; `None`: where the encoder likes, not further apart than was asked.
    pub key_grid: Option<KeyGrid>,
}

impl PipelinePlan {
    /// What its streams are, by their numbers.
    pub fn formats(&self) -> Vec<EncodedFormat> {
        let video = self.video.iter().map(VideoInputFormat::encoded);
        video.chain(self.audio.iter().map(AudioInputFormat::encoded)).collect()
    }
}

/// The ways in; what is not in the plan has none.
#[derive(Clone, Debug, Default)]
pub struct Feeds {
    /// For pictures.
    pub video: Option<Feed>,
    /// For sound, in the order of the plan.
    pub audio: Vec<Feed>,
}

/// The encoders of `plan`, added to `pipeline`, and the way to ask for key frames.
pub(super) fn encoders(
    plan: &PipelinePlan,
    pipeline: &gst::Pipeline,
    fanout: &Arc<Fanout>,
) -> Result<(Feeds, KeyFrameRequests), PipelineError> {
    let mut key_frames = KeyFrameRequests::default();
    let mut numbers = (0u8..).map(StreamNumber);
    let mut feeds = Feeds::default();
    if let Some(video) = &plan.video
        && let Some(stream) = numbers.next()
    {
        let encoder = encode::video(video, plan.key_grid)?;
        if let Some(encoder) = encoder.as_ref().and_then(|(_, chain)| chain.first()) {
            key_frames = KeyFrameRequests::of(encoder, plan.key_grid);
        }
        let keys = key_frames.clone();
        feeds.video = Some(feed(pipeline, (fanout, stream), encoder, &video.encoded(), keys)?);
    }
    for (audio, stream) in plan.audio.iter().zip(numbers) {
        let (encoder, keys) = (encode::audio(audio)?, KeyFrameRequests::default());
        feeds.audio.push(feed(pipeline, (fanout, stream), encoder, &audio.encoded(), keys)?);
    }
    Ok((feeds, key_frames))
}

fn feed(
    pipeline: &gst::Pipeline,
    (fanout, stream): (&Arc<Fanout>, StreamNumber),
    encoder: Option<EncoderChain>,
    format: &EncodedFormat,
    key_frames: KeyFrameRequests,
) -> Result<Feed, PipelineError> {
    let Some((appsrc, chain)) = encoder else {
        return Ok(match format {
            EncodedFormat::Pcm => Feed::samples(fanout.clone(), stream),
            format => Feed::direct(format.kind(), fanout.clone(), stream),
        });
    };
    let sink = unit_sink(fanout, stream, format, key_frames);
    pipeline.add(&sink).map_err(build)?;
    let out = connect(pipeline, &appsrc, chain)?;
    out.link(&static_pad(&sink, "sink")?).map_err(build)?;
    Ok(Feed::new(format.kind(), appsrc))
}

/// Links `appsrc` and the chain; gives the pad at the end.
pub(super) fn connect(
    pipeline: &gst::Pipeline,
    appsrc: &gst_app::AppSrc,
    chain: Vec<gst::Element>,
) -> Result<gst::Pad, PipelineError> {
    pipeline.add(appsrc).map_err(build)?;
    let mut last: gst::Element = appsrc.clone().upcast();
    for element in chain {
        pipeline.add(&element).map_err(build)?;
        last.link(&element).map_err(build)?;
        last = element;
    }
    static_pad(&last, "src")
}

pub(super) fn static_pad(element: &gst::Element, name: &str) -> Result<gst::Pad, PipelineError> {
    element.static_pad(name).ok_or_else(|| build(format!("{} has no {name} pad", element.name())))
}

/// The end of an encoder's chain. It refuses with `Flushing` once the fan-out is closed, so that the encoder's thread
/// ends.
fn unit_sink(
    fanout: &Arc<Fanout>,
    stream: StreamNumber,
    format: &EncodedFormat,
    key_frames: KeyFrameRequests,
) -> gst::Element {
    let (units, ends) = (Arc::downgrade(fanout), Arc::downgrade(fanout));
    let (kind, opus) = (format.kind(), matches!(format, EncodedFormat::Opus { .. }));
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let fanout = units.upgrade().ok_or(gst::FlowError::Flushing)?;
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let (Some(buffer), Some(segment)) = (sample.buffer_owned(), sample.segment()) else {
                return Ok(gst::FlowSuccess::Ok);
            };
            // Running time: x264enc moves its time stamps and its segment by a thousand hours.
            let segment = segment.downcast_ref::<gst::ClockTime>();
            let Some(at) = segment.and_then(|segment| segment.to_running_time(buffer.pts())) else {
                return Ok(gst::FlowSuccess::Ok);
            };
            let key = kind == MediaKind::Audio || !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
            let duration_ns = duration_ns(&buffer, opus);
            let data = buffer.into_mapped_buffer_readable().map_err(|_| gst::FlowError::Error)?;
            let (at_ns, data) = (at.nseconds(), Bytes::from_owner(data));
            key_frames.reached(at_ns, key);
            fanout
                .push(EncodedUnit { stream, kind, key, at_ns, offset_ns: 0, duration_ns, data })
                .map(|()| gst::FlowSuccess::Ok)
        })
        .eos(move |_| {
            if let Some(fanout) = ends.upgrade() {
                fanout.end_stream(stream);
            }
        })
        .build();
    let sink = gst_app::AppSink::builder().sync(false).callbacks(callbacks).build();
    sink.set_property("async", false);
    sink.upcast()
}

/// What opusenc has filled its last packet up with is not heard.
fn duration_ns(buffer: &gst::BufferRef, opus: bool) -> u64 {
    let whole = buffer.duration().map_or(0, gst::ClockTime::nseconds);
    let clipped = buffer.meta::<gst_audio::AudioClippingMeta>().filter(|_| opus).map(|meta| meta.end());
    match clipped {
        Some(gst::GenericFormattedValue::Default(Some(samples))) => {
            whole.saturating_sub(*samples * 1_000_000_000 / OPUS_RATE)
        }
        _ => whole,
    }
}
