//! Which hosts a request may name. A request brings storage endpoints, proxies, webhooks, URLs of streams and of pages; the
//! connections to them begin inside of the installation's network, where a host may trust whoever reaches it.
//!
//! `address` is the rule: which addresses are public. `host` reads a host in any of its spellings, `allow` is what the
//! installation opens. A [`Guard`] (in `guard`) applies them, before the name is resolved (`lookup`), to every address it
//! resolves to, and connects to an address that was checked: a name cannot have another answer in between. `url_host` finds
//! the host of a URL. With the cargo feature `testing`: `forms`, the table of forms that are refused.

#![warn(missing_docs, clippy::missing_errors_doc)]

#[cfg(feature = "testing")]
pub mod forms;
mod guard;
mod url_host;
mod lookup;
mod allow;
mod error;
mod host;
mod address;

pub use address::{AddressClass, class};
pub use allow::{AllowEntry, AllowEntryError};
pub use error::{GuardError, Refusal};
pub use guard::{Guard, GuardRules};
pub use host::GuardHost;
#[cfg(feature = "testing")]
pub use lookup::FixedNames;
pub use url_host::host_and_port;
