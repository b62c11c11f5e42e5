//! Why there is no connection to a host that a request named. Values only; the texts go to the user.

use std::{fmt, io};

use crate::address::AddressClass;

/// A host that is not connected to. No text has an address that a name resolved to: it would tell what is inside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// Not allowed; a retry is useless.
    #[error("{host} is refused: {reason}")]
    Refused {
        /// As it was read; `this host` where it could not be.
        host: String,
        /// Why.
        reason: Refusal,
    },
    /// No address.
    #[error("{host} cannot be resolved: {message}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's.
        message: String,
    },
    /// An address that is allowed does not answer.
    #[error("cannot connect to {host}: {message}")]
    Connect {
        /// As it was read.
        host: String,
        /// The system's.
        message: String,
    },
}

impl GuardError {
    /// The connection is not allowed, whether or not the host is there.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// The refusal behind an error of an HTTP client, if there is one.
    pub fn behind<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found).filter(|found| found.is_refusal());
            }
            // Its source is that of the error inside.
            let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            cause = inside.map(|inside| inside as &(dyn std::error::Error + 'static)).or_else(|| error.source());
        }
        None
    }
}

/// Why a host is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Neither a name nor an address.
    Form,
    /// The address, or a name that is known to be one of these.
    Is(AddressClass),
    /// One of the addresses of the name.
    LeadsTo(AddressClass),
    /// A port of mail servers, which take commands out of an HTTP request.
    Port(u16),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("it is neither a name nor an address"),
            Self::Is(class) => write!(f, "it is {class}"),
            Self::LeadsTo(class) => write!(f, "its name leads to {class}"),
            Self::Port(port) => write!(f, "port {port} is for mail"),
        }
    }
}
