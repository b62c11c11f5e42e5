//! What the media process finds out: about the source, for names, and about what it has recorded, for the manifest.

use serde::{Deserialize, Serialize};

/// Facts about the source for file names and manifests. An empty field is not known, or there is more than one value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackFacts {
    /// Identity of the participant.
    pub publisher_identity: String,
    /// Sid of the recorded track, `TR_…`.
    pub track_id: String,
    /// `audio` or `video`.
    pub track_kind: String,
    /// Lower-case proto name: `camera`, `microphone`, `screen_share`, `screen_share_audio`, `unknown`.
    pub track_source: String,
    /// Sid of the audio track, where video and audio have one each.
    pub audio_track_id: String,
    /// Sid of the video track, where video and audio have one each.
    pub video_track_id: String,
}

/// What was really recorded. Times in milliseconds of media time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quality {
    /// Length of the file.
    pub media_ms: u64,
    /// Video frames made, one for each output time. Of composed ones that repeat the one before, files have a part.
    pub frames: u64,
    /// Video frames that differ from the one before.
    pub distinct_frames: u64,
    /// [`Self::distinct_frames`] over the length of the file.
    pub distinct_frames_per_second: f64,
    /// Longest time without a distinct frame.
    pub max_freeze_ms: u64,
    /// Number of spans in which a source that should have been there was not (lost, reconnecting).
    pub gaps: u32,
    /// Sum of those spans.
    pub gaps_ms: u64,
    /// Time without audio from any track, mutes included.
    pub silence_ms: u64,
    /// RTP packets received.
    pub packets: u64,
    /// RTP packets that never arrived in spite of retransmission.
    pub packets_lost: u64,
    /// Video minus audio, estimated from sender reports; positive: video late. `None` without both.
    pub av_offset_ms: Option<f64>,
    /// Audio that arrived when its time was already mixed, of all participants.
    pub late_sound_ms: u64,
    /// Largest distance between the live edge and what was encoded.
    pub max_lag_ms: u64,
    /// Video frames skipped because the machine could not keep up.
    pub frames_skipped: u64,
    /// Of them, those that were left out early because a stream was watched.
    pub frames_thinned: u64,
    /// Why the recording is degraded, one sentence each; empty when it is not.
    pub degraded: Vec<String>,
}
