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
/// CPU, memory and pictures of web pages, and of rooms in a page.
pub const PAGES: &str = "pages";
/// Two hundred starts in 2 s on the fake ECS with Fargate.
pub const FLEET: &str = "fleet";
/// CPU and memory of a dispatcher, idle and with a thousand recordings.
pub const DISPATCHER: &str = "dispatcher";
/// The console with two hundred egresses and a hundred thousand lines: paint, updates, CPU and memory.
pub const CONSOLE: &str = "console";
/// Fifty recordings on three clouds, and their bills.
pub const ESTIMATES: &str = "estimates";
/// Sound of a publisher whose RTP time stands still in pauses, in every kind of recording.
pub const STILL_CLOCKS: &str = "still clocks";
/// Length of an Opus track with DTX and a mute.
pub const OPUS_LENGTH: &str = "opus length";
/// Loss, jitter and a queue between publisher and server.
pub const BAD_NETWORKS: &str = "bad networks";
/// Picture against sound after mutes, clock steps, rejoins and sleep.
pub const LIP_SYNC: &str = "lip sync";
/// A room of fifty.
pub const BIG_ROOM: &str = "fifty publishers";
/// Arbitrary packets, reports and signalling.
pub const FUZZ: &str = "fuzz";
/// Four people for hours, in virtual time.
pub const TWELVE_HOURS: &str = "twelve hours";

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
    "room 1080p30 of 4 x 720p",
    "room 720p30 of 4 x 720p in layers",
    "room 720p30 of 4 x 720p at 15 fps",
    "room 720p30 of 4 x 720p, static",
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
    PAGES,
    FLEET,
    DISPATCHER,
    CONSOLE,
    ESTIMATES,
    STILL_CLOCKS,
    OPUS_LENGTH,
    BAD_NETWORKS,
    LIP_SYNC,
    BIG_ROOM,
    FUZZ,
    TWELVE_HOURS,
];

/// Measurements that upload to emulators of object stores.
pub const ON_STORES: &[&str] = &[KILLS, SEGMENT_KILLS, LIVE_SEGMENTS, LENGTHS, WEIGHTS, ESTIMATES];

/// Measurements that play what they have recorded in a browser, publish from one, or record one.
pub const IN_A_BROWSER: &[&str] = &[KILLS, SEGMENT_KILLS, LIVE_SEGMENTS, PAGES, CONSOLE, LIP_SYNC];

/// Measurements that stream to servers of RTMP or SRT.
pub const STREAMING: &[&str] = &[RTMP_FAULTS, BAD_STREAMS, OUTPUTS, GLASS, STARVED, SECRETS, SOAK];

/// Destinations that `kills` and `kills of segments` record to.
pub const STORES: &[&str] = &["disk", "S3", "Azure", "Google"];

/// Whether `--only` selects a measurement; an empty one selects all.
pub fn is_selected(name: &str, only: &str) -> bool {
    name.contains(only)
}
