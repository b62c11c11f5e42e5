//! What a plan asks of the room, encoders, mixers and outputs: how long is waited, input formats, mixer options, and which
//! encoded streams go into which file and to servers. Pure.

use std::time::Duration;

use spillway_ipc::MediaSettings;
use spillway_plan::{
    AudioCodec, AudioEncoding, AudioPlan, Container, EgressPlan, Mixing, Output, StreamProtocol, VideoEncoding,
    VideoPlan,
};

use super::mode::{self, RecordingMode};
use crate::compositor::{Arrangement, AudioMixerOptions, Size, VideoMixerOptions, encoder_delay};
use crate::encode::{AudioInputFormat, Colour, VideoInputFormat};
use crate::encoded::{EncodedFormat, StreamNumber};
use crate::key_grid::KeyGrid;
use crate::output::{PipelinePlan, RepeatRate};
use crate::source::page::feed::PageFeedOptions;
use crate::source::room::ExpectedPictures;

/// Between two lines of the grid unless asked otherwise.
const KEY_FRAME_INTERVAL_NS: u64 = 2_000_000_000;

/// How far a track may be late that only streams are made of.
const LATE_FOR_STREAMS: Duration = Duration::from_secs(2);

/// Pixels of a side of a canvas whose size was not asked for.
const MIN_CANVAS: u32 = 16;
const MAX_CANVAS: u32 = 4096;

/// Pictures and sound of the recording, whichever file takes them.
pub(super) fn inputs(mode: &RecordingMode, plan: &EgressPlan) -> PipelinePlan {
    match mode {
        RecordingMode::Track { track, first } if track.codec.is_video() => {
            let video = VideoInputFormat::Copied { codec: track.codec, size: first.size };
            PipelinePlan { video: Some(video), audio: vec![], key_grid: None }
        }
        RecordingMode::Track { track, .. } => {
            let audio = AudioInputFormat::Copied { codec: track.codec, channels: track.channels };
            PipelinePlan { video: None, audio: vec![audio], key_grid: None }
        }
        RecordingMode::CopiedPicture { track, first } => {
            let video = VideoInputFormat::Copied { codec: track.codec, size: first.size };
            PipelinePlan { video: Some(video), audio: audio_inputs(mode, plan), key_grid: None }
        }
        RecordingMode::Composed | RecordingMode::Page { .. } => {
            // Images are made of raw pictures: where they are alone nothing is encoded.
            let video = video_input(plan).filter(|_| plan.encoder_needed());
            PipelinePlan { video, audio: audio_inputs(mode, plan), key_grid: key_grid(plan) }
        }
    }
}

/// The streams of these formats, by their numbers, that go into the file of this output.
pub(super) fn file_streams(
    formats: &[EncodedFormat],
    plan: &EgressPlan,
    output: u32,
    container: Container,
) -> Vec<StreamNumber> {
    let sound = plan.file(output).zip(plan.sound.as_ref());
    let codec = sound.and_then(|(file, sound)| file.audio_in(container, sound));
    let wanted = |format: &EncodedFormat| match format {
        EncodedFormat::Video { .. } => !matches!(container, Container::Ogg | Container::Mp3),
        EncodedFormat::Aac { .. } => codec.is_none_or(|codec| codec == AudioCodec::Aac),
        EncodedFormat::Opus { .. } => codec.is_none_or(|codec| codec == AudioCodec::Opus),
        EncodedFormat::Mp3 { .. } => codec.is_none_or(|codec| codec == AudioCodec::Mp3),
        EncodedFormat::Pcm => false,
    };
    (0..).map(StreamNumber).zip(formats).filter(|(_, format)| wanted(format)).map(|(stream, _)| stream).collect()
}

/// How long a hole in a track's RTP is waited for, and how far a track may be late before the others go on, where that is
/// not as usual. With streams, even if they are all still to be added, less: it is what they are late by. Late sound is lost
/// to files and segments, so beside them only holes are given up earlier.
pub(super) fn join_waits(plan: &EgressPlan, settings: &MediaSettings) -> (Duration, Option<Duration>) {
    let is_live = plan.streams().is_some_and(|(_, streams)| streams.protocol != StreamProtocol::Websocket);
    let reorder_ms = if is_live { settings.live_reorder_ms } else { settings.reorder_ms };
    let is_recording = |output: &Output| matches!(output, Output::File(_) | Output::Segments(_));
    let is_alone = is_live && !plan.outputs.iter().any(is_recording);
    (Duration::from_millis(reorder_ms), is_alone.then_some(LATE_FOR_STREAMS))
}

