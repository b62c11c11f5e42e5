//! Pre-encoded media, frame by frame: what a publisher sends and what a recording is compared with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Of 20 ms each.
const PACKETS_A_SECOND: u64 = 50;

/// Codecs of clips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClipCodec {
    /// Annex B.
    H264,
    /// Annex B.
    H265,
    /// From IVF.
    Vp8,
    /// From IVF.
    Vp9,
    /// OBUs from IVF.
    Av1,
    /// Packets from Ogg.
    Opus,
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
}

impl ClipCodec {
    /// Video or audio.
    pub fn is_video(self) -> bool {
        !matches!(self, Self::Opus | Self::Pcmu | Self::Pcma)
    }

    /// MIME type as LiveKit writes it.
    pub fn mime(self) -> &'static str {
        match self {
            Self::H264 => "video/h264",
            Self::H265 => "video/h265",
            Self::Vp8 => "video/vp8",
            Self::Vp9 => "video/vp9",
            Self::Av1 => "video/av1",
            Self::Opus => "audio/opus",
            Self::Pcmu => "audio/pcmu",
            Self::Pcma => "audio/pcma",
        }
    }

    /// RTP clock rate, hertz.
    pub fn clock_rate(self) -> u64 {
        match self {
            Self::Opus => 48_000,
            Self::Pcmu | Self::Pcma => 8_000,
            _ => 90_000,
        }
    }
}

/// An encoded frame or packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipFrame {
    /// When it is made, since the beginning of the clip.
    pub at: Duration,
    /// When it is shown: another time only where there are B frames.
    pub shown: Duration,
    /// Keyframe; true for every audio packet.
    pub key: bool,
    /// Bytes without container or RTP.
    pub data: Arc<[u8]>,
}

/// A clip that is played in a loop.
#[derive(Clone, Debug)]
pub struct Clip {
    /// File.
    pub path: PathBuf,
    /// From its extension, or the FourCC of an IVF.
    pub codec: ClipCodec,
    /// Width and height from the file name; 0 for audio.
    pub size: (u32, u32),
    /// In order; the first is a keyframe in a clip from [`Clip::open`].
    pub frames: Vec<ClipFrame>,
    /// Of one loop.
    pub length: Duration,
    /// So much after `at` a frame can be sent: an encoder of B frames waits for what is shown after them.
    pub delay: Duration,
}

impl Clip {
    /// Reads a clip for publishing: it must begin with a keyframe, and its loop is cut to whole seconds. The extension
    /// gives the format: `.h264` and `.h265` (Annex B with delimiters), `.ivf`, `.opus` (20 ms packets), `.pcmu`, `.pcma`.
    /// Pictures come 30 times a second, or as often as the name says (`15fps`). A number before the extension is the height
    /// of 16:9 video; other shapes have both sides (`360x640`).
    pub fn open(path: &Path) -> Result<Self> {
        let mut clip = Self::read(path)?;
        ensure!(
            clip.frames.first().is_some_and(|frame| frame.key),
            "{}: does not begin with a key frame",
            path.display()
        );
        // The file holds a round more: packets of a first one are made by an encoder that had heard nothing yet. In a loop
        // the beep at its beginning came with half its level (measured: 0.049 of 0.107), and was missed by the analyser.
        if clip.codec == ClipCodec::Opus {
            let half = Duration::from_secs((clip.length.as_secs_f64() / 2.0 + 0.5).floor() as u64);
            clip.frames.retain(|frame| frame.at >= half);
            clip.frames.iter_mut().for_each(|frame| (frame.at, frame.shown) = (frame.at - half, frame.shown - half));
            clip.length -= half;
        }
        // Encoders may add a last packet that is partly padding.
        clip.length = Duration::from_secs((clip.length.as_secs_f64() + 0.5).floor() as u64);
        clip.frames.retain(|frame| frame.at < clip.length);
        Ok(clip)
    }

