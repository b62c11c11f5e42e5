//! A clip as a recording's encoders would give it, the same in each run: H264 of the clip and AAC made of its sound.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use spillway_media::encoded::{EncodedFormat, EncodedUnit, MediaKind, StreamNumber};
use spillway_media::track::Codec;
use spillway_tests::assets::{clip, folder};

/// Pictures, and sound.
pub const VIDEO: StreamNumber = StreamNumber(0);
/// See [`VIDEO`].
pub const AUDIO: StreamNumber = StreamNumber(1);
/// Of the clip.
pub const PICTURES_PER_SECOND: f64 = 30.0;
const RATE: u64 = 44_100;
/// Of the clip and of its sound.
const VIDEO_KBPS: u32 = 1500;
const AUDIO_KBPS: u32 = 128;

/// What the streams are, by their numbers.
pub fn formats() -> Result<Vec<EncodedFormat>> {
    let size = clip("p0-720.h264")?.size;
    Ok(vec![
        EncodedFormat::Video { codec: Codec::H264, size, framerate: Some(30), bitrate_kbps: Some(VIDEO_KBPS) },
        EncodedFormat::Aac { rate: RATE as u32, bitrate_kbps: AUDIO_KBPS },
    ])
}

/// Pictures of the clip and its sound as AAC, in rounds, in order of their times; the first is a key frame at 0.
pub fn units(seconds: f64) -> Result<Vec<EncodedUnit>> {
    let (pictures, sound) = (clip("p0-720.h264")?, aac(&folder()?.join("p0.opus"))?);
    let to = Duration::from_secs_f64(seconds);
    let mut all = vec![];
    for round in 0.. {
        let begins = pictures.length * round;
        if begins >= to {
            break;
        }
        for frame in pictures.frames.iter().filter(|frame| begins + frame.at < to) {
            all.push(EncodedUnit {
                stream: VIDEO,
                kind: MediaKind::Video,
                key: frame.key,
                at_ns: (begins + frame.at).as_nanos() as u64,
                offset_ns: 0,
                duration_ns: 33_333_333,
                data: Bytes::copy_from_slice(&frame.data),
            });
        }
    }
    let sound_ns = |n: u64| n * 1024 * 1_000_000_000 / RATE;
    for (n, frame) in (0u64..).zip(sound.iter().cycle()).take_while(|(n, _)| u128::from(sound_ns(*n)) < to.as_nanos()) {
        all.push(EncodedUnit {
            stream: AUDIO,
            kind: MediaKind::Audio,
            key: true,
            at_ns: sound_ns(n),
            offset_ns: 0,
            duration_ns: sound_ns(n + 1) - sound_ns(n),
            data: frame.clone(),
        });
    }
    // Stable: the picture of a moment stays before its sound.
    all.sort_by_key(|unit| unit.at_ns);
    Ok(all)
}

/// Frames of AAC without their ADTS headers.
fn aac(file: &Path) -> Result<Vec<Bytes>> {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(file)
        .args(["-t", "20", "-ac", "2", "-ar", &RATE.to_string(), "-c:a", "aac"])
        .args(["-b:a", &format!("{AUDIO_KBPS}k"), "-f", "adts", "-"])
        .output()
        .context("start ffmpeg")?;
    ensure!(out.status.success(), "ffmpeg {}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
    adts_frames(&out.stdout)
}

fn adts_frames(mut rest: &[u8]) -> Result<Vec<Bytes>> {
    const HEADER_BYTES: usize = 7;
    let mut frames = vec![];
    while let [0xff, _, _, third, fourth, fifth, ..] = rest {
        let length = u32::from_be_bytes([0, third & 3, *fourth, *fifth]) as usize >> 5;
        ensure!((HEADER_BYTES..=rest.len()).contains(&length), "a frame of {length} bytes");
        frames.push(Bytes::copy_from_slice(&rest[HEADER_BYTES..length]));
        rest = &rest[length..];
    }
    ensure!(rest.is_empty() && !frames.is_empty(), "no ADTS");
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_out_of_adts() {
        // Two frames of nine and eight bytes with their headers.
        let stream = [0xff, 0xf1, 0x50, 0x80, 0x01, 0x3f, 0xfc, 1, 2, 0xff, 0xf1, 0x50, 0x80, 0x01, 0x1f, 0xfc, 3];
        let frames = adts_frames(&stream).unwrap();
        assert_eq!((&frames[0][..], &frames[1][..]), (&[1u8, 2][..], &[3u8][..]));
        assert!(adts_frames(&stream[..12]).is_err() && adts_frames(&[]).is_err());
    }
}
