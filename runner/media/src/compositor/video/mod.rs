//! Pictures: from decoded frames that wait (`frame_queue`) over what is shown of each track (`input`) to one canvas per output
//! time (`mixer`, `canvas`).

pub(super) mod mixer;
mod input;
pub(super) mod canvas;
pub(super) mod frame_queue;
