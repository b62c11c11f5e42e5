//! What was really recorded, and when that is called degraded. In: every event on its way into a file, counts of
//! packets and of the compositor. Out: the numbers of a file and messages for the user. Runs on the controller's
//! thread; pure.

use std::collections::HashMap;
use std::time::Duration;

use spillway_ipc::Quality;

use crate::cadence::{Cadence, Gaps, is_gap};
use crate::track::{TimelineEvent, TrackId, TrackSource};
use crate::units::MediaTime;

/// Thresholds of the messages in `degraded`.
const LOSS: f64 = 0.01;
const GAP_MS: u64 = 1000;
const FREEZE_MS: u64 = 2000;
const LAG_MS: u64 = 10_000;
const SKIPPED: f64 = 0.01;
const AV_MS: f64 = 100.0;
const LATE_SOUND_MS: u64 = 100;

/// Opus' silence sends a packet each 400 ms; what is longer is silence without any.
const SILENCE_NS: u64 = 500_000_000;

/// What a compositor has counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct ComposedQuality {
    /// Pictures made.
    pub pictures: u64,
    /// Of them, those that differ from the one before.
    pub distinct_frames: u64,
    /// Output times without a picture.
    pub frames_skipped: u64,
    /// Of them, those left out for a stream.
    pub frames_thinned: u64,
    /// Longest time without a different picture of a camera.
    pub max_freeze_ms: u64,
    /// Sound made that was silent, milliseconds.
    pub silence_ms: u64,
    /// Most that the mixers were behind.
    pub max_lag_ms: u64,
}

#[derive(Debug, Default)]
struct TrackQuality {
    video: bool,
    /// Browsers send a still screen once a second (Chromium) or not at all (Firefox, Safari): no distance is a gap.
    screen: bool,
    /// Published and not muted: a frame is to be expected.
    here: bool,
    /// Not asked for: what does not come is not missing.
    paused: bool,
    last: Option<MediaTime>,
    frames: u64,
    cadence: Cadence,
    silence_ns: u64,
}

impl TrackQuality {
    /// A frame was to be expected between the last one and `at`.
    fn expected_to(&mut self, at: MediaTime) {
        if let Some(distance_ns) = self.overdue(at) {
            self.cadence.distance(distance_ns);
        }
    }

    /// The publisher went or muted at `at`. Usually one frame after its last; when its packets had stopped before the
    /// server knew why, the picture stood still meanwhile.
    fn stalled_before(&mut self, at: MediaTime) {
        if self.overdue(at).is_some_and(|distance_ns| is_gap(distance_ns, self.cadence.usual())) {
            self.expected_to(at);
        }
    }

    fn overdue(&self, at: MediaTime) -> Option<u64> {
        let last = self.last.filter(|_| self.here && self.video && !self.screen && !self.paused)?;
        Some(at.ns_since(last))
    }
}

/// Sees all that is recorded go by.
#[derive(Debug, Default)]
pub struct QualityMeter {
    tracks: HashMap<TrackId, TrackQuality>,
    packets: HashMap<TrackId, (u64, u64)>,
    /// Samples, milliseconds.
    av_offsets: HashMap<TrackId, Vec<f64>>,
    max_lag_ms: u64,
    /// Of a page that was not there.
    page_gaps: (u32, Duration),
    /// Everything before has been seen.
    known_to: MediaTime,
}

impl QualityMeter {
    /// The server is asked for its pictures, or asked to send none.
    pub fn asked(&mut self, track: TrackId, paused: bool) {
        if let Some(stats) = self.tracks.get_mut(&track)
            && std::mem::replace(&mut stats.paused, paused) != paused
        {
            stats.last = None;
        }
    }

