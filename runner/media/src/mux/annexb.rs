//! H264 and H265 as RTP brings them (start codes) and as MP4 keeps them (lengths, and a description in front: `avcC`,
//! `hvcC`). Pure.

use crate::nal_unit::unescaped;

/// The NAL units of an access unit.
pub fn units(data: &[u8]) -> Vec<&[u8]> {
    let starts = start_codes(data);
    let ends = starts.iter().skip(1).copied().chain([data.len()]);
    let units = starts.iter().zip(ends).map(|(start, end)| {
        let unit = &data[start + 3..end];
        // The fourth byte of the next start code, and padding.
        let length = unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        &unit[..length]
    });
    units.filter(|unit| !unit.is_empty()).collect()
}

/// Where 0, 0, 1 stands. Its last byte is looked at first: where that is more than 1, none begins in the three bytes up to it.
fn start_codes(data: &[u8]) -> Vec<usize> {
    let mut starts = vec![];
    let mut at = 0;
    while let Some([first, second, third]) = data.get(at..at + 3) {
        if *third == 0 {
            at += 1;
            continue;
        }
        if *third == 1 && *first == 0 && *second == 0 {
            starts.push(at);
        }
        at += 3;
    }
    starts
}

/// NAL units with lengths instead of start codes.
pub fn with_lengths(units: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(units.iter().map(|unit| unit.len() + 4).sum());
    for unit in units {
        out.extend_from_slice(&(unit.len() as u32).to_be_bytes());
        out.extend_from_slice(unit);
    }
    out
}

/// The same access unit of H264, with lengths and without what stands in front: `avc1` has the parameter sets in its
/// description only (ISO/IEC 14496-15 5.4.2.1), and no delimiters.
pub fn h264_samples(data: &[u8]) -> Vec<u8> {
    let mut units = units(data);
    units.retain(|unit| !matches!(unit[0] & 0x1f, 7..=9));
    with_lengths(&units)
}

/// `avcC` of a key frame that brings its parameter sets: all of them, each once.
pub fn avc_config(key_frame: &[u8]) -> Option<Vec<u8>> {
    avc_record(&units(key_frame))
}

/// `avcC` of these parameter sets, in any order; other units are left out.
pub fn avc_record(units: &[&[u8]]) -> Option<Vec<u8>> {
    let (all_sps, all_pps) = (of_kind(units, |unit| unit[0] & 0x1f == 7), of_kind(units, |unit| unit[0] & 0x1f == 8));
    let sps = all_sps.first().filter(|_| !all_pps.is_empty())?;
    let mut out = vec![1, *sps.get(1)?, *sps.get(2)?, *sps.get(3)?, 0xff];
    // Counts of five and of eight bits.
    let (all_sps, all_pps) = (&all_sps[..all_sps.len().min(31)], &all_pps[..all_pps.len().min(255)]);
    out.push(0xe0 | all_sps.len() as u8);
    all_sps.iter().for_each(|unit| put_unit(&mut out, unit));
    out.push(all_pps.len() as u8);
    all_pps.iter().for_each(|unit| put_unit(&mut out, unit));
    if matches!(sps[1], 100 | 110 | 122 | 144) {
        // 4:2:0, eight bits, no extensions: what a room carries.
        out.extend_from_slice(&[0xfd, 0xf8, 0xf8, 0]);
    }
    Some(out)
}

/// Each once.
fn of_kind<'a>(units: &[&'a [u8]], is_wanted: impl Fn(&[u8]) -> bool) -> Vec<&'a [u8]> {
    let mut found: Vec<&[u8]> = vec![];
    // What is longer has no room in a description.
    for unit in units.iter().filter(|unit| is_wanted(unit) && unit.len() <= usize::from(u16::MAX)) {
        if !found.contains(unit) {
            found.push(*unit);
        }
    }
    found
}

fn put_unit(out: &mut Vec<u8>, unit: &[u8]) {
    out.extend_from_slice(&(unit.len() as u16).to_be_bytes());
    out.extend_from_slice(unit);
}

/// `hvcC` of these parameter sets, in any order; other units are left out.
pub fn hevc_record(units: &[&[u8]]) -> Option<Vec<u8>> {
    let of = |kind: u8| of_kind(units, move |unit| (unit[0] >> 1) & 0x3f == kind);
    let (all_vps, all_sps, all_pps) = (of(32), of(33), of(34));
    let sps = all_sps.first().filter(|_| !all_vps.is_empty() && !all_pps.is_empty())?;
    // Two bytes of header, one of ids, then twelve of profile, tier and level; among them may stand escapes.
    let plain = unescaped(sps);
    let profile = plain.get(3..15)?;
    let mut out = vec![1];
    out.extend_from_slice(profile);
    // No spatial segmentation, parallelism unknown, 4:2:0, eight bits, frame rate unknown; one layer, lengths of four
    // bytes.
    out.extend_from_slice(&[0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0f, 3]);
    for (kind, units) in [(32, &all_vps), (33, &all_sps), (34, &all_pps)] {
        out.push(0x80 | kind);
        out.extend_from_slice(&(units.len() as u16).to_be_bytes());
        units.iter().for_each(|unit| put_unit(&mut out, unit));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_start_code_is_found(data in prop::collection::vec(0u8..4, 0..64)) {
            let all: Vec<usize> = data.windows(3).enumerate().filter(|(_, bytes)| **bytes == [0, 0, 1]).map(|(at, _)| at).collect();
            prop_assert_eq!(start_codes(&data), all);
        }
    }

    #[test]
    fn start_codes_of_three_and_four_bytes_become_lengths() {
        let data = [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x68, 9, 0, 0, 0, 1, 0x65, 7, 7, 7];
        assert_eq!(units(&data), [&[0x67, 1, 2][..], &[0x68, 9], &[0x65, 7, 7, 7]]);
        assert_eq!(h264_samples(&data), [0, 0, 0, 4, 0x65, 7, 7, 7]);
        assert_eq!(
            with_lengths(&units(&data)),
            [0, 0, 0, 3, 0x67, 1, 2, 0, 0, 0, 2, 0x68, 9, 0, 0, 0, 4, 0x65, 7, 7, 7]
        );
    }

    #[test]
    fn what_is_no_access_unit_has_no_description() {
        assert_eq!(avc_config(&[1, 2, 3]), None);
        assert_eq!(hevc_record(&units(&[0, 0, 1, 0x40, 1, 0, 0, 1, 0x42])), None);
    }

    #[test]
    fn a_description_holds_every_parameter_set_once() {
        let (sps, pps) = ([0x67, 0x42, 0xc0, 0x1e, 0xd9], [[0x68, 0xce, 0x3c], [0x68, 0x5e, 0x3c]]);
        let config =
            [&[1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 5][..], &sps, &[2, 0, 3], &pps[0], &[0, 3], &pps[1]].concat();
        assert_eq!(avc_record(&[&sps, &pps[0], &pps[1], &pps[0], &sps, &[0x65, 1]]), Some(config));
    }
}
