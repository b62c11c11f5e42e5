//! What every process needs: a log (`telemetry`), a way to leave (`stop`), patience (`retry`), and errors with
//! their whole chain (`chain`).

pub mod chain;
pub mod retry;
pub mod stop;
pub mod telemetry;

pub use chain::chain;
pub use stop::Stop;
