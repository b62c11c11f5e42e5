//! What every process needs: the log (`telemetry`), shutdown of its tasks and signals (`shutdown`), waits between attempts
//! (`retry`), error messages with all causes (`chain`), a clock that all processes of an installation share (`clock`),
//! the environment a child process may have (`environment`), TLS to servers (`tls`), folders of this machine that names
//! from a request cannot leave (`local_root`), and what the kernel says of processes (`stat`).
#![warn(missing_docs)]

pub mod chain;
pub mod clock;
pub mod environment;
pub mod local_root;
pub mod retry;
pub mod shutdown;
pub mod stat;
pub mod telemetry;
pub mod tls;

pub use chain::chain;
pub use clock::Clock;
pub use local_root::LocalRoot;
pub use shutdown::Shutdown;
pub use stat::ProcessStat;
