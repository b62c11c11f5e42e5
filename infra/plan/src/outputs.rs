//! The outputs of a request: checked in livekit/egress' order and with its texts, and turned into those of the plan and into
//! their destinations. Containers and codecs of files are chosen later, in `codecs`.

use std::collections::BTreeSet;

use livekit_protocol as livekit;

use crate::destination::{Destination, Destinations, StorageConfig};
use crate::encoding::MAX_PIXELS_PER_SIDE;
use crate::error::{PlanError, at_most};
use crate::fields::{File, Outputs, RequestFields, Uploaded};
use crate::output_types::*;
use crate::segment_name::SegmentNaming;
use crate::stream_url;
use crate::uploads::{self, RequestedUpload};

/// Files of a request, and its image outputs.
const MAX_OUTPUTS: usize = 8;
const MAX_STREAM_URLS: usize = 32;
const MAX_SEGMENT_SECONDS: u32 = 600;
/// livekit/egress' default.
const SEGMENT_SECONDS: u32 = 4;
/// livekit/egress' default.
const IMAGE_SECONDS: u32 = 10;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How many outputs of each kind there may be.
pub(crate) fn check_numbers(outputs: &Outputs) -> Result<(), PlanError> {
    at_most("file_outputs", outputs.files.len(), MAX_OUTPUTS)?;
    if outputs.streams.len() > 1 {
        return Err(PlanError::Field("multiple stream outputs"));
    }
    if outputs.segments.len() > 1 {
        return Err(PlanError::Field("multiple segmented file outputs"));
    }
    at_most("image_outputs", outputs.images.len(), MAX_OUTPUTS)?;
    at_most("urls", outputs.streams.iter().map(|stream| stream.urls.len()).sum(), MAX_STREAM_URLS)
}

/// Outputs of the plan: files, segments, images, streams. Files have the containers of the request.
pub(crate) fn read(asked: &RequestFields, retry_count: i32, storage: &StorageConfig) -> Result<Vec<Output>, PlanError> {
    let outputs = &asked.outputs;
    let mut read = Vec::new();
    for asked in &outputs.files {
        read.push(Output::File(file(asked, retry_count, storage)?));
    }
    let streams = streams(asked)?;
    if !outputs.images.is_empty() && !asked.wants_picture {
        return Err(PlanError::Field("audio_only images"));
    }
    let images = outputs.images.iter().map(|asked| images(asked, storage)).collect::<Result<Vec<_>, _>>()?;
    for asked in &outputs.segments {
        read.push(Output::Segments(segments(asked, retry_count, storage)?));
    }
    read.extend(images.into_iter().map(Output::Images));
    read.extend(streams.map(Output::Streams));
    if read.is_empty() {
        return Err(PlanError::Field("output"));
    }
    if let [Output::Streams(StreamsOutput { count: 0, .. })] = read.as_slice() {
        return Err(PlanError::Field("stream url"));
    }
    Ok(read)
}

/// Destinations in the order of [`read`].
pub(crate) fn destinations(outputs: &Outputs, config: &StorageConfig) -> Result<Vec<Destinations>, PlanError> {
    let files = outputs.files.iter().map(|file| file.upload);
    let segments = outputs.segments.iter().map(|segments| segments.upload);
    let images = outputs.images.iter().map(|images| images.upload);
    let uploads = files.chain(segments).chain(images);
    let mut all = uploads.map(|upload| uploads::destination(upload, config)).collect::<Result<Vec<_>, _>>()?;
    if !outputs.streams.is_empty() || outputs.websocket.is_some() {
        // It writes nothing.
        all.push(Destinations { primary: Destination::Disk, backup: None });
    }
    Ok(all)
}

fn file(asked: &File, retry_count: i32, storage: &StorageConfig) -> Result<FileOutput, PlanError> {
    let stored = is_stored(asked.upload, storage)?;
    if !uploads::possible(asked.path) {
        return Err(PlanError::Field("filepath"));
    }
    if retry_count > 0 && !uploads::retry_safe(asked.path) {
        return Err(PlanError::NotRetrySafe);
    }
    let path = uploads::clean(asked.path);
    Ok(FileOutput { container: asked.container, audio: None, path, manifest: asked.manifest, stored })
}

