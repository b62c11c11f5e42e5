//! Why sound is not, or no longer, sent: the stage and a text for `StreamInfo.error`. No text has a part of the URL that is
//! secret.

use std::time::Duration;

use spillway_plan::WebsocketUrl;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::output::attempts::StreamFault;
use crate::output::retry::FirstFault;
use crate::output::stream_dial::DialError;

/// RFC 6455, 7.4.1.
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
/// Of the server itself: an error (1011), a restart (1012), too much to do (1013), no answer from behind it (1014).
const SERVER_TROUBLE: std::ops::RangeInclusive<u16> = 1011..=1014;

/// What ended an attempt or a connection. Its text goes to the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebsocketFault {
    /// No connection to the server.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The URL is none of HTTP.
    #[error("the URL cannot be asked for")]
    Url,
    /// The server answered with another status than 101.
    #[error("the server answered {status} {reason}")]
    Refused {
        /// Of HTTP.
        status: u16,
        /// Its usual name.
        reason: &'static str,
    },
    /// What came is no websocket.
    #[error("websocket handshake: {message}")]
    Handshake {
        /// tungstenite's.
        message: String,
    },
    /// The server did not answer in time.
    #[error("no answer to {step}")]
    Silent {
        /// What was asked last.
        step: &'static str,
    },
    /// The server closed an open websocket, with its code and reason if it gave them.
    #[error("the server closed the connection{}", .0.as_ref().map(ClosedWith::text).unwrap_or_default())]
    Closed(Option<ClosedWith>),
    /// An open websocket broke.
    #[error("the connection was lost: {message}")]
    Lost {
        /// The system's or tungstenite's.
        message: String,
    },
    /// An open websocket whose server takes or answers nothing any more.
    #[error("the server has not answered for {:.1} s", .quiet.as_secs_f64())]
    Wedged {
        /// For so long.
        quiet: Duration,
    },
}

/// A close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedWith {
    /// RFC 6455, 7.4.
    pub code: u16,
    /// The server's; may be empty.
    pub reason: String,
}

impl ClosedWith {
    fn text(&self) -> String {
        let colon = if self.reason.is_empty() { "" } else { ": " };
        format!(" ({}{colon}{})", self.code, self.reason)
    }
}

impl WebsocketFault {
    /// The installation does not let requests name this host.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Dial(error) if error.is_refusal())
    }

    /// Of a close frame.
    pub fn closed(url: &WebsocketUrl, frame: Option<&CloseFrame>) -> Self {
        let with =
            |frame: &CloseFrame| ClosedWith { code: frame.code.into(), reason: url.without_secrets(&frame.reason) };
        Self::Closed(frame.map(with))
    }
}

impl StreamFault for WebsocketFault {
    fn at_first(&self) -> FirstFault {
        match self {
            Self::Url | Self::Silent { .. } | Self::Refused { status: 400..=499, .. } => FirstFault::Final,
            _ if self.is_refusal() || self.is_final() => FirstFault::Final,
            _ => FirstFault::Passing,
        }
    }

    fn code(&self) -> &'static str {
        if let Self::Dial(error) = self { error.code() } else { "unavailable" }
    }

    /// The server has said that it wants no more. One that restarts or is in trouble has not.
    fn is_final(&self) -> bool {
        match self {
            Self::Closed(Some(ClosedWith { code, .. })) => {
                *code == NORMAL || (*code != GOING_AWAY && !SERVER_TROUBLE.contains(code))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

    use super::*;

    fn url() -> WebsocketUrl {
        WebsocketUrl::parse("ws://h/?token=canary").unwrap()
    }

    #[test]
    fn close_codes_say_whether_to_dial_again() {
        for (code, is_final) in [
            (1000, true),
            (1001, false),
            (1002, true),
            (1003, true),
            (1008, true),
            (1011, false),
            (1012, false),
            (1013, false),
            (3000, true),
            (4001, true),
        ] {
            let frame = CloseFrame { code: CloseCode::from(code), reason: "no canary here".into() };
            let fault = WebsocketFault::closed(&url(), Some(&frame));
            assert_eq!(fault.is_final(), is_final, "{code}");
            assert_eq!(fault.to_string(), format!("the server closed the connection ({code}: no {{...}} here)"));
        }
        let without = WebsocketFault::closed(&url(), None);
        assert_eq!((without.is_final(), without.at_first()), (false, FirstFault::Passing));
        assert_eq!(without.to_string(), "the server closed the connection");
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        assert_eq!(WebsocketFault::closed(&url(), Some(&frame)).to_string(), "the server closed the connection (1000)");
    }

    #[test]
    fn a_refusal_is_final_before_the_first_connection() {
        let refused = |status, reason| WebsocketFault::Refused { status, reason };
        assert_eq!(refused(401, "Unauthorized").at_first(), FirstFault::Final);
        assert!(!refused(401, "Unauthorized").is_final());
        assert_eq!(refused(503, "Service Unavailable").at_first(), FirstFault::Passing);
        assert_eq!(refused(401, "Unauthorized").to_string(), "the server answered 401 Unauthorized");
    }
}
