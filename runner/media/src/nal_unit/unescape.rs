//! Emulation prevention of H264 and H265. Pure.

/// The bytes of a NAL unit without its emulation prevention (ITU-T H.264 7.3.1).
pub(crate) fn unescaped(nal: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_threes_behind_zeros_the_first_is_an_escape() {
        assert_eq!(unescaped(&[0x42, 0, 0, 3, 3, 7]), [0x42, 0, 0, 3, 7]);
        assert_eq!(unescaped(&[0, 0, 3, 0, 0, 3, 1]), [0, 0, 0, 0, 1]);
    }
}
