//! What every process needs: a log (`telemetry`), a way to leave (`stop`), patience (`retry`), values that do not
//! print (`secret`), and errors with their whole chain (`chain`).

pub mod chain;
pub mod retry;
pub mod secret;
pub mod stop;
pub mod telemetry;

pub use chain::chain;
pub use secret::Secret;
pub use stop::Stop;
