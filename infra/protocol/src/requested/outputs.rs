//! What a request asks for, counted: room, source type, outputs of each kind, URLs of streams with their keys; and the results
//! of an EgressInfo at the beginning, one for each. The deprecated single output of the first API counts only where the list of
//! its kind is empty.

use std::collections::BTreeSet;

use livekit_protocol as livekit;

use super::RedactedUrl;
use crate::rpc::start_egress_request::EgressRequest;

/// Bound on each list of results; what there is beyond it is not told.
pub(crate) const MAX_RESULTS: usize = 1000;

/// Room, source type and outputs of one request. Prints nothing, because it has keys of streams.
#[derive(Default)]
pub(crate) struct RequestedOutputs<'a> {
    /// Empty where the request names no room.
    pub(crate) room_name: &'a str,
    /// WEB where livekit/egress would use a web page.
    pub(crate) source_type: livekit::EgressSourceType,
    /// File outputs.
    pub(crate) files: usize,
    /// Segment outputs.
    pub(crate) segments: usize,
    /// Prefix of each image output.
    pub(crate) images: Vec<&'a str>,
    /// Stream outputs; the websocket of a Track request is one.
    pub(crate) streams: usize,
    /// See [`stream_urls`].
    pub(crate) stream_urls: Vec<&'a str>,
    /// Outputs of a kind that this version does not know.
    pub(crate) unknown: usize,
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
    pub(crate) fn of(request: &'a EgressRequest) -> Self {
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
    pub(crate) fn prefill(&self, info: &mut livekit::EgressInfo) {
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
