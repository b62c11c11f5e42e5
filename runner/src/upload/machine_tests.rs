use std::collections::BTreeMap;

use proptest::prelude::*;
use spillway_ipc::SealTracker;
use spillway_plan::Container;

use super::super::plan::PartSizes;
use super::*;
use crate::upload::candidates;

const SECOND: Duration = Duration::from_secs(1);
const CONTAINERS: [Container; 5] = [Container::Mp4, Container::Webm, Container::Ogg, Container::Ivf, Container::Mp3];

/// Chance with a seed.
struct SeededRng(u64);

impl SeededRng {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn free_mdat(size: u32) -> Vec<u8> {
    [&8u32.to_be_bytes()[..], b"free", &size.to_be_bytes(), b"mdat"].concat()
}

/// The writes of a recording as our muxers make them: (position, bytes).
fn recording(container: Container, fragments: u64, rng: &mut SeededRng) -> Vec<(u64, Vec<u8>)> {
    let (mut writes, mut end) = (vec![], 0u64);
    let mut append = |writes: &mut Vec<(u64, Vec<u8>)>, bytes: Vec<u8>| {
        let at = end;
        end += bytes.len() as u64;
        writes.push((at, bytes));
        at
    };
    let noise = |rng: &mut SeededRng| (0..1 + rng.below(900)).map(|at| (at * 7 + rng.0) as u8).collect::<Vec<u8>>();
    match container {
        Container::Mp4 => {
            append(&mut writes, vec![b'f'; 300]);
            for _ in 0..fragments {
                let head = append(&mut writes, free_mdat(0));
                let data = noise(rng);
                let size = data.len() as u32;
                append(&mut writes, data);
                writes.push((head, free_mdat(size + 8)));
            }
            append(&mut writes, vec![b'M'; 199]);
            writes.push((32, free_mdat(1234)));
        }
        Container::Webm => {
            append(&mut writes, vec![b'e'; 1100]);
            for _ in 0..fragments {
                let head = append(&mut writes, vec![0x1F, 0x43, 0xB6, 0x75, 1, 255, 255, 255, 255, 255, 255, 255]);
                for _ in 0..1 + rng.below(4) {
                    let data = noise(rng);
                    append(&mut writes, data);
                }
                writes.push((head + 4, vec![1, 0, 0, 0, 0, 0, 9, 9]));
            }
            append(&mut writes, vec![b'c'; 70]);
            for at in [32, 100, 108, 156, 184, 211] {
                writes.push((at, vec![7; 8]));
            }
        }
        Container::Ogg | Container::Ivf | Container::Mp3 => {
            append(&mut writes, vec![0; 300]);
            for _ in 0..fragments {
                let data = noise(rng);
                append(&mut writes, data);
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

fn tag(bytes: &[u8]) -> PartTag {
    let etag = spillway_storage::checksum::hex(&spillway_storage::checksum::md5(bytes));
    PartTag { bytes: bytes.len() as u64, etag, crc32c: None }
}

/// A store as strict as the strictest, with the parts of one upload.
struct StrictStore {
    rules: PartRules,
    /// By number and, where parts of any size are taken, generation.
    parts: BTreeMap<(u32, u32), Vec<u8>>,
}

impl StrictStore {
    fn key(&self, number: u32, generation: u32) -> (u32, u32) {
        (number, if self.rules.append_small() { generation } else { 0 })
    }

    fn takes(&mut self, number: u32, generation: u32, bytes: Vec<u8>) {
        let key = self.key(number, generation);
        self.parts.insert(key, bytes);
    }

    /// The object, or `None` if the store would refuse.
    fn complete(&self, parts: &[Part]) -> Option<Vec<u8>> {
        let mut object = vec![];
        let sizes: Vec<u64> = parts.iter().map(|part| part.tag.bytes).collect();
        let (_, all_but_last) = sizes.split_last()?;
        if all_but_last.iter().any(|size| *size < self.rules.min_part_bytes)
            || self.rules.uniform && (all_but_last.iter().any(|size| *size != sizes[0]) || *sizes.last()? > sizes[0])
        {
            return None;
        }
        for (index, part) in parts.iter().enumerate() {
            let bytes = self.parts.get(&self.key(part.number, part.generation))?;
            if part.number as usize != index + 1 || tag(bytes) != part.tag {
                return None;
            }
            object.extend_from_slice(bytes);
        }
        Some(object)
    }
}

struct Flight {
    put: PartRequest,
    bytes: Vec<u8>,
}

struct MachineLab {
    machine: UploadMachine,
    store: StrictStore,
    file: Vec<u8>,
    punched: Vec<Range<u64>>,
    flights: Vec<Flight>,
    /// Given up, but they may still arrive.
    late_flights: Vec<Flight>,
    /// What Redis knows.
    state: Vec<PartState>,
    now: Instant,
    sent: u64,
    faults: bool,
    /// Heads of the file, one after the other.
    heads: Vec<Vec<u8>>,
    head: usize,
    /// Old bytes came late and lie over newer ones: until that is found out, less can be salvaged.
    spoiled: bool,
}

fn rules(which: u64) -> PartRules {
    let rules = PartRules { min_part_bytes: 1500, max_part_bytes: 100_000, max_parts: 10_000, uniform: false };
    match which {
        0 => rules,
        1 => PartRules { uniform: true, ..rules },
        _ => PartRules { min_part_bytes: 1, ..rules },
    }
}

impl MachineLab {
    fn new(container: Container, which: u64, faults: bool) -> Self {
        let rules = rules(which);
        let head = SealTracker::new(container).head();
        let sizes = PartSizes { small: 1500, small_until: 2, middle: 2000, middle_until: 4, large: 3000 };
        let tuning = Tuning { checkpoint: SECOND, at_once: 3, bytes_at_once: 6000 };
        let layout = PartLayout::of(&rules, &sizes, head, None);
        Self {
            machine: UploadMachine::new(layout, rules, tuning),
            store: StrictStore { rules, parts: BTreeMap::new() },
            file: vec![],
            punched: vec![],
            flights: vec![],
            late_flights: vec![],
            state: vec![],
            now: Instant::now(),
            sent: 0,
            faults,
            heads: vec![],
            head: head as usize,
            spoiled: false,
        }
    }

    fn note_head(&mut self) {
        if self.file.len() >= self.head {
            let head = self.file[..self.head].to_vec();
            if self.heads.last() != Some(&head) {
                self.heads.push(head);
            }
        }
    }

    fn send_what_is_due(&mut self) {
        while let Some(put) = self.machine.next(self.now) {
            for hole in &self.punched {
                assert!(put.range.end <= hole.start || put.range.start >= hole.end, "read a hole {put:?}");
            }
            assert!(self.flights.iter().all(|flight| flight.put.number != put.number), "two of one number");
            let bytes = self.file[put.range.start as usize..put.range.end as usize].to_vec();
            self.sent += bytes.len() as u64;
            self.machine.expects(put.number, put.generation, tag(&bytes));
            self.flights.push(Flight { put, bytes });
        }
        assert!(self.flights.len() <= 3);
        // Written before the sending begins.
        self.state = self.machine.part_states();
    }

    /// One flight ends somehow.
    fn land(&mut self, rng: &mut SeededRng) {
        if !self.late_flights.is_empty() && rng.below(3) == 0 {
            let index = rng.below(self.late_flights.len() as u64) as usize;
            let late_write = self.late_flights.swap_remove(index);
            self.spoiled = true;
            self.store.takes(late_write.put.number, late_write.put.generation, late_write.bytes);
        }
        if self.flights.is_empty() {
            return;
        }
        let index = rng.below(self.flights.len() as u64) as usize;
        let Flight { put, bytes } = self.flights.swap_remove(index);
        match if self.faults { rng.below(8) } else { 7 } {
            0 => self.machine.failed(put.number, put.generation, false),
            1 => {
                self.machine.failed(put.number, put.generation, true);
                self.store.takes(put.number, put.generation, bytes);
            }
            2 => {
                self.machine.failed(put.number, put.generation, true);
                self.late_flights.push(Flight { put, bytes });
            }
            _ => {
                let tag = tag(&bytes);
                self.store.takes(put.number, put.generation, bytes);
                self.machine.acked(put.number, put.generation, tag.clone());
                // An answer that comes twice changes nothing.
                self.machine.acked(put.number, put.generation, tag);
            }
        }
        let stored = self.machine.take_stored();
        for range in &stored {
            assert!(range.start >= self.head as u64);
        }
        self.punched.extend(stored);
        // Redis is a little behind.
        if rng.below(3) > 0 {
            self.state = self.machine.part_states();
        }
    }

    /// What a salvage run on another machine makes of it now.
    fn salvaged(&self) -> Option<Vec<u8>> {
        candidates(&self.state).iter().find_map(|parts| self.store.complete(parts))
    }

    /// A recording that plays: the beginning of the finished file, with the head it had while that was not finished.
    fn check_salvage(&self, finished: &[u8]) {
        // Whether the answers were written down or not.
        let safe = if self.spoiled { 0 } else { self.machine.safe_to() };
        let Some(object) = self.salvaged() else {
            assert_eq!(safe, 0, "nothing salvaged");
            return;
        };
        assert!(object.len() as u64 >= safe, "{} of {safe} salvaged", object.len());
        assert!(object.len() <= finished.len());
        let from = self.head.min(object.len());
        assert!(object[from..] == finished[from..object.len()], "a prefix behind the head");
        let head = &object[..from];
        if object.len() < finished.len() && !self.spoiled {
            let last = self.heads.last().filter(|_| self.machine.is_closed());
            let intermediate = self.heads.iter().filter(|known| Some(*known) != last || self.heads.len() == 1);
            let fits = |known: &Vec<u8>| known.starts_with(head) || self.head == 0;
            assert!(from < self.head || intermediate.into_iter().any(fits), "a head that points to what is not there");
        }
    }
}

fn run(container: Container, which: u64, fragments: u64, seed: u64, faults: bool) -> (MachineLab, Vec<u8>) {
    let mut rng = SeededRng(seed);
    let writes = recording(container, fragments, &mut rng);
    let mut finished = vec![];
    for (at, bytes) in &writes {
        apply(&mut finished, *at, bytes);
    }
    let mut lab = MachineLab::new(container, which, faults);
    let mut tracker = SealTracker::new(container);
    let last_appended = writes.iter().rposition(|(at, _)| *at >= 300).unwrap_or(0);
    for (index, (at, bytes)) in writes.iter().enumerate() {
        apply(&mut lab.file, *at, bytes);
        tracker.wrote(*at, bytes);
        lab.note_head();
        if index > last_appended {
            // The head is rewritten in one go with the end, as far as anybody sees.
            continue;
        }
        lab.now += Duration::from_millis(rng.below(300));
        lab.machine.wrote(tracker.sealed_to(), lab.now);
        if !faults || rng.below(4) > 0 {
            lab.send_what_is_due();
        }
        lab.check_salvage(&finished);
        for _ in 0..rng.below(3) {
            lab.land(&mut rng);
            lab.check_salvage(&finished);
        }
    }
    let rewritten = lab.heads.len() > 1;
    lab.machine.close(lab.file.len() as u64, rewritten, lab.now);
    for _ in 0..10_000 {
        if let Some(parts) = lab.machine.finished() {
            match lab.store.complete(&parts) {
                Some(object) => {
                    assert!(object == finished, "the object is the file");
                    return (lab, finished);
                }
                None => {
                    assert!(lab.machine.invalidate(), "the store refuses parts that no late write can have replaced")
                }
            }
        }
        lab.now += Duration::from_millis(10);
        lab.send_what_is_due();
        lab.check_salvage(&finished);
        lab.land(&mut rng);
        lab.check_salvage(&finished);
    }
    panic!("never finished: {:?}", lab.machine.part_states());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_parts_the_object_is_the_file_and_every_moment_can_be_salvaged(
        which in 0..CONTAINERS.len(), rules in 0u64..3, fragments in 1u64..30, seed in any::<u64>(), faults in any::<bool>(),
    ) {
        run(CONTAINERS[which], rules, fragments, seed, faults);
    }
}

/// Several answers of a part were lost, and its bytes came in long after it was invalidated once.
#[test]
fn late_writes_invalidate_parts_as_often_as_they_may_come() {
    for (which, rules, fragments, seed) in [
        (3, 1, 29, 10_059_694_666_958_885_884),
        (2, 1, 24, 2_029_961_395_602_519_557),
        (2, 0, 29, 13_900_982_207_712_766_177),
    ] {
        run(CONTAINERS[which], rules, fragments, seed, true);
    }
}

/// `bits` per second for `minutes`, parts as on S3; how long media was nowhere else, at most, and bytes sent over stored.
fn steady(bits: u64, minutes: u64, rules: PartRules) -> (Duration, f64, u64) {
    let sizes = PartSizes::default();
    let checkpoint = 10 * SECOND;
    let tuning = Tuning { checkpoint, at_once: 4, bytes_at_once: 48 << 20 };
    let mut machine = UploadMachine::new(PartLayout::of(&rules, &sizes, 48, Some(bits)), rules, tuning);
    let begin = Instant::now();
    let step = Duration::from_millis(250);
    let (mut sent, mut puts, mut longest) = (0u64, 0u64, Duration::ZERO);
    let at = |tick: u64| begin + step * tick as u32;
    let written = |tick: u64| bits / 8 * tick / 4;
    for tick in 1..minutes * 240 {
        machine.wrote(written(tick), at(tick));
        while let Some(put) = machine.next(at(tick)) {
            let bytes = put.range.end - put.range.start;
            sent += bytes;
            puts += 1;
            machine.acked(put.number, put.generation, PartTag { bytes, etag: String::new(), crc32c: None });
        }
        let unsafe_bytes = written(tick) - machine.safe_to();
        longest = longest.max(Duration::from_secs_f64(unsafe_bytes as f64 * 8.0 / bits as f64));
    }
    (longest, sent as f64 / written(minutes * 240) as f64, puts * 60 / minutes)
}

fn s3() -> PartRules {
    PartRules { min_part_bytes: 5 << 20, max_part_bytes: 5 << 30, max_parts: 10_000, uniform: false }
}

#[test]
fn what_is_sent_twice_and_what_can_be_lost_are_both_bounded() {
    for rules in [s3(), PartRules { uniform: true, ..s3() }, PartRules { min_part_bytes: 1, ..s3() }] {
        for (bits, max) in
            [(64_000, f64::MAX), (1_000_000, 3.0), (3_000_000, 1.2), (6_000_000, 1.2), (20_000_000, 1.02)]
        {
            let (lost, amplified, puts) = steady(bits, 20, rules);
            // For the closing note, with --nocapture.
            println!("{bits} bit/s, {rules:?}: x{amplified:.2} sent, {puts} PUTs/h, {lost:.1?} nowhere else at most");
            assert!(lost <= Duration::from_millis(11_800), "{bits} {rules:?}: {lost:?}");
            assert!(amplified <= max, "{bits} {rules:?}: {amplified}");
            let hourly = 3600 / 9 + 3600 * bits / 8 / (5 << 20);
            assert!(puts <= hourly, "{bits} {rules:?}: {puts} PUTs an hour");
            if rules.append_small() {
                assert!(amplified <= 1.01, "{bits}: {amplified}");
            }
        }
    }
}

#[test]
fn a_recording_is_in_the_store_from_its_first_seconds() {
    for rules in [s3(), PartRules { min_part_bytes: 1, ..s3() }] {
        let tuning = Tuning { checkpoint: 10 * SECOND, at_once: 4, bytes_at_once: 48 << 20 };
        let layout = PartLayout::of(&rules, &PartSizes::default(), 48, None);
        let mut machine = UploadMachine::new(layout, rules, tuning);
        let begin = Instant::now();
        let mut safe = 0;
        for tick in 0..10u64 {
            let now = begin + Duration::from_millis(300) * tick as u32;
            machine.wrote(10_000 * (tick + 1), now);
            while let Some(put) = machine.next(now) {
                let tag = PartTag { bytes: put.range.end - put.range.start, etag: String::new(), crc32c: None };
                machine.acked(put.number, put.generation, tag);
            }
            safe = machine.safe_to();
        }
        assert!(safe >= 70_000, "{safe}");
    }
}

#[test]
fn bytes_in_memory_are_bounded_and_one_part_always_goes() {
    let rules = PartRules { min_part_bytes: 1, uniform: true, ..s3() };
    let tuning = Tuning { checkpoint: SECOND, at_once: 4, bytes_at_once: 10 };
    let mut machine = UploadMachine::new(PartLayout::Uniform(100), rules, tuning.clone());
    let now = Instant::now();
    machine.wrote(1000, now);
    assert!(machine.next(now).is_some());
    assert!(machine.next(now).is_none());
    let mut machine = UploadMachine::new(PartLayout::Uniform(100), rules, Tuning { bytes_at_once: 250, ..tuning });
    machine.wrote(1000, now);
    assert_eq!((0..5).filter_map(|_| machine.next(now)).count(), 2);
}

#[test]
fn a_store_takes_ten_thousand_parts_and_says_so_in_time() {
    let rules = PartRules { min_part_bytes: 1, max_parts: 5, ..s3() };
    let tuning = Tuning { checkpoint: SECOND, at_once: 9, bytes_at_once: 1 << 20 };
    let mut machine = UploadMachine::new(PartLayout::Uniform(100), rules, tuning);
    let now = Instant::now();
    machine.wrote(250, now);
    assert!(!machine.is_exhausted());
    machine.wrote(350, now);
    assert!(machine.is_exhausted());
    machine.wrote(2000, now);
    machine.close(2000, false, now);
    let mut parts = vec![];
    while let Some(put) = machine.next(now) {
        let tag = PartTag { bytes: put.range.end - put.range.start, etag: String::new(), crc32c: None };
        machine.acked(put.number, put.generation, tag);
        parts.push(put.number);
    }
    assert_eq!(machine.finished().map(|parts| parts.len()), Some(5), "{parts:?}");
}

/// What is stored of a part that is not whole yet is safe, but its first byte is sent again with the rest.
#[test]
fn a_part_that_is_not_whole_is_sent_again_from_its_first_byte() {
    let tuning = Tuning { checkpoint: SECOND, at_once: 4, bytes_at_once: 1 << 30 };
    let mut machine = UploadMachine::new(PartLayout::Uniform(100_000), PartRules { uniform: true, ..s3() }, tuning);
    let begin = Instant::now();
    let send = |machine: &mut UploadMachine, sealed_to, seconds: u32| {
        let now = begin + seconds * SECOND;
        machine.wrote(sealed_to, now);
        let put = machine.next(now + 2 * SECOND).unwrap();
        let tag = PartTag { bytes: put.range.end - put.range.start, etag: String::new(), crc32c: None };
        machine.acked(put.number, put.generation, tag);
        (put.range, machine.safe_to(), machine.whole_to())
    };
    assert_eq!(send(&mut machine, 100_000, 0), (0..100_000, 100_000, 100_000));
    assert_eq!(send(&mut machine, 150_000, 10), (100_000..150_000, 150_000, 100_000));
    assert_eq!(send(&mut machine, 200_000, 20), (100_000..200_000, 200_000, 200_000));
}
