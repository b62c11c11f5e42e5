//! The measurements of `cargo bench-egress` by the names that `--only` selects.

/// Latency of StartEgress.
pub const API: &str = "api";
/// Media lost to a `kill -9`, on each store.
pub const KILLS: &str = "kills";
/// HLS lost to a `kill -9`, on each store.
pub const SEGMENT_KILLS: &str = "kills of segments";
/// HLS in a store, watched while it grows.
pub const LIVE_SEGMENTS: &str = "live segments";
/// RTMP streams whose connection is reset or half open, and keys that are refused.
pub const RTMP_FAULTS: &str = "rtmp faults";
/// A good RTMP stream, HLS and an MP4 beside a dead, a silent and a slow stream.
pub const BAD_STREAMS: &str = "bad streams";
/// CPU of HLS, RTMP and images beside an MP4.
pub const OUTPUTS: &str = "all outputs";
/// Latency from a publisher to a player of the RTMP stream.
pub const GLASS: &str = "glass to player";
/// A stream and a file with 60 % of the CPU that they need.
pub const STARVED: &str = "starved stream";
/// Where keys, passphrases and tokens of streams can be read.
pub const SECRETS: &str = "secrets";
/// RTMP, HLS and an MP4 for long.
pub const SOAK: &str = "soak";
/// Latency of the begin and the end of recordings.
pub const STARTS: &str = "starts";
/// Latency of the stop of recordings of up to an hour.
pub const LENGTHS: &str = "lengths";
/// Bytes and requests that uploads send, and memory that they hold.
pub const WEIGHTS: &str = "weights";
/// Two hundred starts in 2 s on the fake ECS with Fargate.
pub const FLEET: &str = "fleet";
/// CPU and memory of a dispatcher, idle and with a thousand recordings.
pub const DISPATCHER: &str = "dispatcher";
/// Fifty recordings on three clouds, and their bills.
pub const ESTIMATES: &str = "estimates";

/// All names. Each of the first twelve measures CPU, memory, frames and delays of one kind of recording.
pub const NAMES: &[&str] = &[
    "track h264",
    "track opus",
    "track composite, copied",
    "participant, encoded",
    "room, audio only, 3 people",
    "room 720p30 of 1 x 720p",
    "room 720p30 of 4 x 360p",
    "room 720p30 of 4 x 720p",
    "room 720p30 of 4 x 720p with layers",
    "room 720p30 of 4 x 720p, still",
    "room 720p30 of 1 x 720p, 15 a second",
    "room 1080p30 of 4 x 720p",
    API,
    KILLS,
    SEGMENT_KILLS,
    LIVE_SEGMENTS,
    RTMP_FAULTS,
    BAD_STREAMS,
    OUTPUTS,
    GLASS,
    STARVED,
    SECRETS,
    SOAK,
    STARTS,
    LENGTHS,
    WEIGHTS,
    FLEET,
    DISPATCHER,
    ESTIMATES,
];

/// Measurements that upload to emulators of object stores.
pub const ON_STORES: &[&str] = &[KILLS, SEGMENT_KILLS, LIVE_SEGMENTS, WEIGHTS, ESTIMATES];

/// Of them, those that also play what they have recorded in a browser.
pub const IN_A_BROWSER: &[&str] = &[KILLS, SEGMENT_KILLS, LIVE_SEGMENTS];

/// Measurements that stream to servers of RTMP or SRT.
pub const STREAMING: &[&str] = &[RTMP_FAULTS, BAD_STREAMS, OUTPUTS, GLASS, STARVED, SECRETS, SOAK];

/// Destinations that `kills` and `kills of segments` record to.
pub const STORES: &[&str] = &["disk", "S3", "Azure", "Google"];

/// Whether `--only` selects a measurement; an empty one selects all.
pub fn is_selected(name: &str, only: &str) -> bool {
    name.contains(only)
}
