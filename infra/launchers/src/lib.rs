//! Where runners are started. Used by the dispatcher only.
//!
//! `launcher` is the contract, `exit` how tasks end, `links` where people see them; `process` starts a child on this machine,
//! `ecs`, `cloud_run`, `aci` and `docker` start containers (each a cargo feature), `simulated` starts nothing; `open` makes a
//! launcher of what a configuration says. What a container needs beside the variables of its launch comes from the platform's
//! secret store, under the names that the runner's module `container` documents. With the cargo feature `testing`:
//! `conformance`, the suite that every launcher has to pass.

#![warn(missing_docs, clippy::missing_errors_doc)]

#[cfg(feature = "testing")]
pub mod conformance;
mod open;
#[cfg(feature = "docker")]
pub mod docker;
#[cfg(feature = "aci")]
pub mod aci;
#[cfg(feature = "cloud-run")]
pub mod cloud_run;
#[cfg(feature = "ecs")]
pub mod ecs;
pub mod simulated;
pub mod process;
#[cfg(any(feature = "cloud-run", feature = "aci"))]
#[cfg_attr(not(feature = "cloud-run"), allow(dead_code, reason = "a name makes a lost answer harmless on ACI"))]
mod rest;
#[cfg(any(feature = "ecs", feature = "cloud-run", feature = "aci", feature = "docker"))]
#[cfg_attr(not(feature = "cloud-run"), allow(dead_code, reason = "other platforms have names or tokens for launches"))]
mod memory;
#[allow(dead_code, reason = "only clouds have labels")]
mod labels;
mod launcher;
mod links;
mod exit;

pub use exit::{Billed, ExitReport, TaskExit, TaskMachine};
pub use launcher::{
    LaunchError, LaunchOrder, Launcher, OwnedTask, Quota, RunMode, StopMode, StopOutcome, TaskLog, TaskRef, TaskStatus,
};
pub use links::TaskLinks;
pub use open::{KINDS, LauncherSpec, check, open};
pub use process::ProcessLauncher;
pub use simulated::SimulatedLauncher;
