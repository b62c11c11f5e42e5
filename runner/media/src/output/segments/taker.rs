//! An HLS output: encoded units come in, segment files go to the spool, and the runner is told of each. Runs in the threads
//! that give units, under the fan-out's lock; waits for nothing but the local disk. Asks the runner for no name: it is given
//! a folder at the start. Playlists are the runner's.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway_ipc::{MediaEvent, SpoolError, SpoolFile, TrackFacts, segment_file};
use spillway_plan::segment_name::SegmentFormat;
use tracing::warn;

use super::Segmenter;
use super::plan::{ClosedSegment, SegmentEffect, SegmentVideo, SegmenterPlan};
use crate::element::{PipelineError, build};
use crate::encoded::{EncodedFormat, EncodedUnit, StreamNumber};
use crate::output::taker::{OutputTaker, TakerEnd, TakerError};
use crate::track::Codec;
use crate::units::MediaTime;

/// So many segments in a row that the disk does not take are the end of the output.
const MAX_LOSSES: u32 = 3;
/// Between two [`MediaEvent::SegmentWrote`].
const WROTE_INTERVAL: Duration = Duration::from_millis(250);

/// Takes events for the runner. Called under the fan-out's lock: it never waits.
pub type SegmentEventFn = Arc<dyn Fn(MediaEvent) + Send + Sync>;

/// What an HLS output is made of, and where.
#[derive(Clone, Debug)]
pub struct SegmentsTakerOptions {
    /// Number of the output in the plan.
    pub output: u32,
    /// An existing folder of the spool.
    pub folder: PathBuf,
    /// MPEG-TS, or fragmented MP4.
    pub format: SegmentFormat,
    /// Of a segment, nanoseconds.
    pub length_ns: u64,
    /// Number of the first segment; those before it are of a dead process.
    pub first_n: u32,
    /// For names.
    pub facts: TrackFacts,
}

/// Writes the segments of one output.
pub struct SegmentsTaker {
    segmenter: Segmenter,
    options: SegmentsTakerOptions,
    video: Option<StreamNumber>,
    audio: Option<StreamNumber>,
    open: Option<SegmentOnDisk>,
    /// Segments in a row that the disk has not taken.
    losses: u32,
    report: SegmentEventFn,
}

struct SegmentOnDisk {
    n: u32,
    /// `None`: the disk takes it no more.
    file: Option<SpoolFile>,
    told_at: Instant,
}

impl SegmentsTaker {
    /// Takes the H264 and the AAC stream of these; nothing is written before the first key frame. Answers the streams that
    /// it is to be added with as well.
    ///
    /// # Errors
    ///
    /// When there is neither stream, or the format cannot describe one.
    pub fn new(
        formats: &[EncodedFormat],
        options: SegmentsTakerOptions,
        report: SegmentEventFn,
    ) -> Result<(Self, Vec<StreamNumber>), PipelineError> {
        let numbered = || formats.iter().zip((0..).map(StreamNumber));
        let video = numbered().find_map(|(format, stream)| match format {
            EncodedFormat::Video { codec: Codec::H264, size, framerate, .. } => {
                // Of a copied stream, which nothing cuts exactly.
                Some((stream, SegmentVideo { framerate: framerate.unwrap_or(30), size: *size }))
            }
            _ => None,
        });
        let audio = numbered().find_map(|(format, stream)| match format {
            EncodedFormat::Aac { rate, .. } => Some((stream, *rate)),
            _ => None,
        });
        let plan = SegmenterPlan {
            format: options.format,
            length_ns: options.length_ns,
            video: video.map(|(_, video)| video),
            aac_rate: audio.map(|(_, rate)| rate),
        };
        let segmenter = Segmenter::new(plan).ok_or_else(|| build("segments take H264 and AAC of a usual rate"))?;
        let (video, audio) = (video.map(|(stream, _)| stream), audio.map(|(stream, _)| stream));
        let streams = video.into_iter().chain(audio).collect();
        Ok((Self { segmenter, options, video, audio, open: None, losses: 0, report }, streams))
    }

    fn apply(&mut self, effects: Vec<SegmentEffect>) -> Result<(), TakerError> {
        for effect in effects {
            match effect {
                SegmentEffect::Init(bytes) => self.write_init(&bytes)?,
                SegmentEffect::Open { index, at } => self.open(self.options.first_n.saturating_add(index), at)?,
                SegmentEffect::Append(bytes) => self.append(&bytes)?,
                SegmentEffect::Close(closed) => self.close(closed),
            }
        }
        Ok(())
    }