    /// Reads every frame of a file, as frames taken out of a recording are.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (picture, packet) = (framerate(name), PACKETS_A_SECOND);
        let even = |data: Vec<Vec<u8>>, per_second: u64, key: &dyn Fn(&[u8]) -> bool| -> Vec<ClipFrame> {
            data.into_iter()
                .zip(0u64..)
                .map(|(data, n)| {
                    // Thirds of a nanosecond would add up: times are computed from the number, not summed.
                    let at = Duration::from_nanos(n * 1_000_000_000 / per_second);
                    ClipFrame { at, shown: at, key: key(&data), data: data.into() }
                })
                .collect()
        };
        let (codec, mut frames) = match name.rsplit('.').next() {
            Some("h264") => (
                ClipCodec::H264,
                even(access_units(&bytes, h264_kind, 9), picture, &|unit| {
                    nal_units(unit).any(|nal| h264_kind(nal) == 5)
                }),
            ),
            Some("h265") => (
                ClipCodec::H265,
                even(access_units(&bytes, h265_kind, 35), picture, &|unit| {
                    nal_units(unit).any(|nal| (16..=21).contains(&h265_kind(nal)))
                }),
            ),
            Some("ivf") => {
                let (codec, data) = ivf(&bytes)?;
                let key: &dyn Fn(&[u8]) -> bool = match codec {
                    ClipCodec::Vp8 => &|frame| frame.first().is_some_and(|byte| byte & 1 == 0),
                    // Frame marker 2, profile 0, not "show existing", frame type 0.
                    ClipCodec::Vp9 => &|frame| {
                        frame.first().is_some_and(|byte| byte & 0b1100_1100 == 0b1000_0000 && byte & 0b100 == 0)
                    },
                    _ => &|unit| obus(unit).any(|(kind, _)| kind == 1),
                };
                (codec, even(data, picture, key))
            }
            Some("opus") => (ClipCodec::Opus, even(ogg_packets(&bytes)?.split_off(2), packet, &|_| true)),
            Some("pcmu") => {
                (ClipCodec::Pcmu, even(bytes.chunks_exact(160).map(<[u8]>::to_vec).collect(), packet, &|_| true))
            }
            Some("pcma") => {
                (ClipCodec::Pcma, even(bytes.chunks_exact(160).map(<[u8]>::to_vec).collect(), packet, &|_| true))
            }
            _ => bail!("{}: not a known clip format", path.display()),
        };
        let delay = if codec == ClipCodec::H264 { show_in_order(&mut frames) } else { Duration::ZERO };
        let size = name.split(['-', '.']).find_map(size).unwrap_or_default();
        let per_second = if codec.is_video() { picture } else { packet };
        let length = Duration::from_secs_f64(frames.len() as f64 / per_second as f64);
        Ok(Self { path: path.to_owned(), codec, size, frames, length, delay })
    }

    /// File name.
    pub fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// Pictures a second, by the file's name.
fn framerate(name: &str) -> u64 {
    let said = name.split(['-', '.']).find_map(|part| part.strip_suffix("fps")?.parse::<u64>().ok());
    said.filter(|rate| *rate > 0).unwrap_or(30)
}

/// Frames stand in the order in which they are decoded: a frame is shown after the B frames that follow it. Gives how
/// long an encoder has to wait for that.
fn show_in_order(frames: &mut [ClipFrame]) -> Duration {
    let at: Vec<Duration> = frames.iter().map(|frame| frame.at).collect();
    let is_b: Vec<bool> = frames.iter().map(|frame| is_b_frame(&frame.data)).collect();
    let mut delay = Duration::ZERO;
    for (index, frame) in frames.iter_mut().enumerate() {
        let following = is_b[index + 1..].iter().take_while(|is_b| **is_b).count();
        let place = if is_b[index] { index.saturating_sub(1) } else { index + following };
        frame.shown = at.get(place).copied().unwrap_or(frame.at);
        delay = delay.max(frame.shown.saturating_sub(frame.at));
    }
    delay
}

