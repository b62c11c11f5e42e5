//! OBUs of AV1 and their sequence header (AV1 bitstream 5.3, 5.5): the size of the pictures, and what a container says of
//! them. Both the receiver and the WebM writer read it. Pure; headers are not trusted.

use crate::nal_unit::Bits;

/// Type of an OBU.
pub(crate) const SEQUENCE_HEADER: u8 = 1;
/// Type of an OBU.
pub(crate) const TEMPORAL_DELIMITER: u8 = 2;
/// In the first byte of an OBU: its size follows the header.
pub(crate) const HAS_SIZE: u8 = 0x02;
/// In the first byte of an OBU: the header has a second byte.
pub(crate) const HAS_EXTENSION: u8 = 0x04;

/// What is read of a sequence header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SequenceHeader {
    /// 0: 4:2:0 of 8 or 10 bits.
    pub(crate) profile: u8,
    /// Of the first operating point.
    pub(crate) level: u8,
    /// Of the first operating point: high.
    pub(crate) tier: bool,
    /// Of the largest picture, pixels.
    pub(crate) size: (u32, u32),
    /// `None` where the header ends before it.
    pub(crate) pixels: Option<PixelFormat>,
}

/// Samples of the pictures, and what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PixelFormat {
    /// More than 8 bits.
    pub(crate) high_bit_depth: bool,
    /// 12 bits.
    pub(crate) twelve_bit: bool,
    /// Without colours.
    pub(crate) monochrome: bool,
    /// Half as many samples of colour across, and down.
    pub(crate) subsampling: (bool, bool),
    /// Where samples of colour lie; 0: not known.
    pub(crate) chroma_position: u8,
    /// Primaries, transfer characteristics and matrix, as ITU-T H.273 numbers them; `None`: not said.
    pub(crate) colours: Option<[u8; 3]>,
    /// Samples from 0 to 255, not from 16 to 235.
    pub(crate) full_range: bool,
}

impl SequenceHeader {
    /// From what is in the OBU. `None` where it ends before the size.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let mut bits = Bits::new(body);
        let profile = bits.bits(3)? as u8;
        bits.skip(1)?;
        let reduced = bits.bit()?;
        let (mut level, mut tier) = (0, false);
        if reduced {
            level = bits.bits(5)? as u8;
        } else {
            let mut decoder_model = None;
            if bits.bit()? {
                bits.skip(64)?;
                if bits.bit()? {
                    bits.golomb()?;
                }
                if bits.bit()? {
                    decoder_model = Some(bits.bits(5)? + 1);
                    bits.skip(32 + 10)?;
                }
            }
            let initial_delay = bits.bit()?;
            for point in 0..=bits.bits(5)? {
                bits.skip(12)?;
                let its_level = bits.bits(5)?;
                let its_tier = its_level > 7 && bits.bit()?;
                if point == 0 {
                    (level, tier) = (its_level as u8, its_tier);
                }
                if let Some(width) = decoder_model
                    && bits.bit()?
                {
                    bits.skip(2 * width as usize + 1)?;
                }
                if initial_delay && bits.bit()? {
                    bits.skip(4)?;
                }
            }
        }
        let (width_bits, height_bits) = (bits.bits(4)? + 1, bits.bits(4)? + 1);
        let size = (bits.bits(width_bits)? + 1, bits.bits(height_bits)? + 1);
        let pixels = pixel_format(&mut bits, profile, reduced);
        Some(Self { profile, level, tier, size, pixels })
    }
}

/// What stands behind the size.
fn pixel_format(bits: &mut Bits<'_>, profile: u8, reduced: bool) -> Option<PixelFormat> {
    // Numbers of frames.
    if !reduced && bits.bit()? {
        bits.skip(4 + 3)?;
    }
    // Superblocks, two filters of intra prediction.
    bits.skip(3)?;
    if !reduced {
        // Compounds, warped motion, dual filter.
        bits.skip(4)?;
        let has_order_hint = bits.bit()?;
        if has_order_hint {
            bits.skip(2)?;
        }
        // Each picture may have tools for screens, or the next bit says so for all.
        let may_be_screen = bits.bit()? || bits.bit()?;
        if may_be_screen && !bits.bit()? {
            bits.skip(1)?;
        }
        if has_order_hint {
            bits.skip(3)?;
        }
    }
    // Super-resolution, CDEF, restoration.
    bits.skip(3)?;
    let high_bit_depth = bits.bit()?;
    let twelve_bit = profile == 2 && high_bit_depth && bits.bit()?;
    let monochrome = profile != 1 && bits.bit()?;
    let colours =
        if bits.bit()? { Some([bits.bits(8)? as u8, bits.bits(8)? as u8, bits.bits(8)? as u8]) } else { None };
    // sRGB has its samples as they are.
    let is_srgb = !monochrome && colours == Some([1, 13, 0]);
    let full_range = is_srgb || bits.bit()?;
    let subsampling = match profile {
        _ if monochrome => (true, true),
        _ if is_srgb => (false, false),
        0 => (true, true),
        1 => (false, false),
        _ if twelve_bit => {
            let across = bits.bit()?;
            (across, across && bits.bit()?)
        }
        _ => (true, false),
    };
    let has_position = !monochrome && subsampling == (true, true);
    let chroma_position = if has_position { bits.bits(2)? as u8 } else { 0 };
    Some(PixelFormat { high_bit_depth, twelve_bit, monochrome, subsampling, chroma_position, colours, full_range })
}

