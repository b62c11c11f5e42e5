//! Forms in which a request can name a host that it must not reach: a table for the tests of every place that connects. With
//! each form the entry of `guard.allow` that opens it.

use crate::guard::{Guard, GuardRules};
use crate::lookup::FixedNames;

/// One form.
#[derive(Clone, Copy, Debug)]
pub struct HostForm {
    /// As it stands in a request; an IPv6 address without brackets.
    pub host: &'static str,
    /// What opens it.
    pub opened_by: &'static str,
    /// For names: the addresses that they have in tests, separated by spaces.
    pub addresses: &'static str,
}

const fn form(host: &'static str, opened_by: &'static str) -> HostForm {
    HostForm { host, opened_by, addresses: "" }
}

/// An address that is opened as it is written.
const fn plain(host: &'static str) -> HostForm {
    form(host, host)
}

/// A name with these addresses.
const fn name(host: &'static str, addresses: &'static str) -> HostForm {
    HostForm { host, opened_by: host, addresses }
}

/// All of them.
pub const FORMS: &[HostForm] = &[
    // Addresses of IPv4, by their class.
    plain("127.0.0.1"),
    plain("127.0.0.2"),
    plain("127.255.255.254"),
    plain("0.0.0.0"),
    plain("0.1.2.3"),
    plain("10.0.0.5"),
    plain("10.255.255.255"),
    plain("172.16.0.1"),
    plain("172.31.255.254"),
    plain("192.168.1.1"),
    plain("100.64.0.1"),
    plain("100.127.255.254"),
    plain("169.254.0.1"),
    plain("169.254.169.254"),
    plain("169.254.170.2"),
    plain("100.100.100.200"),
    plain("192.0.0.192"),
    plain("168.63.129.16"),
    plain("192.0.2.1"),
    plain("192.88.99.1"),
    plain("198.18.0.1"),
    plain("198.51.100.7"),
    plain("203.0.113.9"),
    plain("224.0.0.1"),
    plain("240.0.0.1"),
    plain("255.255.255.255"),
    // The same in spellings that inet_aton, browsers and resolvers understand.
    form("2130706433", "127.0.0.1"),
    form("2852039166", "169.254.169.254"),
    form("0x7f000001", "127.0.0.1"),
    form("0xA9FEA9FE", "169.254.169.254"),
    form("017700000001", "127.0.0.1"),
    form("0177.0.0.1", "127.0.0.1"),
    form("0x7f.0.0.1", "127.0.0.1"),
    form("0xa.0x0.0x0.0x5", "10.0.0.5"),
    form("127.1", "127.0.0.1"),
    form("127.0.1", "127.0.0.1"),
    form("10.5", "10.0.0.5"),
    form("169.254.43518", "169.254.169.254"),
    form("0", "0.0.0.0"),
    form("127.0.0.1.", "127.0.0.1"),
    form("127%2e0%2e0%2e1", "127.0.0.1"),
    form("１２７.０.０.１", "127.0.0.1"),
    form("127。0。0。1", "127.0.0.1"),
    form("①②⑦.⓪.⓪.①", "127.0.0.1"),
    // IPv6, and IPv4 inside of it.
    plain("::1"),
    plain("0:0:0:0:0:0:0:1"),
    plain("::"),
    form("::ffff:127.0.0.1", "127.0.0.1"),
    form("::ffff:a9fe:a9fe", "169.254.169.254"),
    form("::ffff:10.0.0.5", "10.0.0.5"),
    plain("::127.0.0.1"),
    plain("64:ff9b::10.0.0.5"),
    plain("64:ff9b::a9fe:a9fe"),
    plain("64:ff9b:1::1"),
    plain("2002:7f00:1::"),
    plain("2002:a9fe:a9fe::1"),
    plain("2001::1"),
    plain("2001:db8::1"),
    plain("fc00::1"),
    plain("fd12:3456::1"),
    plain("fd00:ec2::254"),
    plain("fe80::1"),
    plain("fec0::1"),
    plain("ff02::1"),
    plain("100::1"),
    // Names that are known.
    name("localhost", "127.0.0.1 ::1"),
    name("LOCALHOST", "127.0.0.1"),
    name("any.localhost", "127.0.0.1"),
    name("metadata.google.internal", "169.254.169.254"),
    name("metadata.google.internal.", "169.254.169.254"),
    name("instance-data", "169.254.169.254"),
    name("kubernetes.default.svc", "10.96.0.1"),
    // Names that lead inside.
    name("loopback.example", "127.0.0.1"),
    name("private.example", "10.0.0.5"),
    name("platform.example", "169.254.169.254"),
    name("shared.example", "100.64.0.1"),
    name("loopback6.example", "::1"),
    name("unique.example", "fd12:3456::1"),
    name("mapped.example", "::ffff:10.0.0.5"),
    name("mixed.example", "93.184.216.34 10.0.0.5"),
];

/// A name of the tests that may be connected to.
pub const PUBLIC_NAME: &str = "public.example";

/// The names of the table, and [`PUBLIC_NAME`].
pub fn names() -> FixedNames {
    let of = |names: FixedNames, form: &HostForm| {
        let name = form.host.trim_end_matches('.').to_ascii_lowercase();
        if form.addresses.is_empty() { names } else { names.with(&name, &[form.addresses]) }
    };
    FORMS.iter().fold(FixedNames::default(), of).with(PUBLIC_NAME, &["93.184.216.34"])
}

impl HostForm {
    /// As an authority of a URL has it: an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_owned() }
    }

    /// The list that opens it.
    pub fn rules(&self) -> GuardRules {
        GuardRules { allow: vec![self.opened_by.to_owned()] }
    }
}

/// A guard with this list, and the names of the table.
pub fn guard(rules: &GuardRules) -> Guard {
    Guard::new(rules).with_names(names())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_form_is_refused_and_its_entry_opens_it() {
        assert!(FORMS.len() >= 60);
        let closed = guard(&GuardRules::default());
        for form in FORMS {
            let refused = closed.resolve(form.host, 443).await;
            let error = refused.expect_err(form.host);
            assert!(error.is_refusal(), "{}: {error}", form.host);
            let opened = guard(&form.rules()).resolve(form.host, 443).await;
            assert!(!opened.unwrap_or_else(|error| panic!("{}: {error}", form.host)).is_empty());
            // Everything opens everything.
            guard(&GuardRules::unrestricted()).resolve(form.host, 443).await.expect(form.host);
        }
        assert_eq!(closed.resolve(PUBLIC_NAME, 443).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_form_says_why_it_is_refused_and_not_where_a_name_leads() {
        let closed = guard(&GuardRules::default());
        let mut told = Vec::new();
        for host in
            ["0x7f.0.0.1", "metadata.google.internal.", "private.example", "mixed.example", "fd00:ec2::254", "a b"]
        {
            told.push(closed.resolve(host, 443).await.unwrap_err().to_string());
        }
        let expected = [
            "127.0.0.1 is refused: it is a loopback address",
            "metadata.google.internal is refused: it is a service of the platform",
            "private.example is refused: its name leads to a private address",
            "mixed.example is refused: its name leads to a private address",
            "fd00:ec2::254 is refused: it is a service of the platform",
            "this host is refused: it is neither a name nor an address",
        ];
        assert_eq!(told, expected);
    }
}
