//! What a request asks for, as far as EgressInfo shows it: room, source type, number of outputs. Reads the redacted
//! request; makes no decision about what is supported.

use livekit_protocol as livekit;
use livekit_protocol::egress_info::Request as Shown;

/// Room, source type and number of outputs of one request.
#[derive(Default)]
pub(super) struct RequestedOutputs {
    /// Empty where the request names no room.
    pub(super) room_name: String,
    /// File outputs.
    pub(super) files: usize,
    /// Outputs of every other kind.
    pub(super) others: usize,
    /// WEB where livekit/egress would use a web page.
    pub(super) source_type: livekit::EgressSourceType,
}

/// Number of file outputs and of other outputs in a request of the first API. A macro, because the same fields have
/// different types in each message. The deprecated single file counts only where the list of files is empty.
macro_rules! outputs {
    ($message:ident, $request:ident) => {{
        let lists = [$request.stream_outputs.len(), $request.segment_outputs.len(), $request.image_outputs.len()];
        let listed: usize = lists.into_iter().sum();
        let files = $request.file_outputs.len();
        match $request.output {
            Some(livekit::$message::Output::File(_)) => (files.max(1), listed),
            Some(_) => (files, listed + 1),
            None => (files, listed),
        }
    }};
}

impl RequestedOutputs {
    #[expect(deprecated, reason = "old SDKs still fill the single output")]
    pub(super) fn of(request: &Shown) -> Self {
        use livekit::EgressSourceType::{Sdk, Web};
        // livekit/egress' rule, which its clients and tests rely on, although our composites need no web page.
        let page = |audio_only: bool, layout: &str, url: &str| {
            if audio_only && layout.is_empty() && url.is_empty() { Sdk } else { Web }
        };
        match request {
            Shown::RoomComposite(request) => {
                let (files, others) = outputs!(room_composite_egress_request, request);
                Self {
                    room_name: request.room_name.clone(),
                    files,
                    others,
                    source_type: page(request.audio_only, &request.layout, &request.custom_base_url),
                }
            }
            Shown::Web(request) => {
                let (files, others) = outputs!(web_egress_request, request);
                Self { room_name: String::new(), files, others, source_type: Web }
            }
            Shown::Participant(request) => Self {
                room_name: request.room_name.clone(),
                files: request.file_outputs.len(),
                others: request.stream_outputs.len() + request.segment_outputs.len() + request.image_outputs.len(),
                source_type: Sdk,
            },
            Shown::TrackComposite(request) => {
                let (files, others) = outputs!(track_composite_egress_request, request);
                Self { room_name: request.room_name.clone(), files, others, source_type: Sdk }
            }
            Shown::Track(request) => {
                use livekit::track_egress_request::Output;
                let file = matches!(request.output, Some(Output::File(_)));
                Self {
                    room_name: request.room_name.clone(),
                    files: usize::from(file),
                    others: usize::from(!file),
                    source_type: Sdk,
                }
            }
            Shown::Egress(request) => {
                use livekit::start_egress_request::Source;
                let source_type = match &request.source {
                    Some(Source::Template(template)) => {
                        page(template.audio_only, &template.layout, &template.custom_base_url)
                    }
                    Some(Source::Web(_)) => Web,
                    Some(Source::Media(_)) | None => Sdk,
                };
                Self { room_name: request.room_name.clone(), source_type, ..Self::of_outputs(&request.outputs) }
            }
            Shown::Replay(request) => Self::of_outputs(&request.outputs),
        }
    }

    fn of_outputs(outputs: &[livekit::Output]) -> Self {
        let file = |output: &&livekit::Output| matches!(output.config, Some(livekit::output::Config::File(_)));
        let files = outputs.iter().filter(file).count();
        Self { files, others: outputs.len() - files, ..Self::default() }
    }
}
