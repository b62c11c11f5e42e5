//! Where a runner is started. `launcher` is the contract; `process` starts a child on this machine; `paper` is a cloud
//! that exists only on paper (tests, and sizing without money); `conformance` is what every launcher has to pass.
//! Clouds come behind the same trait.

mod departure;
mod launcher;

pub mod conformance;
pub mod paper;
pub mod process;

pub use departure::{Billed, Departed, Departure, Machine};
pub use launcher::{EndHow, Ended, Errand, LaunchError, LaunchOrder, Launcher, OwnedTask, Quota, Sighting, TaskRef};
pub use paper::PaperLauncher;
pub use process::ProcessLauncher;
