//! The measurements of `cargo bench-egress`, by the names that `--only` selects them with.

/// Latency of StartEgress.
pub const API: &str = "api";
/// What a `kill -9` costs on each store.
pub const KILLS: &str = "kills";
/// How soon recordings begin and end.
pub const STARTS: &str = "starts";
/// The stop of recordings of up to an hour.
pub const LENGTHS: &str = "lengths";
/// What uploads send and hold.
pub const WEIGHTS: &str = "weights";
/// Two hundred starts in 2 s on a Fargate of this machine.
pub const FLEET: &str = "fleet";
/// What a dispatcher needs, idle and with a thousand recordings.
pub const DISPATCHER: &str = "dispatcher";
/// Fifty recordings on three clouds, and their bills.
pub const ESTIMATES: &str = "estimates";

/// CPU, memory, frames and delays of each kind of recording are under the kind's own name.
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
    API,
    KILLS,
    STARTS,
    LENGTHS,
    WEIGHTS,
    FLEET,
    DISPATCHER,
    ESTIMATES,
];

/// Those that store what they record in emulators of the clouds' stores; `kills` looks at it in a browser.
pub const ON_STORES: &[&str] = &[KILLS, WEIGHTS, ESTIMATES];

/// Where `kills` records to.
pub const STORES: &[&str] = &["disk", "S3", "Azure", "Google"];

/// Whether `--only` selects this measurement; without one all are.
pub fn is_selected(name: &str, only: &str) -> bool {
    name.contains(only)
}
