//! Sources that hand sound over before it is heard: bots that send a sentence at once when it was made, and nothing until the
//! next one.
//!
//! A live source cannot send what was not captured yet, so what comes at once from it had waited on the way, and its last
//! frame says when it was captured. A sentence is heard from its first frame on. In: arrival minus media time. Pure.

use std::time::Duration;

/// Sound that comes at once, from which it is a sentence, nanoseconds. Bots and phones that send each 200 ms do as live
/// sources do.
const SENTENCE: i64 = 300_000_000;
/// So many times faster than it is heard.
const AT_ONCE: i64 = 4;
/// A source whose media time kept to its arrival for so long is live …
const LIVE_AFTER: Duration = Duration::from_secs(2);
/// … up to this: jitter, and what a phone sends at once.
const LIVE: i64 = 200_000_000;

/// Arrival minus media time fell by so much within a time in which it was handed over, not captured.
pub(super) fn is_at_once(fall: i64, took: Duration) -> bool {
    took.as_nanos() as i64 * AT_ONCE <= fall
}

/// The same of a sentence.
pub(super) fn is_sentence(fall: i64, took: Duration) -> bool {
    fall >= SENTENCE && is_at_once(fall, took)
}

/// A stream of sentences, until it is live.
#[derive(Debug, Default)]
pub(super) struct AheadSource {
    /// Media time and arrival of the frame from which on it has kept its pace.
    paced: Option<(i64, Duration)>,
}

impl AheadSource {
    /// A frame arrived. True: the source is live.
    pub(super) fn is_live(&mut self, media: i64, at: Duration) -> bool {
        let (first, since) = *self.paced.get_or_insert((media, at));
        let took = at.saturating_sub(since);
        if (media - first - took.as_nanos() as i64).abs() > LIVE {
            self.paced = Some((media, at));
            return false;
        }
        took >= LIVE_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_comes_faster_than_it_is_heard_is_a_sentence() {
        assert!(is_sentence(300 * MS, ms(75)));
        assert!(!is_sentence(300 * MS, ms(76)), "a queue that drains");
        assert!(!is_sentence(180 * MS, ms(0)), "a phone that sends each 200 ms");
    }

    #[test]
    fn two_seconds_at_its_pace_are_live() {
        let mut bot = AheadSource::default();
        // Sentences of 1.5 s, each 3 s.
        for sentence in 0..5i64 {
            assert!((0..75).all(|n| !bot.is_live((sentence * 1500 + n * 20) * MS, ms(3000 * sentence as u64))));
        }
        let live =
            (0..200).position(|n| bot.is_live((7500 + n * 20) * MS, ms(15_000 + n as u64 * 20 + n as u64 % 3 * 40)));
        assert!(live.is_some_and(|frame| (98..105).contains(&frame)), "{live:?}");
    }
}
