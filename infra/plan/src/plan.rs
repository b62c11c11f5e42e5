//! A StartEgress request becomes a plan, or is refused with every mistake that can be known without a room, in the order
//! and with the texts of livekit/egress. Called by the dispatcher's intake, and by a runner that has no dispatcher.

use spillway_protocol::EgressId;
use spillway_protocol::rpc::StartEgressRequest;

use crate::destination::{Destinations, StorageConfig};
use crate::encoding::{Encoding, choose_container};
use crate::error::PlanError;
use crate::request::{self, File, Outputs, RequestFields};
use crate::types::*;
use crate::uploads;

/// The installation's configuration as far as it decides about requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The installation has an API key to make room tokens with, so that a request needs none.
    pub mints_tokens: bool,
    /// livekit-server's URL is configured, so that a request needs none.
    pub knows_server: bool,
    /// Destinations of outputs that bring none, and rules for those that do.
    pub storage: StorageConfig,
    /// Copied into every plan.
    pub limits: Limits,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { mints_tokens: true, knows_server: true, storage: StorageConfig::default(), limits: Limits::default() }
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
    let encoding = Encoding::read(&asked.encoding)?;
    let file = only_file(&asked.outputs, start.retry_count, defaults)?;

    let room_name = if asked.room_name.is_empty() { &start.room_name } else { asked.room_name };
    if start.token.is_empty() {
        if !defaults.mints_tokens {
            return Err(PlanError::Field("token or api key/secret"));
        }
        if room_name.is_empty() {
            // livekit/egress says "token or api key/secret" here too, which sends people the wrong way.
            return Err(PlanError::Field("room_name"));
        }
    }
    if start.ws_url.is_empty() && !defaults.knows_server {
        return Err(PlanError::Field("ws_url"));
    }

    let PlannedMedia { picture, sound, container } = media(&asked, encoding, &file)?;
    Ok(EgressPlan {
        egress_id: start.egress_id.clone(),
        room_name: room_name.clone(),
        room_id: start.room_id.clone(),
        kind: asked.kind,
        source: asked.source,
        picture,
        sound,
        outputs: vec![Output::File(FileOutput {
            container,
            path: uploads::clean(file.path),
            manifest: file.manifest,
            stored: file.upload.is_some() || defaults.storage.primary.is_some(),
        })],
        limits: defaults.limits.clone(),
        retry_count: start.retry_count,
    })
}

/// The destinations of a request: one entry for each output of its plan, in the same order. An output's own upload goes
/// before the installation's storage, that before the disk of the runner.
///
/// # Errors
///
/// As [`plan`], for the fields of the outputs. A retry is useless.
pub fn destinations(start: &StartEgressRequest, config: &StorageConfig) -> Result<Vec<Destinations>, PlanError> {
    request::read(start)?.outputs.files.iter().map(|file| uploads::destination(file.upload, config)).collect()
}

/// The one file, if a file is all that was asked for.
fn only_file<'a>(outputs: &Outputs<'a>, retry_count: i32, defaults: &Defaults) -> Result<File<'a>, PlanError> {
    if outputs.files.len() > 1 {
        return Err(PlanError::Field("multiple file outputs"));
    }
    if outputs.streams > 1 {
        return Err(PlanError::Field("multiple stream outputs"));
    }
    if outputs.segments > 1 {
        return Err(PlanError::Field("multiple segmented file outputs"));
    }
    for (asked, feature) in [
        (outputs.streams > 0, "stream outputs (RTMP, SRT) are"),
        (outputs.segments > 0, "segment outputs (HLS) are"),
        (outputs.images > 0, "image outputs are"),
        (outputs.websocket, "websocket outputs are"),
    ] {
        if asked {
            return Err(PlanError::NotYet(feature));
        }
    }
    let file = *outputs.files.first().ok_or(PlanError::Field("output"))?;
    uploads::destination(file.upload, &defaults.storage)?;
    if !uploads::possible(file.path) {
        return Err(PlanError::Field("filepath"));
    }
    if retry_count > 0 && !uploads::retry_safe(file.path) {
        return Err(PlanError::NotRetrySafe);
    }
    Ok(file)
}

/// Video and audio as they will be recorded, and the container of the file.
struct PlannedMedia {
    picture: Option<VideoPlan>,
    sound: Option<AudioPlan>,
    container: Option<Container>,
}

fn media(asked: &RequestFields, encoding: Encoding, file: &File) -> Result<PlannedMedia, PlanError> {
    if asked.kind == EgressKind::Track {
        return Ok(PlannedMedia {
            picture: Some(VideoPlan::Copied),
            sound: Some(AudioPlan::Copied),
            container: file.container,
        });
    }
    let (container, codec) =
        choose_container(file.container, encoding.audio_codec, asked.wants_sound, asked.wants_picture)?;
    let sound = if asked.wants_sound {
        let (bitrate, frequency) = encoding.audio_rates(codec)?;
        Some(AudioPlan::Mixed { codec, bitrate, frequency, mixing: asked.mixing })
    } else {
        None
    };
    let picture = asked.wants_picture.then_some(match asked.kind {
        EgressKind::RoomComposite => VideoPlan::Composed { layout: asked.layout, encoding: encoding.video },
        _ if encoding.video_asked => VideoPlan::Single(encoding.video),
        _ => VideoPlan::CopiedIfPossible(encoding.video),
    });
    Ok(PlannedMedia { picture, sound, container: Some(container) })
}
