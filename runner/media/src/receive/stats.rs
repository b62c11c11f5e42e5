//! What a room can say of each track in numbers.

use super::reorder::ReorderCounts;
use super::{RoomReceiver, TrackState};
use crate::track::{Codec, TrackId, TrackSource};

/// Per track since it joined.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrackStats {
    pub track: TrackId,
    pub sid: String,
    pub codec: Option<Codec>,
    pub frames: u64,
    pub bytes: u64,
    pub packets: u64,
    pub lost: u64,
    pub recovered: u64,
    pub late: u64,
    /// Frames dropped while waiting for a key frame.
    pub undecodable: u64,
    pub keyframes_asked: u64,
    /// Of a picture: how much later than the sound of the same participant and source it is placed now, by their sender
    /// reports. `None` without both.
    pub av_offset_ms: Option<f64>,
}

impl RoomReceiver {
    pub fn stats(&self) -> Vec<TrackStats> {
        self.tracks
            .iter()
            .map(|(id, known)| {
                let mut stats = known.stats.clone();
                let mut add = |counts: ReorderCounts| {
                    stats.packets += counts.packets;
                    stats.lost += counts.lost;
                    stats.recovered += counts.recovered;
                    stats.late += counts.late;
                };
                add(known.past);
                self.streams
                    .values()
                    .filter(|stream| stream.track == *id)
                    .for_each(|stream| add(stream.reorder.counts()));
                let av_offset_ms = self.av_offset_ms(*id, known);
                TrackStats {
                    track: *id,
                    sid: known.publication.sid.clone(),
                    codec: known.joined,
                    av_offset_ms,
                    ..stats
                }
            })
            .collect()
    }

    fn av_offset_ms(&self, picture: TrackId, known: &TrackState) -> Option<f64> {
        let beside = match known.publication.origin {
            TrackSource::Camera => TrackSource::Microphone,
            TrackSource::ScreenShare => TrackSource::ScreenShareAudio,
            _ => return None,
        };
        let sound = self.ids.get(&(known.publication.identity.clone(), beside))?;
        let lateness = |track| self.streams_of(track).find_map(|ssrc| self.timeline.lateness(ssrc));
        Some((lateness(picture)? - sound.iter().find_map(|track| lateness(*track))?) / 1e6)
    }
}
