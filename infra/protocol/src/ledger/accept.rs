//! The ledger of a request that was just accepted: what the request asks for, counted (room, source type, outputs of each kind,
//! URLs of streams), and an EgressInfo with one result for each of it. The deprecated single output of the first API counts
//! only where the list of its kind is empty. Pure.

use std::collections::BTreeSet;

use livekit_protocol as livekit;
use livekit_protocol::EgressStatus;

use super::results::MAX_RESULTS;
use super::streams::StreamResults;
use super::{EgressLedger, LedgerFile};
use crate::requested::{self, RedactedUrl};
use crate::rpc::StartEgressRequest;
use crate::rpc::start_egress_request::EgressRequest;

impl EgressLedger {
    /// A ledger in STARTING, with the request without its secrets and one result for each output asked for, of a stream
    /// output for each URL.
    pub fn accept(start: &StartEgressRequest, at: i64) -> Self {
        let asked = start.request.as_ref().map(RequestedOutputs::of).unwrap_or_default();
        let room_name = if asked.room_name.is_empty() { start.room_name.as_str() } else { asked.room_name };
        let mut info = livekit::EgressInfo {
            egress_id: start.egress_id.clone(),
            room_id: start.room_id.clone(),
            room_name: room_name.to_owned(),
            source_type: asked.source_type.into(),
            status: EgressStatus::EgressStarting.into(),
            started_at: at,
            updated_at: at,
            retry_count: start.retry_count,
            request: start.request.as_ref().map(requested::redacted),
            ..livekit::EgressInfo::default()
        };
        asked.prefill(&mut info);
        // What is kept beside each stream of the request.
        let mut streams = Vec::new();
        StreamResults::new(&mut info.stream_results, &mut streams, at);
        Self {
            files: vec![LedgerFile::default(); info.file_results.len()],
            streams,
            info,
            active: false,
            waiting: String::new(),
            why: None,
            limit_at: 0,
            notes: Vec::new(),
            notes_left_out: 0,
        }
    }
}

/// Room, source type and outputs of one request. Prints nothing, because it has keys of streams.
#[derive(Default)]
struct RequestedOutputs<'a> {
    /// Empty where the request names no room.
    room_name: &'a str,
    /// WEB where livekit/egress would use a web page.
    source_type: livekit::EgressSourceType,
    /// File outputs.
    files: usize,
    /// Segment outputs.
    segments: usize,
    /// Prefix of each image output.
    images: Vec<&'a str>,
    /// Stream outputs; the websocket of a Track request is one.
    streams: usize,
    /// See [`stream_urls`].
    stream_urls: Vec<&'a str>,
    /// Outputs of a kind that this version does not know.
    unknown: usize,
}

/// URLs of all streams that a request asks for, with their keys: in the request's order, each once. The position of a URL
/// is the id of its stream in the ledger.
pub fn stream_urls(request: &EgressRequest) -> Vec<&str> {
    RequestedOutputs::of(request).stream_urls
}

/// A macro, because the single output has a different type in each message.
macro_rules! outputs {
    ($message:ident, $request:ident) => {{
        let mut asked = RequestedOutputs::listed(
            $request.file_outputs.len(),
            &$request.stream_outputs,
            $request.segment_outputs.len(),
            &$request.image_outputs,
        );
        match &$request.output {
            Some(livekit::$message::Output::File(_)) if asked.files == 0 => asked.files = 1,
            Some(livekit::$message::Output::Stream(output)) if asked.streams == 0 => asked.stream(output),
            Some(livekit::$message::Output::Segments(_)) if asked.segments == 0 => asked.segments = 1,
            _ => {}
        }
        asked
    }};
}

