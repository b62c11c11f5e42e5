//! Messages of LiveKit's internal services (proto package `rpc` of livekit/protocol), which no crate publishes. Field
//! numbers are those of the proto files; fields that neither side uses are left out.

use livekit_protocol as lk;
use prost::Message;

/// Names of services and methods, as in Redis channel names.
pub mod service {
    /// Service of every egress service: start and list.
    pub const EGRESS_INTERNAL: &str = "EgressInternal";
    /// Service of the process that records; the egress id is the topic.
    pub const EGRESS_HANDLER: &str = "EgressHandler";
    /// Service of livekit-server: keeps EgressInfo.
    pub const IO_INFO: &str = "IOInfo";

    /// [`EGRESS_INTERNAL`]: [`StartEgressRequest`](super::StartEgressRequest) → EgressInfo.
    pub const START_EGRESS: &str = "StartEgress";
    /// [`EGRESS_INTERNAL`], answered by every server: empty → [`ListActiveEgressResponse`](super::ListActiveEgressResponse).
    pub const LIST_ACTIVE_EGRESS: &str = "ListActiveEgress";
    /// [`EGRESS_HANDLER`]: StopEgressRequest → EgressInfo.
    pub const STOP_EGRESS: &str = "StopEgress";
    /// [`EGRESS_HANDLER`]: UpdateStreamRequest → EgressInfo.
    pub const UPDATE_STREAM: &str = "UpdateStream";
    /// [`IO_INFO`]: EgressInfo → empty.
    pub const CREATE_EGRESS: &str = "CreateEgress";
    /// [`IO_INFO`]: EgressInfo → empty.
    pub const UPDATE_EGRESS: &str = "UpdateEgress";
    /// [`IO_INFO`]: [`GetEgressRequest`](super::GetEgressRequest) → EgressInfo.
    pub const GET_EGRESS: &str = "GetEgress";
}

/// livekit-server's request for a recording. The server fills in `egress_id`, `room_id` and the request, and checks
/// nothing.
#[derive(Clone, PartialEq, Message)]
pub struct StartEgressRequest {
    /// Made by livekit-server. Unchecked; see [`EgressId`](crate::EgressId).
    #[prost(string, tag = "1")]
    pub egress_id: String,
    /// Sid of the room; empty when the room does not exist yet.
    #[prost(string, tag = "3")]
    pub room_id: String,
    /// Token to join the room with; empty: the egress service makes one from its API key.
    #[prost(string, tag = "8")]
    pub token: String,
    /// URL of livekit-server; empty: from the configuration of the egress service.
    #[prost(string, tag = "9")]
    pub ws_url: String,
    /// 0 for the first attempt.
    #[prost(int32, tag = "15")]
    pub retry_count: i32,
    /// For requests that do not name their room.
    #[prost(string, tag = "18")]
    pub room_name: String,
    /// What to record, and where to.
    #[prost(oneof = "start_egress_request::EgressRequest", tags = "5, 6, 7, 11, 13, 16, 17")]
    pub request: Option<start_egress_request::EgressRequest>,
}

/// Types nested in [`StartEgressRequest`].
pub mod start_egress_request {
    use super::lk;

    /// One of the public requests, as the API received it.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum EgressRequest {
        /// Every participant of a room in one picture.
        #[prost(message, tag = "5")]
        RoomComposite(lk::RoomCompositeEgressRequest),
        /// One audio and one video track in one file.
        #[prost(message, tag = "6")]
        TrackComposite(lk::TrackCompositeEgressRequest),
        /// One track as published.
        #[prost(message, tag = "7")]
        Track(lk::TrackEgressRequest),
        /// A web page.
        #[prost(message, tag = "11")]
        Web(lk::WebEgressRequest),
        /// Camera and microphone, or screen share, of one participant.
        #[prost(message, tag = "13")]
        Participant(lk::ParticipantEgressRequest),
        /// The v2 request of API and SDKs.
        #[prost(message, tag = "16")]
        Egress(lk::StartEgressRequest),
        /// Export of an agent's stored session.
        #[prost(message, tag = "17")]
        Replay(lk::ExportReplayRequest),
    }
}

/// One server's answer to [`service::LIST_ACTIVE_EGRESS`].
#[derive(Clone, PartialEq, Message)]
pub struct ListActiveEgressResponse {
    /// Egresses that the answering server records.
    #[prost(string, repeated, tag = "1")]
    pub egress_ids: Vec<String>,
}

/// Request of [`service::GET_EGRESS`].
#[derive(Clone, PartialEq, Message)]
pub struct GetEgressRequest {
    /// Of any egress that livekit-server still keeps.
    #[prost(string, tag = "1")]
    pub egress_id: String,
}
