//! A host as a request spells it: an address in any of the spellings that a resolver or a browser understands, or a name.
//! Pure.

use std::net::IpAddr;

use url::Host;

use crate::address::AddressClass;

/// RFC 1035.
const MAX_NAME_BYTES: usize = 253;

/// Names of services that platforms offer to the machines inside of them: Google, AWS, Azure, Tencent, Equinix, Rancher,
/// Kubernetes. They resolve to special addresses there; behind a proxy only the proxy would see these.
const PLATFORM_NAMES: [&str; 12] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.azure.internal",
    "metadata.tencentyun.com",
    "metadata.platformequinix.com",
    "rancher-metadata",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
];

/// A host that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuardHost {
    /// An address, however it was spelled.
    Address(IpAddr),
    /// A name: ASCII in lower case, without a dot at its end.
    Name(String),
}

impl GuardHost {
    /// Reads a host as browsers do (WHATWG URL): `0x7f.1`, `2130706433`, `127%2e0.0.1` and `127。0。0。1` are addresses. An IPv6
    /// address may have its brackets. `None`: no connection can be made to it.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(inside) = text.strip_prefix('[') {
            return Some(Self::Address(IpAddr::V6(inside.strip_suffix(']')?.parse().ok()?)));
        }
        if let Ok(address) = text.parse() {
            return Some(Self::Address(address));
        }
        match Host::parse(text).ok()? {
            Host::Ipv4(address) => Some(Self::Address(address.into())),
            Host::Ipv6(address) => Some(Self::Address(address.into())),
            Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase();
                let is_name = name.len() <= MAX_NAME_BYTES && name.split('.').all(|label| !label.is_empty());
                is_name.then_some(Self::Name(name))
            }
        }
    }
}

/// What is known of a name before it is resolved.
pub fn class_of_name(name: &str) -> Option<AddressClass> {
    // RFC 6761, 6.3.
    if name == "localhost" || name.ends_with(".localhost") {
        return Some(AddressClass::Loopback);
    }
    let is_kubernetes = name.starts_with("kubernetes.default.svc.");
    (is_kubernetes || PLATFORM_NAMES.contains(&name)).then_some(AddressClass::Metadata)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_name_or_nothing() {
        let name = |text: &str| Some(GuardHost::Name(text.to_owned()));
        assert_eq!(GuardHost::parse("Example.COM."), name("example.com"));
        assert_eq!(GuardHost::parse("minio_1"), name("minio_1"));
        assert_eq!(GuardHost::parse("bücher.example"), name("xn--bcher-kva.example"));
        assert_eq!(GuardHost::parse("[::1]"), GuardHost::parse("::1"));
        for text in [
            "",
            ".",
            "a..b",
            "1.2.3.4.5",
            "256.1.1.1",
            "08.0.0.1",
            "[::1",
            "[fe80::1%25eth0]",
            "a b",
            "a/b",
            "a:1",
            "u@h",
        ] {
            assert_eq!(GuardHost::parse(text), None, "{text:?}");
        }
        assert_eq!(GuardHost::parse(&"a".repeat(254)), None);
    }

    #[test]
    fn names_of_a_platform_are_known() {
        assert_eq!(class_of_name("a.localhost"), Some(AddressClass::Loopback));
        assert_eq!(class_of_name("kubernetes.default.svc.cluster.local"), Some(AddressClass::Metadata));
        assert_eq!(class_of_name("metadata.example.com"), None);
        assert_eq!(class_of_name("notlocalhost"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_reading_twice_changes_nothing(text in "[a-zA-Z0-9.:%\\[\\]x。１２７ ]{0,20}") {
            if let Some(GuardHost::Name(name)) = GuardHost::parse(&text) {
                prop_assert_eq!(GuardHost::parse(&name), Some(GuardHost::Name(name.clone())));
            }
        }
    }
}
