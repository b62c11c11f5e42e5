//! H264 and H265 as RTP brings them (start codes) and as MP4 keeps them (lengths, and a description in front: `avcC`,
//! `hvcC`). Pure.

use crate::nal_unit::unescaped;

/// The NAL units of an access unit.
pub fn units(data: &[u8]) -> Vec<&[u8]> {
    let mut starts = vec![];
    let mut at = 0;
    while at + 3 <= data.len() {
        if data[at..at + 3] == [0, 0, 1] {
            starts.push(at);
            at += 3;
        } else {
            at += 1;
        }
    }
    let ends = starts.iter().skip(1).copied().chain([data.len()]);
    let units = starts.iter().zip(ends).map(|(start, end)| {
        let unit = &data[start + 3..end];
        // The fourth byte of the next start code, and padding.
        let length = unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        &unit[..length]
    });
    units.filter(|unit| !unit.is_empty()).collect()
}

/// The same access unit with lengths instead of start codes.
pub fn with_lengths(data: &[u8]) -> Vec<u8> {
    join(data, |_| true)
}

/// The same access unit of H264, with lengths and without what stands in front: `avc1` has the parameter sets in its
/// description only (ISO/IEC 14496-15 5.4.2.1), and no delimiters.
pub fn h264_samples(data: &[u8]) -> Vec<u8> {
    join(data, |unit| !matches!(unit[0] & 0x1f, 7..=9))
}

fn join(data: &[u8], keep: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut units = units(data);
    units.retain(|unit| keep(unit));
    let mut out = Vec::with_capacity(data.len() + units.len() * 4);
    for unit in units {
        out.extend_from_slice(&(unit.len() as u32).to_be_bytes());
        out.extend_from_slice(unit);
    }
    out
}

/// `avcC` of a key frame that brings its parameter sets.
pub fn avc_config(key_frame: &[u8]) -> Option<Vec<u8>> {
    let units = units(key_frame);
    let sps = units.iter().find(|unit| unit[0] & 0x1f == 7)?;
    let pps = units.iter().find(|unit| unit[0] & 0x1f == 8)?;
    let mut out = vec![1, *sps.get(1)?, *sps.get(2)?, *sps.get(3)?, 0xff, 0xe1];
    out.extend_from_slice(&(sps.len() as u16).to_be_bytes());
    out.extend_from_slice(sps);
    out.push(1);
    out.extend_from_slice(&(pps.len() as u16).to_be_bytes());
    out.extend_from_slice(pps);
    if matches!(sps[1], 100 | 110 | 122 | 144) {
        // 4:2:0, eight bits, no extensions: what a room carries.
        out.extend_from_slice(&[0xfd, 0xf8, 0xf8, 0]);
    }
    Some(out)
}

/// `hvcC` of a key frame that brings its parameter sets.
pub fn hevc_config(key_frame: &[u8]) -> Option<Vec<u8>> {
    let units = units(key_frame);
    let of = |kind: u8| units.iter().find(move |unit| (unit[0] >> 1) & 0x3f == kind);
    let (vps, sps, pps) = (of(32)?, of(33)?, of(34)?);
    // Two bytes of header, one of ids, then twelve of profile, tier and level; among them may stand escapes.
    let plain = unescaped(sps);
    let profile = plain.get(3..15)?;
    let mut out = vec![1];
    out.extend_from_slice(profile);
    // No spatial segmentation, parallelism unknown, 4:2:0, eight bits, frame rate unknown; one layer, lengths of four
    // bytes.
    out.extend_from_slice(&[0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0f, 3]);
    for (kind, unit) in [(32, vps), (33, sps), (34, pps)] {
        out.extend_from_slice(&[0x80 | kind, 0, 1]);
        out.extend_from_slice(&(unit.len() as u16).to_be_bytes());
        out.extend_from_slice(unit);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_codes_of_three_and_four_bytes_become_lengths() {
        let data = [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x68, 9, 0, 0, 0, 1, 0x65, 7, 7, 7];
        assert_eq!(units(&data), [&[0x67, 1, 2][..], &[0x68, 9], &[0x65, 7, 7, 7]]);
        assert_eq!(h264_samples(&data), [0, 0, 0, 4, 0x65, 7, 7, 7]);
        assert_eq!(with_lengths(&data), [0, 0, 0, 3, 0x67, 1, 2, 0, 0, 0, 2, 0x68, 9, 0, 0, 0, 4, 0x65, 7, 7, 7]);
    }

    #[test]
    fn what_is_no_access_unit_has_no_description() {
        assert_eq!(avc_config(&[1, 2, 3]), None);
        assert_eq!(hevc_config(&[0, 0, 1, 0x40, 1, 0, 0, 1, 0x42]), None);
    }
}