/// How often a composed picture that stands still is encoded.
pub(super) fn repeat_rate(plan: &EgressPlan) -> RepeatRate {
    if plan.streams().is_some() { RepeatRate::Streamed } else { RepeatRate::Recorded }
}

/// Something of it is watched while it is recorded.
pub(super) fn is_watched(plan: &EgressPlan) -> bool {
    plan.outputs.iter().any(|output| matches!(output, Output::Segments(_) | Output::Streams(_)))
}

/// How a page's pictures and sound are given to the encoders of `inputs`. A file alone gets a picture that stands still as one
/// long picture; what is watched, and images, need it again at every output time.
pub(super) fn page_feed(inputs: &PipelinePlan, plan: &EgressPlan) -> PageFeedOptions {
    let has_images = plan.images().next().is_some() || plan.sheets.is_some();
    PageFeedOptions {
        framerate: encoding(plan).map_or(1, |encoding| encoding.framerate),
        repeats: is_watched(plan) || has_images,
        key_grid: inputs.key_grid,
        lead: sound_options(inputs, plan).map_or(0, |sound| sound.lead),
    }
}

/// What goes to servers: pictures and AAC, whatever files have beside them; over a websocket what is not encoded.
pub(super) fn stream_numbers(formats: &[EncodedFormat]) -> Vec<StreamNumber> {
    let wanted = |format: &EncodedFormat| {
        matches!(format, EncodedFormat::Video { .. } | EncodedFormat::Aac { .. } | EncodedFormat::Pcm)
    };
    (0..).map(StreamNumber).zip(formats).filter(|(_, format)| wanted(format)).map(|(stream, _)| stream).collect()
}

fn encoding(plan: &EgressPlan) -> Option<&VideoEncoding> {
    match plan.picture.as_ref()? {
        VideoPlan::Copied => None,
        VideoPlan::CopiedIfPossible(encoding) | VideoPlan::Single(encoding) | VideoPlan::Composed { encoding, .. } => {
            Some(encoding)
        }
    }
}

fn video_input(plan: &EgressPlan) -> Option<VideoInputFormat> {
    // WebRTC sends BT.601; a display is read as BT.709.
    let colour = if plan.page().is_some() { Colour::Bt709 } else { Colour::Bt601 };
    encoding(plan).map(|encoding| VideoInputFormat::Raw { encoding: encoding.clone(), colour })
}

/// The mixed sound in each encoding that an output takes in this mode.
fn audio_inputs(mode: &RecordingMode, plan: &EgressPlan) -> Vec<AudioInputFormat> {
    let Some(sound) = &plan.sound else { return vec![] };
    let (main, also) = match sound {
        AudioPlan::Mixed { codec, bitrate, frequency, also, .. } => {
            (AudioEncoding { codec: *codec, bitrate: *bitrate, frequency: *frequency }, also)
        }
        AudioPlan::Raw { .. } => return vec![AudioInputFormat::Pcm],
        AudioPlan::Copied => return vec![],
    };
    let codec_of = |output: &Output| match output {
        Output::File(file) => file.audio_in(mode::container(mode, plan, file), sound),
        Output::Segments(_) | Output::Images(_) | Output::Streams(_) => output.audio(sound),
    };
    let taken: Vec<AudioCodec> = plan.outputs.iter().filter_map(codec_of).collect();
    let separate = mixing(plan).is_some_and(|mixing| mixing != Mixing::Both);
    let raw = |encoding: &AudioEncoding| {
        let AudioEncoding { codec, bitrate, frequency } = *encoding;
        AudioInputFormat::Raw { codec, bitrate, frequency, separate }
    };
    [main].iter().chain(also).filter(|encoding| taken.contains(&encoding.codec)).map(raw).collect()
}

