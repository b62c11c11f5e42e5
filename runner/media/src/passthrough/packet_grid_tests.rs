use super::*;

/// What goes into the file: packets with their times in nanoseconds.
struct Written {
    grid: PacketGrid,
    packets: Vec<(u64, Bytes)>,
}

impl Written {
    fn of(codec: Codec) -> Self {
        Self { grid: PacketGrid::new(codec), packets: vec![] }
    }

    fn packet(&mut self, at_ns: u64, data: &[u8]) -> bool {
        let Some(silent_to) = self.grid.admit(at_ns, data) else { return false };
        self.silence(silent_to);
        let at_ns = self.grid.put(data);
        self.packets.push((at_ns, Bytes::copy_from_slice(data)));
        true
    }

    fn silence(&mut self, to_ns: u64) {
        while let Some(SilentPacket { at_ns, data }) = self.grid.silence_before(to_ns) {
            self.packets.push((at_ns, data));
        }
    }

    /// Where the last packet ends, milliseconds; every packet begins where the one before ends.
    fn end_ms(&self) -> f64 {
        let mut end_ns = 0;
        for (at_ns, data) in &self.packets {
            assert_eq!(*at_ns, end_ns);
            end_ns = at_ns + self.grid.length_ns(data).expect("a packet");
        }
        end_ns as f64 / MS as f64
    }

    fn silent(&self) -> usize {
        self.packets.iter().filter(|(_, data)| data.ends_with(&SILENT_FRAME)).count()
    }
}

/// 20 ms of CELT, stereo.
const LOUD: [u8; 100] = {
    let mut packet = [7; 100];
    packet[0] = 0xfc;
    packet
};
/// What DTX sends each 400 ms.
const DTX: [u8; 1] = [0xfc];

fn speech(written: &mut Written, from_ms: u64, to_ms: u64) {
    for at in (from_ms..to_ms).step_by(20) {
        assert!(written.packet(at * MS, &LOUD), "at {at} ms");
    }
}

#[test]
fn pauses_of_dtx_a_mute_and_the_tail_are_silence() {
    let mut written = Written::of(Codec::Opus);
    speech(&mut written, 0, 2000);
    (2000..6000).step_by(400).for_each(|at| assert!(written.packet(at * MS, &DTX)));
    speech(&mut written, 6000, 8000);
    // A mute of 10 s, of which the beginning is written before it ends.
    written.silence(15_000 * MS);
    speech(&mut written, 18_000, 20_000);
    written.silence(20_250 * MS);
    assert_eq!(written.end_ms(), 20_250.0);
    assert_eq!(written.silent(), 10 * 19 + 500 + 13);
    assert_eq!(written.packets[101].1, [0xfc, 0xff, 0xfe][..]);
}

#[test]
fn silence_follows_the_length_and_the_channels_of_the_packets() {
    // TOC of 60 ms SILK mono, 10 ms CELT stereo, 20 ms hybrid mono.
    for (toc, silence) in [
        (0x18, &[0xfb, 3, 0xff, 0xfe, 0xff, 0xfe, 0xff, 0xfe][..]),
        (0xf4, &[0xf4, 0xff, 0xfe][..]),
        (0x78, &[0xf8, 0xff, 0xfe][..]),
    ] {
        let mut written = Written::of(Codec::Opus);
        let packet = [toc, 1, 2, 3];
        assert!(written.packet(0, &packet));
        assert!(written.packet(300 * MS, &packet));
        assert_eq!(written.packets[1].1, silence);
        assert_eq!(written.end_ms(), 300.0 + opus_duration_ns(&packet) as f64 / MS as f64);
    }
}

#[test]
fn every_length_of_silence_is_a_packet_of_that_length() {
    for units in 1..=48 {
        for stereo in [0, STEREO] {
            let packet = opus_silence(units * OPUS_UNIT_NS, stereo);
            assert_eq!(opus_duration_ns(&packet), units * OPUS_UNIT_NS, "{packet:?}");
            assert_eq!(packet[0] & STEREO, stereo);
        }
    }
}

