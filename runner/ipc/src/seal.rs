//! Which bytes of a file that is still being written are final. A muxer's writes go in, a position comes out. Pure: it
//! knows no file and no clock.

use std::ops::Range;

use spillway_plan::Container;

/// Tracks one file: bytes `head()..sealed_to()` will not change any more. The first `head()` bytes are rewritten once, when
/// the file ends.
///
/// Muxers append, and go back only to fill in a size they did not know: of the open fragment (MP4) or cluster (WebM).
/// So everything before the open one is final.
#[derive(Clone, Debug)]
pub struct SealTracker {
    container: Container,
    end: u64,
    /// Start of the fragment or cluster whose size is not known yet.
    open: Option<u64>,
    /// The largest answer ever given: it only grows.
    sealed_to: u64,
}

impl SealTracker {
    /// For an empty file of this container.
    pub fn new(container: Container) -> Self {
        Self { container, end: 0, open: None, sealed_to: 0 }
    }

    /// Bytes at the start that are written once more when the recording ends.
    pub fn head(&self) -> u64 {
        match self.container {
            // `ftyp`, then size and type of the box that covers all media.
            Container::Mp4 => 48,
            // Segment size, seek head, duration, cues position: all in front of the first cluster.
            Container::Webm => 1024,
            // The frame count.
            Container::Ivf => 32,
            // The Xing frame.
            Container::Mp3 => 256,
            Container::Ogg => 0,
        }
    }

    /// `bytes` were written at `at`. Answers which sealed bytes behind the head were changed: empty except for the one
    /// byte by which mp4mux hides its first `moov` at the end, which no player needs.
    pub fn wrote(&mut self, at: u64, bytes: &[u8]) -> Range<u64> {
        let end = at + bytes.len() as u64;
        if at >= self.end {
            // Inside an open one nothing opens: media data may look like anything.
            if self.open.is_none() && self.opens(bytes) {
                self.open = Some(at);
            }
        } else if self.open.is_some_and(|open| at < open + 16 && end > open) {
            self.open = None;
        }
        let sealed = self.sealed_to;
        self.end = self.end.max(end);
        self.sealed_to = self.sealed_to.max(self.open.unwrap_or(self.end));
        let changed = at.max(self.head())..end.min(sealed);
        if changed.is_empty() { 0..0 } else { changed }
    }

    /// Bytes of the file.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes before this one are final, except those of the head.
    pub fn sealed_to(&self) -> u64 {
        self.sealed_to
    }

