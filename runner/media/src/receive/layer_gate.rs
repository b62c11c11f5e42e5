//! Where a copied picture begins: a server that forwards simulcast sends the first key frame that it has, which is often one
//! of the lowest layer, and the layer that was asked for after a moment (measured: 320×180 for 0 to 12 s in 10 of 12
//! recordings). In: key frames with their size, and the time. Out: whether one is good enough. Pure; `stream` keeps what
//! waits, and nothing of it is lost when no better one comes.

use std::sync::Arc;
use std::time::Duration;

use super::event::SourceTime;
use crate::track::Codec;

/// How long a better layer is waited for when a stream begins …
const AT_BEGINNING: Duration = Duration::from_secs(2);
/// … and when it comes back from a mute.
const AFTER_PAUSE: Duration = Duration::from_secs(1);

/// Waits for the best layer of one stream.
#[derive(Clone, Debug)]
pub(super) struct LayerGate {
    codecs: Arc<[Codec]>,
    /// Pixels of a picture that is good enough: encoders round, and some scale down by a little.
    enough: u64,
    wait: Duration,
    /// When the first picture came.
    since: Option<SourceTime>,
}

impl LayerGate {
    /// For a publication of this size in pixels; `None` where it is not known. Pictures of other codecs do not wait.
    pub(super) fn new(codecs: &Arc<[Codec]>, published: (u32, u32)) -> Option<Self> {
        // Three quarters of each side, however it is turned.
        let enough = pixels(published) * 9 / 16;
        let codecs = codecs.clone();
        (enough > 0 && !codecs.is_empty()).then_some(Self { codecs, enough, wait: AT_BEGINNING, since: None })
    }

    /// The same after a pause.
    pub(super) fn after_pause(&self) -> Self {
        Self { wait: AFTER_PAUSE, since: None, ..self.clone() }
    }

    /// A frame that could be recorded came at `at`: whether nothing better is waited for.
    pub(super) fn passes(&mut self, codec: Codec, key: bool, size: Option<(u32, u32)>, at: SourceTime) -> bool {
        self.since.get_or_insert(at);
        !self.codecs.contains(&codec) || key && size.is_none_or(|size| pixels(size) >= self.enough)
    }

    /// Nothing better has come in time.
    pub(super) fn is_over(&self, at: SourceTime) -> bool {
        self.since.is_some_and(|since| at.saturating_sub(since) >= self.wait)
    }
}

fn pixels((width, height): (u32, u32)) -> u64 {
    u64::from(width) * u64::from(height)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_quarters_of_the_published_size_are_enough_also_upright() {
        let codecs: Arc<[Codec]> = [Codec::H264].into();
        assert!(LayerGate::new(&codecs, (0, 0)).is_none());
        let mut gate = LayerGate::new(&codecs, (1280, 720)).unwrap();
        let second = Duration::from_secs;
        for (codec, key, size, passes) in [
            (Codec::H264, true, Some((320, 180)), false),
            (Codec::H264, false, None, false),
            (Codec::H264, true, Some((640, 360)), false),
            (Codec::H264, true, Some((960, 540)), true),
            (Codec::H264, true, Some((720, 1280)), true),
            (Codec::H264, true, None, true),
            (Codec::Vp8, true, Some((320, 180)), true),
        ] {
            assert_eq!(gate.passes(codec, key, size, second(5)), passes, "{codec:?} {size:?}");
        }
        assert!(!gate.is_over(second(6)) && gate.is_over(second(7)));
        let mut later = gate.after_pause();
        assert!(!later.is_over(second(60)));
        later.passes(Codec::H264, true, Some((320, 180)), second(60));
        assert!(later.is_over(second(61)));
    }
}