    fn write_init(&self, bytes: &[u8]) -> Result<(), TakerError> {
        let path = self.options.folder.join(segment_file::init_name(self.options.output));
        remove_leftover(&path);
        Ok(SpoolFile::create_append_only(&path)?.append(bytes)?)
    }

    fn open(&mut self, n: u32, at: MediaTime) -> Result<(), TakerError> {
        let path = self.path(n);
        remove_leftover(&path);
        let (file, refused) = match SpoolFile::create_append_only(&path) {
            Ok(file) => (Some(file), None),
            Err(error) => (None, Some(error)),
        };
        self.open = Some(SegmentOnDisk { n, file, told_at: Instant::now() });
        let facts = (n == self.options.first_n).then(|| self.options.facts.clone());
        (self.report)(MediaEvent::SegmentOpen { output: self.options.output, n, at_ns: at.ns(), facts });
        refused.map_or(Ok(()), |error| self.lose(n, error))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), TakerError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let Some(file) = &mut open.file else { return Ok(()) };
        if let Err(error) = file.append(bytes) {
            let n = open.n;
            open.file = None;
            return self.lose(n, error);
        }
        if open.told_at.elapsed() >= WROTE_INTERVAL {
            open.told_at = Instant::now();
            let (n, bytes) = (open.n, file.end());
            (self.report)(MediaEvent::SegmentWrote { output: self.options.output, n, bytes });
        }
        Ok(())
    }

    /// The disk does not take this segment. The next one may find room: the runner stores and removes what is there.
    fn lose(&mut self, n: u32, error: SpoolError) -> Result<(), TakerError> {
        remove_leftover(&self.path(n));
        self.losses += 1;
        if self.losses >= MAX_LOSSES {
            return Err(error.into());
        }
        warn!(segment = n, %error, full = error.is_full(), "segment lost");
        Ok(())
    }

    fn close(&mut self, closed: ClosedSegment) {
        let Some(SegmentOnDisk { n, file, .. }) = self.open.take() else { return };
        let gap = file.is_none();
        if !gap {
            self.losses = 0;
        }
        (self.report)(MediaEvent::Segment {
            output: self.options.output,
            n,
            at_ns: closed.at.ns(),
            length_ns: closed.length_ns,
            bytes: if gap { 0 } else { closed.bytes },
            gap,
        });
    }

    fn path(&self, n: u32) -> PathBuf {
        self.options.folder.join(segment_file::name(self.options.output, n, self.options.format))
    }
}

impl OutputTaker for SegmentsTaker {
    fn take(&mut self, unit: &EncodedUnit) -> Result<(), TakerError> {
        let at = MediaTime::from_ns(unit.at_ns);
        let effects = if Some(unit.stream) == self.video {
            self.segmenter.video(at, unit.key, &unit.data)
        } else if Some(unit.stream) == self.audio {
            self.segmenter.audio(at, &unit.data)
        } else {
            return Ok(());
        };
        self.apply(effects)
    }

    fn end(&mut self, _: u64) -> Result<TakerEnd, TakerError> {
        let effects = self.segmenter.finish();
        self.apply(effects)?;
        Ok(TakerEnd::Whole)
    }
}

