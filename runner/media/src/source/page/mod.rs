//! A web page as a source: its display and its sound. Two threads and an X server; frames and samples carry CLOCK_MONOTONIC.

pub mod display;
mod capture;
pub mod sound;
pub mod units;
