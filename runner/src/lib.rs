//! One egress, then exit. The route: what is asked (`ticket`, in a container after `container`, or `oneshot` without a dispatcher), who may interrupt it
//! (`control`), its life (`session`, which starts the media process and obeys the pure machine), what its files mean
//! (`results`), how they get into their stores (`upload`; of a dead run: `salvage`), and what the outside hears of it (`report`).

pub mod container;
pub mod config;
pub mod ticket;
pub mod oneshot;
pub mod control;
pub mod session;
pub mod results;
pub mod upload;
pub mod salvage;
pub mod report;
pub mod heartbeat;
pub mod serve;
mod clock;
