//! The stage: real servers, publishers with flashes and beeps, and eyes and ears that judge recordings.

pub mod assets;
pub mod clip;
pub mod process;
pub mod servers;
pub mod clouds;
pub mod twirp;
pub mod publisher;
pub mod foreign;
pub mod every_output;
pub mod egress;
pub mod fleet;
pub mod analyser;
pub mod grants;
pub mod browser;