impl<'a> RequestedOutputs<'a> {
    #[expect(deprecated, reason = "old SDKs still fill the single output")]
    fn of(request: &'a EgressRequest) -> Self {
        use livekit::EgressSourceType::{Sdk, Web};
        // livekit/egress' rule, which its clients and tests rely on, although our composites need no web page.
        let page = |audio_only: bool, layout: &str, url: &str| {
            if audio_only && layout.is_empty() && url.is_empty() { Sdk } else { Web }
        };
        let mut asked = match request {
            EgressRequest::RoomComposite(request) => Self {
                room_name: &request.room_name,
                source_type: page(request.audio_only, &request.layout, &request.custom_base_url),
                ..outputs!(room_composite_egress_request, request)
            },
            EgressRequest::Web(request) => Self { source_type: Web, ..outputs!(web_egress_request, request) },
            EgressRequest::Participant(request) => Self {
                room_name: &request.room_name,
                source_type: Sdk,
                ..Self::listed(
                    request.file_outputs.len(),
                    &request.stream_outputs,
                    request.segment_outputs.len(),
                    &request.image_outputs,
                )
            },
            EgressRequest::TrackComposite(request) => Self {
                room_name: &request.room_name,
                source_type: Sdk,
                ..outputs!(track_composite_egress_request, request)
            },
            EgressRequest::Track(request) => {
                use livekit::track_egress_request::Output;
                let asked = Self { room_name: &request.room_name, source_type: Sdk, ..Self::default() };
                match &request.output {
                    Some(Output::File(_)) => Self { files: 1, ..asked },
                    Some(Output::WebsocketUrl(url)) => Self { streams: 1, stream_urls: vec![url.as_str()], ..asked },
                    None => asked,
                }
            }
            EgressRequest::Egress(request) => {
                use livekit::start_egress_request::Source;
                let source_type = match &request.source {
                    Some(Source::Template(template)) => {
                        page(template.audio_only, &template.layout, &template.custom_base_url)
                    }
                    Some(Source::Web(_)) => Web,
                    Some(Source::Media(_)) | None => Sdk,
                };
                Self { room_name: &request.room_name, source_type, ..Self::second_api(&request.outputs) }
            }
            EgressRequest::Replay(request) => Self::second_api(&request.outputs),
        };
        let mut seen = BTreeSet::new();
        asked.stream_urls.retain(|url| seen.insert(*url));
        asked
    }

    fn listed(
        files: usize,
        streams: &'a [livekit::StreamOutput],
        segments: usize,
        images: &'a [livekit::ImageOutput],
    ) -> Self {
        let images = images.iter().map(|output| output.filename_prefix.as_str()).collect();
        let mut asked = Self { files, segments, images, ..Self::default() };
        streams.iter().for_each(|output| asked.stream(output));
        asked
    }

    fn second_api(outputs: &'a [livekit::Output]) -> Self {
        use livekit::output::Config;
        let mut asked = Self::default();
        for output in outputs {
            match &output.config {
                Some(Config::File(_)) => asked.files += 1,
                Some(Config::Segments(_)) => asked.segments += 1,
                Some(Config::Images(output)) => asked.images.push(&output.filename_prefix),
                Some(Config::Stream(output)) => asked.stream(output),
                None => asked.unknown += 1,
            }
        }
        asked
    }

    fn stream(&mut self, output: &'a livekit::StreamOutput) {
        self.streams += 1;
        self.stream_urls.extend(output.urls.iter().map(String::as_str));
    }

    /// One result for each output, of a stream output for each URL. They are in the single result of the first clients too,
    /// where it is the only one.
    fn prefill(&self, info: &mut livekit::EgressInfo) {
        let stream = |url: &&str| livekit::StreamInfo { url: RedactedUrl::of(url).into_string(), ..Default::default() };
        let images =
            |prefix: &&str| livekit::ImagesInfo { filename_prefix: (*prefix).to_owned(), ..Default::default() };
        info.file_results = vec![livekit::FileInfo::default(); self.files.min(MAX_RESULTS)];
        info.segment_results = vec![livekit::SegmentsInfo::default(); self.segments.min(MAX_RESULTS)];
        info.image_results = self.images.iter().take(MAX_RESULTS).map(images).collect();
        info.stream_results = self.stream_urls.iter().take(MAX_RESULTS).map(stream).collect();
        info.result = self.single(&info.stream_results);
    }

    /// Where one output was asked for and nothing else; never for images, of which the message knows nothing.
    #[expect(deprecated, reason = "clients of the single-output days still read it")]
    fn single(&self, streams: &[livekit::StreamInfo]) -> Option<livekit::egress_info::Result> {
        use livekit::egress_info::Result::{File, Segments, Stream};
        match (self.files, self.segments, self.streams, self.images.len() + self.unknown) {
            (1, 0, 0, 0) => Some(File(livekit::FileInfo::default())),
            (0, 1, 0, 0) => Some(Segments(livekit::SegmentsInfo::default())),
            (0, 0, 1, 0) => Some(Stream(livekit::StreamInfoList { info: streams.to_vec() })),
            _ => None,
        }
    }
}
