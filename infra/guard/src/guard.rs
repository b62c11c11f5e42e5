//! Applies the rule and the list of what is open to one host, then to each address it resolves to, then connects to one of
//! these. Runs in the caller's task, which bounds the time.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tracing::debug;

use crate::address::{AddressClass, class};
use crate::allow::{AllowEntry, is_mail};
use crate::error::{GuardError, Refusal};
use crate::host::{GuardHost, class_of_name};
use crate::lookup::NameLookup;

/// The installation's list, as it travels in tickets and between the processes of a task. The default opens nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuardRules {
    /// Entries as the configuration has them, see [`AllowEntry`]. Text, so that an entry that an older version does not
    /// understand opens nothing there and costs nothing else.
    pub allow: Vec<String>,
}

impl GuardRules {
    /// Opens everything.
    pub fn unrestricted() -> Self {
        Self { allow: vec!["*".to_owned()] }
    }
}

/// Decides about connections to hosts that a request named. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allow: Arc<[AllowEntry]>,
    is_vendors: bool,
    names: NameLookup,
}

impl Guard {
    /// With the installation's list. Entries that are none open nothing.
    pub fn new(rules: &GuardRules) -> Self {
        let allow = rules.allow.iter().filter_map(|text| text.parse().ok()).collect();
        Self { allow, is_vendors: false, names: NameLookup::System }
    }

    /// Lets everything through: for hosts that the configuration names.
    pub fn unrestricted() -> Self {
        Self::new(&GuardRules::unrestricted())
    }

    /// For hosts that a vendor's library makes of a region or an account. Inside of a cloud they may be private (PrivateLink,
    /// private endpoints), but never this machine or a service of the platform.
    #[must_use]
    pub fn for_vendor(&self) -> Self {
        Self { is_vendors: true, ..self.clone() }
    }

    /// With names of a test in place of the system's.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_names(self, names: crate::lookup::FixedNames) -> Self {
        Self { names: NameLookup::Fixed(names), ..self }
    }

    /// What can be said without resolving anything. A name that passes is still to be resolved by [`resolve`](Self::resolve).
    ///
    /// # Errors
    /// [`GuardError::Refused`]; a retry is useless.
    pub fn check(&self, host: &str, port: u16) -> Result<GuardHost, GuardError> {
        let Some(read) = GuardHost::parse(host) else {
            return Err(GuardError::Refused { host: "this host".to_owned(), reason: Refusal::Form });
        };
        let (is_open, class) = match &read {
            GuardHost::Address(address) => (self.opens_address(*address, port), self.refusal_of(*address, port)),
            GuardHost::Name(name) => (self.opens_name(name, port), class_of_name(name)),
        };
        let reason = match class {
            _ if is_open => return Ok(read),
            Some(class) => Refusal::Is(class),
            None if is_mail(port) => Refusal::Port(port),
            None => return Ok(read),
        };
        Err(GuardError::Refused { host: shown(&read), reason })
    }

    /// The addresses of a host, in the resolver's order and never none. If one of them is not allowed, none is.
    ///
    /// # Errors
    /// [`GuardError::Refused`]: a retry is useless. [`GuardError::Resolve`]: a retry may help.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, GuardError> {
        let name = match self.check(host, port)? {
            GuardHost::Address(address) => return Ok(vec![SocketAddr::new(address, port)]),
            GuardHost::Name(name) => name,
        };
        let unknown = |message: String| GuardError::Resolve { host: name.clone(), message };
        let found = self.names.addresses(&name, port).await.map_err(|error| unknown(error.to_string()))?;
        if found.is_empty() {
            return Err(unknown("it has no address".to_owned()));
        }
        if self.opens_name(&name, port) {
            return Ok(found);
        }
        match found.iter().find_map(|address| Some((address.ip(), self.refusal_of(address.ip(), port)?))) {
            None => Ok(found),
            Some((address, class)) => {
                debug!(name, %address, "a name of a request leads inside");
                Err(GuardError::Refused { host: name, reason: Refusal::LeadsTo(class) })
            }
        }
    }

    /// A connection to an address that was checked.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve); [`GuardError::Connect`] with the error of the last address, where a retry may help.
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, GuardError> {
        let mut failed = "it has no address".to_owned();
        for address in self.resolve(host, port).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error.to_string(),
            }
        }
        Err(GuardError::Connect { host: host.to_owned(), message: failed })
    }

    /// Why an address is not connected to; `None`: it is.
    fn refusal_of(&self, address: IpAddr, port: u16) -> Option<AddressClass> {
        let class = class(address);
        let is_allowed = match class {
            AddressClass::Public => true,
            AddressClass::Private | AddressClass::Shared | AddressClass::UniqueLocal => self.is_vendors,
            _ => false,
        };
        (!is_allowed && !self.opens_address(address, port)).then_some(class)
    }

    fn opens_address(&self, address: IpAddr, port: u16) -> bool {
        self.allow.iter().any(|entry| entry.allows_address(address, port))
    }

    fn opens_name(&self, name: &str, port: u16) -> bool {
        self.allow.iter().any(|entry| entry.allows_name(name, port))
    }
}

