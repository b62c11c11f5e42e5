//! What a recording needs and the machine it gets, as records and open tasks store it. `spillway-cost` computes them.

use serde::{Deserialize, Serialize};

/// Needs of a recording: all that its machine and its price depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// CPU cores kept busy, without headroom.
    pub cores: f64,
    /// Peak of both processes of the runner.
    pub memory_mib: f64,
    /// Bytes per second into all files, segments and images.
    pub written: f64,
    /// Bytes per second from livekit-server.
    pub received: f64,
    /// Number of files that grow for the whole recording.
    pub files: u32,
    /// An output is uploaded to an object store.
    pub stored: bool,
    /// An output stays on the machine; see [`Load::is_local`].
    #[serde(default)]
    pub local: bool,
    /// Bytes per second to the servers of streams.
    #[serde(default)]
    pub streamed: f64,
    /// Small objects uploaded per second: segments, playlists, images.
    #[serde(default)]
    pub objects: f64,
    /// Of `written`, bytes per second into segments and images. Records of older versions have none.
    #[serde(default)]
    pub written_objects: f64,
    /// Of `files`, those that stay on the machine. Records of older versions do not have both kinds.
    #[serde(default)]
    pub local_files: u32,
    /// A web page is recorded: the machine needs Chromium.
    #[serde(default)]
    pub page: bool,
}

impl Load {
    /// A file stays on the machine, so it must be one whose disk outlives the recording. Records of older versions have
    /// files of one kind only and do not say it.
    pub fn is_local(&self) -> bool {
        self.local || (!self.stored && self.files > 0)
    }
}

/// Size of a machine as it is requested from the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// Thousandths of a vCPU.
    pub cpu_milli: u32,
    /// Memory.
    pub memory_mib: u32,
    /// Ephemeral disk; 0 where the file system is memory, and on [`Platform::Host`].
    pub disk_gib: u32,
}

/// Where machines come from; each platform has its own sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// AWS ECS on Fargate.
    Fargate,
    /// Google Cloud Run jobs.
    CloudRun,
    /// Azure Container Instances.
    Aci,
    /// Containers and processes on the operator's machines: any size.
    Host,
}

/// How capacity is bought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capacity {
    /// At the list price, not reclaimed.
    #[default]
    OnDemand,
    /// Cheaper; the vendor may reclaim the machine.
    Spot,
}
