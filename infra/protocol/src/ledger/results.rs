//! Lists of results in an EgressInfo, whose entries facts name by their index, and the copy in the single result of the first
//! clients. Pure; lists and texts are bounded.

use livekit_protocol as livekit;

/// Bound on each list of results; what there is beyond it is not told.
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
