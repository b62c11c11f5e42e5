//! Pictures: from decoded frames that wait (`frame_queue`) to one canvas per output time (`mixer`, `canvas`).

pub(super) mod mixer;
pub(super) mod canvas;
pub(super) mod frame_queue;
