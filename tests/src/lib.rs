//! The test harness, used by the end-to-end cases (`tests/e2e`), the tests of launchers and stores, and the programs in
//! `bin`: real servers (`servers`), fakes of the clouds (`clouds`), publishers of known clips (`publisher`, `foreign`),
//! the analyser of recordings (`analyser`, `browser`, `hls_player`) and pages in a browser (`devtools`).
//!
//! A function that returns a `Result` fails when the system under test does not do what its comment says, or when this
//! machine lacks a program; the text names what was expected and what was found. A case passes the error on. Everything
//! that is started ends when its handle is dropped.

#![warn(missing_docs)]

pub mod assets;
pub mod clip;
pub mod framecrc;
pub mod process;
pub mod guard;
pub mod servers;
pub mod clouds;
pub mod twirp;
pub mod publisher;
pub mod foreign;
pub mod every_output;
pub mod egress;
pub mod secret_search;
pub mod fleet;
pub mod analyser;
pub mod grants;
pub mod browser;
pub mod devtools;
pub mod hls_player;
pub mod planted;
pub mod console;
