//! STUN messages as TURN needs them (RFC 8489, RFC 8656): bytes in, attributes out, and back. Long-term credentials with
//! HMAC-SHA1, as every TURN server in use has them. Pure.
//!
//! `is`, str0m's STUN, cannot write REQUESTED-TRANSPORT, without which no server allocates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::hmac;
use md5::{Digest, Md5};

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER_BYTES: usize = 20;
/// Of the attribute without its head.
const INTEGRITY_BYTES: usize = 20;

/// Of a request and its response.
pub(super) type TransactionId = [u8; 12];

/// Methods of RFC 8656, part 17.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StunMethod(u16);

impl StunMethod {
    pub(super) const ALLOCATE: Self = Self(3);
    pub(super) const REFRESH: Self = Self(4);
    pub(super) const DATA: Self = Self(7);
    pub(super) const CHANNEL_BIND: Self = Self(9);
}

/// Types of attributes: RFC 8489, part 18.3, and RFC 8656, part 18.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StunAttribute(u16);

impl StunAttribute {
    pub(super) const USERNAME: Self = Self(0x0006);
    pub(super) const MESSAGE_INTEGRITY: Self = Self(0x0008);
    pub(super) const ERROR_CODE: Self = Self(0x0009);
    pub(super) const CHANNEL_NUMBER: Self = Self(0x000c);
    pub(super) const LIFETIME: Self = Self(0x000d);
    pub(super) const XOR_PEER_ADDRESS: Self = Self(0x0012);
    pub(super) const DATA: Self = Self(0x0013);
    pub(super) const REALM: Self = Self(0x0014);
    pub(super) const NONCE: Self = Self(0x0015);
    pub(super) const XOR_RELAYED_ADDRESS: Self = Self(0x0016);
    pub(super) const REQUESTED_TRANSPORT: Self = Self(0x0019);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StunClass {
    Request,
    Indication,
    Success,
    Error,
}

impl StunClass {
    /// C1 and C0 at their places in the type.
    fn bits(self) -> u16 {
        match self {
            Self::Request => 0,
            Self::Indication => 0x0010,
            Self::Success => 0x0100,
            Self::Error => 0x0110,
        }
    }

    fn of(message_type: u16) -> Self {
        match message_type & 0x0110 {
            0 => Self::Request,
            0x0010 => Self::Indication,
            0x0100 => Self::Success,
            _ => Self::Error,
        }
    }
}

/// MD5 of `username:realm:password` (RFC 8489, part 9.2.2).
#[derive(Clone)]
pub(super) struct LongTermKey(hmac::Key);

impl LongTermKey {
    pub(super) fn new(username: &str, realm: &str, password: &str) -> Self {
        let digest: [u8; 16] = Md5::digest(format!("{username}:{realm}:{password}")).into();
        Self::of(&digest)
    }

    fn of(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key))
    }
}

/// A message that is being written.
pub(super) struct StunWriter {
    bytes: Vec<u8>,
    id: TransactionId,
}

impl StunWriter {
    pub(super) fn new(method: StunMethod, class: StunClass, id: TransactionId) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&(method.0 | class.bits()).to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&MAGIC_COOKIE);
        bytes.extend_from_slice(&id);
        Self { bytes, id }
    }

    pub(super) fn put(&mut self, attribute: StunAttribute, value: &[u8]) {
        self.bytes.extend_from_slice(&attribute.0.to_be_bytes());
        self.bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(padded(self.bytes.len()), 0);
    }

    pub(super) fn put_address(&mut self, attribute: StunAttribute, address: SocketAddr) {
        let mut value = vec![0, if address.is_ipv4() { 1 } else { 2 }];
        value.extend_from_slice(&(address.port() ^ 0x2112).to_be_bytes());
        match address.ip() {
            IpAddr::V4(ip) => value.extend(masked(&ip.octets(), &self.id)),
            IpAddr::V6(ip) => value.extend(masked(&ip.octets(), &self.id)),
        }
        self.put(attribute, &value);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.set_length(self.bytes.len());
        self.bytes
    }

    /// With MESSAGE-INTEGRITY behind all attributes.
    pub(super) fn finish_signed(mut self, key: &LongTermKey) -> Vec<u8> {
        self.set_length(self.bytes.len() + 4 + INTEGRITY_BYTES);
        let tag = hmac::sign(&key.0, &self.bytes);
        self.put(StunAttribute::MESSAGE_INTEGRITY, tag.as_ref());
        self.bytes
    }

    fn set_length(&mut self, message_bytes: usize) {
        let length = (message_bytes - HEADER_BYTES) as u16;
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
}

/// A message that came whole.
#[derive(Clone, Copy)]
pub(super) struct StunMessage<'a> {
    bytes: &'a [u8],
}

