//! Did a stream's RTP time stand still, or did its packets only travel longer?
//!
//! In: arrival minus media time of each frame. A publisher that captured nothing for a while (microphone exchanged,
//! laptop asleep, a bot that counts samples) goes on where its RTP time stopped: the difference rises at once and stays.
//! A delay of the network rises as quickly, but what waited follows faster than it was made, and the difference falls
//! back. A bot that sends a sentence at once does both. Pure; never places anything.

use std::collections::VecDeque;
use std::time::Duration;

use super::ahead::{is_at_once, is_sentence};

/// Frames that say what the difference was just before: 200 ms of Opus packets, 330 ms of pictures.
const REMEMBERED: usize = 10;
/// A queue that drains lets the difference fall by at least [`NOISE`] in this time: 42 ms per second, as on a path of 1.04
/// times the stream's rate. With 250 ms a path of 1.2 times the rate misled it 647 times in 90 minutes of stalls, now 71.
const SETTLED: Duration = Duration::from_millis(600);
const NOISE: i64 = 25_000_000;
/// When it rises again before that, it has settled already if it kept for so long.
const KEPT: Duration = Duration::from_millis(100);
/// A rise from one frame to the next, and in all, from which media time may have stood still. Above the jitter of an
/// ordinary path; a picture's encoder and pacer delay single frames by as much.
const RISE: i64 = 60_000_000;
const LEAST: i64 = 100_000_000;
/// One late frame says nothing: a large key frame, a retransmission.
const LEAST_FRAMES: u32 = 3;
/// Frames are held at most this long for the decision. What still falls after it is a queue, and is placed as such.
const LONGEST_HOLD: Duration = Duration::from_millis(1500);

/// Arrival minus media time of the newest frames, nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<i64>);

impl From<[i64; 2]> for Recent {
    fn from(offsets: [i64; 2]) -> Self {
        Self(offsets.into())
    }
}

impl Recent {
    pub(super) fn push(&mut self, offset: i64) {
        self.0.push_back(offset);
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
    }

    pub(super) fn last(&self) -> Option<i64> {
        self.0.back().copied()
    }

    pub(super) fn min(&self) -> Option<i64> {
        self.0.iter().min().copied()
    }
}

/// A rise of arrival minus media time that is not explained yet.
#[derive(Debug)]
pub(super) struct Standstill {
    /// Least difference just before.
    before: i64,
    began: Duration,
    min: i64,
    newest: i64,
    newest_at: Duration,
    /// The difference has not fallen noticeably below this one …
    level: i64,
    /// … since this arrival.
    level_at: Duration,
    frames: u32,
    /// The first difference, the last one that rose, and the arrivals of both and of the least one.
    first: (i64, Duration),
    peak: (i64, Duration),
    min_at: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Undecided,
    /// The packets had waited on the way.
    CaughtUp,
    /// Media time did not count what the frames did not show.
    StoodStill,
}

impl Standstill {
    /// A frame with which it may have begun.
    pub(super) fn begins(recent: &Recent, offset: i64, at: Duration) -> Option<Self> {
        let (before, last) = (recent.min()?, recent.last()?);
        (offset - last >= RISE && offset - before >= LEAST).then(|| Self::new(before, offset, at))
    }

    fn new(before: i64, offset: i64, at: Duration) -> Self {
        Self {
            before,
            began: at,
            min: offset,
            newest: offset,
            newest_at: at,
            level: offset,
            level_at: at,
            frames: 1,
            first: (offset, at),
            peak: (offset, at),
            min_at: at,
        }
    }

    pub(super) fn frame(&mut self, offset: i64, at: Duration) {
        self.frames += 1;
        if offset - self.newest >= RISE {
            self.peak = (offset, at);
        }
        if offset < self.min {
            self.min_at = at;
        }
        self.min = self.min.min(offset);
        self.newest = offset;
        self.newest_at = at;
        if offset < self.level - NOISE {
            self.level = offset;
            self.level_at = at;
        }
    }

    /// Before a frame of this difference is counted: it has risen again. Whether what came until now had settled.
    pub(super) fn rises_again(&self, offset: i64) -> Option<bool> {
        let rises = offset - self.newest >= RISE && offset - self.min >= LEAST;
        let settled = self.frames >= LEAST_FRAMES && self.newest_at.saturating_sub(self.level_at) >= KEPT;
        let is_part = !settled && offset <= self.first.0 + NOISE && self.is_part();
        (rises && !is_part).then_some(settled)
    }

