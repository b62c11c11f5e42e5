//! MP4 that may be cut off at any byte, and is an ordinary MP4 after a clean end.
//!
//! Our own, because mp4mux (1.22) fails at just this: as soon as two tracks share a fragment it may leave the size or
//! duration of a run of samples out of the `moof` and of its defaults, and then no player opens what a kill left; and
//! it makes one track wait for the other, so that a muted picture holds back the sound.
//!
//! While recording: `ftyp`, a gap of 16 bytes, a `moov` that only describes, then fragments, each `mdat` before its
//! `moof`, and the `mdat` without an end until all of it is there: a torn tail is no fragment at all. At the end a
//! `moov` that knows every sample follows, and the gap becomes the head of one `mdat` that covers all before it.
//!
//! Samples stand in the order of decoding. Our encoder makes no B frames; a publisher's (OBS by WHIP) are shown by `ctts`.

use spillway_ipc::{SpoolError, SpoolFile};

use super::boxes::{self, boxed, full, u32, u64};
use super::track::{DataPlace, Mp4Track, Mp4TrackKind, PendingSample, moov, traf};

/// Where the gap stands, behind `ftyp`.
const GAP: u64 = 32;
/// The first fragments are short, so that a recording is in the file as soon as it has begun.
const FIRST_FRAGMENT_NS: u64 = 200_000_000;
/// A keyframe begins a fragment unless the open one is shorter: what is cut from here on has to play by itself, and a
/// stream of keyframes only must not become a fragment each.
const MIN_FRAGMENT_NS: u64 = 100_000_000;

/// An MP4 file that is being written.
pub struct Mp4 {
    file: SpoolFile,
    tracks: Vec<Mp4Track>,
    fragment_ns: u64,
    next_fragment_ns: u64,
    /// Begin of the open fragment.
    since_ns: Option<u64>,
    described: bool,
    fragments: u32,
}

impl Mp4 {
    /// `kinds`: the tracks in the order of their indices. Nothing is written before the first fragment.
    pub fn open(file: SpoolFile, kinds: &[Mp4TrackKind], fragment_ns: u64) -> Self {
        let tracks = kinds.iter().map(|kind| Mp4Track::new(*kind)).collect();
        let next_fragment_ns = FIRST_FRAGMENT_NS.min(fragment_ns);
        Self { file, tracks, fragment_ns, next_fragment_ns, since_ns: None, described: false, fragments: 0 }
    }

    /// `at_ns` since the beginning of the file. Pictures before the first key frame are dropped: nothing can show them.
    ///
    /// # Errors
    ///
    /// When the spool cannot be written (full, or its disk fails). The file takes no more; a retry does not help.
    pub fn push(&mut self, track: usize, at_ns: u64, key: bool, data: &[u8]) -> Result<(), SpoolError> {
        self.push_reordered(track, (at_ns, 0), key, data)
    }

    /// The same for a picture that is decoded at the first of these times and shown by the second one later.
    ///
    /// # Errors
    ///
    /// As [`Mp4::push`].
    pub fn push_reordered(
        &mut self,
        track: usize,
        (at_ns, offset_ns): (u64, i64),
        key: bool,
        data: &[u8],
    ) -> Result<(), SpoolError> {
        let Some(track) = self.tracks.get_mut(track) else { return Ok(()) };
        if !track.take((at_ns, offset_ns), key, data) {
            return Ok(());
        }
        let (video, waits_ns) = (track.is_video(), track.waits_ns());
        let since = *self.since_ns.get_or_insert(at_ns);
        let due = if video && key {
            // By the track's own time: a busy encoder's pictures come seconds behind the sound.
            waits_ns >= MIN_FRAGMENT_NS
        } else {
            at_ns.saturating_sub(since) >= self.next_fragment_ns && (video || !self.awaits_video(at_ns, since))
        };
        if due && self.tracks.iter().all(Mp4Track::is_described) {
            self.fragment(Some(at_ns))?;
            self.since_ns = Some(since.max(at_ns));
            self.next_fragment_ns = (self.next_fragment_ns * 2).min(self.fragment_ns);
        }
        Ok(())
    }

