//! A request from a file or a command line: LiveKit's protojson, as JSON or YAML has parsed it, with ids and token beside
//! it.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use spillway_protocol::hide_value;
use spillway_protocol::rpc::StartEgressRequest;
use spillway_protocol::rpc::start_egress_request::EgressRequest;

/// Why a value is no request.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not an object, or without any request in it.
    #[error("the request must be an object with one of: {KINDS}")]
    NoKind,
    /// A key beside those that are read.
    #[error("\"{0}\" is not known; a request has one of {KINDS}, and beside it egress_id, room_id, token, ws_url")]
    Unknown(String),
    /// A key whose value must be a string.
    #[error("\"{0}\" must be a text")]
    NotText(&'static str),
    /// The request itself is not protojson of its kind.
    #[error("\"{kind}\" is not a request of that kind")]
    Request {
        /// Key of the request.
        kind: &'static str,
        /// What is wrong; without the value, which may have a key in it.
        source: serde_json::Error,
    },
}

const KINDS: &str = "room_composite, participant, track_composite, track, web, egress";

/// A StartEgress from an object with one request (`room_composite`, `participant` …) and, beside it, `egress_id`,
/// `room_id`, `room_name`, `token` and `ws_url`. Both of protojson's spellings of every name are accepted.
///
/// # Errors
///
/// The value is no such object; the error names the key. A retry is useless.
pub fn start_request(request: Value) -> Result<StartEgressRequest, ReadError> {
    let Value::Object(fields) = request else {
        return Err(ReadError::NoKind);
    };
    let mut start = StartEgressRequest::default();
    for (name, value) in fields {
        match name.as_str() {
            "egress_id" | "egressId" => start.egress_id = text("egress_id", value)?,
            "room_id" | "roomId" => start.room_id = text("room_id", value)?,
            "room_name" | "roomName" => start.room_name = text("room_name", value)?,
            "token" => start.token = text("token", value)?,
            "ws_url" | "wsUrl" => start.ws_url = text("ws_url", value)?,
            "room_composite" | "roomComposite" => {
                start.request = Some(EgressRequest::RoomComposite(message("room_composite", value)?))
            }
            "participant" => start.request = Some(EgressRequest::Participant(message("participant", value)?)),
            "track_composite" | "trackComposite" => {
                start.request = Some(EgressRequest::TrackComposite(message("track_composite", value)?));
            }
            "track" => start.request = Some(EgressRequest::Track(message("track", value)?)),
            "web" => start.request = Some(EgressRequest::Web(message("web", value)?)),
            "egress" => start.request = Some(EgressRequest::Egress(message("egress", value)?)),
            _ => return Err(ReadError::Unknown(name)),
        }
    }
    if start.request.is_some() { Ok(start) } else { Err(ReadError::NoKind) }
}

fn text(name: &'static str, value: Value) -> Result<String, ReadError> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(ReadError::NotText(name)),
    }
}

fn message<T: DeserializeOwned>(kind: &'static str, value: Value) -> Result<T, ReadError> {
    // An empty YAML mapping reads as null.
    let value = if value.is_null() { Value::Object(Map::new()) } else { value };
    serde_json::from_value(value).map_err(|error| ReadError::Request { kind, source: hide_value(error) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn either_spelling_is_the_same_request() {
        let track = |request: Value| match start_request(request).unwrap() {
            StartEgressRequest { request: Some(EgressRequest::Track(track)), room_id, .. } => (track.track_id, room_id),
            other => panic!("{other:?}"),
        };
        let snake = json!({"room_id": "RM_1", "track": {"room_name": "r", "track_id": "TR_1"}});
        let camel = json!({"roomId": "RM_1", "track": {"roomName": "r", "trackId": "TR_1"}});
        assert_eq!(track(snake), ("TR_1".to_owned(), "RM_1".to_owned()));
        assert_eq!(track(camel), ("TR_1".to_owned(), "RM_1".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refusal = |request| start_request(request).unwrap_err().to_string();
        assert!(refusal(json!({"trak": {}})).starts_with("\"trak\" is not known"));
        assert!(refusal(json!(3)).contains("room_composite"));
        assert!(refusal(json!({"egress_id": "EG_1"})).contains("room_composite"));
        assert!(refusal(json!({"token": 1, "track": {}})).contains("\"token\" must be a text"));
        assert!(refusal(json!({"track": {"room_name": {}}})).contains("track"));
    }

    #[test]
    fn no_mistake_is_told_with_the_url_or_key_that_stands_in_the_wrong_place() {
        let url = "rtmp://h/app/canary";
        for request in [
            json!({"room_composite": {"stream_outputs": url}}),
            json!({"participant": {"stream_outputs": [{"urls": url}]}}),
            json!({"room_composite": {"stream_outputs": [url]}}),
            json!({"room_composite": {"stream_outputs": [{"protocol": url}]}}),
            json!({"track": {"websocket_url": 1234567}}),
            json!({"track": {"file": "canary"}}),
            json!({"egress": {"outputs": [{"stream": url}]}}),
            json!({"egress": {"outputs": [{"file": {}, "storage": {"s3": {"proxy": "http://me:canary@proxy"}}}]}}),
            json!({"web": "https://page/?token=canary"}),
        ] {
            let ReadError::Request { source, .. } = start_request(request.clone()).unwrap_err() else {
                panic!("{request}")
            };
            assert!(!source.to_string().contains("canary") && !source.to_string().contains("1234567"), "{source}");
        }
    }
}
