//! What goes into the muxer and what comes out.

use bytes::Bytes;

/// Bytes and where they go in the file: behind all others, or over those that were room for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileWrite {
    /// Of the first byte.
    pub at: u64,
    /// In one write: a kill leaves whole blocks.
    pub bytes: Vec<u8>,
}

/// An access unit of a track.
#[derive(Clone, Debug)]
pub struct WebmUnit {
    /// Since the beginning of the file.
    pub at_ns: u64,
    /// How long it is shown or heard; 0: not known. Of the last Opus packet without what a decoder drops at its end.
    pub duration_ns: u64,
    /// Decodable by itself; always true for sound.
    pub key: bool,
    /// As [`crate::encoded::EncodedUnit`] describes it.
    pub data: Bytes,
}
