//! Elements of EBML (RFC 8794). Each function appends to a buffer. Pure.

use super::ids::VOID;

/// Size of an element that goes to the end of the file, or to the next element that cannot be in it. [`wide_size`] takes
/// its place when the size is known.
pub const UNKNOWN_SIZE: [u8; 8] = [0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];

/// A size in eight bytes.
pub fn wide_size(size: u64) -> [u8; 8] {
    (size | 1u64 << 56).to_be_bytes()
}

/// An element around what `inside` writes.
pub fn element(out: &mut Vec<u8>, id: u32, inside: impl FnOnce(&mut Vec<u8>)) {
    let mut content = vec![];
    inside(&mut content);
    binary(out, id, &content);
}

/// Id and size of an element whose content follows.
pub fn front(out: &mut Vec<u8>, id: u32, size: usize) {
    put_id(out, id);
    let size = size as u64;
    // All bits set would say that the size is not known.
    let length = (1usize..8).find(|&length| size < (1u64 << (7 * length)) - 1).unwrap_or(8);
    out.extend_from_slice(&(size | 1u64 << (7 * length)).to_be_bytes()[8 - length..]);
}

/// Id and unknown size of an element whose content follows.
pub fn open_front(out: &mut Vec<u8>, id: u32) {
    put_id(out, id);
    out.extend_from_slice(&UNKNOWN_SIZE);
}

/// An element of bytes.
pub fn binary(out: &mut Vec<u8>, id: u32, content: &[u8]) {
    front(out, id, content.len());
    out.extend_from_slice(content);
}

/// In as few bytes as it needs.
pub fn uint(out: &mut Vec<u8>, id: u32, value: u64) {
    let unused = (value.leading_zeros() as usize / 8).min(7);
    binary(out, id, &value.to_be_bytes()[unused..]);
}

/// In eight bytes.
pub fn float(out: &mut Vec<u8>, id: u32, value: f64) {
    binary(out, id, &value.to_be_bytes());
}

/// UTF-8.
pub fn text(out: &mut Vec<u8>, id: u32, value: &str) {
    binary(out, id, value.as_bytes());
}

/// Nothing, in so many bytes, 2 to 128: room for what is known later.
pub fn void(out: &mut Vec<u8>, bytes: usize) {
    let content = bytes.saturating_sub(2);
    front(out, VOID, content);
    out.resize(out.len() + content, 0);
}

fn put_id(out: &mut Vec<u8>, id: u32) {
    let unused = (id.leading_zeros() as usize / 8).min(3);
    out.extend_from_slice(&id.to_be_bytes()[unused..]);
}

#[cfg(test)]
mod tests {
    use super::super::ids::{LANGUAGE, SEEK, SEGMENT, SIMPLE_BLOCK, TRACK_TYPE};
    use super::*;

    #[test]
    fn ids_and_sizes_take_the_bytes_that_they_need() {
        for (id, size, bytes) in [
            (SIMPLE_BLOCK, 0, &[0xA3, 0x80][..]),
            (SEEK, 126, &[0x4D, 0xBB, 0xFE][..]),
            // 0xFF would not be a size.
            (SEEK, 127, &[0x4D, 0xBB, 0x40, 0x7F][..]),
            (LANGUAGE, 0x3FFE, &[0x22, 0xB5, 0x9C, 0x7F, 0xFE][..]),
            (SEGMENT, 0x3FFF, &[0x18, 0x53, 0x80, 0x67, 0x20, 0x3F, 0xFF][..]),
        ] {
            let mut out = vec![];
            front(&mut out, id, size);
            assert_eq!(out, bytes);
        }
        assert_eq!(wide_size(0x1234), [1, 0, 0, 0, 0, 0, 0x12, 0x34]);
    }

    #[test]
    fn numbers_and_room_take_the_bytes_that_they_need() {
        let mut out = vec![];
        uint(&mut out, TRACK_TYPE, 0);
        uint(&mut out, TRACK_TYPE, 255);
        uint(&mut out, TRACK_TYPE, 256);
        uint(&mut out, TRACK_TYPE, u64::MAX);
        assert_eq!(out[..11], [0x83, 0x81, 0, 0x83, 0x81, 255, 0x83, 0x82, 1, 0, 0x83]);
        assert_eq!(out[11..], [0x88, 255, 255, 255, 255, 255, 255, 255, 255]);
        for bytes in [2, 11, 68, 128] {
            let mut out = vec![];
            void(&mut out, bytes);
            assert_eq!(out.len(), bytes);
            assert_eq!(out[..2], [0xEC, 0x80 | (bytes - 2) as u8]);
        }
    }
}
