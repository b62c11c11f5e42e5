//! Outputs of a plan, and what they hold: containers, codecs, protocols. Plain values, part of the plan's JSON. No URL and no
//! credential is among them.

use serde::{Deserialize, Serialize};

/// MIME type of HLS in errors.
pub(crate) const HLS_MIME: &str = "application/x-mpegurl";
/// MIME type of a websocket's audio in errors.
pub(crate) const RAW_AUDIO_MIME: &str = "audio/x-raw";

/// An output of the plan. Its destinations have the same index in the list beside the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// One file for the whole recording.
    File(FileOutput),
    /// HLS.
    Segments(SegmentsOutput),
    /// A picture every few seconds.
    Images(ImagesOutput),
    /// Streams to servers, all with the same media.
    Streams(StreamsOutput),
}

/// The kind of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// [`Output::File`].
    File,
    /// [`Output::Segments`].
    Segments,
    /// [`Output::Images`].
    Images,
    /// [`Output::Streams`].
    Stream,
}

impl Output {
    /// Its kind.
    pub fn kind(&self) -> OutputKind {
        match self {
            Self::File(_) => OutputKind::File,
            Self::Segments(_) => OutputKind::Segments,
            Self::Images(_) => OutputKind::Images,
            Self::Streams(_) => OutputKind::Stream,
        }
    }

    /// Its files are uploaded to a store and do not stay on the runner's disk.
    pub fn is_stored(&self) -> bool {
        match self {
            Self::File(file) => file.stored,
            Self::Segments(segments) => segments.stored,
            Self::Images(images) => images.stored,
            Self::Streams(_) => false,
        }
    }

    /// It makes files, on the runner's disk or in a store.
    pub fn leaves_files(&self) -> bool {
        self.kind() != OutputKind::Stream
    }

    /// It makes files, and they stay on the runner's disk.
    pub fn stays_local(&self) -> bool {
        self.leaves_files() && !self.is_stored()
    }

    /// A manifest is written beside its files.
    pub fn manifest(&self) -> bool {
        match self {
            Self::File(file) => file.manifest,
            Self::Segments(segments) => segments.manifest,
            Self::Images(images) => images.manifest,
            Self::Streams(_) => false,
        }
    }

    /// The video encoder's H264 goes into it, where the plan has a picture.
    pub fn takes_encoded_video(&self) -> bool {
        match self {
            Self::File(file) => file.container.is_none_or(Container::takes_encoded_video),
            Self::Segments(_) => true,
            // Made of raw pictures.
            Self::Images(_) => false,
            Self::Streams(streams) => streams.protocol != StreamProtocol::Websocket,
        }
    }

    /// The requested path that says where its files go, and the request's field for it.
    pub fn path(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::File(file) => Some(("filepath", &file.path)),
            // The playlists lie in the directory of the prefix where their name has none.
            Self::Segments(SegmentsOutput { naming, .. }) if naming.playlist.contains('/') => {
                Some(("playlist_name", &naming.playlist))
            }
            Self::Segments(SegmentsOutput { naming, .. }) => Some(("filename_prefix", &naming.prefix)),
            Self::Images(images) => Some(("filename_prefix", &images.prefix)),
            Self::Streams(_) => None,
        }
    }
}

/// A file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileOutput {
    /// `None`: follows from the published codec, of a Track and of a copied picture that WebM is asked for; a composed picture
    /// is MP4 then.
    pub container: Option<Container>,
    /// Codec of the mixed audio in it; `None`: the plan's main one. Its container may not take that
    /// ([`FileOutput::audio_in`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioCodec>,
    /// The requested path, cleaned, variables not filled in; empty or ending in `/`: a generated name.
    pub path: String,
    /// A manifest is written beside it.
    pub manifest: bool,
    /// It is uploaded to a store and does not stay on the runner's disk.
    #[serde(default)]
    pub stored: bool,
}

/// HLS: segments and the playlists that list them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentsOutput {
    /// Where they go and what they are called.
    pub naming: SegmentNaming,
    /// Length of a segment; positive.
    pub segment_ns: u64,
    /// A manifest is written beside the playlists.
    pub manifest: bool,
    /// Segments and playlists are uploaded to a store.
    pub stored: bool,
}

/// What tells the segments of an output apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentSuffix {
    /// `_00000`, from 0 on.
    #[default]
    Index,
    /// `_20221004011306078`: where it begins, local time with milliseconds.
    Timestamp,
}

/// What a segment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentFormat {
    /// What the API asks for.
    #[default]
    MpegTs,
    /// Segments that share an init segment; no request asks for them.
    FragmentedMp4,
}

impl SegmentFormat {
    /// Extension of a segment's file, with its dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::MpegTs => ".ts",
            Self::FragmentedMp4 => ".m4s",
        }
    }

    /// MIME type of a segment; of MPEG-TS livekit/egress' own.
    pub fn mime(self) -> &'static str {
        match self {
            Self::MpegTs => "video/mp2t",
            Self::FragmentedMp4 => "video/iso.segment",
        }
    }
}

/// What a request says; paths cleaned, variables not filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentNaming {
    /// `filename_prefix`; may be empty or end in `/`.
    pub prefix: String,
    /// `playlist_name`; may be empty or end in `/`.
    pub playlist: String,
    /// `live_playlist_name`; empty: there is no live playlist.
    pub live_playlist: String,
    /// `filename_suffix`.
    pub suffix: SegmentSuffix,
    /// Decides the extension of segments.
    #[serde(default)]
    pub format: SegmentFormat,
}

