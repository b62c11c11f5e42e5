//! A StartEgress request becomes a plan, or is refused with every mistake that can be known without a room, in the order
//! and with the texts of livekit/egress. Called by the dispatcher's intake, and by a runner that has no dispatcher.

use spillway_protocol::rpc::StartEgressRequest;
use spillway_protocol::{EgressId, Secret, ledger};

use crate::destination::{Destinations, StorageConfig};
use crate::encoding::Encoding;
use crate::error::PlanError;
use crate::fields::RequestFields;
use crate::output_types::{AudioCodec, Container, Output, OutputKind, SheetRules, SheetsPlan, StreamProtocol};
use crate::outputs::{self, ChosenCodecs, asks_webm, choose_codecs};
use crate::page::{self, PageRules};
use crate::request;
use crate::types::*;

/// The installation's configuration as far as it decides about requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The installation has an API key to make room tokens with, so that a request needs none.
    pub mints_tokens: bool,
    /// livekit-server's URL is configured, so that a request needs none.
    pub knows_server: bool,
    /// Destinations of outputs that bring none, and rules for those that do.
    pub storage: StorageConfig,
    /// Limits of every recording, by its outputs.
    pub limits: LimitRules,
    /// What lies beside every recording with a picture.
    pub sheets: SheetRules,
    /// Which room composites are web pages.
    pub pages: PageRules,
}

/// Limits for each kind of output; `None`: no limit. Durations in nanoseconds, as in [`Limits`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitRules {
    /// Longest recording with a file.
    pub file_max_duration_ns: Option<u64>,
    /// With streams, over a websocket too.
    pub stream_max_duration_ns: Option<u64>,
    /// With segments.
    pub segment_max_duration_ns: Option<u64>,
    /// With images.
    pub image_max_duration_ns: Option<u64>,
    /// Largest file.
    pub file_max_bytes: Option<u64>,
    /// Most bytes in the segments of one output.
    pub segment_max_bytes: Option<u64>,
}

impl LimitRules {
    /// The same duration for every kind of output, and no sizes.
    pub fn lasting(max_duration_ns: Option<u64>) -> Self {
        Self {
            file_max_duration_ns: max_duration_ns,
            stream_max_duration_ns: max_duration_ns,
            segment_max_duration_ns: max_duration_ns,
            image_max_duration_ns: max_duration_ns,
            ..Self::default()
        }
    }

    /// Limits of a recording with these outputs: the shortest duration of their kinds, as in livekit/egress.
    pub fn of(&self, outputs: &[Output]) -> Limits {
        let has = |kind| outputs.iter().any(|output| output.kind() == kind);
        let duration = |output: &Output| match output.kind() {
            OutputKind::File => self.file_max_duration_ns,
            OutputKind::Segments => self.segment_max_duration_ns,
            OutputKind::Images => self.image_max_duration_ns,
            OutputKind::Stream => self.stream_max_duration_ns,
        };
        Limits {
            max_duration_ns: outputs.iter().filter_map(duration).min(),
            max_file_bytes: self.file_max_bytes.filter(|_| has(OutputKind::File)),
            max_segment_bytes: self.segment_max_bytes.filter(|_| has(OutputKind::Segments)),
        }
    }
}

impl SheetRules {
    /// The sheets of a recording with this picture and these outputs: beside its first file with pictures, else beside its
    /// playlist. A Track recording has none, because its picture is not decoded.
    fn of(self, picture: Option<&VideoPlan>, outputs: &[Output]) -> Option<SheetsPlan> {
        let is_any = self.poster || self.contact_sheet || self.thumbnails_ns.is_some();
        if !is_any || matches!(picture, None | Some(VideoPlan::Copied)) {
            return None;
        }
        let has_picture = |output: &Output| match output {
            Output::File(file) => {
                file.container.is_none_or(|container| matches!(container, Container::Mp4 | Container::Webm))
            }
            Output::Segments(_) => true,
            Output::Images(_) | Output::Streams(_) => false,
        };
        // Files stand before segments.
        let output = u32::try_from(outputs.iter().position(has_picture)?).ok()?;
        Some(SheetsPlan { output, rules: self })
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            mints_tokens: true,
            knows_server: true,
            storage: StorageConfig::default(),
            limits: LimitRules::default(),
            sheets: SheetRules::default(),
            pages: PageRules::default(),
        }
    }
}

/// The plan for a request.
///
/// # Errors
///
/// A missing or malformed field, options that contradict each other, or a feature that this version does not have. A retry
/// is useless; [`PlanError::code`] and text go back to the caller.
pub fn plan(start: &StartEgressRequest, defaults: &Defaults) -> Result<EgressPlan, PlanError> {
    // The id is part of file names (spool, manifest): no `/` and no `..` in it, also where no livekit-server has made it.
    if EgressId::parse(&start.egress_id).is_err() {
        return Err(PlanError::Field("egressID"));
    }
    let asked = request::read(start)?;
    let page = page::plan_of(asked.page, &defaults.pages, asked.mixing)?;
    // A template knows its own layouts.
    let layout = if page.is_some() { LayoutName::GRID } else { LayoutName::parse(asked.layout)? };
    let encoding = Encoding::read(&asked.encoding)?;
    outputs::check_numbers(&asked.outputs)?;
    let mut outputs = outputs::read(&asked, start.retry_count, &defaults.storage)?;

    let room_name = if asked.room_name.is_empty() { &start.room_name } else { asked.room_name };
    let joins_room = asked.kind != EgressKind::Web;
    if joins_room && start.token.is_empty() {
        if !defaults.mints_tokens {
            return Err(PlanError::Field("token or api key/secret"));
        }
        if room_name.is_empty() {
            // livekit/egress says "token or api key/secret" here too, which sends people the wrong way.
            return Err(PlanError::Field("room_name"));
        }
    }
    if joins_room && start.ws_url.is_empty() && !defaults.knows_server {
        return Err(PlanError::Field("ws_url"));
    }

    let (picture, sound) = media(&asked, (page.is_some(), layout), encoding, &mut outputs)?;
    Ok(EgressPlan {
        egress_id: start.egress_id.clone(),
        room_name: room_name.clone(),
        room_id: start.room_id.clone(),
        kind: asked.kind,
        source: page.map_or(asked.source, Source::Page),
        sheets: defaults.sheets.of(picture.as_ref(), &outputs),
        picture,
        sound,
        limits: defaults.limits.of(&outputs),
        outputs,
        retry_count: start.retry_count,
    })
}