fn segments(
    &Uploaded { asked, upload }: &Uploaded<livekit::SegmentedFileOutput>,
    retry_count: i32,
    storage: &StorageConfig,
) -> Result<SegmentsOutput, PlanError> {
    let stored = is_stored(upload, storage)?;
    if livekit::SegmentedFileProtocol::try_from(asked.protocol).is_err() {
        return Err(PlanError::Field("protocol"));
    }
    let suffix = match livekit::SegmentedFileSuffix::try_from(asked.filename_suffix) {
        Ok(livekit::SegmentedFileSuffix::Index) => SegmentSuffix::Index,
        Ok(livekit::SegmentedFileSuffix::Timestamp) => SegmentSuffix::Timestamp,
        Err(_) => return Err(PlanError::Field("filename_suffix")),
    };
    let seconds = if asked.segment_duration == 0 { SEGMENT_SECONDS } else { asked.segment_duration };
    at_most("segment_duration", seconds, MAX_SEGMENT_SECONDS)?;
    for (field, path) in [
        ("filename_prefix", &asked.filename_prefix),
        ("playlist_name", &asked.playlist_name),
        ("live_playlist_name", &asked.live_playlist_name),
    ] {
        if !uploads::possible(path) {
            return Err(PlanError::Field(field));
        }
    }
    let naming = SegmentNaming::new(&asked.filename_prefix, &asked.playlist_name, &asked.live_playlist_name, suffix);
    naming.check(retry_count)?;
    let segment_ns = u64::from(seconds) * NANOS_PER_SECOND;
    Ok(SegmentsOutput { naming, segment_ns, manifest: !asked.disable_manifest, stored })
}

fn images(
    &Uploaded { asked, upload }: &Uploaded<livekit::ImageOutput>,
    storage: &StorageConfig,
) -> Result<ImagesOutput, PlanError> {
    let stored = is_stored(upload, storage)?;
    let suffix = match livekit::ImageFileSuffix::try_from(asked.filename_suffix) {
        Ok(livekit::ImageFileSuffix::ImageSuffixIndex) => ImageSuffix::Index,
        Ok(livekit::ImageFileSuffix::ImageSuffixTimestamp) => ImageSuffix::Timestamp,
        Ok(livekit::ImageFileSuffix::ImageSuffixNoneOverwrite) => ImageSuffix::NoneOverwrite,
        Err(_) => return Err(PlanError::Field("filename_suffix")),
    };
    let codec = match livekit::ImageCodec::try_from(asked.image_codec) {
        Ok(livekit::ImageCodec::IcDefault) => ImageCodec::of(&asked.filename_prefix),
        Ok(livekit::ImageCodec::IcJpeg) => ImageCodec::Jpeg,
        Err(_) => return Err(PlanError::NoCommonCodec),
    };
    at_most("width", asked.width, MAX_PIXELS_PER_SIDE)?;
    at_most("height", asked.height, MAX_PIXELS_PER_SIDE)?;
    // livekit/egress ignores one without the other.
    let size = (asked.width > 0 && asked.height > 0).then(|| (asked.width.unsigned_abs(), asked.height.unsigned_abs()));
    if !uploads::possible(&asked.filename_prefix) {
        return Err(PlanError::Field("filename_prefix"));
    }
    let seconds = if asked.capture_interval == 0 { IMAGE_SECONDS } else { asked.capture_interval };
    Ok(ImagesOutput {
        prefix: uploads::clean(&asked.filename_prefix),
        interval_ns: u64::from(seconds) * NANOS_PER_SECOND,
        size,
        suffix,
        codec,
        manifest: !asked.disable_manifest,
        stored,
    })
}

fn streams(asked: &RequestFields) -> Result<Option<StreamsOutput>, PlanError> {
    if let Some(url) = asked.outputs.websocket {
        stream_url::check(url, StreamProtocol::Websocket)?;
        return Ok(Some(StreamsOutput { protocol: StreamProtocol::Websocket, count: 1 }));
    }
    let Some(output) = asked.outputs.streams.first() else { return Ok(None) };
    let protocol = stream_url::protocol(output)?;
    if protocol == StreamProtocol::Websocket {
        return Err(websocket_refusal(output, asked.wants_picture));
    }
    output.urls.iter().try_for_each(|url| stream_url::check(url, protocol))?;
    let urls: BTreeSet<&String> = output.urls.iter().collect();
    Ok(Some(StreamsOutput { protocol, count: u32::try_from(urls.len()).unwrap_or(u32::MAX) }))
}

/// The first API has websockets for Track requests only; livekit/egress accepts some of these and fails later. Those of the
/// second API are no streams here.
fn websocket_refusal(output: &livekit::StreamOutput, wants_picture: bool) -> PlanError {
    match output.urls.first() {
        None => PlanError::Field("stream url"),
        Some(url) if output.protocol != 0 => stream_url::invalid(url, "invalid scheme"),
        Some(_) if wants_picture => PlanError::Incompatible { format: RAW_AUDIO_MIME, codec: "video/h264" },
        Some(_) => PlanError::Field("output type"),
    }
}

fn is_stored(upload: Option<RequestedUpload>, storage: &StorageConfig) -> Result<bool, PlanError> {
    Ok(uploads::destination(upload, storage)?.primary != Destination::Disk)
}