/// From the first slice: `first_mb_in_slice`, which is 0, and `slice_type` (H.264, 7.3.3).
fn is_b_frame(unit: &[u8]) -> bool {
    let mut slices = nal_units(unit).filter(|nal| matches!(h264_kind(nal), 1 | 5));
    // In bits: 1, then 010 (B) or 00111 (all slices are B).
    slices.next().and_then(|nal| nal.get(1)).is_some_and(|bits| bits >> 4 == 0b1010 || bits >> 2 == 0b10_0111)
}

/// Size of the video, from a part of the file name.
fn size(part: &str) -> Option<(u32, u32)> {
    match part.split_once('x') {
        Some((width, height)) => Some((width.parse().ok()?, height.parse().ok()?)),
        None => part.parse().ok().map(|height: u32| (height * 16 / 9, height)),
    }
}

fn h264_kind(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |byte| byte & 0x1f)
}

fn h265_kind(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |byte| (byte >> 1) & 0x3f)
}

/// NAL units of an Annex B stream, without start codes.
pub fn nal_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut starts = Vec::new();
    let mut i = 0;
    while i + 3 <= stream.len() {
        if stream[i..i + 3] == [0, 0, 1] {
            starts.push(i + 3);
            i += 3;
        } else {
            i += 1;
        }
    }
    let ends: Vec<usize> = starts.iter().skip(1).map(|next| next - 3).chain([stream.len()]).collect();
    starts.into_iter().zip(ends).map(move |(start, end)| {
        let nal = &stream[start..end];
        // The zero before a four-byte start code, and trailing zeros, belong to no unit.
        let zeros = nal.iter().rev().take_while(|byte| **byte == 0).count();
        &nal[..nal.len() - zeros]
    })
}

fn access_units(stream: &[u8], kind: fn(&[u8]) -> u8, delimiter: u8) -> Vec<Vec<u8>> {
    let mut units: Vec<Vec<u8>> = Vec::new();
    for nal in nal_units(stream) {
        if kind(nal) == delimiter || units.is_empty() {
            units.push(Vec::new());
        }
        let unit = units.last_mut().expect("one was pushed above");
        unit.extend_from_slice(&[0, 0, 0, 1]);
        unit.extend_from_slice(nal);
    }
    units
}

fn ivf(bytes: &[u8]) -> Result<(ClipCodec, Vec<Vec<u8>>)> {
    ensure!(bytes.len() >= 32 && &bytes[..4] == b"DKIF", "not an IVF file");
    let codec = match &bytes[8..12] {
        b"VP80" => ClipCodec::Vp8,
        b"VP90" => ClipCodec::Vp9,
        b"AV01" => ClipCodec::Av1,
        other => bail!("IVF holds {}", String::from_utf8_lossy(other)),
    };
    let mut frames = Vec::new();
    let mut rest = &bytes[32..];
    while rest.len() >= 12 {
        let length = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        ensure!(rest.len() >= 12 + length, "IVF ends inside a frame");
        frames.push(rest[12..12 + length].to_vec());
        rest = &rest[12 + length..];
    }
    Ok((codec, frames))
}

/// Packets of an Ogg file with one stream, headers included.
pub fn ogg_packets(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let (mut packets, mut open, mut rest) = (Vec::new(), Vec::new(), bytes);
    while rest.len() >= 27 {
        ensure!(&rest[..4] == b"OggS", "not an Ogg page");
        let segments = rest[26] as usize;
        ensure!(rest.len() >= 27 + segments, "Ogg ends inside a page's head");
        let mut at = 27 + segments;
        for length in &rest[27..27 + segments] {
            let length = *length as usize;
            ensure!(rest.len() >= at + length, "Ogg ends inside a page");
            open.extend_from_slice(&rest[at..at + length]);
            at += length;
            if length < 255 {
                packets.push(std::mem::take(&mut open));
            }
        }
        rest = &rest[at..];
    }
    Ok(packets)
}

