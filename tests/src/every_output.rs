//! A room that is recorded into every container at once.

use anyhow::Result;
use serde_json::{Value, json};

use crate::assets::clip;
use crate::egress::Egress;
use crate::publisher::{Publisher, PublisherOptions, SourceKind};
use crate::twirp::Api;

/// Two people: one with a camera (H264) and a microphone, one with a camera (VP8).
pub struct TestRoom {
    name: String,
    _people: [Publisher; 2],
    picture: String,
    sound: String,
    other: String,
}

impl TestRoom {
    pub async fn open(api: &Api, name: &str) -> Result<Self> {
        let p0 = Publisher::join(api, name, "p0", PublisherOptions::default()).await?;
        let p1 = Publisher::join(api, name, "p1", PublisherOptions::default()).await?;
        let picture = p0.publish(&clip("p0-360.h264")?, SourceKind::Camera).await?;
        let sound = p0.publish(&clip("p0.opus")?, SourceKind::Microphone).await?;
        let other = p1.publish(&clip("p1-360.vp8.ivf")?, SourceKind::Camera).await?;
        Ok(Self { name: name.to_owned(), _people: [p0, p1], picture, sound, other })
    }

    /// A StartTrackEgress of the first camera.
    pub fn track_request(&self, output: impl Fn(&str) -> Value) -> Value {
        json!({ "room_name": self.name, "track_id": self.picture, "file": output("track.mp4") })
    }

    /// A request of each container with the name of its file and the call it belongs to. `output` makes the file output
    /// from such a name: `filepath`, and where to upload it.
    pub fn requests(&self, output: impl Fn(&str) -> Value) -> Vec<(&'static str, &'static str, Value)> {
        let mut requests = vec![
            // The stage of this layout shows the whole bar code.
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

    /// One running egress of each container, with the name of its file.
    pub async fn record(&self, api: &Api, output: impl Fn(&str) -> Value) -> Result<Vec<(Egress, &'static str)>> {
        let mut running = Vec::new();
        for (method, name, request) in self.requests(output) {
            running.push((Egress::start(api, method, request).await?, name));
        }
        for (egress, _) in &running {
            egress.active().await?;
        }
        Ok(running)
    }
}
