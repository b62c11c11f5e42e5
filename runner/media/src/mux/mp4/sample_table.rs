//! What is remembered of the samples of a track that are in the file, for the `moov` at its end. Twelve hours of pictures and
//! sound are 3.5 million samples: three to six bytes each (16 before: 55 MB). Pure.

/// Begin, size and kind of each sample, in order; numbers as LEB128.
#[derive(Default)]
pub struct SampleTable {
    samples: u32,
    first: u64,
    /// Begin of the newest sample.
    last: u64,
    /// Durations of all but the newest: pairs of a number of samples and the duration of each.
    runs: Vec<u8>,
    /// The pair that still grows.
    run: (u32, u64),
    sizes: Vec<u8>,
    /// Varints of those that are decodable by themselves, from 1.
    keys: Vec<u32>,
}

impl SampleTable {
    /// The next sample; `at` is not before that of the one before.
    pub fn push(&mut self, at: u64, size: u32, key: bool) {
        if self.samples == 0 {
            self.first = at;
        } else {
            let duration = at.saturating_sub(self.last);
            if self.run.0 > 0 && self.run.1 != duration {
                put(&mut self.runs, u64::from(self.run.0));
                put(&mut self.runs, self.run.1);
                self.run.0 = 0;
            }
            self.run = (self.run.0 + 1, duration);
        }
        self.last = at;
        self.samples += 1;
        put(&mut self.sizes, size.into());
        if key {
            self.keys.push(self.samples);
        }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.samples
    }

    /// Begin of the first one.
    pub fn first(&self) -> Option<u64> {
        (self.samples > 0).then_some(self.first)
    }

    /// Begin of the newest one.
    pub fn last(&self) -> Option<u64> {
        (self.samples > 0).then_some(self.last)
    }

    /// Begin of the one before the newest.
    pub fn before_last(&self) -> Option<u64> {
        (self.samples > 1).then(|| self.last - self.run.1)
    }

    /// Begin and end of each sample; the newest one ends at `end`.
    pub fn intervals(&self, end: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut closed = Varints(&self.runs);
        let closed = std::iter::from_fn(move || Some((closed.next()?, closed.next()?)));
        let open = [(u64::from(self.run.0), self.run.1)];
        let newest = self.last().map(|last| (1, end.saturating_sub(last)));
        let runs = closed.chain(open).chain(newest);
        let durations = runs.flat_map(|(count, duration)| std::iter::repeat_n(duration, count as usize));
        durations.scan(self.first, |begin, duration| {
            let interval = (*begin, *begin + duration);
            *begin = interval.1;
            Some(interval)
        })
    }

    /// Bytes of each sample.
    pub fn sizes(&self) -> impl Iterator<Item = u32> + '_ {
        Varints(&self.sizes).map(|size| size as u32)
    }

    /// Varints of those that are decodable by themselves, from 1.
    pub fn keys(&self) -> &[u32] {
        &self.keys
    }
}

/// Seven bits a byte, least first.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads what [`put`] wrote.
struct Varints<'a>(&'a [u8]);

impl Iterator for Varints<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
            shift += 7;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_what_was_put_in() {
        let mut table = SampleTable::default();
        assert_eq!((table.first(), table.last(), table.before_last(), table.count()), (None, None, None, 0));
        assert_eq!((table.intervals(9).count(), table.sizes().count()), (0, 0));
        let samples: [(u64, u32, bool); 6] = [
            (500, 70_000, true),
            (3500, 127, false),
            (6500, 128, false),
            (6501, u32::MAX, true),
            (1 << 40, 0, false),
            ((1 << 40) + 3000, 1, false),
        ];
        samples.iter().for_each(|(at, size, key)| table.push(*at, *size, *key));
        assert_eq!((table.first(), table.last(), table.count()), (Some(500), Some((1 << 40) + 3000), 6));
        assert_eq!(table.before_last(), Some(1 << 40));
        assert_eq!(table.sizes().collect::<Vec<_>>(), samples.map(|(_, size, _)| size));
        assert_eq!(table.keys(), [1, 4]);
        let end = (1 << 40) + 3100;
        let ends = samples.iter().skip(1).map(|(at, ..)| *at).chain([end]);
        let intervals: Vec<(u64, u64)> = samples.iter().map(|(at, ..)| *at).zip(ends).collect();
        assert_eq!(table.intervals(end).collect::<Vec<_>>(), intervals);
    }

    #[test]
    fn twelve_hours_of_a_camera_and_a_microphone_take_less_than_twenty_megabytes() {
        let (mut camera, mut microphone) = (SampleTable::default(), SampleTable::default());
        for n in 0..12 * 3600 * 30u64 {
            // 90 kHz; pictures come when they come.
            camera.push(n * 3000 + n * n % 700, 2000 + (n * 7919 % 15_000) as u32, n % 60 == 0);
        }
        for n in 0..12 * 3600 * 50u64 {
            microphone.push(n * 960, 80 + (n * 31 % 90) as u32, false);
        }
        let bytes = |table: &SampleTable| table.runs.len() + table.sizes.len() + table.keys.len() * 4;
        assert!(bytes(&camera) + bytes(&microphone) < 20_000_000, "{} {}", bytes(&camera), bytes(&microphone));
    }
}