    fn opens(&self, bytes: &[u8]) -> bool {
        match self.container {
            // The muxer pushes such a head as a buffer of its own, 16 bytes: `mdat` with a long size, or `free` + `mdat`.
            Container::Mp4 => {
                bytes.len() == 16 && (&bytes[4..8] == b"mdat" || (&bytes[4..8] == b"free" && &bytes[12..16] == b"mdat"))
            }
            Container::Webm => bytes.starts_with(&[0x1F, 0x43, 0xB6, 0x75]),
            Container::Ogg | Container::Ivf | Container::Mp3 => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONTAINERS: [Container; 5] =
        [Container::Mp4, Container::Webm, Container::Ogg, Container::Ivf, Container::Mp3];

    fn mdat(size: u64) -> Vec<u8> {
        [&1u32.to_be_bytes()[..], b"mdat", &size.to_be_bytes()].concat()
    }

    fn free_mdat() -> Vec<u8> {
        [&8u32.to_be_bytes()[..], b"free", &0u32.to_be_bytes(), b"mdat"].concat()
    }

    /// The writes of a whole recording as the muxers make them: (position, bytes).
    fn recording(container: Container, fragments: &[Vec<Vec<u8>>]) -> Vec<(u64, Vec<u8>)> {
        let (mut writes, mut end) = (vec![], 0u64);
        let mut append = |writes: &mut Vec<(u64, Vec<u8>)>, bytes: Vec<u8>| {
            let at = end;
            end += bytes.len() as u64;
            writes.push((at, bytes));
            at
        };
        match container {
            Container::Mp4 => {
                append(&mut writes, vec![b'f'; 32]);
                let mut first_moov = None;
                for (index, fragment) in fragments.iter().enumerate() {
                    let head = append(&mut writes, if index == 0 { free_mdat() } else { mdat(0) });
                    for data in fragment {
                        append(&mut writes, data.clone());
                    }
                    let size = writes.last().map_or(0, |(at, bytes)| at + bytes.len() as u64) - head;
                    writes.push((head, mdat(size)));
                    let described = append(&mut writes, vec![b'm'; 40]);
                    first_moov.get_or_insert(described);
                }
                append(&mut writes, vec![b'M'; 99]);
                writes.extend(first_moov.map(|at| (at + 4, vec![b'h'])));
                writes.push((32, mdat(1234)));
            }
            Container::Webm => {
                append(&mut writes, vec![b'e'; 600]);
                for fragment in fragments {
                    let head = append(&mut writes, vec![0x1F, 0x43, 0xB6, 0x75, 1, 255, 255, 255, 255, 255, 255, 255]);
                    for data in fragment {
                        append(&mut writes, data.clone());
                    }
                    writes.push((head + 4, vec![1, 0, 0, 0, 0, 0, 9, 9]));
                }
                append(&mut writes, vec![b'c'; 70]);
                for at in [32, 100, 108, 156, 184, 211] {
                    writes.push((at, vec![7; 8]));
                }
            }
            Container::Ogg | Container::Ivf | Container::Mp3 => {
                append(&mut writes, vec![0; 168]);
                for data in fragments.iter().flatten() {
                    append(&mut writes, data.clone());
                }
                match container {
                    Container::Ivf => writes.push((24, vec![9; 8])),
                    Container::Mp3 => writes.push((0, vec![9; 168])),
                    _ => {}
                }
            }
        }
        writes
    }

    fn apply(file: &mut Vec<u8>, at: u64, bytes: &[u8]) {
        let (from, to) = (at as usize, at as usize + bytes.len());
        file.resize(file.len().max(to), 0);
        file[from..to].copy_from_slice(bytes);
    }

    /// Media data that often looks like a head.
    fn data() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 1..60),
            Just(mdat(5)),
            Just(free_mdat()),
            Just(vec![0x1F, 0x43, 0xB6, 0x75, 0, 0]),
        ]
    }

    proptest! {
        #[test]
        fn sealed_bytes_are_the_final_ones(
            which in 0..CONTAINERS.len(),
            fragments in prop::collection::vec(prop::collection::vec(data(), 1..8), 1..8),
        ) {
            let container = CONTAINERS[which];
            let writes = recording(container, &fragments);
            let mut finished = vec![];
            for (at, bytes) in &writes {
                apply(&mut finished, *at, bytes);
            }
            let mut tracker = SealTracker::new(container);
            let (mut file, mut late) = (vec![], vec![]);
            let head = tracker.head() as usize;
            for (at, bytes) in &writes {
                let changed = tracker.wrote(*at, bytes);
                if !changed.is_empty() {
                    late.push(changed);
                }
                apply(&mut file, *at, bytes);
                for index in head..tracker.sealed_to() as usize {
                    // The `h` of the hidden moov is the one known exception, see `wrote`.
                    prop_assert!(file[index] == finished[index] || finished[index] == b'h', "byte {index}");
                }
            }
            prop_assert_eq!(tracker.end(), file.len() as u64);
            prop_assert_eq!(tracker.sealed_to(), tracker.end());
            prop_assert!(late.is_empty() || (container == Container::Mp4 && late.len() == 1 && late[0].end - late[0].start == 1));
        }

        #[test]
        fn whatever_is_written_the_promise_only_grows_and_every_breach_is_reported(
            which in 0..CONTAINERS.len(),
            writes in prop::collection::vec((0u64..3000, data(), any::<bool>()), 1..60),
        ) {
            let mut tracker = SealTracker::new(CONTAINERS[which]);
            let mut file: Vec<u8> = vec![];
            for (at, bytes, append) in writes {
                let at = if append { tracker.end() } else { at.min(tracker.end()) };
                let (sealed, before) = (tracker.sealed_to(), file.clone());
                let reported = tracker.wrote(at, &bytes);
                apply(&mut file, at, &bytes);
                prop_assert!(tracker.sealed_to() >= sealed && tracker.sealed_to() <= tracker.end());
                for index in tracker.head()..sealed {
                    prop_assert!(file[index as usize] == before[index as usize] || reported.contains(&index));
                }
            }
        }
    }

    #[test]
    fn an_open_fragment_is_not_sealed_until_its_size_is_known() {
        let mut tracker = SealTracker::new(Container::Mp4);
        tracker.wrote(0, &[0; 32]);
        tracker.wrote(32, &free_mdat());
        tracker.wrote(48, &[1; 5000]);
        assert_eq!((tracker.end(), tracker.sealed_to()), (5048, 32));
        tracker.wrote(32, &mdat(5016));
        assert_eq!(tracker.sealed_to(), 5048);
    }
}