/// (type, payload without its size field) of each OBU of a temporal unit; an OBU without a size reaches to the end.
pub fn obus(unit: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = unit;
    std::iter::from_fn(move || {
        let (head, mut at) = (*rest.first()?, 1);
        let (kind, extended, sized) = ((head >> 3) & 15, head & 4 != 0, head & 2 != 0);
        at += usize::from(extended);
        let mut length = rest.len().checked_sub(at)?;
        if sized {
            let (mut value, mut shift) = (0usize, 0);
            loop {
                let byte = *rest.get(at)?;
                at += 1;
                value |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 || shift > 28 {
                    break;
                }
            }
            length = value;
        }
        let payload = rest.get(at..at + length)?;
        rest = &rest[at + length..];
        Some((kind, payload))
    })
}

/// The part of a frame that a recording must keep byte for byte, without start codes, delimiters and repeated parameter
/// sets.
pub fn essence(codec: ClipCodec, frame: &[u8]) -> Vec<u8> {
    let join = |parts: Vec<&[u8]>| parts.concat();
    match codec {
        ClipCodec::H264 => join(nal_units(frame).filter(|nal| (1..=5).contains(&h264_kind(nal))).collect()),
        ClipCodec::H265 => join(nal_units(frame).filter(|nal| h265_kind(nal) < 32).collect()),
        // Temporal delimiters (2), tile lists (8) and padding (15) are not content.
        ClipCodec::Av1 => {
            join(obus(frame).filter(|(kind, _)| !matches!(kind, 2 | 8 | 15)).map(|(_, payload)| payload).collect())
        }
        _ => frame.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nal_units_lose_their_start_codes_and_padding_only() {
        let stream = [0, 0, 0, 1, 9, 16, 0, 0, 1, 0x65, 1, 2, 0, 0, 0, 1, 0x41, 7, 0, 0];
        let found: Vec<&[u8]> = nal_units(&stream).collect();
        assert_eq!(found, [&[9u8, 16][..], &[0x65, 1, 2], &[0x41, 7]]);
    }

    #[test]
    fn b_frames_are_shown_before_what_they_follow() {
        // I P B B P B, one slice each.
        let slices: [&[u8]; 6] =
            [&[0x65, 0x88], &[0x41, 0x9a], &[0x01, 0x9e], &[0x01, 0xa0], &[0x41, 0xe0], &[0x01, 0x9f]];
        let mut frames: Vec<ClipFrame> = slices
            .iter()
            .zip(0..)
            .map(|(slice, n)| {
                let (at, data) = (Duration::from_millis(n * 10), [&[0, 0, 0, 1][..], *slice].concat());
                ClipFrame { at, shown: at, key: n == 0, data: data.into() }
            })
            .collect();
        assert_eq!(show_in_order(&mut frames), Duration::from_millis(20));
        let shown: Vec<u128> = frames.iter().map(|frame| frame.shown.as_millis()).collect();
        assert_eq!(shown, [0, 30, 10, 20, 50, 40]);
    }

    #[test]
    fn obus_are_the_same_with_and_without_size() {
        let sized = [0x12, 0, 0x32, 3, 1, 2, 3];
        let bare = [0x30, 1, 2, 3];
        assert_eq!(essence(ClipCodec::Av1, &sized), essence(ClipCodec::Av1, &bare));
    }

    #[test]
    fn a_packet_may_lie_over_two_ogg_pages() {
        let page = |segments: &[u8], body: &[u8]| {
            let mut page = b"OggS".to_vec();
            page.resize(26, 0);
            page.push(segments.len() as u8);
            page.extend_from_slice(segments);
            page.extend_from_slice(body);
            page
        };
        let file = [page(&[2, 255], &[7; 257]), page(&[1, 3], &[8; 4])].concat();
        let sizes: Vec<usize> = ogg_packets(&file).unwrap().iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 256, 3]);
    }
}
