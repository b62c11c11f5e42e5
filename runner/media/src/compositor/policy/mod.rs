//! Decisions of a compositor. Everything here is pure: facts and media time in, a decision out.

pub(super) mod start;
pub(super) mod layer_request;
pub(super) mod page;
pub(super) mod layout;
pub(super) mod focus;
pub(super) mod degradation;
pub(super) mod pacing;

#[cfg(test)]
mod table_tests;
