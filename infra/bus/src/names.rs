//! How psrpc spells its channels and locks on Redis (livekit/psrpc `pkg/info/channels.go`). Pure, except for
//! [`new_id`].

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::RngExt;
use sha2::{Digest, Sha256};

/// What a channel of a method carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// Requests, to every server of the method.
    Request,
    /// Grants, to every server of the method.
    Grant,
}

impl ChannelKind {
    fn suffix(self) -> &'static str {
        match self {
            Self::Request => "REQ",
            Self::Grant => "RCLAIM",
        }
    }
}

/// `Service|Method|topic|REQ`, and without the topic when that is empty.
pub fn method_channel(service: &str, method: &str, topic: &str, kind: ChannelKind) -> String {
    join(&[service, method, topic, kind.suffix()])
}

/// The Redis pattern for every topic of a method. Service and method are alphanumeric, so nothing in them is escaped.
pub fn method_pattern(service: &str, method: &str, kind: ChannelKind) -> String {
    format!("{}|*|{}", join(&[service, method]), kind.suffix())
}

/// The topic of a channel that matched [`method_pattern`]; `None`: it is not a channel of the method.
pub fn topic_of(service: &str, method: &str, kind: ChannelKind, channel: &str) -> Option<String> {
    let middle = channel.strip_prefix(&join(&[service, method]))?.strip_prefix('|')?;
    Some(plain(middle.strip_suffix(kind.suffix())?.strip_suffix('|')?))
}

/// Where a client receives bids.
pub fn claim_channel(service: &str, client_id: &str) -> String {
    join(&[service, client_id, "CLAIM"])
}

/// Where a client receives answers.
pub fn response_channel(service: &str, client_id: &str) -> String {
    join(&[service, client_id, "RES"])
}

/// The lock that decides which of many servers bids for a message of a queue: a hash of the whole payload as received.
pub fn lock_key(payload: &[u8]) -> String {
    STANDARD.encode(Sha256::digest(payload))
}

/// A name for one client, server or request: psrpc's prefix and twelve random letters or digits. It must be unique, not
/// secret.
pub fn new_id(prefix: &str) -> String {
    let letters = rand::rng().sample_iter(rand::distr::Alphanumeric).take(12).map(char::from);
    prefix.chars().chain(letters).collect()
}

fn join(parts: &[&str]) -> String {
    let mut channel = String::new();
    let mut wrote = false;
    for part in parts {
        if wrote {
            channel.push('|');
        }
        let before = channel.len();
        escape(part, &mut channel);
        wrote = channel.len() > before;
    }
    channel
}

fn escape(part: &str, into: &mut String) {
    use std::fmt::Write;
    for letter in part.chars() {
        // Writing to a String cannot fail.
        let _ = match letter {
            '0'..='9' | 'A'..='Z' | 'a'..='z' | '_' => {
                into.push(letter);
                Ok(())
            }
            _ if (letter as u32) < 0x10000 => write!(into, "u+{:04x}", letter as u32),
            _ => write!(into, "U+{:08x}", letter as u32),
        };
    }
}

/// Undoes [`escape`]. A `+` never stands for itself, so an escape cannot be mistaken for a name.
fn plain(escaped: &str) -> String {
    let mut out = String::new();
    let mut rest = escaped;
    while let Some(letter) = rest.chars().next() {
        let digits = if rest.starts_with("u+") { 4 } else { 8 };
        let code = if rest.starts_with("u+") || rest.starts_with("U+") { rest.get(2..2 + digits) } else { None };
        match code.and_then(|code| u32::from_str_radix(code, 16).ok()).and_then(char::from_u32) {
            Some(decoded) => {
                out.push(decoded);
                rest = &rest[2 + digits..];
            }
            None => {
                out.push(letter);
                rest = &rest[letter.len_utf8()..];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn channels_are_spelled_as_psrpc_spells_them() {
        let request = |method, topic| method_channel("EgressInternal", method, topic, ChannelKind::Request);
        assert_eq!(request("StartEgress", ""), "EgressInternal|StartEgress|REQ");
        assert_eq!(request("StartEgress", "c1"), "EgressInternal|StartEgress|c1|REQ");
        assert_eq!(
            method_channel("EgressHandler", "StopEgress", "EG_4VtJq7KmZ2xY", ChannelKind::Grant),
            "EgressHandler|StopEgress|EG_4VtJq7KmZ2xY|RCLAIM"
        );
        assert_eq!(claim_channel("IOInfo", "CLI_a"), "IOInfo|CLI_a|CLAIM");
        assert_eq!(response_channel("IOInfo", "CLI_a"), "IOInfo|CLI_a|RES");
        assert_eq!(
            method_pattern("EgressHandler", "StopEgress", ChannelKind::Request),
            "EgressHandler|StopEgress|*|REQ"
        );
    }

    #[test]
    fn what_is_not_alphanumeric_is_escaped() {
        let room = |topic| method_channel("Room", "DeleteRoom", topic, ChannelKind::Request);
        assert_eq!(room("golden-room"), "Room|DeleteRoom|goldenu+002droom|REQ");
        assert_eq!(room("🚀_É"), "Room|DeleteRoom|U+0001f680_u+00c9|REQ");
        assert_eq!(room("软件"), "Room|DeleteRoom|u+8f6fu+4ef6|REQ");
        assert_eq!(room("my-cluster.1"), "Room|DeleteRoom|myu+002dclusteru+002e1|REQ");
    }

    proptest! {
        #[test]
        fn a_topic_comes_back_from_its_channel(topic in ".{1,20}") {
            let channel = method_channel("S", "M", &topic, ChannelKind::Grant);
            prop_assert_eq!(topic_of("S", "M", ChannelKind::Grant, &channel), Some(topic));
        }
    }
}