impl<'a> StunMessage<'a> {
    /// `None`: this is no STUN message.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let length = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
        let is_stun = bytes[0] < 0x40
            && bytes.get(4..8)? == MAGIC_COOKIE
            && length.is_multiple_of(4)
            && bytes.len() == HEADER_BYTES + length;
        is_stun.then_some(Self { bytes })
    }

    pub(super) fn method(self) -> StunMethod {
        let kind = self.kind();
        StunMethod((kind & 0x000f) | ((kind & 0x00e0) >> 1) | ((kind & 0x3e00) >> 2))
    }

    pub(super) fn class(self) -> StunClass {
        StunClass::of(self.kind())
    }

    pub(super) fn id(self) -> TransactionId {
        let mut id = TransactionId::default();
        id.copy_from_slice(&self.bytes[8..HEADER_BYTES]);
        id
    }

    /// The first attribute of this type. Attributes behind MESSAGE-INTEGRITY are not believed.
    pub(super) fn attribute(self, wanted: StunAttribute) -> Option<&'a [u8]> {
        self.attributes().find(|(found, ..)| *found == wanted).map(|(_, value, _)| value)
    }

    pub(super) fn number(self, wanted: StunAttribute) -> Option<u32> {
        let value = self.attribute(wanted)?;
        Some(u32::from_be_bytes(value.try_into().ok()?))
    }

    pub(super) fn text(self, wanted: StunAttribute) -> Option<&'a str> {
        std::str::from_utf8(self.attribute(wanted)?).ok()
    }

    pub(super) fn address(self, wanted: StunAttribute) -> Option<SocketAddr> {
        let value = self.attribute(wanted)?;
        let port = u16::from_be_bytes([*value.get(2)?, *value.get(3)?]) ^ 0x2112;
        let ip: Vec<u8> = masked(value.get(4..)?, &self.id()).collect();
        let ip = match value[1] {
            1 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)),
            2 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    /// Code and reason of an error response.
    pub(super) fn error(self) -> Option<(u16, &'a str)> {
        let value = self.attribute(StunAttribute::ERROR_CODE)?;
        let code = u16::from(*value.get(2)? & 7) * 100 + u16::from(*value.get(3)?);
        Some((code, std::str::from_utf8(value.get(4..)?).unwrap_or_default()))
    }

    pub(super) fn is_signed_with(self, key: &LongTermKey) -> bool {
        let Some((_, tag, at)) = self.attributes().find(|(found, ..)| *found == StunAttribute::MESSAGE_INTEGRITY)
        else {
            return false;
        };
        // The length that the signer saw ends with this attribute.
        let mut signed = self.bytes[..at].to_vec();
        let length = (at + 4 + INTEGRITY_BYTES - HEADER_BYTES) as u16;
        signed[2..4].copy_from_slice(&length.to_be_bytes());
        hmac::verify(&key.0, &signed, tag).is_ok()
    }

    fn kind(self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    /// Type, value and where it begins, up to MESSAGE-INTEGRITY.
    fn attributes(self) -> impl Iterator<Item = (StunAttribute, &'a [u8], usize)> {
        let bytes = self.bytes;
        let mut next = HEADER_BYTES;
        let mut ended = false;
        std::iter::from_fn(move || {
            let at = next;
            let head = bytes.get(at..at + 4).filter(|_| !ended)?;
            let found = StunAttribute(u16::from_be_bytes([head[0], head[1]]));
            let length = u16::from_be_bytes([head[2], head[3]]);
            let value = bytes.get(at + 4..at + 4 + usize::from(length))?;
            next = padded(at + 4 + usize::from(length));
            ended = found == StunAttribute::MESSAGE_INTEGRITY;
            Some((found, value, at))
        })
    }
}

/// XORed with the cookie and the transaction, which hides addresses from routers that rewrite them.
fn masked(ip: &[u8], id: &TransactionId) -> impl Iterator<Item = u8> {
    let mask = MAGIC_COOKIE.into_iter().chain(*id);
    ip.iter().zip(mask).map(|(byte, mask)| byte ^ mask)
}

