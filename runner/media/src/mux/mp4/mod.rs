//! MP4, written by ourselves: `file` is the file of a recording, `fragments` the segments of an HLS stream. Both describe
//! their tracks with `track`, and write `boxes`.

mod file;
mod fragments;
mod track;
mod descriptions;
mod sample_table;
mod boxes;

pub use file::Mp4;
pub use fragments::FragmentMuxer;
pub use track::Mp4TrackKind;
