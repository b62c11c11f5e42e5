use spillway_protocol::{Code, RpcError};

/// Why something shared could not be reached or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The settings contradict themselves or name files that cannot be read.
    #[error("redis settings: {0}")]
    Settings(String),
    #[error("connect to redis at {address}")]
    Connect { address: String, source: Cause },
    /// Redis took the command and did not answer in time.
    #[error("redis did not answer in time: {act}")]
    Silent { act: &'static str },
    #[error("redis: {act}")]
    Command { act: &'static str, source: Cause },
    #[error("registry: record of {egress_id} cannot be read")]
    Record { egress_id: String, source: serde_json::Error },
    /// Somebody else changed the record each time we tried to.
    #[error("registry: record of {egress_id} changes too often")]
    Contended { egress_id: String },
    #[error("ticket key: {0}")]
    TicketKey(&'static str),
    /// Wrong key, or not what was put there.
    #[error("ticket of {egress_id} cannot be opened: {why}")]
    Ticket { egress_id: String, why: &'static str },
    #[error("a topic is served twice: {0}")]
    Served(String),
    #[error("the bus is closed")]
    Closed,
}

/// What lies below, without naming the library to our callers.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

impl BusError {
    /// It may well work in a moment, without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Silent { .. } | Self::Command { .. } | Self::Contended { .. })
    }
}

impl From<BusError> for RpcError {
    fn from(error: BusError) -> Self {
        let code = if error.is_transient() { Code::Unavailable } else { Code::Internal };
        RpcError::new(code, spillway_process::chain(&error).to_string())
    }
}
