//! Encoded frames become the bodies of FLV tags (Adobe, FLV 10.1, E.4), which RTMP carries as messages. Pure; one muxer a
//! connection, because each begins with its own headers.
//!
//! Nothing is held back and nothing waits for the other kind: flvmux is an aggregator, so that a muted track would hold
//! the other one, and complains about sound that is 300 ms late where servers take it.

use super::amf::{self, AmfValue};
use super::chunk::RtmpMessage;
use crate::encoded::{EncodedFormat, EncodedUnit, MediaKind};
use crate::mux::{AAC_FRAME_SAMPLES, aac_config, avc_config, h264_samples};

/// AAC, 44 kHz, 16 bits, stereo: what the tag says of every AAC stream, the truth is in its configuration.
const AAC: u8 = 0xaf;
const AVC_KEY_FRAME: u8 = 0x17;
const AVC_INTER_FRAME: u8 = 0x27;
/// Sequence header (0), or frame (1) with a composition offset of zero: there are no B frames.
const AVC_HEADER: [u8; 4] = [0, 0, 0, 0];
const AVC_FRAME: [u8; 4] = [1, 0, 0, 0];

/// A stereo frame of AAC-LC without any sound. The same at every sample rate.
const SILENCE: [u8; 6] = [0x21, 0x10, 0x04, 0x60, 0x8c, 0x1c];
const SILENCE_RATE: u32 = 44_100;
const SILENCE_KBPS: u32 = 2;
/// After a gap silence goes on there, and is not sent for the gap.
const MAX_SILENCE_BEHIND_MS: u64 = 2000;

/// One tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlvTag {
    /// [`RtmpMessage::AUDIO`], [`RtmpMessage::VIDEO`] or [`RtmpMessage::DATA`].
    pub kind: u8,
    /// Since the stream's beginning.
    pub time_ms: u32,
    /// Without the header of a tag in a file.
    pub body: Vec<u8>,
}

/// Tags of one connection.
#[derive(Debug)]
pub struct FlvMuxer {
    headers: [FlvTag; 2],
    /// No sound comes: it gets silence, because services refuse or stall streams that have none.
    is_silent: bool,
    /// `avcC` that was sent last; empty before the first.
    avc_config: Vec<u8>,
    /// Since when, milliseconds, and how many frames.
    silence: Option<(u64, u64)>,
}

impl FlvMuxer {
    /// Tags of a stream of these formats.
    pub fn new(formats: &[EncodedFormat]) -> Self {
        let audio = formats.iter().find_map(aac);
        let (rate, kbps) = audio.unwrap_or((SILENCE_RATE, SILENCE_KBPS));
        let mut members = Vec::new();
        let mut add = |name: &str, value: f64| members.push((name.to_owned(), AmfValue::Number(value)));
        for format in formats {
            if let EncodedFormat::Video { size: (width, height), framerate, bitrate_kbps, .. } = format {
                add("width", (*width).into());
                add("height", (*height).into());
                framerate.iter().for_each(|framerate| add("framerate", (*framerate).into()));
                bitrate_kbps.iter().for_each(|kbps| add("videodatarate", (*kbps).into()));
                add("videocodecid", 7.0);
            }
        }
        add("audiocodecid", 10.0);
        add("audiosamplerate", rate.into());
        add("audiodatarate", kbps.into());
        members.push(("stereo".to_owned(), AmfValue::Boolean(true)));
        let metadata = [AmfValue::text("@setDataFrame"), AmfValue::text("onMetaData"), AmfValue::Object(members)];
        let headers = [
            FlvTag { kind: RtmpMessage::DATA, time_ms: 0, body: amf::encode(&metadata) },
            FlvTag { kind: RtmpMessage::AUDIO, time_ms: 0, body: aac_header(rate) },
        ];
        Self { headers, is_silent: audio.is_none(), avc_config: Vec::new(), silence: None }
    }

    /// What comes before the first frame, at its time: metadata, and the configuration of the sound. At time 0 a server that
    /// records (nginx-rtmp's `record`) would let the file of a connection begin there.
    pub fn headers(&self, at_ms: u64) -> [FlvTag; 2] {
        self.headers.clone().map(|header| FlvTag { time_ms: at_ms as u32, ..header })
    }

