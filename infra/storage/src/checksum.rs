//! Checksums and ETags in the forms the stores use. Pure, but for [`Etags`], which learns from a store's first answer.

use std::sync::atomic::{AtomicU8, Ordering};

use md5::{Digest, Md5};

/// MD5 digest.
pub fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

/// Lower-case hexadecimal text.
pub fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// Bytes of hexadecimal text; `None` where it is none.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    hex::decode(text).ok()
}

/// The ETag that S3 gives an object made of parts with these ETags: the MD5 of their MD5s and the number of parts. `None`
/// where one of them is no MD5.
pub fn etag_of_parts<'a>(etags: impl Iterator<Item = &'a str>) -> Option<String> {
    let (mut digest, mut count) = (Md5::new(), 0);
    for etag in etags {
        digest.update(unhex(etag).filter(|bytes| bytes.len() == 16)?);
        count += 1;
    }
    Some(format!("{}-{count}", hex(&digest.finalize())))
}

/// An ETag as the header carries it, without its quotes.
pub fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

/// Whether a store's ETags are MD5s. Under KMS encryption they are not, and no answer says so beforehand: the first tag
/// decides. Where they are, they are a second checksum of each part and the only one of the whole object.
#[derive(Debug, Default)]
pub struct Etags(AtomicU8);

impl Etags {
    const MD5: u8 = 1;
    const OPAQUE: u8 = 2;

    /// Compares a part's tag with the MD5 of the bytes that were sent.
    ///
    /// # Errors
    /// The text of the mismatch, where tags are known to be MD5s. Sending the part again is right.
    pub fn check(&self, found: &str, sent: &[u8; 16]) -> Result<(), String> {
        let sent = hex(sent);
        let says = if found == sent { Self::MD5 } else { Self::OPAQUE };
        match self.0.compare_exchange(0, says, Ordering::Relaxed, Ordering::Relaxed) {
            Err(Self::MD5) if found != sent => Err(format!("checksum mismatch: sent MD5 {sent}, stored {found}")),
            _ => Ok(()),
        }
    }

    /// The tag that these bytes get; `None` once tags are known not to be MD5s.
    pub fn expected_tag(&self, bytes: &[u8]) -> Option<String> {
        self.are_md5().then(|| hex(&md5(bytes)))
    }

    /// False once a tag was seen that is no MD5 of its bytes.
    pub fn are_md5(&self) -> bool {
        self.0.load(Ordering::Relaxed) != Self::OPAQUE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tag_tells_whether_tags_are_checksums() {
        let (right, wrong) = (hex(&md5(b"a")), hex(&md5(b"b")));
        let md5s = Etags::default();
        assert_eq!(md5s.expected_tag(b"a"), Some(right.clone()));
        assert!(md5s.check(&right, &md5(b"a")).is_ok() && md5s.are_md5());
        assert!(md5s.check(&wrong, &md5(b"a")).is_err_and(|message| message.contains("checksum mismatch")));
        let opaque = Etags::default();
        assert!(
            opaque.check(&wrong, &md5(b"a")).is_ok() && opaque.check(&right, &md5(b"c")).is_ok() && !opaque.are_md5()
        );
        assert_eq!(opaque.expected_tag(b"a"), None);
    }

    #[test]
    fn hex_there_and_back() {
        assert_eq!(hex(&md5(b"")), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(unhex("d41d8cd98f00b204e9800998ecf8427e"), Some(md5(b"").to_vec()));
        assert_eq!((unhex("0g"), unhex("123"), unhex("ü")), (None, None, None));
    }

    #[test]
    fn the_tag_of_parts_is_s3s_own() {
        let (a, b) = (hex(&md5(b"a")), hex(&md5(b"b")));
        let both = [md5(b"a"), md5(b"b")].concat();
        let expected = format!("{}-2", hex(&md5(&both)));
        assert_eq!(etag_of_parts([a.as_str(), b.as_str()].into_iter()), Some(expected));
        assert_eq!(etag_of_parts(["opaque"].into_iter()), None);
    }
}
