//! The envelope of psrpc, LiveKit's request/response protocol over Redis pub/sub (proto package `internal` of
//! livekit/psrpc). Fields that no current version writes are left out; protobuf skips unknown fields.

use std::collections::HashMap;

use prost::Message;

/// Payload of a PUBLISH. Fields 1 and 2 are laid out like `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct Msg {
    /// `type.googleapis.com/` and the message name.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The serialised message.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    /// Filled by psrpc 0.8 and later; no receiver on Redis reads it.
    #[prost(string, tag = "3")]
    pub channel: String,
    /// [`Msg::GZIP`] when `value` is compressed. Read and never written here: psrpc before 0.7.6 does not know it.
    #[prost(int32, tag = "4")]
    pub compression: i32,
}

/// A message that travels inside a [`Msg`].
pub trait Body: Message + Default {
    /// Full protobuf name, e.g. `internal.Request`.
    const NAME: &'static str;
}

impl Msg {
    /// `compression` of an uncompressed value.
    pub const PLAIN: i32 = 0;
    /// `compression` of a gzip stream.
    pub const GZIP: i32 = 1;

    /// The envelope of one message, uncompressed.
    pub fn wrap<B: Body>(body: &B) -> Self {
        Self {
            type_url: format!("type.googleapis.com/{}", B::NAME),
            value: body.encode_to_vec(),
            channel: String::new(),
            compression: Self::PLAIN,
        }
    }

    /// The message name: what follows the last `/` of the type URL. The usual prefix may be missing.
    pub fn body_name(&self) -> &str {
        self.type_url.rsplit('/').next().unwrap_or_default()
    }
}

/// A call, published on the channel of its method.
#[derive(Clone, PartialEq, Message)]
pub struct RpcRequest {
    /// Made by the caller, unique.
    #[prost(string, tag = "1")]
    pub request_id: String,
    /// Names the channels that the caller listens on for bids and responses.
    #[prost(string, tag = "2")]
    pub client_id: String,
    /// Unix nanoseconds on the caller's clock.
    #[prost(int64, tag = "3")]
    pub sent_at: i64,
    /// After it the caller no longer waits. Unix nanoseconds on the caller's clock.
    #[prost(int64, tag = "4")]
    pub expiry: i64,
    /// Every server answers and no claim is made.
    #[prost(bool, tag = "5")]
    pub multi: bool,
    /// Trace context, when the caller traces.
    #[prost(map = "string, string", tag = "7")]
    pub metadata: HashMap<String, String>,
    /// The request message as the caller serialised it.
    #[prost(bytes = "vec", tag = "8")]
    pub raw_request: Vec<u8>,
}

/// A server's answer to a call, published on the caller's channel.
#[derive(Clone, PartialEq, Message)]
pub struct RpcResponse {
    /// Of the call.
    #[prost(string, tag = "1")]
    pub request_id: String,
    /// The server that answers.
    #[prost(string, tag = "2")]
    pub server_id: String,
    /// Unix nanoseconds on the server's clock.
    #[prost(int64, tag = "3")]
    pub sent_at: i64,
    /// The response is an error exactly when this is not empty.
    #[prost(string, tag = "5")]
    pub error: String,
    /// Text of a [`Code`](crate::Code) beside an error.
    #[prost(string, tag = "6")]
    pub code: String,
    /// The response message as the server serialised it.
    #[prost(bytes = "vec", tag = "7")]
    pub raw_response: Vec<u8>,
    /// Further messages about an error; never written here.
    #[prost(message, repeated, tag = "8")]
    pub error_details: Vec<pbjson_types::Any>,
}

/// A server's bid for a request.
#[derive(Clone, PartialEq, Message)]
pub struct ClaimRequest {
    /// Of the call.
    #[prost(string, tag = "1")]
    pub request_id: String,
    /// The bidder.
    #[prost(string, tag = "2")]
    pub server_id: String,
    /// How well the server suits, usually 0 to 1; the caller grants the highest bid.
    #[prost(float, tag = "3")]
    pub affinity: f32,
    /// The server already works on it and expects no grant (psrpc 0.7.4 and later).
    #[prost(bool, tag = "4")]
    pub handling: bool,
}

/// The caller's grant to one bidder, received by all bidders.
#[derive(Clone, PartialEq, Message)]
pub struct ClaimResponse {
    /// Of the call.
    #[prost(string, tag = "1")]
    pub request_id: String,
    /// The bidder that is to handle the call.
    #[prost(string, tag = "2")]
    pub server_id: String,
}

impl Body for RpcRequest {
    const NAME: &'static str = "internal.Request";
}

impl Body for RpcResponse {
    const NAME: &'static str = "internal.Response";
}

impl Body for ClaimRequest {
    const NAME: &'static str = "internal.ClaimRequest";
}

impl Body for ClaimResponse {
    const NAME: &'static str = "internal.ClaimResponse";
}