/// Samples at 48 kHz by which the encoder of this input delays without saying so.
pub(super) fn lead(input: &AudioInputFormat) -> u32 {
    match input {
        AudioInputFormat::Raw { codec, frequency, .. } => encoder_delay(*codec, *frequency),
        AudioInputFormat::Copied { .. } | AudioInputFormat::Pcm => 0,
    }
}

pub(super) fn picture_options(plan: &EgressPlan) -> Option<VideoMixerOptions> {
    let encoding = encoding(plan)?;
    let arrangement = match &plan.picture {
        Some(VideoPlan::Composed { layout, .. }) => Arrangement::Tiles(*layout),
        _ => Arrangement::Single,
    };
    Some(VideoMixerOptions {
        size: Size { width: encoding.width, height: encoding.height },
        framerate: encoding.framerate,
        arrangement,
        key_grid: key_grid(plan),
    })
}

/// What a room is asked for at subscription. `None` where a picture is copied, or may be: then the best layer is wanted.
pub(super) fn expected_pictures(plan: &EgressPlan) -> Option<ExpectedPictures> {
    let is_composed = matches!(plan.picture, Some(VideoPlan::Composed { .. }));
    let VideoMixerOptions { arrangement, size, framerate, .. } = picture_options(plan).filter(|_| is_composed)?;
    Some(ExpectedPictures { arrangement, size, framerate })
}

/// The pictures of this recording, if any are composed or could be: what goes into the encoder, or, where none runs, what
/// images are made of. These are as large as the picture is published, unless a size was asked for.
pub(super) fn canvas(
    mode: &RecordingMode,
    plan: &EgressPlan,
    published: Option<(u32, u32)>,
) -> Option<VideoMixerOptions> {
    let options = picture_options(plan)?;
    let published = match (mode, &plan.picture) {
        (RecordingMode::Track { .. }, _) => None,
        (RecordingMode::CopiedPicture { first, .. }, _) => Some(first.size),
        (RecordingMode::Composed, Some(VideoPlan::CopiedIfPossible(_))) if !plan.encoder_needed() => published,
        (RecordingMode::Composed | RecordingMode::Page { .. }, _) => None,
    };
    let even = |length: u32| (length & !1).clamp(MIN_CANVAS, MAX_CANVAS);
    let size = published.map(|(width, height)| Size { width: even(width), height: even(height) });
    Some(VideoMixerOptions { size: size.unwrap_or(options.size), ..options })
}

/// Key frames stand on a grid where an output cuts or joins the pictures, or an interval was asked for: the encoder counts
/// pictures, of which it gets few while nothing changes. Files alone without an interval leave it to the encoder.
fn key_grid(plan: &EgressPlan) -> Option<KeyGrid> {
    let asked = encoding(plan)?.key_frame_interval.filter(|seconds| *seconds > 0.0);
    let asked_ns = asked.map(|seconds| (seconds * 1e9) as u64);
    let wanted_ns = asked_ns.unwrap_or(KEY_FRAME_INTERVAL_NS);
    let segment_ns = plan.outputs.iter().find_map(|output| match output {
        Output::Segments(segments) => Some(segments.segment_ns),
        Output::File(_) | Output::Images(_) | Output::Streams(_) => None,
    });
    let whole_ns = segment_ns.or_else(|| plan.streams().map(|_| wanted_ns)).or(asked_ns)?;
    Some(KeyGrid::new(whole_ns, wanted_ns))
}

/// The mixer is ahead for the encoder that delays most of these.
pub(super) fn sound_options(inputs: &PipelinePlan, plan: &EgressPlan) -> Option<AudioMixerOptions> {
    let lead = inputs.audio.iter().map(lead).max()?;
    mixing(plan).map(|mixing| AudioMixerOptions { mixing, lead })
}

fn mixing(plan: &EgressPlan) -> Option<Mixing> {
    match plan.sound.as_ref()? {
        AudioPlan::Copied => None,
        AudioPlan::Mixed { mixing, .. } | AudioPlan::Raw { mixing } => Some(*mixing),
    }
}

#[cfg(test)]
#[path = "formats_tests.rs"]
mod tests;
