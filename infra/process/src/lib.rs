//! What every process needs: a log (`telemetry`), a way to leave (`shutdown`), repeated attempts (`retry`), errors with their whole
//! chain (`chain`), the time that all of an installation agree on (`clock`), and folders of this machine that names from
//! a request cannot leave (`local_root`).

pub mod chain;
pub mod clock;
pub mod environment;
pub mod local_root;
pub mod retry;
pub mod shutdown;
pub mod telemetry;

pub use chain::chain;
pub use clock::Clock;
pub use local_root::LocalRoot;
pub use shutdown::Shutdown;