/// Attributes begin at multiples of four bytes.
pub(super) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769, part 2.1: with the short-term password below.
    const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff\
        80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";
    /// Part 2.2.
    const IPV4_RESPONSE: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643\
        000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";
    /// Part 2.3.
    const IPV6_RESPONSE: &str = "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179\
        bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";
    /// Part 2.4: long-term credentials.
    const LONG_TERM: &str = "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b90000\
        0015001c662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f726700\
        00080014f67024656dd64a3e02b8e0712e85c9a28ca89666";
    const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
    const BINDING: StunMethod = StunMethod(1);
    const XOR_MAPPED_ADDRESS: StunAttribute = StunAttribute(0x0020);

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn the_messages_of_rfc_5769_are_read_and_their_signatures_hold() {
        let short = LongTermKey::of(PASSWORD);
        for (hex, class, address) in [
            (REQUEST, StunClass::Request, None),
            (IPV4_RESPONSE, StunClass::Success, Some("192.0.2.1:32853")),
            (IPV6_RESPONSE, StunClass::Success, Some("[2001:db8:1234:5678:11:2233:4455:6677]:32853")),
        ] {
            let bytes = bytes(hex);
            let message = StunMessage::read(&bytes).unwrap();
            assert_eq!((message.method(), message.class()), (BINDING, class));
            assert_eq!(message.address(XOR_MAPPED_ADDRESS), address.map(|address| address.parse().unwrap()));
            assert!(message.is_signed_with(&short), "{class:?}");
            let mut changed = bytes.clone();
            changed[30] ^= 1;
            assert!(!StunMessage::read(&changed).unwrap().is_signed_with(&short));
        }
        let request = bytes(REQUEST);
        assert_eq!(StunMessage::read(&request).unwrap().text(StunAttribute::USERNAME), Some("evtj:h6vY"));
    }

    #[test]
    fn the_request_with_long_term_credentials_of_rfc_5769_is_written_as_it_stands() {
        let whole = bytes(LONG_TERM);
        let message = StunMessage::read(&whole).unwrap();
        let (user, realm) = ("マトリックス", "example.org");
        assert_eq!(message.text(StunAttribute::USERNAME), Some(user));
        assert_eq!(message.text(StunAttribute::REALM), Some(realm));
        let key = LongTermKey::new(user, realm, "TheMatrIX");
        assert!(message.is_signed_with(&key));
        let mut again = StunWriter::new(BINDING, StunClass::Request, message.id());
        again.put(StunAttribute::USERNAME, user.as_bytes());
        again.put(StunAttribute::NONCE, b"f//499k954d6OL34oL9FSTvy64sA");
        again.put(StunAttribute::REALM, realm.as_bytes());
        assert_eq!(again.finish_signed(&key), whole);
    }

    #[test]
    fn addresses_are_written_as_they_are_read() {
        for address in ["192.0.2.1:32853", "[2001:db8::7]:9"].map(|address| address.parse::<SocketAddr>().unwrap()) {
            let mut writer = StunWriter::new(StunMethod::CHANNEL_BIND, StunClass::Request, [7; 12]);
            writer.put_address(StunAttribute::XOR_PEER_ADDRESS, address);
            let bytes = writer.finish();
            let message = StunMessage::read(&bytes).unwrap();
            assert_eq!(message.address(StunAttribute::XOR_PEER_ADDRESS), Some(address));
            assert_eq!((message.method(), message.id()), (StunMethod::CHANNEL_BIND, [7; 12]));
        }
    }

    #[test]
    fn what_is_behind_the_signature_is_not_believed() {
        let key = LongTermKey::new("u", "r", "p");
        let mut bytes = StunWriter::new(StunMethod::REFRESH, StunClass::Success, [1; 12]).finish_signed(&key);
        bytes.extend_from_slice(&[0, 0x0d, 0, 4, 0, 0, 2, 0x58]);
        bytes[3] += 8;
        let message = StunMessage::read(&bytes).unwrap();
        assert!(message.is_signed_with(&key));
        assert_eq!(message.number(StunAttribute::LIFETIME), None);
    }

    #[test]
    fn errors_have_a_code_and_a_reason() {
        let mut writer = StunWriter::new(StunMethod::ALLOCATE, StunClass::Error, [1; 12]);
        writer.put(StunAttribute::ERROR_CODE, b"\0\0\x04\x26Stale Nonce");
        let bytes = writer.finish();
        let message = StunMessage::read(&bytes).unwrap();
        assert_eq!((message.class(), message.error()), (StunClass::Error, Some((438, "Stale Nonce"))));
    }

    #[test]
    fn nothing_that_is_cut_or_foreign_is_taken_for_a_message() {
        let whole = bytes(REQUEST);
        for length in 0..whole.len() {
            assert!(StunMessage::read(&whole[..length]).is_none(), "{length}");
        }
        let mut cut = bytes(REQUEST);
        // An attribute that is longer than the message.
        cut[22..24].copy_from_slice(&[0xff, 0xff]);
        let cut = StunMessage::read(&cut).unwrap();
        assert_eq!((cut.text(StunAttribute::USERNAME), cut.address(XOR_MAPPED_ADDRESS)), (None, None));
        assert!(!cut.is_signed_with(&LongTermKey::of(PASSWORD)));
    }
}