/// A picture every few seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagesOutput {
    /// `filename_prefix`, cleaned, variables not filled in; empty or ending in `/`: a generated name.
    pub prefix: String,
    /// From one picture to the next; positive.
    pub interval_ns: u64,
    /// Pixels; `None`: as composed or published.
    pub size: Option<(u32, u32)>,
    /// What tells the images apart.
    pub suffix: ImageSuffix,
    /// File format.
    pub codec: ImageCodec,
    /// A manifest is written beside the images.
    pub manifest: bool,
    /// They are uploaded to a store.
    pub stored: bool,
}

/// What tells the images of an output apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSuffix {
    /// `_00000`, from 0 on.
    Index,
    /// `_20221004011306078`: local time with milliseconds.
    Timestamp,
    /// None: each image replaces the one before.
    NoneOverwrite,
}

/// File format of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageCodec {
    /// JPEG.
    Jpeg,
    /// PNG; not among those of the API, see [`ImageCodec::of`].
    Png,
    /// WebP; as PNG.
    Webp,
}

impl ImageCodec {
    /// The codec that a prefix asks for where the request names none: the API knows JPEG alone, and a prefix of `a.png` or
    /// `a.webp` is asking for the others.
    pub fn of(prefix: &str) -> Self {
        let ends = |codec: &&Self| prefix.ends_with(codec.extension());
        [Self::Png, Self::Webp].iter().find(ends).copied().unwrap_or(Self::Jpeg)
    }

    /// Extension of a file, with its dot; of JPEG livekit/egress' own.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => ".jpeg",
            Self::Png => ".png",
            Self::Webp => ".webp",
        }
    }

    /// MIME type of a stored image.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
        }
    }
}

/// What the installation wants beside its recordings; by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SheetRules {
    /// One picture of the recording, as large as it is.
    #[serde(default)]
    pub poster: bool,
    /// Up to 16 pictures of the whole recording in one image.
    #[serde(default)]
    pub contact_sheet: bool,
    /// From one thumbnail to the next; `None`: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thumbnails_ns: Option<u64>,
}

/// The sheets of one recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SheetsPlan {
    /// The output of the plan whose file or playlist they lie beside.
    pub output: u32,
    /// What is made; at least one of them.
    pub rules: SheetRules,
}

/// The streams of a recording. Their URLs are secrets and not here: [`stream_urls`](crate::stream_urls) reads them from the
/// request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamsOutput {
    /// Of every URL, of those that are added later too.
    pub protocol: StreamProtocol,
    /// Different URLs in the request; 0: they come later.
    pub count: u32,
}

impl StreamsOutput {
    /// Streams may be added and removed while it records. The audio of a Track over a websocket has its one URL.
    pub fn can_be_updated(self) -> bool {
        self.protocol != StreamProtocol::Websocket
    }
}

/// Protocol of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamProtocol {
    /// RTMP and RTMPS.
    Rtmp,
    /// SRT with MPEG-TS.
    Srt,
    /// Raw audio over a websocket.
    Websocket,
}

/// Audio codecs that are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioCodec {
    /// AAC-LC.
    Aac,
    /// Opus.
    Opus,
    /// MPEG-1/2 Layer 3.
    Mp3,
}

impl AudioCodec {
    /// Names the codec in errors.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Aac => "audio/aac",
            Self::Opus => "audio/opus",
            Self::Mp3 => "audio/mpeg",
        }
    }
}

/// File format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Container {
    /// Fragmented MP4.
    Mp4,
    /// Ogg with Opus.
    Ogg,
    /// WebM with a published VP8, VP9 or AV1 stream, and Opus.
    Webm,
    /// IVF with a published VP8, VP9 or AV1 stream.
    Ivf,
    /// MP3 frames without a container.
    Mp3,
}

impl Container {
    /// File name extension, with the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Mp4 => ".mp4",
            Self::Ogg => ".ogg",
            Self::Webm => ".webm",
            Self::Ivf => ".ivf",
            Self::Mp3 => ".mp3",
        }
    }

    /// The container that a path asks for by its extension.
    pub fn of_path(path: &str) -> Option<Self> {
        let all = [Self::Mp4, Self::Ogg, Self::Webm, Self::Ivf, Self::Mp3];
        all.into_iter().find(|container| path.ends_with(container.extension()))
    }

    /// Content type of a stored file; also names the container in errors.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Mp4 => "video/mp4",
            Self::Ogg => "audio/ogg",
            Self::Webm => "video/webm",
            Self::Ivf => "video/x-ivf",
            Self::Mp3 => "audio/mpeg",
        }
    }

    /// Audio codecs of an encoded recording in this container, default first.
    pub(crate) fn audio(self) -> &'static [AudioCodec] {
        match self {
            Self::Mp4 => &[AudioCodec::Aac, AudioCodec::Opus],
            Self::Ogg | Self::Webm => &[AudioCodec::Opus],
            Self::Mp3 => &[AudioCodec::Mp3],
            Self::Ivf => &[],
        }
    }

    /// Only H264 is ever encoded.
    pub(crate) fn takes_encoded_video(self) -> bool {
        matches!(self, Self::Mp4)
    }
}