    /// The tags of a frame that is so many milliseconds behind the stream's beginning. None for a picture that cannot be
    /// decoded, as no parameter sets came yet.
    pub fn push(&mut self, unit: &EncodedUnit, at_ms: u64) -> Vec<FlvTag> {
        match unit.kind {
            MediaKind::Audio => vec![tag(RtmpMessage::AUDIO, at_ms, [&[AAC, 1], &unit.data[..]].concat())],
            MediaKind::Video => {
                let mut tags = if self.is_silent { self.silence_until(at_ms) } else { Vec::new() };
                tags.extend(self.picture(&unit.data, unit.key, at_ms));
                tags
            }
        }
    }

    fn picture(&mut self, access_unit: &[u8], key: bool, at_ms: u64) -> Vec<FlvTag> {
        let mut tags = Vec::new();
        if let Some(config) = avc_config(access_unit)
            && config != self.avc_config
        {
            tags.push(tag(RtmpMessage::VIDEO, at_ms, [&[AVC_KEY_FRAME], &AVC_HEADER[..], &config].concat()));
            self.avc_config = config;
        }
        if self.avc_config.is_empty() {
            return tags;
        }
        let samples = h264_samples(access_unit);
        if !samples.is_empty() {
            let frame = if key { AVC_KEY_FRAME } else { AVC_INTER_FRAME };
            tags.push(tag(RtmpMessage::VIDEO, at_ms, [&[frame], &AVC_FRAME[..], &samples].concat()));
        }
        tags
    }

    /// Silence on its own grid of 1024 samples, up to a picture.
    fn silence_until(&mut self, at_ms: u64) -> Vec<FlvTag> {
        let (mut since, mut frames) = self.silence.unwrap_or((at_ms, 0));
        let mut tags = Vec::new();
        if at_ms > silence_at(since, frames) + MAX_SILENCE_BEHIND_MS {
            (since, frames) = (at_ms, 0);
        }
        while silence_at(since, frames) <= at_ms {
            tags.push(tag(RtmpMessage::AUDIO, silence_at(since, frames), [&[AAC, 1], &SILENCE[..]].concat()));
            frames += 1;
        }
        self.silence = Some((since, frames));
        tags
    }
}

/// Time of a frame of silence, milliseconds.
const fn silence_at(since: u64, frames: u64) -> u64 {
    since + frames * AAC_FRAME_SAMPLES * 1000 / SILENCE_RATE as u64
}

/// Wraps after 49 days, as RTMP has it.
fn tag(kind: u8, at_ms: u64, body: Vec<u8>) -> FlvTag {
    FlvTag { kind, time_ms: at_ms as u32, body }
}

/// AudioSpecificConfig in a tag.
fn aac_header(rate: u32) -> Vec<u8> {
    [&[AAC, 0][..], &aac_config(rate)].concat()
}

/// Rate and kilobits a second of AAC.
const fn aac(format: &EncodedFormat) -> Option<(u32, u32)> {
    match format {
        EncodedFormat::Aac { rate, bitrate_kbps } => Some((*rate, *bitrate_kbps)),
        _ => None,
    }
}

