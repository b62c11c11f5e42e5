//! Where a runner is started. `launcher` is the contract; `process` starts a child on this machine; `simulated` is a cloud
//! that exists only in this process (tests, and sizing without money); `conformance` is what every launcher has to pass.
//!
//! Places that run containers: `ecs`, `cloud_run`, `aci`, `docker`, each a feature. What a container needs beside the names
//! in its launch comes from the platform's secret store, under the names that the runner's `container` room documents.
//! `open` makes a launcher of what a configuration says.

mod exit;
mod launcher;
#[allow(dead_code, reason = "without a cloud there is nobody to label")]
mod labels;

#[cfg(any(feature = "cloud-run", feature = "aci", feature = "docker"))]
#[cfg_attr(not(feature = "cloud-run"), allow(dead_code, reason = "names make lost answers harmless elsewhere"))]
mod memory;
#[cfg(any(feature = "cloud-run", feature = "aci"))]
#[cfg_attr(not(feature = "cloud-run"), allow(dead_code, reason = "names make lost answers harmless on ACI"))]
mod rest;

pub mod conformance;
#[cfg(feature = "aci")]
pub mod aci;
#[cfg(feature = "cloud-run")]
pub mod cloud_run;
#[cfg(feature = "docker")]
pub mod docker;
#[cfg(feature = "ecs")]
pub mod ecs;
pub mod simulated;
pub mod process;
mod open;

pub use exit::{Billed, ExitReport, TaskExit, TaskMachine};
pub use launcher::{
    LaunchError, LaunchOrder, Launcher, OwnedTask, Quota, RunMode, StopMode, StopOutcome, TaskRef, TaskStatus,
};
pub use open::{KINDS, LauncherSpec, check, open};
pub use process::ProcessLauncher;
pub use simulated::SimulatedLauncher;