/// The destinations of a request: one entry for each output of its plan, in the same order. An output's own upload goes
/// before the request's storage, that before the installation's, and that before the disk of the runner.
///
/// # Errors
///
/// As [`plan`], for the fields of the outputs. A retry is useless.
pub fn destinations(start: &StartEgressRequest, config: &StorageConfig) -> Result<Vec<Destinations>, PlanError> {
    outputs::destinations(&request::read(start)?.outputs, config)
}

/// The URLs of a request's streams, in its order and each once, so that the position of a URL is the id of its stream in the
/// ledger: those of the plan's [`Output::Streams`]. They hold keys and are no part of the plan; nothing is checked here.
///
/// # Errors
///
/// The message has no request in it. A retry is useless.
pub fn stream_urls(start: &StartEgressRequest) -> Result<Vec<Secret>, PlanError> {
    let request = start.request.as_ref().ok_or(PlanError::Field("request"))?;
    Ok(ledger::stream_urls(request).into_iter().map(|url| Secret::new(url.to_owned())).collect())
}

/// Video and audio as they will be recorded, of a page or of tracks in this layout. Sets the containers and codecs of files.
fn media(
    asked: &RequestFields,
    (is_page, layout): (bool, LayoutName),
    encoding: Encoding,
    outputs: &mut [Output],
) -> Result<(Option<VideoPlan>, Option<AudioPlan>), PlanError> {
    let is_websocket =
        |output: &Output| matches!(output, Output::Streams(streams) if streams.protocol == StreamProtocol::Websocket);
    if outputs.iter().any(is_websocket) {
        return Ok((None, Some(AudioPlan::Raw { mixing: asked.mixing })));
    }
    if asked.kind == EgressKind::Track {
        return Ok((Some(VideoPlan::Copied), Some(AudioPlan::Copied)));
    }
    let (mut types, mut others) = (Vec::new(), Vec::new());
    for output in &*outputs {
        match output {
            Output::File(file) => types.push(file.container),
            other => others.push(other.kind()),
        }
    }
    let mut chosen = choose_codecs(&types, &others, encoding.audio_codec, asked.wants_sound, asked.wants_picture)?;
    // Only our encoder puts keyframes where segments and streams need them, so one of these has it encode for all.
    let needs_encoder = others.iter().any(|kind| matches!(kind, OutputKind::Segments | OutputKind::Stream));
    let is_composite = asked.kind == EgressKind::RoomComposite;
    let is_encoded = is_page || is_composite || encoding.video_asked || needs_encoder;
    let has_sound = asked.wants_sound && outputs.iter().any(|output| output.kind() != OutputKind::Images);
    let asked_codec = encoding.audio_codec.filter(|_| has_sound);
    // One that cannot be a WebM would have the picture encoded for all.
    let mut with_picture = outputs.iter().filter(|output| output.takes_encoded_video()).peekable();
    let is_webm = asked.wants_picture
        && !is_encoded
        && with_picture.peek().is_some()
        && with_picture.all(|output| match output {
            Output::File(file) => file.container.is_none() && asks_webm(&file.path, asked_codec),
            _ => false,
        });
    let files = outputs.iter_mut().filter_map(|output| match output {
        Output::File(file) => Some(file),
        _ => None,
    });
    for (file, (container, codec)) in files.zip(&chosen.files) {
        file.container = if is_webm && file.container.is_none() { None } else { Some(*container) };
        file.audio = (has_sound && *codec != chosen.main).then_some(*codec);
    }
    if is_webm {
        chosen.encode_too(AudioCodec::Opus);
    }
    let sound = if has_sound { Some(mixed(&chosen, &encoding, asked.mixing)?) } else { None };

    let picture = asked.wants_picture.then_some(match asked.kind {
        EgressKind::RoomComposite if !is_page => VideoPlan::Composed { layout, encoding: encoding.video },
        _ if is_encoded => VideoPlan::Single(encoding.video),
        _ => VideoPlan::CopiedIfPossible(encoding.video),
    });
    Ok((picture, sound))
}

fn mixed(chosen: &ChosenCodecs, encoding: &Encoding, mixing: Mixing) -> Result<AudioPlan, PlanError> {
    let (bitrate, frequency) = encoding.audio_rates(chosen.main)?;
    let mut also = Vec::new();
    for codec in &chosen.also {
        let (bitrate, frequency) = encoding.audio_rates(*codec)?;
        also.push(AudioEncoding { codec: *codec, bitrate, frequency });
    }
    Ok(AudioPlan::Mixed { codec: chosen.main, bitrate, frequency, mixing, also })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "second_api_tests.rs"]
mod second_api_tests;
