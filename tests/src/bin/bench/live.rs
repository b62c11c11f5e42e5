//! What the measurements of streams share: people who publish, outputs of a request, heartbeats of runners.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use spillway_bus::{Bus, Heartbeat, Heartbeats, RedisConfig};
use spillway_protocol::ids::EgressId;
use spillway_tests::assets::clip;
use spillway_tests::egress::Egress;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::TestServers;

/// So many people (of four) with a camera of this height and a microphone, known to the server before it returns.
pub async fn people(servers: &TestServers, room: &str, count: usize, height: u32) -> Result<Vec<Publisher>> {
    let mut all = vec![];
    for who in (0..count).map(|index| format!("p{index}")) {
        let (picture, sound) = (clip(&format!("{who}-{height}.h264"))?, clip(&format!("{who}.opus"))?);
        let person = Publisher::join(&servers.api, room, &who, PublisherOptions::default()).await?;
        person.publish(&picture, SourceKind::Camera).await?;
        person.publish(&sound, SourceKind::Microphone).await?;
        all.push(person);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(all)
}

/// A file output on the disk.
pub fn mp4(folder: &Path) -> Value {
    json!({ "filepath": folder.join("{time}.mp4").to_string_lossy(), "file_type": "MP4" })
}

/// A stream output to these servers.
pub fn rtmp(urls: &[&str]) -> Value {
    json!({ "protocol": "RTMP", "urls": urls })
}

/// Heartbeats of one egress as its runner writes them, once a second.
pub struct HeartbeatReader {
    heartbeats: Heartbeats,
    id: EgressId,
}

impl HeartbeatReader {
    /// Of this one.
    pub async fn of(servers: &TestServers, egress: &Egress) -> Result<Self> {
        let redis = RedisConfig { address: servers.redis_address.clone(), ..RedisConfig::default() };
        let bus = Bus::connect(&redis).await.context("reach Redis")?;
        Ok(Self { heartbeats: Heartbeats::new(&bus), id: EgressId::parse(&egress.id).context("an id")? })
    }

    /// The last one that has not expired.
    pub async fn last(&self) -> Result<Option<Heartbeat>> {
        Ok(self.heartbeats.last(&self.id).await.context("read a heartbeat")?.map(|(_, beat)| beat))
    }
}

/// How far the stream with this number is behind, by its heartbeat.
pub fn stream_lag_ms(beat: &Heartbeat, number: u32) -> Option<u64> {
    beat.extra.get("stream_lag_ms")?.get(number.to_string())?.as_u64()
}