/// Of a stream of these formats; 0: not known.
pub fn bitrate_kbps(formats: &[EncodedFormat]) -> u64 {
    let of = |format: &EncodedFormat| match format {
        EncodedFormat::Video { bitrate_kbps, .. } => bitrate_kbps.map_or(0, u64::from),
        _ => aac(format).map_or(0, |(_, kbps)| kbps.into()),
    };
    formats.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::encoded::StreamNumber;
    use crate::track::Codec;

    const SPS_A: [u8; 5] = [0x67, 77, 0, 31, 1];
    const SPS_B: [u8; 5] = [0x67, 77, 0, 31, 2];
    const PPS_A: [u8; 3] = [0x68, 1, 2];

    fn access_unit(units: &[&[u8]]) -> Vec<u8> {
        units.iter().flat_map(|unit| [&[0, 0, 0, 1], *unit].concat()).collect()
    }

    fn video(data: Vec<u8>, key: bool) -> EncodedUnit {
        let (kind, data) = (MediaKind::Video, Bytes::from(data));
        EncodedUnit { stream: StreamNumber(0), kind, key, at_ns: 0, offset_ns: 0, duration_ns: 0, data }
    }

    const SOUND: EncodedFormat = EncodedFormat::Aac { rate: 48_000, bitrate_kbps: 128 };
    const PICTURES: EncodedFormat =
        EncodedFormat::Video { codec: Codec::H264, size: (1280, 720), framerate: Some(30), bitrate_kbps: Some(3000) };

    fn with_sound() -> FlvMuxer {
        FlvMuxer::new(&[SOUND])
    }

    fn bodies(tags: &[FlvTag]) -> Vec<&[u8]> {
        tags.iter().map(|tag| &tag.body[..]).collect()
    }

    #[test]
    fn a_key_frame_comes_without_parameter_sets_behind_its_header() {
        let mut muxer = with_sound();
        let key = access_unit(&[&[9, 0xf0], &SPS_A, &PPS_A, &[0x65, 5, 6]]);
        let tags = muxer.push(&video(key.clone(), true), 40);
        let config = [1, 77, 0, 31, 0xff, 0xe1, 0, 5, 0x67, 77, 0, 31, 1, 1, 0, 3, 0x68, 1, 2];
        let header = [&[0x17, 0, 0, 0, 0][..], &config].concat();
        assert_eq!(bodies(&tags), [&header[..], &[0x17, 1, 0, 0, 0, 0, 0, 0, 3, 0x65, 5, 6]]);
        assert!(tags.iter().all(|tag| (tag.kind, tag.time_ms) == (RtmpMessage::VIDEO, 40)));
        // The same again has no header, others have one.
        assert_eq!(muxer.push(&video(key, true), 80).len(), 1);
        let inter = access_unit(&[&[0x41, 1], &[0x41, 2]]);
        let tags = muxer.push(&video(inter, false), 120);
        assert_eq!(bodies(&tags), [&[0x27, 1, 0, 0, 0, 0, 0, 0, 2, 0x41, 1, 0, 0, 0, 2, 0x41, 2]]);
        let other = access_unit(&[&SPS_B, &PPS_A, &[0x65, 7]]);
        assert_eq!(muxer.push(&video(other, true), 160).len(), 2);
    }

    #[test]
    fn nothing_comes_before_parameter_sets() {
        let mut muxer = with_sound();
        assert!(muxer.push(&video(access_unit(&[&[0x65, 5]]), true), 0).is_empty());
        assert!(muxer.push(&video(vec![1, 2, 3], true), 0).is_empty());
        // Alone they are a header, and no frame.
        assert_eq!(muxer.push(&video(access_unit(&[&SPS_A, &PPS_A]), false), 0).len(), 1);
        assert_eq!(muxer.push(&video(access_unit(&[&[0x65, 5]]), true), 0).len(), 1);
    }

    #[test]
    fn sound_is_described_and_passed_on() {
        for (rate, config) in [(48_000, [0x11, 0x90]), (44_100, [0x12, 0x10])] {
            assert_eq!(aac_header(rate), [[0xaf, 0], config].concat(), "{rate}");
        }
        let sound = EncodedUnit { kind: MediaKind::Audio, ..video(vec![1, 2], true) };
        assert_eq!(bodies(&with_sound().push(&sound, 3)), [&[0xaf, 1, 1, 2]]);
    }

    #[test]
    fn metadata_names_what_there_is() {
        let muxer = FlvMuxer::new(&[PICTURES]);
        let metadata = amf::decode(&muxer.headers(0)[0].body).unwrap();
        assert_eq!(metadata[0].as_text(), Some("@setDataFrame"));
        let number = |name: &str| metadata[2].member(name).and_then(AmfValue::as_number);
        assert_eq!((number("width"), number("audiosamplerate")), (Some(1280.0), Some(44_100.0)));
        assert!(muxer.headers(90_000).iter().all(|tag| tag.time_ms == 90_000));
        assert_eq!(amf::decode(&with_sound().headers(0)[0].body).unwrap()[2].member("width"), None);
        assert_eq!([bitrate_kbps(&[PICTURES, SOUND]), bitrate_kbps(&[])], [3128, 0]);
    }

    #[test]
    fn silence_keeps_its_grid_and_leaves_gaps_out() {
        let mut muxer = FlvMuxer::new(&[PICTURES]);
        let mut times = |at_ms: u64| -> Vec<u32> {
            let tags = muxer.push(&video(vec![], false), at_ms);
            assert!(tags.iter().all(|tag| tag.kind == RtmpMessage::AUDIO && tag.body.len() == 8));
            tags.iter().map(|tag| tag.time_ms).collect()
        };
        assert_eq!(times(100), [100]);
        assert_eq!(times(122), Vec::<u32>::new());
        assert_eq!(times(170), [123, 146, 169]);
        let second = (3..=100).map(|n| times(100 + n * 10).len()).sum::<usize>();
        assert_eq!(second, 40);
        assert_eq!(times(100_000), [100_000]);
    }
}
