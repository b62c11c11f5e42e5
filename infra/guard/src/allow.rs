//! What the installation opens: an entry of `guard.allow`. Pure.

use std::net::IpAddr;
use std::str::FromStr;

use crate::host::GuardHost;

/// Whether a port is one of a mail server: SMTP and submission, with and without TLS.
pub const fn is_mail(port: u16) -> bool {
    matches!(port, 25 | 465 | 587)
}

/// One entry: an address, a network, a name, `*.` before a domain, or `*`; each with `:port` behind it or for all ports but
/// those of mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowEntry {
    pattern: AllowPattern,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum AllowPattern {
    /// `*`; mail too.
    Everything,
    /// Addresses whose first `bits` are these.
    Network { address: IpAddr, bits: u8 },
    /// This name, wherever it leads.
    Name(String),
    /// Names below this domain, wherever they lead.
    Below(String),
}

/// The text is no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write it like 10.0.0.0/8, 10.0.0.5:9000, [fd00::1]:9000, minio, minio:9000 or *.svc.cluster.local")]
pub struct AllowEntryError;

impl AllowEntry {
    /// Opens this address.
    pub fn allows_address(&self, address: IpAddr, port: u16) -> bool {
        let is_inside = match &self.pattern {
            AllowPattern::Everything => true,
            AllowPattern::Network { address: network, bits } => is_inside(address.to_canonical(), *network, *bits),
            AllowPattern::Name(_) | AllowPattern::Below(_) => false,
        };
        is_inside && self.allows_port(port)
    }

    /// Opens this name, as [`GuardHost`] has it.
    pub fn allows_name(&self, name: &str, port: u16) -> bool {
        let is_named = match &self.pattern {
            AllowPattern::Everything => true,
            AllowPattern::Name(known) => known == name,
            AllowPattern::Below(domain) => name.strip_suffix(domain.as_str()).is_some_and(|host| host.ends_with('.')),
            AllowPattern::Network { .. } => false,
        };
        is_named && self.allows_port(port)
    }

    fn allows_port(&self, port: u16) -> bool {
        match self.port {
            Some(known) => known == port,
            None => self.pattern == AllowPattern::Everything || !is_mail(port),
        }
    }
}

/// Bits of an address of this kind.
const fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_inside(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let (address, network, width): (u128, u128, u32) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => (address.to_bits().into(), network.to_bits().into(), 32),
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    // A shift by all 128 bits is none.
    bits == 0 || (address ^ network) >> (width - u32::from(bits)) == 0
}

impl FromStr for AllowEntry {
    type Err = AllowEntryError;

    fn from_str(text: &str) -> Result<Self, AllowEntryError> {
        let (host, port) = split_port(text.trim()).ok_or(AllowEntryError)?;
        let pattern = match host {
            "*" => AllowPattern::Everything,
            _ => match (host.strip_prefix("*."), host.split_once('/')) {
                (Some(domain), _) => match GuardHost::parse(domain) {
                    Some(GuardHost::Name(domain)) => AllowPattern::Below(domain),
                    _ => return Err(AllowEntryError),
                },
                (None, Some((address, bits))) => {
                    let address: IpAddr = address.parse().map_err(|_| AllowEntryError)?;
                    let bits: u8 = bits.parse().map_err(|_| AllowEntryError)?;
                    if bits > width(address) {
                        return Err(AllowEntryError);
                    }
                    AllowPattern::Network { address, bits }
                }
                (None, None) => match GuardHost::parse(host).ok_or(AllowEntryError)? {
                    GuardHost::Name(name) => AllowPattern::Name(name),
                    GuardHost::Address(address) => {
                        let address = address.to_canonical();
                        AllowPattern::Network { address, bits: width(address) }
                    }
                },
            },
        };
        Ok(Self { pattern, port })
    }
}

/// `host`, `host:port`, `[v6]:port`, and an IPv6 address or network without brackets, which has no port.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, behind) = rest.split_once(']')?;
        return match behind.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None => behind.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        Some((_, behind)) if behind.contains(':') => Some((text, None)),
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
        None => Some((text, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> AllowEntry {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    fn opens(text: &str, address: &str, port: u16) -> bool {
        entry(text).allows_address(address.parse().unwrap(), port)
    }

    #[test]
    fn networks_and_addresses_open_what_is_inside() {
        assert!(opens("10.0.0.0/8", "10.255.0.1", 80) && !opens("10.0.0.0/8", "11.0.0.1", 80));
        assert!(opens("10.0.0.5", "10.0.0.5", 80) && !opens("10.0.0.5", "10.0.0.6", 80));
        assert!(opens("10.0.0.5:9000", "10.0.0.5", 9000) && !opens("10.0.0.5:9000", "10.0.0.5", 9001));
        assert!(opens("10.0.0.0/8:9000", "10.1.1.1", 9000) && !opens("10.0.0.0/8:9000", "10.1.1.1", 80));
        assert!(opens("fd00::/8", "fd12::1", 80) && !opens("fd00::/8", "fe80::1", 80));
        assert!(opens("[fd00::1]:9000", "fd00::1", 9000) && !opens("[fd00::1]:9000", "fd00::1", 80));
        assert!(opens("::1", "::1", 80) && opens("[::1]", "::1", 80));
        assert!(opens("0.0.0.0/0", "127.0.0.1", 80) && !opens("0.0.0.0/0", "::1", 80));
        assert!(opens("::/0", "::1", 80) && !opens("::/0", "127.0.0.1", 80));
        // One address in two spellings.
        assert!(opens("127.0.0.1", "::ffff:127.0.0.1", 80) && opens("0x7f.1", "127.0.0.1", 80));
        assert!(opens("*", "169.254.169.254", 25));
        assert!(!opens("10.0.0.0/8", "10.0.0.5", 25) && opens("10.0.0.0/8:25", "10.0.0.5", 25));
    }

    #[test]
    fn names_are_opened_by_name() {
        let opens = |text: &str, name: &str, port| entry(text).allows_name(name, port);
        assert!(opens("Minio", "minio", 9000) && !opens("minio", "minio.evil.example", 9000));
        assert!(opens("minio:9000", "minio", 9000) && !opens("minio:9000", "minio", 80));
        assert!(opens("*.svc.cluster.local", "a.b.svc.cluster.local", 80));
        assert!(!opens("*.example", "example", 80) && !opens("*.example", "notexample", 80));
        assert!(!opens("10.0.0.0/8", "minio", 80) && opens("*", "minio", 80));
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for text in
            ["", "a b", "10.0.0.0/33", "fd00::/129", "x/8", "minio:port", "minio:70000", "[::1", "*.10.0.0.1", "a/b"]
        {
            assert_eq!(text.parse::<AllowEntry>(), Err(AllowEntryError), "{text:?}");
        }
    }
}
