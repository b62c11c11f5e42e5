//! Why a stream is not, or no longer, published: the stage and a text for `StreamInfo.error`. No text has the key.

use std::time::Duration;

use crate::output::attempts::StreamFault;
use crate::output::retry::FirstFault;
use crate::output::stream_dial::DialError;

/// Of a server that has another publisher under the key. nginx-rtmp: "Already publishing".
const IN_USE: &str = "NetStream.Publish.BadName";

/// What ended an attempt or a connection. Its text goes to the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtmpFault {
    /// No connection to the server.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// What came is no RTMP, or the connection broke before RTMP began.
    #[error("RTMP handshake: {message}")]
    Handshake {
        /// Ours or the system's.
        message: String,
    },
    /// The server did not answer in time.
    #[error("no answer to {step}")]
    Silent {
        /// What was asked last.
        step: &'static str,
    },
    /// The server's own refusal, before or after it accepted the stream.
    #[error("the server refused: {code}{}{description}", colon(.description))]
    Refused {
        /// Such as `NetStream.Publish.BadName`.
        code: String,
        /// Its explanation; may be empty.
        description: String,
    },
    /// The server closed the connection instead of an answer: how nginx-rtmp refuses an application.
    #[error("the server closed the connection at {step}")]
    Closed {
        /// What was asked last.
        step: &'static str,
    },
    /// The server accepted the stream and closed the connection at once, without a reason: how nginx-rtmp denies publishing
    /// (0.2 ms after `NetStream.Publish.Start`).
    #[error("the server closed the connection right after `publish`, as servers do that refuse the key or the address")]
    Dropped,
    /// An accepted stream's connection broke.
    #[error("the connection was lost: {message}")]
    Lost {
        /// The system's.
        message: String,
    },
    /// An accepted stream's server takes or answers nothing any more.
    #[error("the server has not answered for {:.1} s", .quiet.as_secs_f64())]
    Wedged {
        /// For so long.
        quiet: Duration,
    },
}

impl StreamFault for RtmpFault {
    /// Final is a refusal, or a server that let the whole timeout pass.
    fn at_first(&self) -> FirstFault {
        match self {
            Self::Dial(error) if error.is_refusal() => FirstFault::Final,
            Self::Dropped => FirstFault::Dropped,
            Self::Refused { code, .. } if code == IN_USE => FirstFault::InUse,
            Self::Refused { .. } | Self::Closed { .. } | Self::Silent { .. } => FirstFault::Final,
            Self::Dial(_) | Self::Handshake { .. } | Self::Lost { .. } | Self::Wedged { .. } => FirstFault::Passing,
        }
    }

    fn code(&self) -> &'static str {
        if let Self::Dial(error) = self { error.code() } else { "unavailable" }
    }
}

const fn colon(text: &str) -> &'static str {
    if text.is_empty() { "" } else { ": " }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_what_the_server_said() {
        let fault = |description: &str| RtmpFault::Refused { code: "Bad".into(), description: description.into() };
        assert_eq!(fault("key in use").to_string(), "the server refused: Bad: key in use");
        assert_eq!(fault("").to_string(), "the server refused: Bad");
        assert_eq!(
            RtmpFault::Wedged { quiet: Duration::from_millis(4100) }.to_string(),
            "the server has not answered for 4.1 s"
        );
    }
}
