//! Tracks that are copied and not encoded: every recorded frame must be a published one.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::clip::{Clip, ClipCodec, essence};

/// Recorded frames compared with a clip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Frames in the file.
    pub recorded: usize,
    /// Frames with the bytes of a published one, in order.
    pub matched: usize,
    /// Frames published between the first and the last recorded one and missing.
    pub lost: usize,
    /// Recorded frames that were never published.
    pub changed: usize,
    /// The first recorded frame is a keyframe.
    pub begins_with_key: bool,
}

impl Comparison {
    /// More than ten frames, nothing lost, nothing changed, a keyframe first.
    pub fn perfect(&self) -> bool {
        self.recorded > 10 && self.lost == 0 && self.changed == 0 && self.begins_with_key
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} recorded, {} matched, {} lost, {} changed", self.recorded, self.matched, self.lost, self.changed)
    }
}

/// Takes the encoded frames out of a recording (ffmpeg, `-c copy`) and follows the loop of the clip beside them.
pub fn compare(file: &Path, clip: &Clip) -> Result<Comparison> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let (name, selected, filter, format) = match clip.codec {
        ClipCodec::H264 => ("x.h264", "0:v:0", "h264_mp4toannexb,h264_metadata=aud=insert", "h264"),
        ClipCodec::H265 => ("x.h265", "0:v:0", "hevc_mp4toannexb,hevc_metadata=aud=insert", "hevc"),
        ClipCodec::Vp8 | ClipCodec::Vp9 | ClipCodec::Av1 => ("x.ivf", "0:v:0", "null", "ivf"),
        ClipCodec::Opus => ("x.opus", "0:a:0", "null", "ogg"),
        ClipCodec::Pcmu => ("x.pcmu", "0:a:0", "null", "mulaw"),
        ClipCodec::Pcma => ("x.pcma", "0:a:0", "null", "alaw"),
    };
    let raw = folder.path().join(name);
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y", "-i"])
        .arg(file)
        .args(["-map", selected, "-c", "copy", "-bsf", filter, "-f", format])
        .arg(&raw)
        .output()
        .context("start ffmpeg")?;
    ensure!(out.status.success(), "ffmpeg {}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
    let recorded = Clip::read(&raw)?;
    ensure!(recorded.codec == clip.codec, "{:?} was recorded as {:?}", clip.codec, recorded.codec);
    let (published, mut recorded) = (essences(clip), essences(&recorded));
    if clip.codec == ClipCodec::Opus {
        // Between the last packet and the stop the recorder puts silence of its own.
        let heard = recorded.iter().rposition(|packet| !is_opus_silence(packet)).map_or(0, |last| last + 1);
        recorded.truncate(heard);
    }
    let keys: Vec<bool> = clip.frames.iter().map(|frame| frame.key).collect();
    Ok(walk(&published, &keys, &recorded))
}

/// One silent frame of CELT, full band.
fn is_opus_silence(packet: &[u8]) -> bool {
    matches!(packet, [0xe0..=0xff, 0xff, 0xfe])
}

fn essences(clip: &Clip) -> Vec<Vec<u8>> {
    clip.frames.iter().map(|frame| essence(clip.codec, &frame.data)).collect()
}

fn walk(published: &[Vec<u8>], keys: &[bool], recorded: &[Vec<u8>]) -> Comparison {
    let mut comparison = Comparison { recorded: recorded.len(), ..Comparison::default() };
    let mut place: Option<usize> = None;
    for frame in recorded {
        // After a loss the walk goes on where the frame is found next in the loop, at most half a loop ahead.
        let from = place.map_or(0, |place| place + 1);
        let reach = if place.is_some() { published.len() / 2 } else { published.len() };
        let found = (0..reach).find(|ahead| published[(from + ahead) % published.len()] == *frame);
        match found {
            Some(ahead) => {
                let here = (from + ahead) % published.len();
                comparison.matched += 1;
                if place.is_some() {
                    comparison.lost += ahead;
                } else {
                    comparison.begins_with_key = comparison.changed == 0 && keys[here];
                }
                place = Some(here);
            }
            None => comparison.changed += 1,
        }
    }
    // A frame that was changed was not lost as well.
    comparison.lost = comparison.lost.saturating_sub(comparison.changed);
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(numbers: impl IntoIterator<Item = u8>) -> Vec<Vec<u8>> {
        numbers.into_iter().map(|number| vec![number]).collect()
    }

    #[test]
    fn a_loop_is_followed_over_its_end() {
        let keys: Vec<bool> = (0..20).map(|number| number % 5 == 0).collect();
        let comparison = walk(&frames(0..20), &keys, &frames((10..20).chain(0..5)));
        assert!(comparison.perfect(), "{comparison}");
    }

    #[test]
    fn a_hole_and_a_changed_frame_are_counted() {
        let keys = vec![true; 20];
        let hole = walk(&frames(0..20), &keys, &frames((0..5).chain(8..15)));
        assert_eq!((hole.lost, hole.changed), (3, 0));
        let changed = walk(&frames(0..20), &keys, &frames([0, 1, 99, 3, 4]));
        assert_eq!((changed.lost, changed.changed), (0, 1));
    }
}
