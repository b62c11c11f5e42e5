//! The outputs of a request: checked in livekit/egress' order and with its texts, and turned into those of the plan and into
//! their destinations. Then the containers of the files and the audio codec of each output. Pure.
//!
//! The request's file type decides the container, and where it is not set the codecs; the extension of the path does for
//! WebM alone, which has no file type, where the published picture may be copied into one ([`asks_webm`]).
//! Texts and order of the refusals are livekit/egress'. Beyond it, a file type that cannot hold the codec of the other
//! outputs gets an encoding of its own, and one for audio alone is taken beside an output with the picture.
//! Track egress is not encoded: its container follows from the published codec, in the media process.

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

/// The container of a file type; `None`: the codecs decide.
pub(crate) fn container(file_type: i32) -> Result<Option<Container>, PlanError> {
    match livekit::EncodedFileType::try_from(file_type) {
        Ok(livekit::EncodedFileType::DefaultFiletype) => Ok(None),
        Ok(livekit::EncodedFileType::Mp4) => Ok(Some(Container::Mp4)),
        Ok(livekit::EncodedFileType::Ogg) => Ok(Some(Container::Ogg)),
        Ok(livekit::EncodedFileType::Mp3) => Ok(Some(Container::Mp3)),
        Err(_) => Err(PlanError::Field("file_type")),
    }
}

/// A copied track has no file type: IVF is requested by its extension. The media process obeys where IVF can hold the
/// published codec.
pub(crate) fn copied_container(path: &str) -> Option<Container> {
    path.ends_with(".ivf").then_some(Container::Ivf)
}

/// What the outputs of a request hold. Without sound the codecs have no meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChosenCodecs {
    /// In the order of the request.
    pub(crate) files: Vec<(Container, AudioCodec)>,
    /// AAC where an output takes it, else the codec of the first.
    pub(crate) main: AudioCodec,
    /// Every other one.
    pub(crate) also: Vec<AudioCodec>,
}

impl ChosenCodecs {
    /// The mix is encoded in this codec too, for a container that is known only with the published codec.
    pub(crate) fn encode_too(&mut self, codec: AudioCodec) {
        if self.main != codec && !self.also.contains(&codec) {
            self.also.push(codec);
        }
    }
}

/// Whether a file without a type is WebM where the published picture can be copied into one. `asked`: the request's audio
/// codec, which must fit. An H264 picture and one that is composed go into the MP4 that [`choose_codecs`] has for it.
pub(crate) fn asks_webm(path: &str, asked: Option<AudioCodec>) -> bool {
    let webm = Container::Webm;
    path.ends_with(webm.extension()) && asked.is_none_or(|codec| webm.audio().contains(&codec))
}

/// Chooses for `files` with these file types beside `others`, where a [`OutputKind::Stream`] is RTMP or SRT. `asked`: the
/// request's audio codec; a stream overrides it where the output can follow. Fails where a file type cannot hold what is
/// encoded.
pub(crate) fn choose_codecs(
    files: &[Option<Container>],
    others: &[OutputKind],
    asked: Option<AudioCodec>,
    sound: bool,
    picture: bool,
) -> Result<ChosenCodecs, PlanError> {
    let asked = asked.filter(|_| sound);
    let streams = others.contains(&OutputKind::Stream);
    let aac_alone = streams || others.contains(&OutputKind::Segments);
    let picture_elsewhere =
        aac_alone || files.iter().any(|container| container.is_none_or(Container::takes_encoded_video));

    let mut typed = Vec::new();
    for container in files {
        typed.push(match container {
            Some(container) => {
                if picture && !container.takes_encoded_video() && !(sound && picture_elsewhere) {
                    return Err(match asked {
                        // As in livekit/egress: a requested audio codec changes the error about the video.
                        Some(_) => PlanError::Incompatible { format: container.mime(), codec: "video/h264" },
                        None => PlanError::NoCommonCodec,
                    });
                }
                Some((*container, audio_of(*container, asked, streams)?))
            }
            None => None,
        });
    }
    if let (Some(codec), true, false) = (asked, aac_alone, streams)
        && codec != AudioCodec::Aac
    {
        return Err(PlanError::Incompatible { format: HLS_MIME, codec: codec.mime() });
    }
    // What a file without a type follows.
    let followed = if aac_alone { Some(AudioCodec::Aac) } else { asked };
    let first_typed = typed.iter().flatten().next().map(|(_, codec)| *codec);
    let untyped = if picture {
        match followed {
            Some(codec) if files.contains(&None) && !Container::Mp4.audio().contains(&codec) => {
                return Err(PlanError::NoFileType);
            }
            followed => (Container::Mp4, followed.unwrap_or(AudioCodec::Aac)),
        }
    } else {
        match followed.or(first_typed) {
            None | Some(AudioCodec::Opus) => (Container::Ogg, AudioCodec::Opus),
            Some(AudioCodec::Aac) => (Container::Mp4, AudioCodec::Aac),
            Some(AudioCodec::Mp3) => (Container::Mp3, AudioCodec::Mp3),
        }
    };
    let files: Vec<(Container, AudioCodec)> = typed.into_iter().map(|typed| typed.unwrap_or(untyped)).collect();

    let mut used: Vec<AudioCodec> = Vec::new();
    for codec in files.iter().map(|(_, codec)| *codec).chain(aac_alone.then_some(AudioCodec::Aac)) {
        if !used.contains(&codec) {
            used.push(codec);
        }
    }
    let aac = used.iter().position(|codec| *codec == AudioCodec::Aac);
    let main = if used.is_empty() { AudioCodec::Aac } else { used.remove(aac.unwrap_or(0)) };
    Ok(ChosenCodecs { files, main, also: used })
}

/// The audio codec of a file whose type is set.
fn audio_of(container: Container, asked: Option<AudioCodec>, streams: bool) -> Result<AudioCodec, PlanError> {
    let possible = container.audio();
    match asked {
        Some(_) if streams && possible.contains(&AudioCodec::Aac) => Ok(AudioCodec::Aac),
        Some(codec) if possible.contains(&codec) => Ok(codec),
        Some(codec) => Err(PlanError::Incompatible { format: container.mime(), codec: codec.mime() }),
        None => Ok(possible.first().copied().unwrap_or(AudioCodec::Opus)),
    }
}

#[cfg(test)]
#[path = "outputs_tests.rs"]
mod tests;