/// What an earlier attempt has left, or a segment that was not written whole.
fn remove_leftover(path: &Path) {
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use spillway_ipc::TsTail;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;
    const KEY: &[u8] = &[0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1e, 0, 0, 0, 1, 0x68, 0xce, 0, 0, 0, 1, 0x65, 7, 7];
    const DELTA: &[u8] = &[0, 0, 0, 1, 0x41, 7, 7, 7];
    const VIDEO: StreamNumber = StreamNumber(1);

    type Told = Arc<Mutex<Vec<MediaEvent>>>;

    fn taker(folder: &Path) -> (SegmentsTaker, Vec<StreamNumber>, Told) {
        let formats = [
            EncodedFormat::Opus { channels: 2, pre_skip: 312 },
            EncodedFormat::Video { codec: Codec::H264, size: (320, 180), framerate: Some(25), bitrate_kbps: Some(500) },
            EncodedFormat::Aac { rate: 48_000, bitrate_kbps: 128 },
        ];
        let options = SegmentsTakerOptions {
            output: 3,
            folder: folder.to_owned(),
            format: SegmentFormat::MpegTs,
            length_ns: SECOND_NS,
            first_n: 0,
            facts: TrackFacts { track_id: "TR_v".into(), ..TrackFacts::default() },
        };
        let told = Told::default();
        let tell = told.clone();
        let report: SegmentEventFn = Arc::new(move |event| tell.lock().unwrap().push(event));
        let (taker, streams) = SegmentsTaker::new(&formats, options, report).unwrap();
        (taker, streams, told)
    }

    fn picture(number: u64, per_second: u64) -> EncodedUnit {
        let key = number.is_multiple_of(per_second);
        EncodedUnit {
            stream: VIDEO,
            kind: crate::encoded::MediaKind::Video,
            key,
            at_ns: number * SECOND_NS / per_second,
            offset_ns: 0,
            duration_ns: SECOND_NS / per_second,
            data: Bytes::from_static(if key { KEY } else { DELTA }),
        }
    }

    /// So that no border waits for it.
    fn sound(at: &EncodedUnit) -> EncodedUnit {
        let data = Bytes::from_static(&[7; 90]);
        EncodedUnit { stream: StreamNumber(2), kind: crate::encoded::MediaKind::Audio, key: true, data, ..at.clone() }
    }

    /// Closed segments: number, begin, length, gap.
    fn closed(told: &Told) -> Vec<(u32, u64, u64, bool)> {
        let told = told.lock().unwrap();
        let closed = told.iter().filter_map(|event| match event {
            MediaEvent::Segment { output: 3, n, at_ns, length_ns, gap, .. } => Some((*n, *at_ns, *length_ns, *gap)),
            _ => None,
        });
        closed.collect()
    }

    #[test]
    fn units_become_files_that_are_told_of() {
        let folder = tempfile::tempdir().unwrap();
        // Of an earlier attempt.
        fs::write(folder.path().join("3-1.ts"), "old").unwrap();
        let (mut taker, streams, told) = taker(folder.path());
        assert_eq!(streams, [VIDEO, StreamNumber(2)]);
        for number in 0..60 {
            taker.take(&picture(number, 25)).unwrap();
        }
        // Not the runner's to know: another stream.
        taker.take(&EncodedUnit { stream: StreamNumber(0), ..picture(60, 25) }).unwrap();
        assert_eq!(taker.end(0).unwrap(), TakerEnd::Whole);
        let expected = [(0, 0, SECOND_NS), (1, SECOND_NS, SECOND_NS), (2, 2 * SECOND_NS, 400_000_000)];
        assert_eq!(closed(&told), expected.map(|(n, at, length)| (n, at, length, false)));
        let told = told.lock().unwrap();
        let MediaEvent::SegmentOpen { output: 3, n: 0, at_ns: 0, facts: Some(facts) } = &told[0] else {
            panic!("{:?}", told[0])
        };
        assert_eq!(facts.track_id, "TR_v");
        let file = fs::read(folder.path().join("3-1.ts")).unwrap();
        let MediaEvent::Segment { bytes, .. } = &told[3] else { panic!("{:?}", told[3]) };
        assert_eq!((file.len() as u64, file[0]), (*bytes, 0x47));
        let tail = TsTail::of(&file).unwrap();
        assert_eq!((tail.bytes, tail.length), (*bytes, Duration::from_secs(1)));
    }

    /// Its folder goes away and comes back.
    #[test]
    fn what_the_disk_does_not_take_is_a_gap_and_three_in_a_row_are_the_end() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("EG_1");
        fs::create_dir(&folder).unwrap();
        let (mut taker, _, told) = taker(&folder);
        let mut take = |from: u64, to: u64| {
            let pictures = (from..to).map(|number| picture(number, 10));
            let mut units = pictures.flat_map(|picture| [sound(&picture), picture]);
            units.try_for_each(|unit| taker.take(&unit))
        };
        take(0, 5).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        take(5, 25).unwrap();
        fs::create_dir(&folder).unwrap();
        take(25, 45).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        take(45, 70).unwrap();
        assert!(matches!(take(70, 71), Err(TakerError::Write(SpoolError::Create { .. }))));
        let gaps: Vec<bool> = closed(&told).into_iter().map(|(_, _, _, gap)| gap).collect();
        // An open file goes on without its folder.
        assert_eq!(gaps, [false, true, true, false, false, true, true]);
    }
}