    /// What came since the last rise came at once: of a source that sends each 200 ms, it is a part of the same speech.
    fn is_part(&self) -> bool {
        let fall = self.peak.0 - self.newest;
        fall >= RISE && is_at_once(fall, self.newest_at.saturating_sub(self.peak.1))
    }

    /// Arrival minus media time of the first frame since, if a bot has sent a sentence at once.
    pub(super) fn sentence(&self) -> Option<i64> {
        let (first, since) = self.first;
        is_sentence(first - self.min, self.min_at.saturating_sub(since)).then_some(first)
    }

    /// The same beginning, and other evidence from this frame on.
    pub(super) fn again(&self, offset: i64, at: Duration) -> Self {
        Self { began: self.began, ..Self::new(self.before, offset, at) }
    }

    pub(super) fn verdict(&self, now: Duration) -> Verdict {
        if self.rise() < LEAST {
            Verdict::CaughtUp
        } else if self.frames >= LEAST_FRAMES && now.saturating_sub(self.level_at) >= SETTLED {
            Verdict::StoodStill
        } else {
            Verdict::Undecided
        }
    }

    /// By how much media time stood still, if it did.
    pub(super) fn rise(&self) -> i64 {
        self.rise_to(self.min)
    }

    /// The same if this difference is right from now on.
    pub(super) fn rise_to(&self, offset: i64) -> i64 {
        offset - self.before
    }

    /// The least and the newest difference since.
    pub(super) fn recent(&self) -> Recent {
        Recent::from([self.min, self.newest])
    }

    /// Frames wait for the verdict.
    pub(super) fn holds(&self, now: Duration) -> bool {
        now.saturating_sub(self.began) < LONGEST_HOLD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    /// Frames as (arrival, arrival minus media time), milliseconds; what is known at the last one's arrival. It was 0.
    fn verdict(frames: &[(u64, i64)]) -> Verdict {
        let (first, rest) = frames.split_first().unwrap();
        let at = |ms: u64| Duration::from_millis(ms);
        let mut standstill = Standstill::new(0, first.1 * MS, at(first.0));
        rest.iter().for_each(|(ms, offset)| standstill.frame(offset * MS, at(*ms)));
        standstill.verdict(at(frames.last().unwrap().0))
    }

    #[test]
    fn what_keeps_its_distance_stood_still() {
        assert_eq!(verdict(&[(0, 1000), (20, 1000), (590, 1005)]), Verdict::Undecided);
        let jitter = [(0, 1000), (20, 1010), (100, 990), (610, 1020)];
        assert_eq!(verdict(&jitter), Verdict::StoodStill, "jitter is no queue");
    }

    #[test]
    fn what_comes_faster_than_it_was_made_had_waited() {
        let queue: Vec<(u64, i64)> = (0..70).map(|n| (10 * n, 1000 - n as i64)).collect();
        assert_eq!(verdict(&queue), Verdict::Undecided);
        assert_eq!(verdict(&[(0, 1000), (1, 980), (2, 90)]), Verdict::CaughtUp);
    }

    #[test]
    fn parts_that_come_at_once_are_one_speech() {
        // 200 ms each 200 ms, after a pause of 3 s.
        let mut standstill = Standstill::new(0, 3000 * MS, Duration::ZERO);
        for n in 1..20u64 {
            let offset = (3000 - n as i64 % 10 * 20) * MS;
            assert_eq!(standstill.rises_again(offset), None, "packet {n}");
            standstill.frame(offset, Duration::from_millis(n / 10 * 200));
        }
        assert_eq!(standstill.rises_again(3000 * MS), Some(true), "two parts that end alike have settled");
        assert_eq!((standstill.rise(), standstill.sentence()), (2820 * MS, None));
    }

    #[test]
    fn a_sentence_that_comes_at_once_is_told_from_a_queue() {
        let sentence = |step: u64| {
            let mut standstill = Standstill::new(0, 3000 * MS, Duration::ZERO);
            (1..75).for_each(|n| {
                standstill.frame((3000 - n as i64 * (20 - step as i64)) * MS, Duration::from_millis(n * step))
            });
            standstill.sentence()
        };
        assert_eq!(sentence(0), Some(3000 * MS));
        assert_eq!(sentence(10), None, "a way of twice the rate");
    }

    #[test]
    fn one_late_frame_says_nothing() {
        assert_eq!(verdict(&[(0, 300), (900, 300)]), Verdict::Undecided);
    }
}
