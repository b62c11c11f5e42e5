//! Serde form of EgressInfo in a stored ledger: its protobuf bytes in base64. Unlike a JSON form it keeps fields that this
//! version does not know.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use livekit_protocol as livekit;
use prost::Message;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(info: &livekit::EgressInfo, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(info.encode_to_vec()))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<livekit::EgressInfo, D::Error> {
    let text = String::deserialize(from)?;
    let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
    livekit::EgressInfo::decode(bytes.as_slice()).map_err(D::Error::custom)
}
