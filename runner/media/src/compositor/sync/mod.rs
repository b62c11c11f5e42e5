//! What the threads of a compositor share: encoded frames that wait (`inbox`, `backlog`), what both mixers know
//! (`mixer_sync`), and the locks under it.

pub(super) mod mixer_sync;
pub(super) mod inbox;
pub(super) mod backlog;
pub(super) mod decoded_queue;
pub(super) mod lock;
