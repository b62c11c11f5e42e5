//! How large a picture may be. A decoder makes room for what a header says: a key frame of 110 bytes that claims to be
//! 16383×16383 took 871 MB (measured, vp8dec). Pure.

/// Pixels; 5K screens have 14.7 million.
const MAX_PIXELS: u64 = 4096 * 4096;
/// Pixels of a side.
const MAX_SIDE: u32 = 8192;

/// More than is decoded or copied.
pub(super) fn is_too_large((width, height): (u32, u32)) -> bool {
    width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS
}
