//! Segments that a media process has left in the spool without a word about them: it died between the write and its event.
//! The folder comes in, whole or shortened files go out. Blocks for the disk.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use spillway_ipc::{TsTail, segment_file};
use spillway_plan::segment_name::SegmentFormat;

/// A segment's file as it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftSegment {
    /// Its number.
    pub n: u32,
    /// Bytes and length of what can be played; `None`: nothing.
    pub kept: Option<(u64, Duration)>,
}

/// Numbers of the segment files of an output, ascending. A folder that is not there has none.
pub fn numbers(folder: &Path, output: u32, format: SegmentFormat) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut numbers: Vec<u32> = names.filter_map(|name| segment_file::number(&name, output, format)).collect();
    numbers.sort_unstable();
    numbers
}

/// Behind the last segment file of an output; 0: there is none.
pub fn next_number(folder: &Path, output: u32, format: SegmentFormat) -> u32 {
    numbers(folder, output, format).last().map_or(0, |last| last.saturating_add(1))
}

/// When a segment file of an output was last written to; `None`: there is none.
pub fn last_write(folder: &Path, output: u32, format: SegmentFormat) -> Option<SystemTime> {
    let written = |n| fs::metadata(folder.join(segment_file::name(output, n, format))).ok()?.modified().ok();
    numbers(folder, output, format).into_iter().filter_map(written).max()
}

/// Cuts the files of these segments to what can be played. Nothing writes to them any more.
pub fn cut(folder: &Path, output: u32, format: SegmentFormat, numbers: &[u32]) -> Vec<LeftSegment> {
    let cut_one = |n: &u32| {
        let path = folder.join(segment_file::name(output, *n, format));
        let kept = match format {
            SegmentFormat::MpegTs => cut_ts(&path).ok().flatten(),
            // Written in one piece at its end, of which the event says that it is whole.
            SegmentFormat::FragmentedMp4 => None,
        };
        LeftSegment { n: *n, kept }
    };
    numbers.iter().map(cut_one).collect()
}

fn cut_ts(path: &Path) -> io::Result<Option<(u64, Duration)>> {
    let Some(tail) = TsTail::of(&fs::read(path)?) else { return Ok(None) };
    File::options().write(true).open(path)?.set_len(tail.bytes)?;
    Ok(Some((tail.bytes, tail.length)))
}

/// Removes the segments of an output from a folder, and the folder if it is empty then. Blocks for the disk.
pub fn remove_segments(folder: &Path, output: u32, format: SegmentFormat) {
    if !folder.as_os_str().is_empty() {
        clear_segments(folder, output, format);
        let _ = fs::remove_dir(folder);
    }
}

/// The same, and the folder stays: another media process writes there.
pub fn clear_segments(folder: &Path, output: u32, format: SegmentFormat) {
    for n in numbers(folder, output, format) {
        let _ = fs::remove_file(folder.join(segment_file::name(output, n, format)));
    }
    let _ = fs::remove_file(folder.join(segment_file::init_name(output)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_output_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["0-10.ts", "0-9.ts", "1-3.ts", "0-11.m4s", "0.mp4", "0-x.ts"] {
            fs::write(folder.path().join(name), [0x47; 188]).unwrap();
        }
        assert_eq!(numbers(folder.path(), 0, SegmentFormat::MpegTs), [9, 10]);
        let written = last_write(folder.path(), 0, SegmentFormat::MpegTs).unwrap();
        assert!(written.elapsed().unwrap() < Duration::from_secs(60));
        assert_eq!(last_write(folder.path(), 2, SegmentFormat::MpegTs), None);
        assert!(numbers(&folder.path().join("none"), 0, SegmentFormat::MpegTs).is_empty());
        let next = [0, 1, 2].map(|output| next_number(folder.path(), output, SegmentFormat::MpegTs));
        assert_eq!(next, [11, 4, 0]);
        let left = cut(folder.path(), 0, SegmentFormat::MpegTs, &[9, 12]);
        assert_eq!(left, [9, 12].map(|n| LeftSegment { n, kept: None }), "no picture, and no file");
    }
}
