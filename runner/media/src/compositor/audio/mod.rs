//! Sound: from decoded packets at their sample positions (`track_buffer`) to mixed blocks (`mixer`, `limiter`).

pub(super) mod mixer;
pub(super) mod limiter;
pub(super) mod track_buffer;