    /// Every event that is recorded, in order.
    pub fn take(&mut self, timed: &TimelineEvent) {
        match timed {
            TimelineEvent::Joined { track, .. } => {
                let stats = self.tracks.entry(track.id).or_default();
                stats.video = track.codec.is_video();
                stats.screen = track.origin == TrackSource::ScreenShare;
                stats.here = true;
            }
            TimelineEvent::Frame(frame) => {
                self.known_to = self.known_to.max(frame.at);
                let Some(stats) = self.tracks.get_mut(&frame.track) else { return };
                if !stats.video
                    && let Some(last) = stats.last
                    && frame.at.ns_since(last) > SILENCE_NS
                {
                    stats.silence_ns += frame.at.ns_since(last);
                }
                stats.expected_to(frame.at);
                stats.here = true;
                stats.frames += 1;
                stats.last = Some(frame.at);
            }
            // Without a mute the publisher is there, and what is missing is missing.
            TimelineEvent::Muted { muted: false, .. } => {}
            TimelineEvent::Muted { track, at, muted: true } => {
                if let Some(stats) = self.tracks.get_mut(track) {
                    stats.stalled_before(*at);
                    stats.here = false;
                }
            }
            TimelineEvent::Left { track, at } => {
                if let Some(stats) = self.tracks.get_mut(track) {
                    stats.stalled_before(*at);
                    stats.here = false;
                    if stats.video {
                        // Who comes back was not there in between.
                        stats.last = None;
                    }
                }
            }
            TimelineEvent::Watermark { at } => self.known_to = self.known_to.max(*at),
            _ => {}
        }
    }

    /// The newest count of a track.
    pub fn packets(&mut self, track: TrackId, packets: u64, lost: u64) {
        self.packets.insert(track, (packets, lost));
    }

    /// How much later than its sound a picture is placed now.
    pub fn av_offset(&mut self, picture: TrackId, ms: Option<f64>) {
        self.av_offsets.entry(picture).or_default().extend(ms);
    }

    /// The page was not there for so long.
    pub fn gap(&mut self, length: Duration) {
        self.page_gaps.0 += 1;
        self.page_gaps.1 += length;
    }

    /// The compositor is so far behind now.
    pub fn lag(&mut self, ms: u64) {
        self.max_lag_ms = self.max_lag_ms.max(ms);
    }

