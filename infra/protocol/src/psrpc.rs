//! The envelope of psrpc, LiveKit's request/response over Redis pub/sub (proto package `internal` of livekit/psrpc).
//! Fields that nobody writes any more are left out: an unknown field is skipped.

use std::collections::HashMap;

use prost::Message;

/// What a PUBLISH carries. Fields 1 and 2 are laid out like `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct Msg {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    /// Filled by psrpc 0.8 and later; nobody reads it on Redis.
    #[prost(string, tag = "3")]
    pub channel: String,
    /// [`Msg::GZIP`] when `value` is compressed. We read that and never write it: senders before 0.7.6 do not know it.
    #[prost(int32, tag = "4")]
    pub compression: i32,
}

/// A message that travels inside a [`Msg`].
pub trait Body: Message + Default {
    const NAME: &'static str;
}

impl Msg {
    pub const PLAIN: i32 = 0;
    pub const GZIP: i32 = 1;

    pub fn wrap<B: Body>(body: &B) -> Self {
        Self {
            type_url: format!("type.googleapis.com/{}", B::NAME),
            value: body.encode_to_vec(),
            channel: String::new(),
            compression: Self::PLAIN,
        }
    }

    /// The message name: what follows the last `/` of the type URL, with or without the usual prefix.
    pub fn body_name(&self) -> &str {
        self.type_url.rsplit('/').next().unwrap_or_default()
    }
}

/// A call.
#[derive(Clone, PartialEq, Message)]
pub struct RpcRequest {
    #[prost(string, tag = "1")]
    pub request_id: String,
    #[prost(string, tag = "2")]
    pub client_id: String,
    /// Unix nanoseconds on the caller's clock, as `expiry` is.
    #[prost(int64, tag = "3")]
    pub sent_at: i64,
    #[prost(int64, tag = "4")]
    pub expiry: i64,
    #[prost(bool, tag = "5")]
    pub multi: bool,
    /// Trace context, when the caller traces.
    #[prost(map = "string, string", tag = "7")]
    pub metadata: HashMap<String, String>,
    /// The request message as the caller serialised it.
    #[prost(bytes = "vec", tag = "8")]
    pub raw_request: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RpcResponse {
    #[prost(string, tag = "1")]
    pub request_id: String,
    #[prost(string, tag = "2")]
    pub server_id: String,
    #[prost(int64, tag = "3")]
    pub sent_at: i64,
    /// The answer is an error exactly when this is not empty.
    #[prost(string, tag = "5")]
    pub error: String,
    #[prost(string, tag = "6")]
    pub code: String,
    #[prost(bytes = "vec", tag = "7")]
    pub raw_response: Vec<u8>,
    #[prost(message, repeated, tag = "8")]
    pub error_details: Vec<pbjson_types::Any>,
}

/// A server's bid for a request.
#[derive(Clone, PartialEq, Message)]
pub struct ClaimRequest {
    #[prost(string, tag = "1")]
    pub request_id: String,
    #[prost(string, tag = "2")]
    pub server_id: String,
    #[prost(float, tag = "3")]
    pub affinity: f32,
    /// The server already works on it and expects no grant (psrpc 0.7.4 and later).
    #[prost(bool, tag = "4")]
    pub handling: bool,
}

/// The caller's grant to one bidder, heard by all.
#[derive(Clone, PartialEq, Message)]
pub struct ClaimResponse {
    #[prost(string, tag = "1")]
    pub request_id: String,
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
