//! What a plan asks of encoders and mixers: input formats and mixer options of a file. Pure.

use spillway_plan::{AudioCodec, AudioPlan, EgressPlan, Mixing, VideoEncoding, VideoPlan};

use super::mode::FileStart;
use crate::compositor::{Arrangement, AudioMixerOptions, HOLD_NS, Size, VideoMixerOptions, encoder_delay};
use crate::encode::{AudioInputFormat, Colour, VideoInputFormat};
use crate::track::Track;

pub(super) fn copied_tracks(track: &Track, first: FileStart) -> (Option<VideoInputFormat>, Option<AudioInputFormat>) {
    if track.codec.is_video() {
        (Some(VideoInputFormat::Copied { codec: track.codec, size: first.size }), None)
    } else {
        (None, Some(AudioInputFormat::Copied { codec: track.codec, channels: track.channels }))
    }
}

fn encoding(plan: &EgressPlan) -> Option<&VideoEncoding> {
    match plan.picture.as_ref()? {
        VideoPlan::Copied => None,
        VideoPlan::CopiedIfPossible(encoding) | VideoPlan::Single(encoding) | VideoPlan::Composed { encoding, .. } => {
            Some(encoding)
        }
    }
}

pub(super) fn video_input(plan: &EgressPlan) -> Option<VideoInputFormat> {
    encoding(plan).map(|encoding| VideoInputFormat::Raw { encoding: encoding.clone(), colour: Colour::Bt601 })
}

pub(super) fn audio_input(plan: &EgressPlan) -> Option<AudioInputFormat> {
    mixed(plan).map(|(codec, bitrate, frequency, _)| AudioInputFormat::Raw { codec, bitrate, frequency })
}

fn mixed(plan: &EgressPlan) -> Option<(AudioCodec, u32, u32, Mixing)> {
    match plan.sound.as_ref()? {
        AudioPlan::Copied | AudioPlan::Raw { .. } => None,
        AudioPlan::Mixed { codec, bitrate, frequency, mixing, .. } => Some((*codec, *bitrate, *frequency, *mixing)),
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
    })
}

pub(super) fn sound_options(plan: &EgressPlan) -> Option<AudioMixerOptions> {
    let (codec, _, frequency, mixing) = mixed(plan)?;
    Some(AudioMixerOptions { mixing, lead: encoder_delay(codec, frequency) })
}