    /// `copied`: the track whose pictures went into the file untouched; `composed`: what the compositor made.
    pub fn quality(&self, media_ms: u64, copied: Option<TrackId>, composed: Option<ComposedQuality>) -> Quality {
        let gaps = |stats: &TrackQuality| stats.cadence.gaps(stats.overdue(self.known_to));
        let all: Vec<Gaps> = self.tracks.values().map(gaps).collect();
        let mut quality = Quality {
            media_ms,
            packets: self.packets.values().map(|(packets, _)| packets).sum(),
            packets_lost: self.packets.values().map(|(_, lost)| lost).sum(),
            max_lag_ms: self.max_lag_ms,
            gaps: all.iter().map(|gaps| gaps.count).sum::<u32>() + self.page_gaps.0,
            gaps_ms: (all.iter().map(|gaps| gaps.total_ns).sum::<u64>() / 1_000_000)
                .saturating_add(u64::try_from(self.page_gaps.1.as_millis()).unwrap_or(u64::MAX)),
            av_offset_ms: self.av_offsets.values().filter_map(|offsets| median(offsets)).max_by(further),
            ..Quality::default()
        };
        if let Some(composed) = composed {
            quality.frames = composed.pictures;
            quality.distinct_frames = composed.distinct_frames;
            quality.frames_skipped = composed.frames_skipped;
            quality.frames_thinned = composed.frames_thinned;
            quality.max_freeze_ms = composed.max_freeze_ms;
            quality.silence_ms = composed.silence_ms;
            quality.max_lag_ms = quality.max_lag_ms.max(composed.max_lag_ms);
        }
        if let Some(stats) = copied.and_then(|track| self.tracks.get(&track)) {
            if stats.video {
                quality.frames = stats.frames;
                quality.distinct_frames = stats.frames;
                quality.max_freeze_ms = gaps(stats).longest_ns / 1_000_000;
            } else {
                quality.silence_ms = stats.silence_ns / 1_000_000;
            }
        }
        if media_ms > 0 {
            quality.distinct_frames_per_second = quality.distinct_frames as f64 * 1000.0 / media_ms as f64;
        }
        quality.degraded = degraded(&quality);
        quality
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn further(a: &f64, b: &f64) -> std::cmp::Ordering {
    a.abs().total_cmp(&b.abs())
}

/// Why a recording is not what it should be, for the user.
pub fn degraded(quality: &Quality) -> Vec<String> {
    let mut message = vec![];
    let lost = quality.packets_lost as f64 / (quality.packets + quality.packets_lost).max(1) as f64;
    if lost > LOSS {
        message.push(format!("{:.1} % of the packets never arrived", lost * 100.0));
    }
    if quality.gaps_ms > GAP_MS {
        message.push(format!(
            "a picture was missing {} times, {:.1} s in all",
            quality.gaps,
            quality.gaps_ms as f64 / 1000.0
        ));
    } else if quality.max_freeze_ms > FREEZE_MS {
        message.push(format!("the picture stood still for {:.1} s", quality.max_freeze_ms as f64 / 1000.0));
    }
    let skipped = quality.frames_skipped.saturating_sub(quality.frames_thinned);
    if skipped as f64 > quality.frames as f64 * SKIPPED {
        message.push(format!("{skipped} pictures were skipped because the machine could not keep up"));
    }
    message.extend(left_out(quality));
    if quality.max_lag_ms > LAG_MS {
        message.push(format!(
            "the machine could not keep up: the recording was up to {:.1} s late",
            quality.max_lag_ms as f64 / 1000.0
        ));
    }
    if let Some(offset) = quality.av_offset_ms.filter(|offset| offset.abs() > AV_MS) {
        message.push(format!("picture and sound are {offset:.0} ms apart"));
    }
    message
}

/// What streams have cost the pictures, for the user.
pub fn left_out(quality: &Quality) -> Option<String> {
    let thinned = quality.frames_thinned;
    let message =
        || format!("{thinned} pictures were left out because a stream was watched and the machine could not keep up");
    (thinned as f64 > quality.frames as f64 * SKIPPED).then(message)
}

/// Sound that arrived when its time was already mixed, by participant, milliseconds.
pub fn add_late_sound(quality: &mut Quality, late: &[(String, u64)]) {
    quality.late_sound_ms = late.iter().map(|(_, ms)| ms).sum();
    for (identity, ms) in late.iter().filter(|(_, ms)| *ms >= LATE_SOUND_MS) {
        let seconds = *ms as f64 / 1000.0;
        quality.degraded.push(format!("{seconds:.1} s of the sound of {identity} came too late and are missing"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::{Codec, Frame, Track, TrackSource};
    use bytes::Bytes;

    fn video(ms: u64) -> TimelineEvent {
        TimelineEvent::Frame(Frame {
            track: TrackId(1),
            at: MediaTime::from_ns(ms * 1_000_000),
            offset_ns: 0,
            key: false,
            size: None,
            data: Bytes::new(),
        })
    }

    fn meter() -> QualityMeter {
        let mut meter = QualityMeter::default();
        joins(&mut meter, TrackSource::Camera, 0);
        meter
    }

    fn joins(meter: &mut QualityMeter, origin: TrackSource, ms: u64) {
        let track = Track {
            id: TrackId(1),
            sid: "TR_1".into(),
            identity: "alice".into(),
            agent: false,
            side: spillway_plan::StereoSide::Both,
            origin,
            codec: Codec::H264,
            channels: 0,
        };
        meter.take(&TimelineEvent::Joined { track, at: MediaTime::from_ns(ms * 1_000_000) });
    }

    fn leaves(meter: &mut QualityMeter, ms: u64) {
        meter.take(&TimelineEvent::Left { track: TrackId(1), at: MediaTime::from_ns(ms * 1_000_000) });
    }

    fn absent(meter: &mut QualityMeter, ms: u64, muted: bool) {
        meter.take(&TimelineEvent::Muted { track: TrackId(1), at: MediaTime::from_ns(ms * 1_000_000), muted });
    }

    fn complete_to(meter: &mut QualityMeter, ms: u64) {
        meter.take(&TimelineEvent::Watermark { at: MediaTime::from_ns(ms * 1_000_000) });
    }

    /// Gaps, their length in milliseconds, and the messages.
    fn fault(meter: &QualityMeter) -> (u32, u64, Vec<String>) {
        let quality = meter.quality(60_000, Some(TrackId(1)), None);
        (quality.gaps, quality.gaps_ms, quality.degraded)
    }

    const CLEAN: (u32, u64, Vec<String>) = (0, 0, vec![]);

    #[test]
    fn gaps_of_a_page_are_added_to_those_of_tracks() {
        let mut meter = QualityMeter::default();
        meter.gap(Duration::from_millis(1200));
        meter.gap(Duration::from_millis(300));
        let quality = meter.quality(10_000, None, None);
        assert_eq!((quality.gaps, quality.gaps_ms), (2, 1500));
    }

    #[test]
    fn a_still_screen_is_no_fault() {
        let mut meter = QualityMeter::default();
        joins(&mut meter, TrackSource::ScreenShare, 0);
        // Chromium repeats it each second, half of the time a little later; Firefox and Safari send nothing.
        (0..1800).for_each(|n| meter.take(&video(n * 1005)));
        assert_eq!(fault(&meter), CLEAN);
        meter.take(&video(3_600_000));
        complete_to(&mut meter, 7_200_000);
        assert_eq!(fault(&meter), CLEAN);
    }

    #[test]
    fn a_slow_camera_is_no_fault_and_a_stall_of_it_is() {
        let mut meter = meter();
        (0..100).for_each(|n| meter.take(&video(n * 2000)));
        complete_to(&mut meter, 99 * 2000 + 2500);
        assert_eq!(fault(&meter), CLEAN);
        meter.take(&video(99 * 2000 + 8000));
        assert_eq!(fault(&meter), (1, 8000, vec!["a picture was missing 1 times, 8.0 s in all".to_owned()]));
    }

    #[test]
    fn who_was_not_there_is_not_missing() {
        let mut meter = meter();
        (0..90).for_each(|n| meter.take(&video(n * 33)));
        leaves(&mut meter, 90 * 33);
        complete_to(&mut meter, 5000);
        assert_eq!(fault(&meter), CLEAN);
        joins(&mut meter, TrackSource::Camera, 6000);
        (0..90).for_each(|n| meter.take(&video(6000 + n * 33)));
        assert_eq!(fault(&meter), CLEAN);
    }

    #[test]
    fn what_is_not_asked_for_is_not_missing() {
        let mut meter = meter();
        (0..90).for_each(|n| meter.take(&video(n * 33)));
        meter.asked(TrackId(1), true);
        // On their way when the server was told.
        (90..95).for_each(|n| meter.take(&video(n * 33)));
        complete_to(&mut meter, 60_000);
        assert_eq!(fault(&meter), CLEAN);
        meter.asked(TrackId(1), false);
        (0..90).for_each(|n| meter.take(&video(60_000 + n * 33)));
        assert_eq!(fault(&meter), CLEAN);
        meter.take(&video(70_000));
        assert_eq!(fault(&meter).0, 1);
    }

    #[test]
    fn a_hole_without_a_leave_is_missing() {
        let paused = || {
            let mut meter = meter();
            (0..90).for_each(|n| meter.take(&video(n * 33)));
            meter
        };
        // Packets stop (a lost connection, a killed browser) and come again.
        let mut back = paused();
        absent(&mut back, 90 * 33, false);
        (0..9).for_each(|n| back.take(&video(6000 + n * 33)));
        assert_eq!(fault(&back).0, 1);
        assert_eq!(fault(&back).1, 6000 - 89 * 33);
        // The server notices only after 5 s that the publisher is gone; from then on nothing is missing.
        let mut gone = paused();
        leaves(&mut gone, 89 * 33 + 5000);
        complete_to(&mut gone, 60_000);
        assert_eq!((fault(&gone).0, fault(&gone).1), (1, 5000));
        // It stops and nothing is ever said of it: the file ends with a standing picture.
        let mut end = paused();
        complete_to(&mut end, 89 * 33 + 20_000);
        assert_eq!((fault(&end).0, fault(&end).1), (1, 20_000));
        let mut muted = paused();
        absent(&mut muted, 90 * 33, true);
        complete_to(&mut muted, 60_000);
        assert_eq!(fault(&muted), CLEAN);
    }

    #[test]
    fn the_offset_of_the_worst_participant_counts_and_a_rough_start_does_not() {
        let mut meter = meter();
        assert_eq!(meter.quality(1000, None, None).av_offset_ms, None);
        for ms in [180.0, 9.0, 10.0] {
            meter.av_offset(TrackId(1), Some(ms));
        }
        meter.av_offset(TrackId(2), Some(-120.0));
        meter.av_offset(TrackId(3), None);
        let quality = meter.quality(1000, None, None);
        assert_eq!(quality.av_offset_ms, Some(-120.0));
        assert_eq!(quality.degraded, ["picture and sound are -120 ms apart"]);
        meter.av_offset(TrackId(2), Some(1.0));
        meter.av_offset(TrackId(2), Some(2.0));
        assert_eq!(meter.quality(1000, None, None).av_offset_ms, Some(10.0));
    }

    #[test]
    fn a_mute_is_no_gap_and_a_stall_is() {
        let mut meter = meter();
        meter.take(&video(0));
        meter.take(&TimelineEvent::Muted { track: TrackId(1), at: MediaTime::from_ns(33_000_000), muted: true });
        meter.take(&video(5000));
        assert_eq!(meter.quality(5000, Some(TrackId(1)), None).degraded, Vec::<String>::new());
        meter.take(&video(8000));
        let quality = meter.quality(8000, Some(TrackId(1)), None);
        assert_eq!((quality.gaps, quality.gaps_ms, quality.frames), (1, 3000, 3));
        assert_eq!(quality.degraded, ["a picture was missing 1 times, 3.0 s in all"]);
    }

    #[test]
    fn a_recording_without_a_fault_has_no_message() {
        let mut meter = meter();
        (0..300).for_each(|n| meter.take(&video(n * 33)));
        meter.packets(TrackId(1), 1000, 5);
        let quality = meter.quality(9900, Some(TrackId(1)), None);
        assert!(quality.degraded.is_empty());
        assert!((quality.distinct_frames_per_second - 30.3).abs() < 0.1);
    }

    #[test]
    fn a_picture_that_is_left_out_is_told_once() {
        let degraded = |frames_skipped, frames_thinned| {
            let composed = ComposedQuality {
                pictures: 900,
                distinct_frames: 900,
                frames_skipped,
                frames_thinned,
                ..Default::default()
            };
            meter().quality(60_000, None, Some(composed)).degraded
        };
        let skipped = "300 pictures were skipped because the machine could not keep up";
        let thinned = "600 pictures were left out because a stream was watched and the machine could not keep up";
        assert_eq!(degraded(300, 0), [skipped]);
        assert_eq!(degraded(600, 600), [thinned]);
        assert_eq!(degraded(900, 600), [skipped, thinned]);
        assert_eq!(degraded(18, 9), Vec::<String>::new(), "one in a hundred is not");
    }

    #[test]
    fn sound_that_came_too_late_is_said_by_participant() {
        let mut quality = Quality::default();
        add_late_sound(&mut quality, &[("alice".into(), 20), ("bob".into(), 2460)]);
        assert_eq!(quality.late_sound_ms, 2480);
        assert_eq!(quality.degraded, ["2.5 s of the sound of bob came too late and are missing"]);
    }
}