#[test]
fn a_hole_that_is_no_multiple_of_a_packet_is_filled_to_the_nearest_unit() {
    for hole_us in [10_000, 21_000, 33_300, 47_900, 1_003_700] {
        let mut written = Written::of(Codec::Opus);
        assert!(written.packet(0, &LOUD));
        assert!(written.packet(20 * MS + hole_us * 1000, &LOUD));
        let off = written.end_ms() - (40.0 + hole_us as f64 / 1000.0);
        assert!(off.abs() <= 1.25, "{hole_us} µs: {off} ms");
    }
}

#[test]
fn a_track_that_was_muted_at_the_start_begins_with_silence() {
    let mut written = Written::of(Codec::Opus);
    written.silence(3000 * MS);
    speech(&mut written, 5000, 6000);
    assert_eq!((written.end_ms(), written.silent()), (6000.0, 250));
}

#[test]
fn what_comes_late_within_the_wait_overlaps_nothing() {
    let mut written = Written::of(Codec::Opus);
    speech(&mut written, 0, 1000);
    // Everything up to 2 s is known, and nothing came: not yet written. Then a burst of what was on its way.
    speech(&mut written, 1000, 3000);
    assert_eq!((written.end_ms(), written.silent(), written.grid.late_ns()), (3000.0, 0, 0));
    // Silence was written, and a second of it was none.
    written.silence(5000 * MS);
    for at in (4000..6000).step_by(20) {
        written.packet(at * MS, &LOUD);
    }
    assert!((written.end_ms() - 6000.0).abs() <= 60.0, "{}", written.end_ms());
    let late_ms = written.grid.late_ns() / MS;
    assert!((700..=1000).contains(&late_ms), "{late_ms}");
}

#[test]
fn the_drift_of_a_publishers_clock_does_not_add_up() {
    for ppm in [-300i64, -40, 40, 300] {
        let mut written = Written::of(Codec::Opus);
        let mut place = 0;
        for n in 0..90_000i64 {
            place = (n * 20_000_000 + n * 20 * ppm) as u64;
            // Every fifth second is a pause of speech.
            let quiet = n % 250 >= 200;
            written.packet(place, if quiet { &LOUD[..30] } else { &LOUD });
        }
        let off = written.end_ms() - (place as f64 / MS as f64 + 20.0);
        assert!(off.abs() <= 21.0, "{ppm} ppm: {off} ms after half an hour");
        assert_eq!(written.grid.late_ns(), 0, "a clock that is fast is not late");
    }
}

#[test]
fn drift_without_a_pause_is_bounded_too() {
    for ppm in [-300i64, 300] {
        let mut written = Written::of(Codec::Opus);
        for n in 0..90_000i64 {
            let place = (n * 20_000_000 + n * 20 * ppm) as u64;
            written.packet(place, &LOUD);
            let off = written.grid.end_ns.abs_diff(place + 20 * MS);
            assert!(off <= MAX_DRIFT_NS + DRIFT_NS, "{ppm} ppm: {off} ns at packet {n}");
        }
    }
}

#[test]
fn what_is_no_packet_is_left_out() {
    let mut written = Written::of(Codec::Opus);
    // No count of frames; none; 48 frames of 20 ms.
    let broken: [&[u8]; 4] = [&[], &[0xff], &[0xff, 0], &[0xff, 48, 1, 2]];
    for broken in broken {
        assert!(!written.packet(0, broken), "{broken:?}");
    }
    assert!(written.packet(0, &LOUD));
}

#[test]
fn g711_is_silent_in_its_own_way() {
    for (codec, silence) in [(Codec::Pcmu, 0xff), (Codec::Pcma, 0xd5)] {
        let mut written = Written::of(codec);
        let packet = [1; 160];
        assert!(written.packet(0, &packet));
        assert!(written.packet(70 * MS, &packet));
        written.silence(1000 * MS);
        assert_eq!(written.end_ms(), 1000.0);
        let [_, first, second, third, ..] = &written.packets[..] else { panic!("{:?}", written.packets) };
        assert_eq!((first.1.len(), second.1.len(), third.1.len()), (160, 160, 80), "50 ms");
        assert!(first.1.iter().chain(&third.1).all(|byte| *byte == silence));
    }
}
