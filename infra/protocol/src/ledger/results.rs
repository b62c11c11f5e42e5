//! Lists of results in an EgressInfo: one entry for each output from the beginning on, which facts name by its index,
//! and the copy in the single result of the first clients. Pure; lists and texts are bounded.

use livekit_protocol as livekit;

use crate::requested::{RedactedUrl, RequestedOutputs};

/// Bound on each list of results; facts about further entries are dropped.
pub(super) const MAX_RESULTS: usize = 1000;
/// Bound on a text that people read.
const MAX_TEXT_CHARS: usize = 400;

/// Entry `index` of a list, which grows up to it; `None` beyond the bound.
pub(super) fn entry<T: Default>(list: &mut Vec<T>, index: usize) -> Option<&mut T> {
    if index >= MAX_RESULTS {
        return None;
    }
    if index >= list.len() {
        list.resize_with(index + 1, T::default);
    }
    list.get_mut(index)
}

/// The beginning of a text.
pub(super) fn bounded(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}

/// A number as the messages have it, at most `i64::MAX`.
pub(super) fn signed(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// One entry for each output that was asked for, of a stream output for each URL.
pub(super) fn prefill(info: &mut livekit::EgressInfo, asked: &RequestedOutputs<'_>) {
    let stream = |url: &&str| livekit::StreamInfo { url: RedactedUrl::of(url).into_string(), ..Default::default() };
    let images = |prefix: &&str| livekit::ImagesInfo { filename_prefix: (*prefix).to_owned(), ..Default::default() };
    info.file_results = vec![livekit::FileInfo::default(); asked.files.min(MAX_RESULTS)];
    info.segment_results = vec![livekit::SegmentsInfo::default(); asked.segments.min(MAX_RESULTS)];
    info.image_results = asked.images.iter().take(MAX_RESULTS).map(images).collect();
    info.stream_results = asked.stream_urls.iter().take(MAX_RESULTS).map(stream).collect();
    info.result = single(asked);
    mirror_single(info);
}

/// Where one output was asked for and nothing else; never for images, of which the message knows nothing.
#[expect(deprecated, reason = "clients of the single-output days still read it")]
fn single(asked: &RequestedOutputs<'_>) -> Option<livekit::egress_info::Result> {
    use livekit::egress_info::Result::{File, Segments, Stream};
    match (asked.files, asked.segments, asked.streams, asked.images.len() + asked.unknown) {
        (1, 0, 0, 0) => Some(File(livekit::FileInfo::default())),
        (0, 1, 0, 0) => Some(Segments(livekit::SegmentsInfo::default())),
        (0, 0, 1, 0) => Some(Stream(livekit::StreamInfoList::default())),
        _ => None,
    }
}

/// Copies the only result into the field of the single-output days, where the info has that.
#[expect(deprecated, reason = "clients of the single-output days still read it")]
pub(super) fn mirror_single(info: &mut livekit::EgressInfo) {
    use livekit::egress_info::Result::{File, Segments, Stream};
    match &mut info.result {
        Some(File(single)) => {
            if let Some(file) = info.file_results.first() {
                single.clone_from(file);
            }
        }
        Some(Segments(single)) => {
            if let Some(segments) = info.segment_results.first() {
                single.clone_from(segments);
            }
        }
        Some(Stream(single)) => single.info.clone_from(&info.stream_results),
        None => {}
    }
}

/// The first media came: the start time of each result that has none. A stream starts when it connects.
pub(super) fn begin(info: &mut livekit::EgressInfo, started_at: i64) {
    let files = info.file_results.iter_mut().map(|file| &mut file.started_at);
    let segments = info.segment_results.iter_mut().map(|segments| &mut segments.started_at);
    let images = info.image_results.iter_mut().map(|images| &mut images.started_at);
    for time in files.chain(segments).chain(images).filter(|time| **time == 0) {
        *time = started_at;
    }
}
