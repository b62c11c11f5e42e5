//! Frames of every codec from their packets, and payloads that make no sense.

use std::time::Duration;

use proptest::prelude::*;

use super::nal::START_CODE;
use super::*;
use crate::nal_unit::{h264_size, h265_size};
use crate::units::{RtpTime, SeqNo};

/// The SPS livekit-server sends when it closes a track: 2×2.
const BLANK_SPS: [u8; 24] = [
    0x67, 0x42, 0xc0, 0x1f, 0x0f, 0xd9, 0x1f, 0x88, 0x88, 0x84, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x03, 0x00,
    0xc8, 0x3c, 0x60, 0xc9, 0x20,
];
/// x264, 1280×720, high.
const SPS_720: [u8; 28] = [
    0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00,
    0x03, 0x03, 0xc0, 0xf1, 0x83, 0x19, 0x60, 0x00, 0x00,
];

fn packets(payloads: &[&[u8]]) -> Vec<Packet> {
    payloads
        .iter()
        .enumerate()
        .map(|(seq, payload)| Packet {
            seq: SeqNo::new(seq as u64),
            rtp: RtpTime::default(),
            starts: seq == 0,
            ends: seq + 1 == payloads.len(),
            payload: Bytes::copy_from_slice(payload),
            at: Duration::ZERO,
        })
        .collect()
}

fn whole(codec: Codec, payloads: &[&[u8]]) -> AccessUnit {
    assemble(codec, &packets(payloads)).expect("a whole frame")
}

#[test]
fn an_access_unit_of_every_packet_kind_is_annex_b_again() {
    let stap = [&[24, 0, SPS_720.len() as u8][..], &SPS_720, &[0, 2, 0x68, 0xee]].concat();
    let unit =
        whole(Codec::H264, &[&stap, &[0x7c, 0x85, 0x88, 1], &[0x7c, 0x05, 2], &[0x7c, 0x45, 3], &[0x65, 0x20, 9]]);
    assert_eq!(unit.kind, UnitKind::Key { size: Some((1280, 720)) });
    let expected = [
        &START_CODE[..],
        &SPS_720,
        &START_CODE,
        &[0x68, 0xee],
        &START_CODE,
        &[0x65, 0x88, 1, 2, 3],
        &START_CODE,
        &[0x65, 0x20, 9],
    ]
    .concat();
    assert_eq!(unit.data, expected);
}

#[test]
fn the_servers_closing_frames_are_blank() {
    let stap = [&[24, 0, BLANK_SPS.len() as u8][..], &BLANK_SPS, &[0, 2, 0x68, 0xee, 0, 2, 0x65, 0x88]].concat();
    assert_eq!(whole(Codec::H264, &[&stap]).kind, UnitKind::Blank);
    let vp8 = [0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x08, 0x00, 0x08, 0x00];
    assert_eq!(whole(Codec::Vp8, &[&vp8]).kind, UnitKind::Blank);
    let mut silence = vec![0xf8, 0xff, 0xfe];
    silence.resize(80, 0);
    assert_eq!(whole(Codec::Opus, &[&silence]).kind, UnitKind::Blank);
    assert_eq!(
        whole(Codec::Opus, &[&[0xf8, 0xff, 0xfe]]).kind,
        UnitKind::Key { size: None },
        "a publisher's own silence"
    );
}

#[test]
fn parameter_sets_alone_wait_for_their_picture() {
    assert_eq!(whole(Codec::H264, &[&SPS_720]).kind, UnitKind::Prefix);
    assert_eq!(whole(Codec::H264, &[&[0x61, 0xe0, 1]]).kind, UnitKind::Delta);
}

#[test]
fn recovery_points_and_intra_pictures_with_their_parameter_sets_are_beginnings() {
    let (pps, recovery, intra, inter): (&[u8], &[u8], &[u8], &[u8]) =
        (&[0x68, 0xee], &[0x06, 0x05, 2, 7, 7, 0x06, 1, 0xc4, 0x80], &[0x61, 0x88, 0x84], &[0x61, 0x9a, 0x02]);
    let kind = |units: &[&[u8]]| whole(Codec::H264, units).kind;
    let start = UnitKind::Key { size: Some((1280, 720)) };
    assert_eq!(kind(&[&SPS_720, pps, recovery, inter]), start, "intra refresh");
    assert_eq!(kind(&[&SPS_720, pps, intra, intra]), start, "no IDR");
    assert_eq!(kind(&[&SPS_720, pps, intra, inter]), UnitKind::Delta);
    assert_eq!(kind(&[&SPS_720, pps, inter]), UnitKind::Delta);
    assert_eq!(kind(&[recovery, inter]), UnitKind::Delta, "nothing to begin with");
    // A message that is cut off, or says that it is longer than it is.
    for broken in [&[0x06, 0xff][..], &[0x06, 0xff, 0xff, 0xff, 0xff, 1], &[0x06, 0x05, 200, 1]] {
        assert_eq!(kind(&[&SPS_720, pps, broken, inter]), UnitKind::Delta);
    }
}

