//! Which frames of a stream are B frames, told by media times in the order of decoding: they come behind a picture that is shown
//! later. Pure.
//!
//! Bounded, because a B frame is placed beside its picture whatever its arrival says: media times that swing for ever would
//! move on by a millisecond a frame.

/// B frames are decoded behind a picture that is shown up to so much later: three of them at 15 pictures a second.
pub(super) const MAX_REORDER_NS: i64 = 250_000_000;
/// B frames behind one picture: as many as x264 makes, and as many as a decoder of H264 keeps pictures.
const MAX_B_FRAMES: u32 = 16;

/// The frames of a stream so far.
#[derive(Debug, Default)]
pub(super) struct DecodeOrder {
    /// Media time of the newest frame that is none, nanoseconds.
    newest: Option<i64>,
    /// B frames since media time rose above all before.
    behind: u32,
}

impl DecodeOrder {
    /// One more frame, of this media time: whether it is a B frame.
    pub(super) fn is_b_frame(&mut self, media: i64) -> bool {
        let is_before = self.newest.is_some_and(|newest| (1..=MAX_REORDER_NS).contains(&(newest - media)));
        if is_before && self.behind < MAX_B_FRAMES {
            self.behind += 1;
            return true;
        }
        if self.newest.is_none_or(|newest| media > newest) {
            self.behind = 0;
        }
        self.newest = Some(media);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn b_frames(media_ms: &[i64]) -> Vec<usize> {
        let mut order = DecodeOrder::default();
        let all = media_ms.iter().enumerate();
        all.filter(|(_, ms)| order.is_b_frame(*ms * MS)).map(|(place, _)| place).collect()
    }

    #[test]
    fn what_is_shown_before_the_picture_in_front_of_it_is_a_b_frame() {
        // Of a pyramid, 33 ms apart.
        assert_eq!(b_frames(&[0, 132, 66, 33, 99, 264, 198, 165, 231]), [2, 3, 4, 6, 7, 8]);
        assert!(b_frames(&[0, 1000, 700, 1033]).is_empty(), "it jumped");
    }

    #[test]
    fn a_stream_that_swings_has_no_more_of_them_than_an_encoder_makes() {
        let swing: Vec<i64> = std::iter::once(1000).chain((0..100).map(|n| 990 - n % 7)).collect();
        let found = b_frames(&swing);
        assert!(found.starts_with(&(1..=16).collect::<Vec<_>>()));
        assert!(found.len() < 97, "some are placed by their arrival: {}", found.len());
        assert!(!found.contains(&17));
    }
}
