//! Sound: from packets that are decoded as far as is mixed (`input`) over their sample positions (`track_buffer`,
//! `sample_timeline`) to mixed blocks (`mixer`, `limiter`).

pub(super) mod mixer;
pub(super) mod limiter;
pub(super) mod input;
pub(super) mod track_buffer;
pub(super) mod sample_timeline;