    /// The newest sample of `track` is shown at least until `end_ns`.
    pub fn lasts(&mut self, track: usize, end_ns: u64) {
        if let Some(track) = self.tracks.get_mut(track) {
            track.lasts(end_ns);
        }
    }

    /// Makes it an ordinary MP4.
    ///
    /// # Errors
    ///
    /// When the spool cannot be written (full, or its disk fails). The file takes no more; a retry does not help.
    pub fn finish(&mut self) -> Result<(), SpoolError> {
        self.tracks.retain(Mp4Track::is_described);
        self.fragment(None)?;
        let end = self.file.end();
        let mut end_moov = vec![];
        moov(&mut end_moov, &self.tracks, false);
        self.file.append(&end_moov)?;
        let mut head = vec![];
        u32(&mut head, 1);
        head.extend_from_slice(b"mdat");
        u64(&mut head, end - GAP);
        self.file.write_at(GAP, &head)
    }

    /// Sound that comes first would end the fragment one picture before a keyframe that is on its way. Video that stands
    /// still is not waited for.
    fn awaits_video(&self, at_ns: u64, since_ns: u64) -> bool {
        at_ns < since_ns + self.next_fragment_ns * 3 / 2
            && self.tracks.iter().any(|track| track.is_video() && track.waiting.len() > 1)
    }

    /// Writes what lies before `cut_ns`; of a track that goes on not its last sample, whose duration is not known. `None`:
    /// everything. All tracks are cut at the same time, so that a file which begins here lacks no sound at its beginning.
    fn fragment(&mut self, cut_ns: Option<u64>) -> Result<(), SpoolError> {
        if !self.described {
            let mut front = vec![];
            boxes::ftyp(&mut front);
            boxed(&mut front, b"free", |out| boxes::zeros(out, 8));
            moov(&mut front, &self.tracks, true);
            self.file.append(&front)?;
            self.described = true;
        }
        let standstill_ns = self.fragment_ns;
        let parts: Vec<(Vec<PendingSample>, u64)> =
            self.tracks.iter_mut().map(|track| track.part(standstill_ns, cut_ns)).collect();
        if parts.iter().all(|(samples, _)| samples.is_empty()) {
            return Ok(());
        }
        self.file.append(&data_head(0))?;
        let at = self.file.end();
        let mut out = vec![];
        let mut offsets = vec![];
        for (samples, _) in &parts {
            offsets.push(at + out.len() as u64);
            samples.iter().for_each(|sample| out.extend_from_slice(&sample.data));
        }
        let data = out.len() as u32;
        self.fragments += 1;
        let sequence = self.fragments;
        boxed(&mut out, b"moof", |out| {
            full(out, b"mfhd", 0, 0, |out| u32(out, sequence));
            for (index, ((samples, until), offset)) in parts.iter().zip(&offsets).enumerate() {
                if !samples.is_empty() {
                    traf(out, index as u32 + 1, samples, *until, DataPlace::File(*offset));
                }
            }
        });
        self.file.append(&out)?;
        // Until here a player sees one box without an end: a torn write is invisible.
        self.file.write_at(at - 16, &data_head(data + 8))?;
        for ((track, (samples, _)), offset) in self.tracks.iter_mut().zip(&parts).zip(&offsets) {
            track.wrote(samples, *offset);
        }
        Ok(())
    }
}

/// Head of a fragment's data, as the spool knows it; a size of 0 goes to the end of the file.
fn data_head(size: u32) -> [u8; 16] {
    let mut head = *b"\0\0\0\x08free\0\0\0\0mdat";
    head[8..12].copy_from_slice(&size.to_be_bytes());
    head
}

#[cfg(test)]
mod tests;
