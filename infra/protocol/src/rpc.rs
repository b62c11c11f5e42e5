//! Messages of LiveKit's internal services (proto package `rpc` of livekit/protocol), which no crate publishes.

use livekit_protocol as lk;
use prost::Message;

/// Services and methods an egress service has to do with, as they stand in channel names.
pub mod service {
    pub const EGRESS_INTERNAL: &str = "EgressInternal";
    pub const EGRESS_HANDLER: &str = "EgressHandler";
    pub const IO_INFO: &str = "IOInfo";

    pub const START_EGRESS: &str = "StartEgress";
    pub const LIST_ACTIVE_EGRESS: &str = "ListActiveEgress";
    pub const STOP_EGRESS: &str = "StopEgress";
    pub const UPDATE_STREAM: &str = "UpdateStream";
    pub const CREATE_EGRESS: &str = "CreateEgress";
    pub const UPDATE_EGRESS: &str = "UpdateEgress";
    pub const GET_EGRESS: &str = "GetEgress";
    pub const LIST_EGRESS: &str = "ListEgress";
    pub const UPDATE_METRICS: &str = "UpdateMetrics";
}

/// What livekit-server asks of an egress service. It fills in `egress_id`, `room_id` and the request, and checks nothing.
#[derive(Clone, PartialEq, Message)]
pub struct StartEgressRequest {
    #[prost(string, tag = "1")]
    pub egress_id: String,
    #[prost(string, tag = "3")]
    pub room_id: String,
    #[prost(string, tag = "8")]
    pub token: String,
    #[prost(string, tag = "9")]
    pub ws_url: String,
    #[prost(bool, tag = "10")]
    pub cloud_backup_enabled: bool,
    #[prost(double, tag = "14")]
    pub estimated_cpu: f64,
    #[prost(int32, tag = "15")]
    pub retry_count: i32,
    #[prost(string, tag = "18")]
    pub room_name: String,
    #[prost(oneof = "start_egress_request::EgressRequest", tags = "5, 6, 7, 11, 13, 16, 17")]
    pub request: Option<start_egress_request::EgressRequest>,
}

pub mod start_egress_request {
    use super::lk;

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum EgressRequest {
        #[prost(message, tag = "5")]
        RoomComposite(lk::RoomCompositeEgressRequest),
        #[prost(message, tag = "6")]
        TrackComposite(lk::TrackCompositeEgressRequest),
        #[prost(message, tag = "7")]
        Track(lk::TrackEgressRequest),
        #[prost(message, tag = "11")]
        Web(lk::WebEgressRequest),
        #[prost(message, tag = "13")]
        Participant(lk::ParticipantEgressRequest),
        /// The v2 request of API and SDKs.
        #[prost(message, tag = "16")]
        Egress(lk::StartEgressRequest),
        #[prost(message, tag = "17")]
        Replay(lk::ExportReplayRequest),
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct ListActiveEgressRequest {}

#[derive(Clone, PartialEq, Message)]
pub struct ListActiveEgressResponse {
    #[prost(string, repeated, tag = "1")]
    pub egress_ids: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetEgressRequest {
    #[prost(string, tag = "1")]
    pub egress_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct UpdateMetricsRequest {
    #[prost(message, optional, tag = "1")]
    pub info: Option<lk::EgressInfo>,
    #[prost(float, tag = "3")]
    pub avg_cpu_usage: f32,
    #[prost(float, tag = "4")]
    pub max_cpu_usage: f32,
}
