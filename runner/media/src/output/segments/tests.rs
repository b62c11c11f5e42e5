use spillway_plan::segment_name::SegmentFormat;

use super::*;

const SECOND: u64 = 1_000_000_000;
const KEY: [u8; 17] = [0, 0, 0, 1, 0x67, 1, 2, 3, 0, 0, 1, 0x68, 3, 0, 0, 1, 0x65];
const PICTURE: [u8; 6] = [0, 0, 0, 1, 0x41, 9];

fn ns(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

fn at(seconds: f64) -> MediaTime {
    MediaTime::from_ns(ns(seconds))
}

fn frame_at(frame: u64, rate: u64) -> MediaTime {
    MediaTime::from_ns(frame * 1024 * SECOND / rate)
}

fn segmenter(framerate: Option<u32>, aac_rate: Option<u32>) -> Segmenter {
    let video = framerate.map(|framerate| SegmentVideo { framerate, size: (320, 180) });
    Segmenter::new(SegmenterPlan { format: SegmentFormat::MpegTs, length_ns: 4 * SECOND, video, aac_rate }).unwrap()
}

/// Files as the effects leave them, checked on the way.
#[derive(Default)]
struct Files {
    open: Option<(u32, MediaTime, Vec<u8>)>,
    closed: Vec<(ClosedSegment, Vec<u8>)>,
}

impl Files {
    fn apply(&mut self, effects: Vec<SegmentEffect>) {
        for effect in effects {
            match effect {
                SegmentEffect::Init(_) => panic!("not of MPEG-TS"),
                SegmentEffect::Open { index, at } => {
                    assert!(self.open.is_none());
                    assert_eq!(index as usize, self.closed.len());
                    self.open = Some((index, at, vec![]));
                }
                SegmentEffect::Append(bytes) => {
                    assert!(!bytes.is_empty() && bytes.len() % 188 == 0);
                    self.open.as_mut().unwrap().2.extend(bytes);
                }
                SegmentEffect::Close(closed) => {
                    let (index, at, bytes) = self.open.take().unwrap();
                    assert_eq!((closed.index, closed.at, closed.bytes), (index, at, bytes.len() as u64));
                    assert_eq!(bytes[..4], [0x47, 0x40, 0, 0x10 | bytes[3] & 15], "tables come first");
                    self.closed.push((closed, bytes));
                }
            }
        }
    }

    fn borders(&self) -> Vec<u64> {
        for pair in self.closed.windows(2) {
            assert_eq!(pair[0].0.at.plus_ns(pair[0].0.length_ns), pair[1].0.at);
        }
        self.closed.iter().map(|(closed, _)| closed.at.ns()).collect()
    }

    fn lengths(&self) -> Vec<f64> {
        self.closed.iter().map(|(closed, _)| (closed.length_ns as f64 / 1e6).round() / 1e3).collect()
    }

    /// PES packets of sound in each segment: their time stamps in 90 kHz.
    fn sound(&self) -> Vec<Vec<u64>> {
        self.closed.iter().map(|(_, bytes)| starts(bytes, 0x101)).collect()
    }
}

fn starts(bytes: &[u8], pid: u16) -> Vec<u64> {
    let begins = |packet: &&[u8]| packet[1] & 0x40 != 0 && u16::from_be_bytes([packet[1] & 0x1f, packet[2]]) == pid;
    let time = |packet: &[u8]| {
        let payload = &packet[if packet[3] & 0x20 != 0 { 5 + usize::from(packet[4]) } else { 4 }..];
        let at = |index: usize| u64::from(payload[index]);
        ((at(9) >> 1 & 7) << 30 | at(10) << 22 | at(11) >> 1 << 15 | at(12) << 7 | at(13) >> 1) - 63_000
    };
    bytes.chunks(188).filter(begins).map(time).collect()
}

#[test]
fn segments_end_on_the_grid_and_other_key_frames_cut_nothing() {
    let (mut segmenter, mut files) = (segmenter(Some(30), None), Files::default());
    files.apply(segmenter.video(at(0.2), false, &PICTURE));
    for number in 0..600u64 {
        // Three of them for viewers that join.
        let key = number % 120 == 0 || [37, 130, 299].contains(&number);
        let time = MediaTime::from_ns(ns(0.5) + number * SECOND / 30);
        files.apply(segmenter.video(time, key, if key { &KEY } else { &PICTURE }));
        assert!(segmenter.open.is_some());
    }
    files.apply(segmenter.finish());
    assert_eq!(files.borders(), [0.5, 4.5, 8.5, 12.5, 16.5].map(ns));
    assert_eq!(files.lengths(), [4.0; 5]);
    assert!(segmenter.finish().is_empty());
}

/// Asked for a key frame, the encoder makes one of the first picture on or behind the line.
#[test]
fn skipped_pictures_do_not_move_later_borders() {
    let (mut segmenter, mut files) = (segmenter(Some(30), None), Files::default());
    let mut line = at(0.0);
    for number in 0..1800u64 {
        let skipped = match number {
            300..700 => number % 4 != 0,
            900..1000 => number % 7 != 0,
            _ => false,
        };
        if skipped {
            continue;
        }
        let time = MediaTime::from_ns(number * SECOND / 30);
        let key = time.plus_ns(1) >= line;
        files.apply(segmenter.video(time, key, if key { &KEY } else { &PICTURE }));
        line = segmenter.open.unwrap().border;
    }
    files.apply(segmenter.finish());
    let borders = files.borders();
    assert_eq!(borders.len(), 15);
    for (number, border) in borders.iter().enumerate() {
        let late = border - number as u64 * 4 * SECOND;
        assert!(late < SECOND / 4, "segment {number} begins {late} ns late");
    }
    assert_eq!(borders[14], 56 * SECOND);
}

#[test]
fn a_key_frame_that_misses_a_whole_segment_leaves_no_short_ones_behind() {
    let (mut segmenter, mut files) = (segmenter(Some(25), None), Files::default());
    for number in 0..600u64 {
        let key = [0, 100, 325, 400, 500].contains(&number);
        files.apply(segmenter.video(MediaTime::from_ns(number * SECOND / 25), key, if key { &KEY } else { &PICTURE }));
    }
    files.apply(segmenter.finish());
    assert_eq!(files.lengths(), [4.0, 9.0, 3.0, 4.0, 4.0]);
}

#[test]
fn sound_alone_is_cut_on_the_same_grid() {
    for (rate, frames) in [(48_000, 3000u64), (44_100, 3000), (8000, 500)] {
        let (mut segmenter, mut files) = (segmenter(None, Some(rate)), Files::default());
        for frame in 0..frames {
            files.apply(segmenter.audio(frame_at(frame, u64::from(rate)), &[0x21; 40]));
            assert!(segmenter.video(at(1.0), true, &KEY).is_empty());
        }
        files.apply(segmenter.finish());
        let frame_ns = 1024 * SECOND / u64::from(rate);
        for (number, border) in files.borders().iter().enumerate() {
            assert!(border.abs_diff(number as u64 * 4 * SECOND) <= frame_ns / 2 + 1, "{rate}: {number} at {border}");
        }
        // Every frame of sound is in the segment of its time.
        let begins: Vec<u64> = files.sound().iter().map(|times| times[0]).collect();
        let borders: Vec<u64> = files.borders().iter().map(|ns| (ns * 9 + 50_000) / 100_000).collect();
        assert_eq!(begins, borders);
    }
}

/// Encoded pictures come later than the sound of their time, or the other way round.
#[test]
fn sound_goes_into_the_segment_of_its_time() {
    for sound_ahead in [0u64, 15, 40, 130] {
        let (mut segmenter, mut files) = (segmenter(Some(30), Some(48_000)), Files::default());
        let mut sound = 0;
        for number in 0..480u64 {
            while frame_at(sound, 48_000).ns() < (number + sound_ahead) * SECOND / 30 {
                files.apply(segmenter.audio(frame_at(sound, 48_000), &[0x21; 300]));
                sound += 1;
            }
            let key = number % 120 == 0;
            let time = MediaTime::from_ns(number * SECOND / 30);
            files.apply(segmenter.video(time, key, if key { &KEY } else { &PICTURE }));
        }
        files.apply(segmenter.finish());
        assert_eq!(files.lengths(), [4.0; 4], "{sound_ahead}");
        let times = files.sound();
        for (number, times) in times.iter().enumerate().skip(1) {
            let late = times[0] as i64 - number as i64 * 360_000;
            assert!((0..1920).contains(&late), "{sound_ahead}: the sound of segment {number} begins {late} ticks late");
        }
    }
}

#[test]
fn sound_does_not_wait_for_pictures_that_never_come() {
    let (mut segmenter, mut files) = (segmenter(Some(30), Some(48_000)), Files::default());
    // None of it can be shown: there is no picture yet.
    for frame in 0..600 {
        files.apply(segmenter.audio(frame_at(frame, 48_000), &[0x21; 300]));
    }
    assert!(files.open.is_none());
    assert!(segmenter.held.len() < 240);
    let begin = frame_at(590, 48_000);
    files.apply(segmenter.video(begin, true, &KEY));
    for frame in 600..2000 {
        files.apply(segmenter.audio(frame_at(frame, 48_000), &[0x21; 300]));
    }
    assert!(segmenter.held.len() < 240);
    files.apply(segmenter.finish());
    let times = files.sound().concat();
    assert_eq!(times.first(), Some(&(590 * 1920)));
    assert_eq!(times.len(), (2000 - 590usize).div_ceil(4));
}

#[test]
fn a_recording_may_begin_with_sound_that_has_no_picture() {
    let (mut segmenter, mut files) = (segmenter(Some(30), Some(48_000)), Files::default());
    files.apply(segmenter.finish());
    for frame in 0..50 {
        files.apply(segmenter.audio(frame_at(frame, 48_000), &[0x21; 300]));
    }
    files.apply(segmenter.finish());
    assert!(files.closed.is_empty() && files.open.is_none());
}

/// Players need the parameter sets before anything else, and a fragment's sizes stand in front of its data.
#[test]
fn fragments_come_whole_behind_one_init_segment() {
    let video = Some(SegmentVideo { framerate: 30, size: (320, 180) });
    let plan = SegmenterPlan { format: SegmentFormat::FragmentedMp4, length_ns: SECOND, video, aac_rate: Some(48_000) };
    let mut segmenter = Segmenter::new(plan).unwrap();
    let mut names = vec![];
    for number in 0..75u64 {
        let time = MediaTime::from_ns(number * SECOND / 30);
        let unit: &[u8] = match number {
            // A key frame that nothing describes.
            0 => &KEY[13..],
            15 | 45 | 60 => &KEY,
            _ => &PICTURE,
        };
        let mut effects = segmenter.audio(time, &[0x21; 9]);
        effects.extend(segmenter.video(time, number % 15 == 0, unit));
        if number == 74 {
            effects.extend(segmenter.finish());
        }
        names.extend(effects.iter().map(|effect| match effect {
            SegmentEffect::Init(bytes) => String::from_utf8_lossy(&bytes[4..8]).into_owned(),
            SegmentEffect::Open { index, .. } => format!("open {index}"),
            SegmentEffect::Append(bytes) => String::from_utf8_lossy(&bytes[4..8]).into_owned(),
            SegmentEffect::Close(closed) => format!("close {} of {} ms", closed.index, closed.length_ns / 1_000_000),
        }));
    }
    let expected =
        ["ftyp", "open 0", "styp", "close 0 of 1000 ms", "open 1", "styp", "close 1 of 999 ms"].map(str::to_owned);
    assert_eq!(names, expected);
}

/// Sound comes 164 ms behind the pictures of its time, as from our encoders: a player that begins with any segment has both
/// from its begin on.
#[test]
fn a_border_waits_for_the_sound_before_it() {
    for late_frames in [0u64, 8, 40, 200] {
        let (mut segmenter, mut files) = (segmenter(Some(30), Some(48_000)), Files::default());
        let mut frame = 0;
        for number in 0..600u64 {
            let time = MediaTime::from_ns(number * SECOND / 30);
            let key = number % 120 == 0;
            files.apply(segmenter.video(time, key, if key { &KEY } else { &PICTURE }));
            while frame_at(frame + late_frames, 48_000) <= time {
                files.apply(segmenter.audio(frame_at(frame, 48_000), &[7; 90]));
                frame += 1;
            }
        }
        files.apply(segmenter.finish());
        assert_eq!(files.borders(), [0.0, 4.0, 8.0, 12.0, 16.0].map(ns));
        let pictures: Vec<usize> = files.closed.iter().map(|(_, bytes)| starts(bytes, 0x100).len()).collect();
        assert_eq!(pictures, [120; 5]);
        for ((closed, _), sound) in files.closed.iter().zip(files.sound()) {
            let early = (closed.at.ns() * 9 / 100_000).saturating_sub(sound[0]);
            // Later than two seconds: the pictures go on.
            let most = if late_frames < 90 { 0 } else { 90_000 * 5 };
            assert!(early <= most, "{late_frames} frames late: {early} too early");
        }
        assert!(segmenter.waiting.is_empty());
    }
}
