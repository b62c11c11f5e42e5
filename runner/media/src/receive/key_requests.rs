//! When a key frame of one stream may be asked for again: ever more seldom while none comes, and no more of a stream that sends
//! nothing at all. In: requests, packets, key frames, with their time. Pure.

use std::time::Duration;

use super::event::SourceTime;

/// After the first request; each further wait is twice as long …
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// … up to this many times. Publishers that answer no request (OBS by WHIP) send a key frame each 2 to 4 s.
const DOUBLINGS: u32 = 3;
/// Requests since the last packet: one of them may be lost. Without a packet its publisher is gone, or the server sends nothing.
const MAX_UNANSWERED: u32 = 4;

/// Requests for a key frame of one stream.
#[derive(Debug, Default)]
pub(super) struct KeyRequests {
    asked: Option<SourceTime>,
    /// Since the last key frame.
    count: u32,
    /// Since the last packet.
    unanswered: u32,
}

impl KeyRequests {
    /// Whether one may be sent now.
    pub(super) fn is_due(&self, at: SourceTime) -> bool {
        let wait = ASK_AGAIN * (1u32 << self.count.saturating_sub(1).min(DOUBLINGS));
        self.unanswered < MAX_UNANSWERED && self.asked.is_none_or(|asked| at.saturating_sub(asked) >= wait)
    }

    /// One is sent.
    pub(super) fn ask(&mut self, at: SourceTime) {
        self.asked = Some(at);
        self.count = self.count.saturating_add(1);
        self.unanswered += 1;
    }

    /// A packet with media came.
    pub(super) fn packet(&mut self) {
        self.unanswered = 0;
    }

    /// A key frame came, or the stream begins anew.
    pub(super) fn restart(&mut self) {
        (self.count, self.unanswered) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds of the requests up to here, looked at each 10 ms.
    fn asked(requests: &mut KeyRequests, from_ms: u64, to_ms: u64, is_sending: bool) -> Vec<u64> {
        let mut asked = vec![];
        for ms in (from_ms..to_ms).step_by(10) {
            if is_sending {
                requests.packet();
            }
            let at = Duration::from_millis(ms);
            if requests.is_due(at) {
                requests.ask(at);
                asked.push(ms);
            }
        }
        asked
    }

    #[test]
    fn requests_become_seldom_and_begin_anew_with_a_key_frame() {
        let mut requests = KeyRequests::default();
        assert_eq!(asked(&mut requests, 0, 16_000, true), [0, 500, 1500, 3500, 7500, 11_500, 15_500]);
        requests.restart();
        assert_eq!(asked(&mut requests, 16_000, 18_000, true), [16_000, 16_500, 17_500]);
    }

    #[test]
    fn a_stream_that_sends_nothing_is_asked_four_times() {
        let mut requests = KeyRequests::default();
        assert_eq!(asked(&mut requests, 0, 3_600_000, false), [0, 500, 1500, 3500]);
        assert_eq!(asked(&mut requests, 3_600_000, 3_601_000, true), [3_600_000]);
    }
}
