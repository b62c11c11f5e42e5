//! Why a stream is not, or no longer, sent: the stage and a text for `StreamInfo.error`. No text has a passphrase or a stream
//! id.

use std::time::Duration;

use spillway_plan::SrtUrl;

use crate::output::attempts::StreamFault;
use crate::output::retry::FirstFault;
use crate::output::stream_dial::DialError;

/// What `srtsink` puts before libsrt's own message.
const PREFIXES: [&str; 2] = ["Failed to write to SRT socket: ", "Error on SRT socket: "];
/// libsrt's message for a handshake that was not answered (`SRT_REJ_TIMEOUT`).
const UNANSWERED: &str = "Connection timeout";

/// What ended an attempt or a connection. Its text goes to the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrtFault {
    /// The host is refused, or has no address.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No socket, or one that does not take an option of the URL.
    #[error("cannot connect: {message}")]
    Open {
        /// GStreamer's or libsrt's.
        message: String,
    },
    /// What is encoded does not go into a transport stream.
    #[error("MPEG-TS takes H264 and AAC of a usual rate")]
    Format,
    /// Nothing listens there, or it did not answer in time.
    #[error("could not connect: no answer")]
    Silent,
    /// The server's own refusal.
    #[error("the server refused: {message}")]
    Refused {
        /// libsrt's message, such as `Failed to authenticate: Incorrect passphrase`.
        message: String,
    },
    /// A connection that was made broke.
    #[error("the connection was lost: {message}")]
    Lost {
        /// libsrt's.
        message: String,
    },
    /// A connection that was made, whose server acknowledges nothing any more.
    #[error("the server has not acknowledged anything for {:.1} s", .quiet.as_secs_f64())]
    Wedged {
        /// For so long.
        quiet: Duration,
    },
}

impl StreamFault for SrtFault {
    fn at_first(&self) -> FirstFault {
        match self {
            Self::Dial(error) if error.is_refusal() => FirstFault::Final,
            Self::Open { .. } | Self::Format | Self::Silent | Self::Refused { .. } => FirstFault::Final,
            Self::Dial(_) | Self::Lost { .. } | Self::Wedged { .. } => FirstFault::Passing,
        }
    }

    fn code(&self) -> &'static str {
        if let Self::Dial(error) = self { error.code() } else { "unavailable" }
    }
}

impl SrtFault {
    /// Of an error of `srtsink`, before or after the connection was made.
    pub fn of_element(url: &SrtUrl, is_connected: bool, text: &str) -> Self {
        let message = PREFIXES.iter().fold(text, |text, prefix| text.strip_prefix(prefix).unwrap_or(text));
        let message = url.without_secrets(message);
        match is_connected {
            true => Self::Lost { message },
            false if message.contains(UNANSWERED) => Self::Silent,
            false => Self::Refused { message },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url() -> SrtUrl {
        SrtUrl::parse("srt://h:1?passphrase=canary-0123&streamid=canary").unwrap()
    }

    #[test]
    fn texts_of_the_element_are_told_by_what_they_mean() {
        let of = |is_connected, text: &str| SrtFault::of_element(&url(), is_connected, text).to_string();
        // As GStreamer 1.22 and libsrt 1.5.1 say it.
        let timeout = "Failed to write to SRT socket: Error on SRT socket: Connection timeout";
        assert_eq!(of(false, timeout), "could not connect: no answer");
        let secret = "Failed to write to SRT socket: Failed to authenticate: Incorrect passphrase";
        assert_eq!(of(false, secret), "the server refused: Failed to authenticate: Incorrect passphrase");
        let gone = "Failed to write to SRT socket: Error on SRT socket: Unknown or erroneous";
        assert_eq!(of(true, gone), "the connection was lost: Unknown or erroneous");
        assert_eq!(of(true, timeout), "the connection was lost: Connection timeout");
    }

    #[test]
    fn no_text_has_a_secret() {
        let fault = SrtFault::of_element(&url(), false, "no stream canary (canary-0123)");
        assert_eq!(fault.to_string(), "the server refused: no stream {...} ({...})");
    }
}
