//! What the headers of several codecs share. Nothing panics: headers are not trusted.

pub(super) use crate::nal_unit::Bits;

/// The packets do not make a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncompleteFrame;

/// LEB128 as AV1 uses it.
pub(super) fn put_leb128(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}