/// The first sequence header of a temporal unit whose OBUs carry their size: all of the OBU, and what is in it.
pub(crate) fn sequence_header(unit: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = unit;
    loop {
        let header = *rest.first()?;
        if header & HAS_SIZE == 0 {
            return None;
        }
        let head = if header & HAS_EXTENSION != 0 { 2 } else { 1 };
        let (length, took) = leb128(rest.get(head..)?)?;
        let end = (head + took).checked_add(length)?;
        let body = rest.get(head + took..end)?;
        if header >> 3 & 15 == SEQUENCE_HEADER {
            return Some((&rest[..end], body));
        }
        rest = &rest[end..];
    }
}

/// LEB128 as AV1 uses it (4.10.5): value and how many bytes it took.
pub(crate) fn leb128(data: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0u64;
    for (place, byte) in data.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, place + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields, each a value and how many bits it has, as bytes.
    fn packed(fields: &[(u32, usize)]) -> Vec<u8> {
        let bits: Vec<u8> = fields
            .iter()
            .flat_map(|(value, width)| (0..*width).rev().map(move |place| (value >> place & 1) as u8))
            .collect();
        bits.chunks(8)
            .map(|byte| byte.iter().enumerate().fold(0, |all, (place, bit)| all | bit << (7 - place)))
            .collect()
    }

    /// As libaom makes it for WebRTC: 640 × 360 of 8 bits, level 3.0.
    const PLAIN: [(u32, usize); 17] = [
        // Profile, no still picture, not reduced.
        (0, 3),
        (0, 2),
        // No timing, no delay, one operating point of level 4.
        (0, 2),
        (0, 5),
        (0, 12),
        (4, 5),
        // Widths of the sizes, the sizes.
        (9, 4),
        (8, 4),
        (639, 10),
        (359, 9),
        // No frame numbers; three tools of a picture; four of motion.
        (0, 1),
        (0b111, 3),
        (0, 4),
        // Order hint with two tools; screens as each picture says, and so its motion; seven bits.
        (0b100, 3),
        (0b11, 2),
        (6, 3),
        // Super-resolution, CDEF, restoration.
        (0b010, 3),
    ];

    fn header(colour: &[(u32, usize)]) -> SequenceHeader {
        SequenceHeader::read(&packed(&[&PLAIN[..], colour].concat())).unwrap()
    }

    #[test]
    fn what_a_container_says_is_read_from_the_header() {
        // 8 bits, with colours, nothing said of them, limited range, position 1.
        let plain = header(&[(0, 1), (0, 1), (0, 1), (0, 1), (1, 2), (0, 1)]);
        assert_eq!((plain.profile, plain.level, plain.tier, plain.size), (0, 4, false, (640, 360)));
        let pixels = PixelFormat {
            high_bit_depth: false,
            twelve_bit: false,
            monochrome: false,
            subsampling: (true, true),
            chroma_position: 1,
            colours: None,
            full_range: false,
        };
        assert_eq!(plain.pixels, Some(pixels));
        // 10 bits of BT.2020 PQ.
        let bright = header(&[(1, 1), (0, 1), (1, 1), (9, 8), (16, 8), (9, 8), (1, 1), (2, 2), (0, 1)]);
        let colours = Some([9, 16, 9]);
        let wanted = PixelFormat { high_bit_depth: true, chroma_position: 2, colours, full_range: true, ..pixels };
        assert_eq!(bright.pixels, Some(wanted));
        let grey = header(&[(0, 1), (1, 1), (0, 1), (1, 1), (0, 1)]);
        let wanted = PixelFormat { monochrome: true, chroma_position: 0, full_range: true, ..pixels };
        assert_eq!(grey.pixels, Some(wanted));
    }

    #[test]
    fn a_header_that_ends_early_has_its_size_or_is_none() {
        let whole = packed(&PLAIN);
        assert_eq!(SequenceHeader::read(&whole[..4]), None);
        // The size ends with the seventh byte.
        let cut = SequenceHeader::read(&whole[..7]).unwrap();
        assert_eq!((cut.size, cut.pixels), ((640, 360), None));
    }

    #[test]
    fn the_header_is_found_among_other_obus() {
        // A delimiter, one with an extension, the header, a frame.
        let unit = [0x12, 0, 0x2e, 8, 1, 7, 0x0a, 2, 5, 6, 0x32, 1, 9];
        assert_eq!(sequence_header(&unit), Some((&[0x0a, 2, 5, 6][..], &[5, 6][..])));
        for cut in 0..9 {
            assert_eq!(sequence_header(&unit[..cut]), None, "{cut}");
        }
        assert_eq!(sequence_header(&[0x08, 1, 2]), None, "without its size");
    }
}
