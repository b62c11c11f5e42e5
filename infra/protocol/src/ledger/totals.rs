//! What an EgressInfo says of its recording as a whole, whatever its outputs are.

use livekit_protocol::EgressInfo;

/// Of all outputs of one egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordingTotals {
    /// Stored bytes; sizes of images are not told.
    pub bytes: u64,
    /// Unix nanoseconds of the first media. Before there is an output: of the request, with which an egress starts; 0: unknown.
    pub began: i64,
    /// Nanoseconds of the longest output; 0: unknown.
    pub lasted: i64,
}

impl RecordingTotals {
    /// Reads an EgressInfo.
    pub fn of(info: &EgressInfo) -> Self {
        let files = info.file_results.iter().map(|file| (file.size, file.started_at, file.duration));
        let segments = info.segment_results.iter().map(|hls| (hls.size, hls.started_at, hls.duration));
        let streams = info.stream_results.iter().map(|stream| (0, stream.started_at, stream.duration));
        // From the first image to the last one.
        let images = info.image_results.iter().map(|images| {
            let lasted = images.ended_at.saturating_sub(images.started_at);
            (0, images.started_at, lasted)
        });
        let results: Vec<(i64, i64, i64)> = files.chain(segments).chain(streams).chain(images).collect();
        let bytes = results.iter().map(|(bytes, ..)| u64::try_from(*bytes).unwrap_or(0)).sum();
        let began = results.iter().map(|(_, began, _)| *began).filter(|at| *at > 0).min();
        let began = began.unwrap_or(info.started_at);
        let lasted = match results.iter().map(|(.., duration)| *duration).max() {
            Some(longest) if longest > 0 => longest,
            // An egress may end long after its outputs, so their own times come first.
            _ if began > 0 && info.ended_at > began => info.ended_at - began,
            _ => 0,
        };
        Self { bytes, began, lasted }
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol::{FileInfo, ImagesInfo, SegmentsInfo, StreamInfo};

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn every_kind_of_output_counts() {
        let file = FileInfo { size: 700, started_at: 2 * SECOND, duration: 4 * SECOND, ..FileInfo::default() };
        let hls = SegmentsInfo { size: 300, started_at: SECOND, duration: 5 * SECOND, ..SegmentsInfo::default() };
        let stream = StreamInfo { started_at: 3 * SECOND, duration: 3 * SECOND, ..StreamInfo::default() };
        let images = ImagesInfo { started_at: 2 * SECOND, ended_at: 9 * SECOND, ..ImagesInfo::default() };
        let bare = EgressInfo { started_at: 1, ended_at: 9 * SECOND, ..EgressInfo::default() };
        let of = |info: &EgressInfo| {
            let RecordingTotals { bytes, began, lasted } = RecordingTotals::of(info);
            (bytes, began, lasted / SECOND)
        };
        assert_eq!(of(&EgressInfo { segment_results: vec![hls.clone()], ..bare.clone() }), (300, SECOND, 5));
        assert_eq!(of(&EgressInfo { stream_results: vec![stream.clone()], ..bare.clone() }), (0, 3 * SECOND, 3));
        assert_eq!(of(&EgressInfo { image_results: vec![images], ..bare.clone() }), (0, 2 * SECOND, 7));
        let all = EgressInfo {
            file_results: vec![file],
            segment_results: vec![hls.clone()],
            stream_results: vec![stream],
            ..bare.clone()
        };
        assert_eq!(of(&all), (1000, SECOND, 5));
        // No output says how long it was.
        let unmeasured = SegmentsInfo { duration: 0, ..hls };
        assert_eq!(of(&EgressInfo { segment_results: vec![unmeasured], ..bare.clone() }), (300, SECOND, 8));
        assert_eq!(
            RecordingTotals::of(&EgressInfo { ended_at: 0, ..bare }),
            RecordingTotals { bytes: 0, began: 1, lasted: 0 }
        );
    }
}
