//! Sources that are silent most of the time: which frames of a clip they send, when, and what their RTP time does
//! meanwhile. Pure.

use std::time::Duration;

use super::RtpInPause;

/// Encoders with DTX say this often that they are still there (libopus; RFC 7587 has no number).
const DTX_UPDATE: Duration = Duration::from_millis(400);
/// How far over its beep a sentence of a second goes.
const OVER_THE_BEEP: Duration = Duration::from_millis(240);

/// What of a clip is spoken: the beginning of each period of it, with the beeps of its whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpeechPattern {
    /// Length of a sentence.
    pub speaks: Duration,
    /// From the beginning of a sentence to that of the next one.
    pub every: Duration,
    /// RTP time between sentences.
    pub rtp: RtpInPause,
    /// While it is silent, a frame that says so is sent each 400 ms.
    pub updates: bool,
    /// A sentence is sent at once when it begins.
    pub burst: bool,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameUse {
    /// It is sent.
    Spoken,
    /// A frame that says "silent" is sent in its place.
    Update,
    /// Nothing is sent.
    Silent,
}

impl SpeechPattern {
    /// Opus with DTX, as browsers send a microphone: RTP time goes on.
    pub const DTX: Self = Self {
        speaks: OVER_THE_BEEP,
        every: Duration::from_secs(1),
        rtp: RtpInPause::GoesOn,
        updates: true,
        burst: false,
    };

    /// A telephone with silence suppression: nothing is sent in pauses.
    pub const fn telephone(rtp: RtpInPause) -> Self {
        Self { rtp, updates: false, ..Self::DTX }
    }

    /// A bot that hands sentences over as fast as they are made, and counts samples.
    pub const fn bot(speaks: Duration, every: Duration) -> Self {
        Self { speaks, every, rtp: RtpInPause::StandsStill, updates: false, burst: true }
    }

    /// Time since the beginning of the sentence, or pause, that `at` lies in.
    fn phase(&self, at: Duration) -> Duration {
        Duration::from_nanos((at.as_nanos() % self.every.as_nanos()) as u64)
    }

    /// What becomes of the frame of `length` at this position on the timeline.
    pub(super) fn use_of(&self, at: Duration, length: Duration) -> FrameUse {
        let phase = self.phase(at);
        let Some(silent) = phase.checked_sub(self.speaks) else { return FrameUse::Spoken };
        let since = Duration::from_nanos((silent.as_nanos() % DTX_UPDATE.as_nanos()) as u64);
        if self.updates && silent >= DTX_UPDATE && since < length { FrameUse::Update } else { FrameUse::Silent }
    }

    /// Position at which the frame of position `at` is sent.
    pub(super) fn sent_at(&self, at: Duration) -> Duration {
        let phase = self.phase(at);
        if self.burst && phase < self.speaks { at - phase } else { at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_dtx_is_a_word_and_an_update() {
        let frame = Duration::from_millis(20);
        let uses: Vec<FrameUse> = (50..100).map(|number| SpeechPattern::DTX.use_of(frame * number, frame)).collect();
        let count = |of: FrameUse| uses.iter().filter(|it| **it == of).count();
        assert_eq!((count(FrameUse::Spoken), count(FrameUse::Update), count(FrameUse::Silent)), (12, 1, 37));
        assert_eq!((uses[11], uses[12], uses[32]), (FrameUse::Spoken, FrameUse::Silent, FrameUse::Update));
    }

    #[test]
    fn a_sentence_is_sent_at_its_beginning() {
        let bot = SpeechPattern::bot(Duration::from_millis(1500), Duration::from_secs(3));
        let at = |ms: u64| bot.sent_at(Duration::from_millis(ms));
        assert_eq!((at(3000), at(4480)), (Duration::from_secs(3), Duration::from_secs(3)));
        assert_eq!(at(4500), Duration::from_millis(4500), "silence is not sent");
    }
}
