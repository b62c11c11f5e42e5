//! What a plan asks of encoders, mixers and outputs: input formats, mixer options, and which encoded streams go into which
//! file and to servers. Pure.

use spillway_plan::{
    AudioCodec, AudioEncoding, AudioPlan, Container, EgressPlan, Mixing, Output, VideoEncoding, VideoPlan,
};

use super::mode::RecordingMode;
use crate::compositor::{Arrangement, AudioMixerOptions, HOLD_NS, Size, VideoMixerOptions, encoder_delay};
use crate::encode::{AudioInputFormat, Colour, VideoInputFormat};
use crate::encoded::{EncodedFormat, StreamNumber};
use crate::key_grid::KeyGrid;
use crate::output::PipelinePlan;
use crate::track::Codec;

/// Between two lines of the grid unless asked otherwise.
const KEY_FRAME_INTERVAL_NS: u64 = 2_000_000_000;

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
        RecordingMode::CopiedPicture { first, .. } => {
            let video = VideoInputFormat::Copied { codec: Codec::H264, size: first.size };
            PipelinePlan { video: Some(video), audio: audio_inputs(plan), key_grid: None }
        }
        RecordingMode::Composed => {
            PipelinePlan { video: video_input(plan), audio: audio_inputs(plan), key_grid: key_grid(plan) }
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
    let sound = plan.outputs.get(output as usize).zip(plan.sound.as_ref());
    let codec = sound.and_then(|(output, sound)| Output::audio(output, sound));
    let wanted = |format: &EncodedFormat| match format {
        EncodedFormat::Video { .. } => !matches!(container, Container::Ogg | Container::Mp3),
        EncodedFormat::Aac { .. } => codec.is_none_or(|codec| codec == AudioCodec::Aac),
        EncodedFormat::Opus { .. } => codec.is_none_or(|codec| codec == AudioCodec::Opus),
        EncodedFormat::Mp3 { .. } => codec.is_none_or(|codec| codec == AudioCodec::Mp3),
        EncodedFormat::Pcm => false,
    };
    (0..).map(StreamNumber).zip(formats).filter(|(_, format)| wanted(format)).map(|(stream, _)| stream).collect()
}

/// There is an output of streams.
pub(super) fn has_streams(plan: &EgressPlan) -> bool {
    plan.streams().is_some()
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
    encoding(plan).map(|encoding| VideoInputFormat::Raw { encoding: encoding.clone(), colour: Colour::Bt601 })
}

/// The mixed sound in each encoding that an output asks for.
fn audio_inputs(plan: &EgressPlan) -> Vec<AudioInputFormat> {
    let (main, also) = match &plan.sound {
        Some(AudioPlan::Mixed { codec, bitrate, frequency, also, .. }) => {
            (AudioEncoding { codec: *codec, bitrate: *bitrate, frequency: *frequency }, also)
        }
        Some(AudioPlan::Raw { .. }) => return vec![AudioInputFormat::Pcm],
        Some(AudioPlan::Copied) | None => return vec![],
    };
    let raw = |encoding: &AudioEncoding| {
        let AudioEncoding { codec, bitrate, frequency } = *encoding;
        AudioInputFormat::Raw { codec, bitrate, frequency }
    };
    [main].iter().chain(also).map(raw).collect()
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
        hold_ns: HOLD_NS,
        key_grid: key_grid(plan),
    })
}

/// Key frames stand on a grid where an output cuts or joins the pictures; files alone leave it to the encoder.
fn key_grid(plan: &EgressPlan) -> Option<KeyGrid> {
    let asked = encoding(plan)?.key_frame_interval.filter(|seconds| *seconds > 0.0);
    let wanted_ns = asked.map_or(KEY_FRAME_INTERVAL_NS, |seconds| (seconds * 1e9) as u64);
    let segment_ns = plan.outputs.iter().find_map(|output| match output {
        Output::Segments(segments) => Some(segments.segment_ns),
        Output::File(_) | Output::Images(_) | Output::Streams(_) => None,
    });
    let whole_ns = segment_ns.or_else(|| has_streams(plan).then_some(wanted_ns))?;
    Some(KeyGrid::new(whole_ns, wanted_ns))
}

/// The mixer is ahead for the encoder that delays most.
pub(super) fn sound_options(plan: &EgressPlan) -> Option<AudioMixerOptions> {
    let lead = audio_inputs(plan).iter().map(lead).max()?;
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