#[test]
fn a_vp8_frame_loses_its_descriptors_only() {
    let unit = whole(
        Codec::Vp8,
        &[&[0x90, 0x80, 0x12, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01, 7], &[0x80, 0x80, 0x12, 8]],
    );
    assert_eq!(unit.kind, UnitKind::Key { size: Some((640, 360)) });
    assert_eq!(unit.data, &[0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01, 7, 8][..]);
}

#[test]
fn spatial_layers_become_a_superframe() {
    // Layer indices, no flexible mode: I=0 P=0 L=1 B=1 E=1.
    let base = [0x2c, 0x00, 0x00, 0x82, 0x49, 0x83, 0x42, 0x00, 0x13, 0xf0, 0x0b, 0x30];
    let upper = [0x6c, 0x02, 0x00, 0x86, 1, 2, 3];
    let unit = whole(Codec::Vp9, &[&base, &upper]);
    let UnitKind::Key { size: Some(_) } = unit.kind else { panic!("{:?}", unit.kind) };
    assert_eq!(unit.data[unit.data.len() - 4..], [0xc1, 9, 4, 0xc1], "one byte per length, two frames");
}

#[test]
fn av1_obus_cut_over_packets_get_their_sizes() {
    // Z=0 Y=1 W=2 N=1: a sequence header with its length, and the first half of a frame.
    let first = [0x68, 2, 0x08, 0xaa, 0x30, 1, 2];
    let second = [0x90, 3, 4];
    let unit = whole(Codec::Av1, &[&first, &second]);
    assert_eq!(unit.data, &[0x12, 0, 0x0a, 1, 0xaa, 0x32, 4, 1, 2, 3, 4][..]);
    assert!(matches!(unit.kind, UnitKind::Key { .. }));
}

#[test]
fn h265_units_and_their_size() {
    // x265, 320×180, with the vui left out.
    let sps = [
        0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x3c,
        0xa0, 0x0a, 0x08, 0x0b, 0x9f, 0x79, 0x65, 0x79,
    ];
    let ap = [&[0x60, 0x01, 0, sps.len() as u8][..], &sps, &[0, 3, 0x28, 0x01, 0xaf]].concat();
    let unit = whole(Codec::H265, &[&ap, &[0x62, 0x01, 0x93, 0x80], &[0x62, 0x01, 0x53, 5]]);
    let UnitKind::Key { size } = unit.kind else { panic!("{:?}", unit.kind) };
    assert_eq!(size.map(|(width, _)| width), Some(320));
    assert_eq!(unit.data[unit.data.len() - 8..], [0, 0, 0, 1, 0x26, 0x01, 0x80, 5]);
}

#[test]
fn a_fragment_without_its_beginning_or_end_is_torn() {
    assert_eq!(assemble(Codec::H264, &packets(&[&[0x7c, 0x05, 2], &[0x7c, 0x45, 3]])), Err(IncompleteFrame));
    assert_eq!(assemble(Codec::H264, &packets(&[&[0x7c, 0x85, 2]])), Err(IncompleteFrame));
    assert_eq!(assemble(Codec::Av1, &packets(&[&[0x80, 1, 2]])), Err(IncompleteFrame));
}

proptest! {
    #[test]
    fn whatever_strangers_send_nothing_panics(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..6),
    ) {
        let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        for codec in [Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::Opus, Codec::Pcmu] {
            let _ = assemble(codec, &packets(&payloads));
            for payload in &payloads {
                starts_frame(codec, payload);
            }
        }
        for payload in payloads {
            let _ = (h264_size(payload), h265_size(payload));
        }
    }
}

#[test]
fn what_says_it_is_huge_is_told_from_what_can_be_decoded() {
    let vp8 = [0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0xff, 0x3f, 0xff, 0x3f, 0, 0];
    assert_eq!(whole(Codec::Vp8, &[&vp8]).kind, UnitKind::TooLarge { size: (16_383, 16_383) });
    // Of one side; 5K.
    assert!(is_too_large((16_000, 16)) && !is_too_large((5120, 2880)));
}
