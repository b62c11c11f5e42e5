//! A room with two people, one request for each container, and one for each kind of HLS.

use anyhow::Result;
use serde_json::{Value, json};

use crate::assets::clip;
use crate::egress::Egress;
use crate::publisher::{Publisher, PublisherOptions, SourceKind};
use crate::twirp::Api;

/// A room with two people: one with a camera (H264) and a microphone, one with a camera (VP8).
pub struct TestRoom {
    name: String,
    _people: [Publisher; 2],
    picture: String,
    sound: String,
    other: String,
}

impl TestRoom {
    /// Joins both people and publishes their tracks.
    pub async fn open(api: &Api, name: &str) -> Result<Self> {
        let p0 = Publisher::join(api, name, "p0", PublisherOptions::default()).await?;
        let p1 = Publisher::join(api, name, "p1", PublisherOptions::default()).await?;
        let picture = p0.publish(&clip("p0-360.h264")?, SourceKind::Camera).await?;
        let sound = p0.publish(&clip("p0.opus")?, SourceKind::Microphone).await?;
        let other = p1.publish(&clip("p1-360.vp8.ivf")?, SourceKind::Camera).await?;
        Ok(Self { name: name.to_owned(), _people: [p0, p1], picture, sound, other })
    }

    /// A StartTrackEgress request for the first camera. `output` makes the file output from a file name.
    pub fn track_request(&self, output: impl Fn(&str) -> Value) -> Value {
        json!({ "room_name": self.name, "track_id": self.picture, "file": output("track.mp4") })
    }

    /// For each container: method, file name and request. `output` makes the file output from the file name:
    /// `filepath`, and where to upload it.
    pub fn requests(&self, output: impl Fn(&str) -> Value) -> Vec<(&'static str, &'static str, Value)> {
        let mut requests = vec![
            // The large tile of this layout shows the whole bar code.
            ("StartRoomCompositeEgress", "room.mp4", json!({ "layout": "speaker" })),
            ("StartTrackEgress", "track.mp4", json!({ "track_id": self.picture })),
            ("StartTrackEgress", "track.webm", json!({ "track_id": self.other })),
            ("StartTrackEgress", "track.ogg", json!({ "track_id": self.sound })),
            ("StartRoomCompositeEgress", "room.mp3", json!({ "audio_only": true })),
        ];
        for (method, name, request) in &mut requests {
            request["room_name"] = json!(self.name);
            let mut output = output(name);
            if *method == "StartTrackEgress" {
                request["file"] = output;
            } else {
                output["file_type"] = json!(if name.ends_with("mp3") { "MP3" } else { "MP4" });
                request["file_outputs"] = json!([output]);
            }
        }
        requests
    }

    /// Starts every request of [`requests`](Self::requests) and waits until all are ACTIVE; gives each egress with its
    /// file name.
    pub async fn record(&self, api: &Api, output: impl Fn(&str) -> Value) -> Result<Vec<(Egress, &'static str)>> {
        all_active(api, self.requests(output)).await
    }

    /// For each kind of request that HLS is encoded for: method, name and request, in 360p. `output` makes the segment
    /// output from the name.
    pub fn segment_requests(&self, output: impl Fn(&str) -> Value) -> Vec<(&'static str, &'static str, Value)> {
        let small = || json!({ "width": 640, "height": 360, "video_bitrate": 600 });
        let (picture, sound) = (&self.picture, &self.sound);
        let mut requests = vec![
            ("StartRoomCompositeEgress", "room", json!({ "layout": "speaker", "advanced": small() })),
            ("StartParticipantEgress", "participant", json!({ "identity": "p0", "advanced": small() })),
            (
                "StartTrackCompositeEgress",
                "tracks",
                json!({ "video_track_id": picture, "audio_track_id": sound, "advanced": small() }),
            ),
            ("StartRoomCompositeEgress", "sound", json!({ "audio_only": true })),
        ];
        for (_, name, request) in &mut requests {
            request["room_name"] = json!(self.name);
            request["segment_outputs"] = json!([output(name)]);
        }
        requests
    }

    /// As [`record`](Self::record), for every request of [`segment_requests`](Self::segment_requests).
    pub async fn record_segments(
        &self,
        api: &Api,
        output: impl Fn(&str) -> Value,
    ) -> Result<Vec<(Egress, &'static str)>> {
        all_active(api, self.segment_requests(output)).await
    }
}

async fn all_active(
    api: &Api,
    requests: Vec<(&'static str, &'static str, Value)>,
) -> Result<Vec<(Egress, &'static str)>> {
    let mut running = Vec::new();
    for (method, name, request) in requests {
        running.push((Egress::start(api, method, request).await?, name));
    }
    for (egress, _) in &running {
        egress.active().await?;
    }
    Ok(running)
}
