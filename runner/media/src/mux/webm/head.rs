//! What stands before the first cluster, with room for what is known at the end: where all is, how long it lasts,
//! how large the segment is. Pure.

use super::ebml::{binary, element, float, open_front, text, uint, void, wide_size};
use super::ids::{
    DOC_TYPE, DOC_TYPE_READ_VERSION, DOC_TYPE_VERSION, DURATION, EBML, EBML_MAX_ID_LENGTH, EBML_MAX_SIZE_LENGTH,
    EBML_READ_VERSION, EBML_VERSION, INFO, MUXING_APP, SEEK, SEEK_HEAD, SEEK_ID, SEEK_INDEX, SEEK_POSITION, SEGMENT,
    TIMESTAMP_SCALE, TRACKS, WRITING_APP,
};
use super::track::WebmTrack;
use super::unit::FileWrite;

const APP: &str = "Spillway";
/// What all times in the file count; frames of a track stand no closer (`passthrough`).
const MILLISECOND_NS: u64 = 1_000_000;
/// A SeekHead with three entries of 21 bytes.
const SEEK_ROOM: usize = 68;
/// A Duration of eight bytes.
const DURATION_ROOM: usize = 11;

/// Where things stand in the file.
#[derive(Clone, Copy, Debug)]
pub struct HeadPlaces {
    /// Contents of the segment; its size stands in the eight bytes before. First comes the room of the SeekHead.
    pub segment: u64,
    info: u64,
    duration: u64,
    tracks: u64,
}

impl HeadPlaces {
    /// Writes the head of a file to an empty buffer.
    pub fn write(out: &mut Vec<u8>, tracks: &[WebmTrack]) -> Self {
        element(out, EBML, |out| {
            uint(out, EBML_VERSION, 1);
            uint(out, EBML_READ_VERSION, 1);
            uint(out, EBML_MAX_ID_LENGTH, 4);
            uint(out, EBML_MAX_SIZE_LENGTH, 8);
            text(out, DOC_TYPE, "webm");
            // CodecDelay, SeekPreRoll and DiscardPadding are of version 4; a reader of version 2 may leave them.
            uint(out, DOC_TYPE_VERSION, 4);
            uint(out, DOC_TYPE_READ_VERSION, 2);
        });
        open_front(out, SEGMENT);
        let segment = out.len() as u64;
        void(out, SEEK_ROOM);
        let info = out.len() as u64;
        element(out, INFO, |out| {
            uint(out, TIMESTAMP_SCALE, MILLISECOND_NS);
            text(out, MUXING_APP, APP);
            text(out, WRITING_APP, APP);
            void(out, DURATION_ROOM);
        });
        let duration = (out.len() - DURATION_ROOM) as u64;
        let place = out.len() as u64;
        element(out, TRACKS, |out| {
            for (track, number) in tracks.iter().zip(1..) {
                track.describe(out, number);
            }
        });
        Self { segment, info, duration, tracks: place }
    }

    /// The file ends at `end` and lasts until `end_ns`; its index stands at `index`.
    pub fn finish(&self, end: u64, end_ns: u64, index: Option<u64>) -> Vec<FileWrite> {
        let mut out = vec![FileWrite { at: self.segment, bytes: self.seek_head(index) }];
        // 0 is not allowed.
        if end_ns > 0 {
            let mut bytes = vec![];
            float(&mut bytes, DURATION, end_ns as f64 / MILLISECOND_NS as f64);
            out.push(FileWrite { at: self.duration, bytes });
        }
        out.push(FileWrite { at: self.segment - 8, bytes: wide_size(end - self.segment).to_vec() });
        out
    }

    fn seek_head(&self, index: Option<u64>) -> Vec<u8> {
        let mut out = vec![];
        element(&mut out, SEEK_HEAD, |out| {
            for (id, at) in [(INFO, Some(self.info)), (TRACKS, Some(self.tracks)), (SEEK_INDEX, index)] {
                if let Some(at) = at {
                    element(out, SEEK, |out| {
                        binary(out, SEEK_ID, &id.to_be_bytes());
                        binary(out, SEEK_POSITION, &(at - self.segment).to_be_bytes());
                    });
                }
            }
        });
        if out.len() < SEEK_ROOM {
            let rest = SEEK_ROOM - out.len();
            void(&mut out, rest);
        }
        out
    }
}
