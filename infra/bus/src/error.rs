//! Errors of the bus, and how they look to a caller of psrpc.

use spillway_model::ProbeCause;
use spillway_protocol::{Code, RpcError};

/// Why something shared could not be reached or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The settings contradict themselves or name files that cannot be read.
    #[error("redis settings: {0}")]
    Settings(String),
    /// No connection, or the server refused it.
    #[error("connect to redis at {address}")]
    Connect {
        /// host:port.
        address: String,
        /// How far it came.
        step: ConnectStep,
        /// What the socket, TLS or the server reported.
        source: Cause,
    },
    /// Redis took the command and did not answer in time; it may have been done.
    #[error("redis did not answer in time: {act}")]
    Silent {
        /// What was attempted.
        act: &'static str,
    },
    /// The command was refused, or the connection broke under it.
    #[error("redis: {act}")]
    Command {
        /// What was attempted.
        act: &'static str,
        /// What the server or the connection reported.
        source: Cause,
    },
    /// A stored value is not what this version writes or reads. It is left as it is.
    #[error("registry: record of {egress_id} cannot be read")]
    Record {
        /// The egress, or the key of a value that belongs to none.
        egress_id: String,
        /// Where the JSON is wrong.
        source: serde_json::Error,
    },
    /// Another process changed the record each time between our read and our write.
    #[error("registry: record of {egress_id} changes too often")]
    Contended {
        /// The egress.
        egress_id: String,
    },
    /// The text is no key.
    #[error("ticket key: {0}")]
    TicketKey(&'static str),
    /// Wrong key, or not what was put there.
    #[error("ticket of {egress_id} cannot be opened: {why}")]
    Ticket {
        /// The egress.
        egress_id: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A mistake of the program: the method and topic are served already.
    #[error("a topic is served twice: {0}")]
    Served(String),
    /// The server or the bus was closed before the call.
    #[error("the bus is closed")]
    Closed,
}

/// The step of connecting that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectStep {
    /// The host has no address.
    Resolve,
    /// TCP.
    Open,
    /// TLS.
    Encrypt,
    /// The other side closed the connection or answered in another protocol.
    Speak,
    /// User and password.
    LogIn,
    /// It answered, and not as a master that works.
    Answer,
}

/// The error below, without naming its library.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

impl BusError {
    /// Whether a retry of the same call may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Silent { .. } | Self::Command { .. } | Self::Contended { .. })
    }

    /// What a probe says about it.
    pub fn probe_cause(&self) -> ProbeCause {
        match self {
            Self::Connect { step: ConnectStep::Resolve, source, .. } => {
                source.downcast_ref::<std::io::Error>().map_or(ProbeCause::NameServerSilent, ProbeCause::of_lookup)
            }
            Self::Connect { step: ConnectStep::Open, .. } | Self::Silent { .. } => ProbeCause::RedisUnreachable,
            // A server that wants TLS closes a connection without it, and one that wants our certificate closes it later.
            Self::Connect { step: ConnectStep::Encrypt | ConnectStep::Speak, .. } => ProbeCause::RedisTls,
            Self::Connect { step: ConnectStep::LogIn, .. } => ProbeCause::RedisLogin,
            Self::Settings(message) if message.starts_with("tls") => ProbeCause::RedisTls,
            Self::Settings(_) | Self::TicketKey(_) => ProbeCause::HandoverMissing,
            Self::Ticket { .. } => ProbeCause::AnotherTicketKey,
            _ => ProbeCause::RedisRefuses,
        }
    }
}

impl From<BusError> for RpcError {
    fn from(error: BusError) -> Self {
        let code = if error.is_transient() { Code::Unavailable } else { Code::Internal };
        RpcError::new(code, spillway_process::chain(&error).to_string())
    }
}
