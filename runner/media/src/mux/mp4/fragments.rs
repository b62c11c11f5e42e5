//! Segments of fragmented MP4 for HLS: an init segment that only describes, then one fragment for each segment. Encoded
//! frames with their media time come in, whole segments go out; runs in the thread that has the frame, pure.
//!
//! Not the fragments of `file`: those have their data in front of the `moof`, and Media Source Extensions want the `moof`
//! first. It knows the sizes of all samples, so nothing is written before a segment ends: a kill costs the open one.

use crate::track::Codec;
use crate::units::MediaTime;

use super::boxes::{boxed, brands, full, u32};
use super::track::{DataPlace, Mp4Track, Mp4TrackKind, PendingSample, moov, traf};
use crate::mux::annexb;

/// Bytes of a box's size and name.
const BOX_HEAD: usize = 8;

/// Writes the segments of one stream.
pub struct FragmentMuxer {
    /// Video first, where there is one.
    tracks: Vec<Mp4Track>,
    /// Fragments so far.
    sequence: u32,
}

impl FragmentMuxer {
    /// H264 of this size in pixels, AAC-LC stereo of `aac_rate` samples a second, or both. `None` without either.
    pub fn new(size: Option<(u32, u32)>, aac_rate: Option<u32>) -> Option<Self> {
        let video = size.map(|size| Mp4TrackKind::Video { codec: Codec::H264, size });
        let audio = aac_rate.map(|rate| Mp4TrackKind::Aac { rate });
        let tracks: Vec<Mp4Track> = video.into_iter().chain(audio).map(Mp4Track::new).collect();
        (!tracks.is_empty()).then_some(Self { tracks, sequence: 0 })
    }

    /// Reads the description of the video from its first key frame; whether it is known, or there is no video.
    pub fn describe(&mut self, key_frame: &[u8]) -> bool {
        self.track(true).is_none_or(|track| track.describe(true, key_frame))
    }

    /// The init segment, the same at all times. `None` while the video is not described.
    pub fn init(&self) -> Option<Vec<u8>> {
        if !self.tracks.iter().all(Mp4Track::is_described) {
            return None;
        }
        let mut out = vec![];
        brands(&mut out, b"ftyp", b"iso6mp41");
        moov(&mut out, &self.tracks, true);
        Some(out)
    }

    /// An access unit in Annex B. Pictures before the first key frame are dropped.
    pub fn video(&mut self, at: MediaTime, key: bool, access_unit: &[u8]) {
        if let Some(track) = self.track(true)
            && track.describe(key, access_unit)
        {
            track.push(at.ns(), key, annexb::h264_samples(access_unit));
        }
    }

    /// One raw AAC frame.
    pub fn audio(&mut self, at: MediaTime, frame: &[u8]) {
        if let Some(track) = self.track(false) {
            track.push(at.ns(), true, frame.to_vec());
        }
    }

    /// Appends a segment of everything since the last one; the last picture is shown until `end`.
    pub fn end_segment(&mut self, end: MediaTime, out: &mut Vec<u8>) {
        let parts: Vec<(Vec<PendingSample>, u64)> = self
            .tracks
            .iter_mut()
            .map(|track| {
                let end = track.ticks(end.ns());
                let (video, (samples, usual_end)) = (track.is_video(), track.part(0, None));
                let shown_until = samples.last().filter(|last| video && last.at < end).map_or(usual_end, |_| end);
                (samples, shown_until)
            })
            .collect();
        if parts.iter().all(|(samples, _)| samples.is_empty()) {
            return;
        }
        self.sequence += 1;
        brands(out, b"styp", b"msdhmsix");
        // Its size does not depend on the places in it.
        let mut head = vec![];
        self.moof(&mut head, &parts, 0);
        let head_bytes = head.len() + BOX_HEAD;
        self.moof(out, &parts, head_bytes as u32);
        boxed(out, b"mdat", |out| {
            parts.iter().flat_map(|(samples, _)| samples).for_each(|sample| out.extend_from_slice(&sample.data));
        });
    }

    fn moof(&self, out: &mut Vec<u8>, parts: &[(Vec<PendingSample>, u64)], data_at: u32) {
        boxed(out, b"moof", |out| {
            full(out, b"mfhd", 0, 0, |out| u32(out, self.sequence));
            let mut place = data_at;
            for ((samples, until), number) in parts.iter().zip(1..) {
                if !samples.is_empty() {
                    traf(out, number, samples, *until, DataPlace::Moof(place));
                    place += samples.iter().map(|sample| sample.data.len() as u32).sum::<u32>();
                }
            }
        });
    }

    fn track(&mut self, video: bool) -> Option<&mut Mp4Track> {
        self.tracks.iter_mut().find(|track| track.is_video() == video)
    }
}
