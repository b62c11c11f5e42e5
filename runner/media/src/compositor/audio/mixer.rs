//! The sound mixer's thread: a block of 20 ms at a time, every sample at its place.
//!
//! In: the voices, which it decodes up to the watermark. Out: interleaved stereo at 48 kHz into a [`RawSink`], from the
//! start of the recording to its end without a hole. Never drops sound, however late it is, and reads no clock.

use std::sync::Arc;

use spillway_plan::{AudioCodec, Mixing, StereoSide};

use super::input::AudioInput;
use super::limiter::{Limiter, peak};
use super::sample_timeline::BLOCK;
use super::track_buffer::LOOK_AHEAD;
use crate::compositor::stats::StatsCounter;
use crate::compositor::sync::mixer_sync::{AudioJoin, MixerSync, SyncWait};
use crate::output::{RawSink, sound_buffer};
use crate::track::{Codec, Track};
use crate::units::{MediaTime, SampleIndex};

/// Below −60 dB it is silence.
const HEARD: f32 = 0.001;

/// Samples made and handed on at once: waking a thread costs more than what it then does with 20 ms.
pub const PARCEL: i64 = 5 * BLOCK;

/// Of any codec, see [`decoder_delay`].
const MAX_DECODER_DELAY: i64 = 312;

/// How sound is mixed.
#[derive(Clone, Copy, Debug)]
pub struct AudioMixerOptions {
    /// Which participants are heard on which channel.
    pub mixing: Mixing,
    /// Samples at 48 kHz by which the output's encoder delays without saying so: see [`encoder_delay`].
    pub lead: u32,
}

/// avenc_aac delays by 1024 samples of its own rate and does not say so. Opus and MP3 carry their delay in the file.
pub fn encoder_delay(codec: AudioCodec, frequency: u32) -> u32 {
    match codec {
        AudioCodec::Aac => (1024 * SampleIndex::RATE / u64::from(frequency.max(1))) as u32,
        AudioCodec::Opus | AudioCodec::Mp3 => 0,
    }
}

/// Samples at 48 kHz by which what a publisher's encoder sends is late: libopus' look-ahead.
pub fn decoder_delay(codec: Codec) -> i64 {
    if codec == Codec::Opus { MAX_DECODER_DELAY } else { 0 }
}

/// State of the sound mixer; its `run` is the thread.
pub struct AudioMixer {
    options: AudioMixerOptions,
    sync: Arc<MixerSync>,
    stats_counter: Arc<StatsCounter>,
    voices: Vec<(AudioInput, StereoSide)>,
    entered: usize,
}

impl AudioMixer {
    /// Nothing is mixed before [`AudioMixer::run`].
    pub fn new(options: AudioMixerOptions, sync: Arc<MixerSync>, stats_counter: Arc<StatsCounter>) -> Self {
        Self { options, sync, stats_counter, voices: Vec::new(), entered: 0 }
    }

    /// Until the recording's end, or until the feed takes nothing more.
    pub fn run(mut self, start: Option<MediaTime>, feed: Box<dyn RawSink>) {
        if let Some(start) = start {
            self.record(start, feed.as_ref());
        }
        feed.end();
        self.voices.iter().for_each(|(voice, _)| voice.abandon());
        self.sync.rest_of_audio_joins().iter().for_each(|audio_join| audio_join.voice.abandon());
    }

    fn record(&mut self, start: MediaTime, feed: &dyn RawSink) {
        let base = SampleIndex::at(start);
        let lead = i64::from(self.options.lead);
        let mut limiter = Limiter::default();
        // Positions in the output, in samples.
        let mut mixed = 0;
        let mut given = 0;
        let mut parcel = Vec::new();
        loop {
            let at = base + lead + mixed;
            // Then no voice has to be waited for: each is known to a sample beyond what is mixed.
            let known = at + PARCEL + LOOK_AHEAD + MAX_DECODER_DELAY + 1;
            let total = match self.sync.audio_joins(known.time()) {
                SyncWait::Known((audio_joins, end)) => {
                    audio_joins.into_iter().for_each(|audio_join| self.enter(audio_join, base + lead));
                    end.map(|end| (SampleIndex::at(end) - base).max(0))
                }
                SyncWait::Over => return,
            };
            for (voice, _) in &mut self.voices {
                voice.decode_to(at, at + PARCEL);
            }
            let until = total.map_or(mixed + PARCEL, |total| total.min(mixed + PARCEL));
            while mixed < until {
                let mut block = vec![0.0; 2 * BLOCK as usize];
                self.voices.retain(|(voice, side)| voice.mix(base + lead + mixed, &mut block, *side));
                let time = (base + mixed).time();
                let lag = self.sync.lag(time);
                let length = SampleIndex::new(BLOCK.min(until - mixed)).time().ns();
                self.stats_counter.on_sound(time, length, peak(&block) > HEARD, lag);
                mixed += BLOCK;
                parcel.extend(limiter.push(block).unwrap_or_default());
            }
            let over = total.is_some_and(|total| mixed >= total);
            if over {
                parcel.extend(limiter.finish().unwrap_or_default());
            }
            let length = parcel.len() as i64 / 2;
            if !give(feed, std::mem::take(&mut parcel), given, total) || over {
                return;
            }
            given += length;
        }
    }

    fn enter(&mut self, AudioJoin { track, voice }: AudioJoin, begin: SampleIndex) {
        voice.begins(begin);
        let side = self.side(&track);
        self.entered += 1;
        self.voices.push((voice, side));
    }

    fn side(&self, track: &Track) -> StereoSide {
        match self.options.mixing {
            Mixing::Both => StereoSide::Both,
            Mixing::AgentsLeft => [StereoSide::Right, StereoSide::Left][usize::from(track.agent)],
            Mixing::Alternate => [StereoSide::Left, StereoSide::Right][self.entered % 2],
            Mixing::Routed => track.side,
        }
    }
}

/// False: the feed takes nothing more.
fn give(feed: &dyn RawSink, mut block: Vec<f32>, at: i64, total: Option<i64>) -> bool {
    if let Some(total) = total {
        block.truncate(2 * (total - at).max(0) as usize);
    }
    if block.is_empty() {
        return true;
    }
    let output = |sample: i64| SampleIndex::new(sample).time().ns();
    let (from, to) = (output(at), output(at + (block.len() / 2) as i64));
    feed.push(sound_buffer(&block, from, to)).is_ok()
}
