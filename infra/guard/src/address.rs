//! The one rule of public addresses. Pure.
//!
//! Sources: IANA's registries of special-purpose addresses (RFC 6890 and its updates) for IPv4 and IPv6, and the vendors'
//! pages on their metadata services. Of IPv6 only 2000::/3 is assigned to the public; an address with an IPv4 address
//! inside counts as that one where a kernel or a gateway of the operator would send it there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressClass {
    /// Any host of the internet.
    Public,
    /// This machine.
    Loopback,
    /// RFC 1918.
    Private,
    /// RFC 6598, between a provider and its customers; clouds use it inside as well.
    Shared,
    /// RFC 4193, the private addresses of IPv6.
    UniqueLocal,
    /// One cable.
    LinkLocal,
    /// A service of the platform that gives credentials to every process that reaches it.
    Metadata,
    /// `0.0.0.0/8` and `::`; Linux takes it for this machine.
    Unspecified,
    /// Many hosts at once.
    Multicast,
    /// Documentation, benchmarks, tunnels, not assigned.
    Reserved,
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "a public address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::Shared => "a shared address of a provider",
            Self::UniqueLocal => "a unique local address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a service of the platform",
            Self::Unspecified => "an unspecified address",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved address",
        })
    }
}

/// Metadata of AWS, Azure, Google, DigitalOcean, Oracle and others; credentials of ECS and EKS; Alibaba; Oracle's second;
/// Azure's wire server, which is in a public range.
const METADATA_V4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// AWS, its credentials for EKS, Google, Oracle.
const METADATA_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

/// What this address is for.
pub fn class(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(address) => class_v4(address),
        IpAddr::V6(address) => class_v6(address),
    }
}

fn class_v4(address: Ipv4Addr) -> AddressClass {
    if METADATA_V4.contains(&address) {
        return AddressClass::Metadata;
    }
    match address.octets() {
        [0, ..] => AddressClass::Unspecified,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => AddressClass::Private,
        [100, 64..=127, ..] => AddressClass::Shared,
        [127, ..] => AddressClass::Loopback,
        [169, 254, ..] => AddressClass::LinkLocal,
        [224..=239, ..] => AddressClass::Multicast,
        // Protocol assignments, documentation, 6to4 relays, benchmarks, documentation twice, the former class E.
        [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [240..=255, ..] => AddressClass::Reserved,
        _ => AddressClass::Public,
    }
}

fn class_v6(address: Ipv6Addr) -> AddressClass {
    if METADATA_V6.contains(&address) {
        return AddressClass::Metadata;
    }
    if let Some(inside) = inside(address) {
        return class_v4(inside);
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => AddressClass::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => AddressClass::Loopback,
        [0xfc00..=0xfdff, ..] => AddressClass::UniqueLocal,
        [0xfe80..=0xfebf, ..] => AddressClass::LinkLocal,
        [0xff00..=0xffff, ..] => AddressClass::Multicast,
        // Protocol assignments with Teredo, documentation, 6to4, documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => {
            AddressClass::Reserved
        }
        [0x2000..=0x3fff, ..] => AddressClass::Public,
        _ => AddressClass::Reserved,
    }
}

/// The IPv4 address that a kernel (RFC 4291, mapped) or a gateway (RFC 6052, NAT64's well-known prefix) takes it for.
/// Networks without IPv4 reach every host of IPv4 by the second one.
fn inside(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> AddressClass {
        class(text.parse().unwrap())
    }

    #[test]
    fn borders_are_where_the_registries_have_them() {
        use AddressClass::*;
        for (address, expected) in [
            ("1.0.0.0", Public),
            ("9.255.255.255", Public),
            ("10.0.0.0", Private),
            ("11.0.0.0", Public),
            ("100.63.255.255", Public),
            ("100.64.0.0", Shared),
            ("100.128.0.0", Public),
            ("126.255.255.255", Public),
            ("127.0.0.0", Loopback),
            ("128.0.0.0", Public),
            ("169.253.255.255", Public),
            ("169.254.0.0", LinkLocal),
            ("169.255.0.0", Public),
            ("172.15.255.255", Public),
            ("172.16.0.0", Private),
            ("172.32.0.0", Public),
            ("192.0.1.0", Public),
            ("192.167.255.255", Public),
            ("192.169.0.0", Public),
            ("198.17.255.255", Public),
            ("198.19.255.255", Reserved),
            ("198.20.0.0", Public),
            ("223.255.255.255", Public),
            ("224.0.0.0", Multicast),
            ("168.63.129.15", Public),
            ("168.63.129.16", Metadata),
            ("2000::", Public),
            ("2001:1ff:ffff::", Reserved),
            ("2001:200::", Public),
            ("2001:4860:4860::8888", Public),
            ("2002::", Reserved),
            ("2003::", Public),
            ("3fff:fff::1", Reserved),
            ("3fff:1000::", Public),
            ("4000::", Reserved),
            ("fbff::", Reserved),
            ("fe7f::", Reserved),
            ("fec0::", Reserved),
            ("::ffff:8.8.8.8", Public),
            ("64:ff9b::8.8.8.8", Public),
            ("64:ff9b::10.0.0.1", Private),
            ("64:ff9b:1::8.8.8.8", Reserved),
            ("::8.8.8.8", Reserved),
            ("::ffff:0:8.8.8.8", Reserved),
        ] {
            assert_eq!(of(address), expected, "{address}");
        }
    }

    proptest! {
        /// Another witness: the standard library's own predicates, as far as they are stable.
        #[test]
        fn what_the_standard_library_knows_is_never_public(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let special = address.is_private() || address.is_loopback() || address.is_link_local()
                || address.is_broadcast() || address.is_documentation() || address.is_multicast()
                || address.is_unspecified();
            prop_assert!(!special || class(address.into()) != AddressClass::Public, "{}", address);
            // Inside of IPv6 it is what it is outside.
            prop_assert_eq!(class(address.to_ipv6_mapped().into()), class(address.into()));
        }

        #[test]
        fn of_ipv6_only_a_eighth_can_be_public(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            let is_global = address.segments()[0] & 0xe000 == 0x2000;
            prop_assert!(is_global || inside(address).is_some() || class(address.into()) != AddressClass::Public);
        }
    }
}
