//! When a stream's first frames may set its clock. In: media time and arrival of each frame. Out: whether the least
//! difference of the two may be believed. Pure.

use std::time::Duration;

use super::ahead::is_sentence;

/// Intervals in a row that must keep the media's pace.
const PACED: u32 = 3;
/// Longest wait; a static screen share never keeps a pace.
const LONGEST: Duration = Duration::from_millis(300);
/// After a queue comes what is captured now; after a sentence of a bot nothing comes for so long.
const SILENT: Duration = Duration::from_millis(100);

/// A stream may begin with a burst of old packets (the server's cache, a queue on the way); their arrival says nothing
/// about their time. Frames wait here until they come as fast as they were made.
#[derive(Debug, Default)]
pub(super) struct StartupGate {
    first: Option<Duration>,
    last: Option<(i64, Duration)>,
    paced: u32,
    /// Least arrival minus media time.
    pub(super) best: Option<i64>,
    /// The most, and when.
    most: Option<(i64, Duration)>,
}

impl StartupGate {
    pub(super) fn frame(&mut self, media: i64, at: Duration) {
        self.first.get_or_insert(at);
        if let Some((last_media, last_at)) = self.last {
            let (made, came) = (media - last_media, at.saturating_sub(last_at).as_nanos() as i64);
            let keeps_pace = made > 0 && came * 10 >= made * 3 && came <= made * 3;
            self.paced = if keeps_pace { self.paced + 1 } else { 0 };
        }
        self.last = Some((media, at));
        let offset = at.as_nanos() as i64 - media;
        self.best = Some(self.best.map_or(offset, |best| best.min(offset)));
        if self.most.is_none_or(|(most, _)| offset > most) {
            self.most = Some((offset, at));
        }
    }

    /// Arrival minus media time of the first frame, if what came is a sentence that a bot has sent at once.
    pub(super) fn sentence(&self, now: Duration) -> Option<i64> {
        let ((most, since), (_, last), best) = (self.most?, self.last?, self.best?);
        let silent = self.paced < PACED && now.saturating_sub(last) >= SILENT;
        (silent && is_sentence(most - best, last.saturating_sub(since))).then_some(most)
    }

    pub(super) fn is_open(&self, now: Duration) -> bool {
        self.paced >= PACED || self.first.is_some_and(|first| now.saturating_sub(first) >= LONGEST)
    }
}
