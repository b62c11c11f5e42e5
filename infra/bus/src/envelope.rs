//! The envelope of psrpc (livekit/psrpc `internal/bus/serialization.go`): from the payload of a PUBLISH to the
//! message inside, and back. Pure. Sends uncompressed; reads gzip of other senders too.

use std::io::Read;

use bytes::Bytes;
use prost::Message;
use spillway_protocol::psrpc::{Body, Msg};

/// A message unpacks to at most this much. A small gzip can grow a thousandfold.
const MAX_UNPACKED_BYTES: u64 = 64 << 20;

/// Why a payload is not the expected message. A retry is pointless.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("not a psrpc message")]
    Envelope(#[source] prost::DecodeError),
    #[error("holds {found}, not {expected}")]
    Kind { found: String, expected: &'static str },
    #[error("compressed in an unknown way ({0})")]
    Compression(i32),
    #[error("not gzip")]
    Gzip(#[source] std::io::Error),
    #[error("unpacks to more than {MAX_UNPACKED_BYTES} bytes")]
    Large,
    #[error("not a {kind}")]
    Body { kind: &'static str, source: prost::DecodeError },
}

/// The payload that carries `body`.
pub(crate) fn seal<B: Body>(body: &B) -> Bytes {
    Msg::wrap(body).encode_to_vec().into()
}

/// The message inside a payload.
///
/// # Errors
/// The payload is no envelope, holds another kind of message, or is damaged; the sender's fault, and for good.
pub(crate) fn open<B: Body>(payload: &[u8]) -> Result<B, EnvelopeError> {
    let msg = Msg::decode(payload).map_err(EnvelopeError::Envelope)?;
    if msg.body_name() != B::NAME {
        return Err(EnvelopeError::Kind { found: msg.type_url, expected: B::NAME });
    }
    let value = match msg.compression {
        Msg::PLAIN => msg.value,
        Msg::GZIP => gunzip(&msg.value)?,
        other => return Err(EnvelopeError::Compression(other)),
    };
    B::decode(value.as_slice()).map_err(|source| EnvelopeError::Body { kind: B::NAME, source })
}

fn gunzip(packed: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let mut value = Vec::new();
    let mut unpacked = flate2::read::GzDecoder::new(packed).take(MAX_UNPACKED_BYTES + 1);
    unpacked.read_to_end(&mut value).map_err(EnvelopeError::Gzip)?;
    if value.len() as u64 > MAX_UNPACKED_BYTES {
        return Err(EnvelopeError::Large);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use spillway_protocol::psrpc::{ClaimResponse, RpcRequest};

    use super::*;

    fn gzip(value: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(value).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn gzip_is_read() {
        let grant = ClaimResponse { request_id: "REQ_1".into(), server_id: "SRV_1".into() };
        let plain = Msg::wrap(&grant);
        let packed = Msg { value: gzip(&plain.value), compression: Msg::GZIP, ..plain };
        assert_eq!(open::<ClaimResponse>(&packed.encode_to_vec()).unwrap(), grant);
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = gzip(&vec![0; MAX_UNPACKED_BYTES as usize + 1]);
        let msg = Msg { value: bomb, compression: Msg::GZIP, ..Msg::wrap(&RpcRequest::default()) };
        assert!(matches!(open::<RpcRequest>(&msg.encode_to_vec()), Err(EnvelopeError::Large)));
    }

    #[test]
    fn what_does_not_belong_is_named() {
        let request = Msg::wrap(&RpcRequest::default()).encode_to_vec();
        assert!(matches!(open::<ClaimResponse>(&request), Err(EnvelopeError::Kind { .. })));
        assert!(matches!(open::<RpcRequest>(b"\xff\xff\xff"), Err(EnvelopeError::Envelope(_))));
        let strange = Msg { compression: 7, ..Msg::wrap(&RpcRequest::default()) }.encode_to_vec();
        assert!(matches!(open::<RpcRequest>(&strange), Err(EnvelopeError::Compression(7))));
    }
}