fn shown(host: &GuardHost) -> String {
    match host {
        GuardHost::Address(address) => address.to_string(),
        GuardHost::Name(name) => name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow: &[&str]) -> Guard {
        Guard::new(&GuardRules { allow: allow.iter().map(|entry| (*entry).to_owned()).collect() })
    }

    #[test]
    fn ports_of_mail_are_for_those_that_are_named() {
        let refused = |guard: &Guard, host: &str| guard.check(host, 25).unwrap_err().to_string();
        assert_eq!(refused(&guard(&[]), "8.8.8.8"), "8.8.8.8 is refused: port 25 is for mail");
        assert_eq!(refused(&guard(&["8.8.8.8"]), "8.8.8.8"), "8.8.8.8 is refused: port 25 is for mail");
        assert_eq!(refused(&guard(&["mail.example"]), "mail.example"), "mail.example is refused: port 25 is for mail");
        assert!(guard(&["8.8.8.8:25"]).check("8.8.8.8", 25).is_ok());
        assert!(guard(&["mail.example:25"]).check("mail.example", 25).is_ok());
        assert!(Guard::unrestricted().check("127.0.0.1", 25).is_ok());
    }

    #[test]
    fn a_vendors_host_may_be_private_and_nothing_else() {
        let vendors = Guard::default().for_vendor();
        assert!(vendors.check("10.0.0.5", 443).is_ok() && vendors.check("fd12::1", 443).is_ok());
        for host in ["127.0.0.1", "169.254.169.254", "fd00:ec2::254", "fe80::1", "metadata.google.internal"] {
            assert!(vendors.check(host, 443).is_err(), "{host}");
        }
    }

    #[test]
    fn rules_of_a_newer_version_open_nothing_that_is_not_understood() {
        let rules: GuardRules = serde_json::from_str(r#"{"allow":["10.0.0.0/8","region:eu"],"newer":1}"#).unwrap();
        let guard = Guard::new(&rules);
        assert!(guard.check("10.0.0.5", 80).is_ok() && guard.check("127.0.0.1", 80).is_err());
        assert_eq!(serde_json::from_str::<GuardRules>("{}").unwrap(), GuardRules::default());
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_no_refusal() {
        let names = crate::FixedNames::default().with("empty.example", &[""]);
        let guard = guard(&[]).with_names(names);
        for host in ["empty.example", "unknown.example"] {
            let error = guard.resolve(host, 80).await.unwrap_err();
            assert!(matches!(error, GuardError::Resolve { .. }), "{error}");
        }
    }

    /// A name whose second answer is another one (rebinding) is connected to where the first one said, or not at all.
    #[tokio::test]
    async fn what_is_connected_to_was_checked() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let names = || crate::FixedNames::default().with("rebinds.example", &["192.0.2.1", "127.0.0.1"]);
        let open = guard(&["192.0.2.1"]).with_names(names());
        assert_eq!(open.resolve("rebinds.example", port).await.unwrap()[0].ip().to_string(), "192.0.2.1");
        let refused = open.connect("rebinds.example", port).await.unwrap_err();
        assert_eq!(refused.to_string(), "rebinds.example is refused: its name leads to a loopback address");
        let both = guard(&["192.0.2.1", "127.0.0.1"]).with_names(names());
        both.resolve("rebinds.example", port).await.unwrap();
        assert_eq!(both.connect("rebinds.example", port).await.unwrap().peer_addr().unwrap().port(), port);
    }

    #[tokio::test]
    async fn nobody_there_is_no_refusal() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        drop(server);
        let error = guard(&["127.0.0.1"]).connect("127.0.0.1", port).await.unwrap_err();
        assert!(!error.is_refusal() && error.to_string().starts_with("cannot connect to 127.0.0.1: "), "{error}");
    }
}
