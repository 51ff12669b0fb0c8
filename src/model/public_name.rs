//! Names for which a public authority issues certificates.

use std::fmt;

/// Endings that are not in the public DNS, and why: RFC 6761, RFC 6762, RFC 7686, RFC 8375, RFC 9476, ICANN's reservation of
/// `internal`, and what routers use without one. None of them can become a top-level domain (RFC 8244, ICANN's name collisions).
const ENDINGS: [(&str, Why); 18] = [
    ("lan", Why::HomeNetwork),
    ("home", Why::HomeNetwork),
    ("home.arpa", Why::HomeNetwork),
    ("local", Why::HomeNetwork),
    ("localdomain", Why::HomeNetwork),
    ("internal", Why::HomeNetwork),
    ("intranet", Why::HomeNetwork),
    ("private", Why::HomeNetwork),
    ("corp", Why::HomeNetwork),
    ("mail", Why::HomeNetwork),
    ("fritz.box", Why::HomeNetwork),
    ("localhost", Why::Reserved),
    ("test", Why::Reserved),
    ("invalid", Why::Reserved),
    ("example", Why::Reserved),
    ("onion", Why::Reserved),
    ("alt", Why::Reserved),
    ("arpa", Why::Reserved),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    HomeNetwork,
    Reserved,
}

/// Why no public authority issues a certificate for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPublic {
    /// It is an IP address.
    Address,
    /// It is one label.
    OneLabel,
    /// Names with this ending exist in home networks only.
    HomeNetwork(&'static str),
    /// Names with this ending are reserved.
    Reserved(&'static str),
}

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("it is an IP address"),
            Self::OneLabel => f.write_str("it has no dot, so it is not in the public DNS"),
            Self::HomeNetwork(ending) => write!(f, "names that end in .{ending} exist in home networks only"),
            Self::Reserved(ending) => write!(f, "names that end in .{ending} are reserved, and not in the public DNS"),
        }
    }
}

/// Why no public authority issues a certificate for this host name, if that can be told from the name alone.
pub fn not_public(name: &str) -> Option<NotPublic> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() {
        return Some(NotPublic::Address);
    }
    if !name.contains('.') {
        return Some(NotPublic::OneLabel);
    }
    let has_ending =
        |ending: &str| name.strip_suffix(ending).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    // The longest: home.arpa rather than arpa.
    let (ending, why) =
        ENDINGS.iter().filter(|(ending, _)| has_ending(ending)).max_by_key(|(ending, _)| ending.len())?;
    Some(match why {
        Why::HomeNetwork => NotPublic::HomeNetwork(ending),
        Why::Reserved => NotPublic::Reserved(ending),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_public_dns_are_recognised() {
        for (name, expected) in [
            ("nas.home.lan", Some(NotPublic::HomeNetwork("lan"))),
            ("NAS.Local.", Some(NotPublic::HomeNetwork("local"))),
            ("nas.home.arpa", Some(NotPublic::HomeNetwork("home.arpa"))),
            ("1.168.192.in-addr.arpa", Some(NotPublic::Reserved("arpa"))),
            ("nas.fritz.box", Some(NotPublic::HomeNetwork("fritz.box"))),
            ("fritz.box", Some(NotPublic::HomeNetwork("fritz.box"))),
            ("nas.home.example", Some(NotPublic::Reserved("example"))),
            ("nas", Some(NotPublic::OneLabel)),
            ("localhost", Some(NotPublic::OneLabel)),
            ("192.168.1.10", Some(NotPublic::Address)),
            ("[fd00::1]", Some(NotPublic::Address)),
            ("fd00::1", Some(NotPublic::Address)),
            ("nas.alice.duckdns.org", None),
            ("nas.example.org", None),
            ("my.box", None),
            ("nas.wlan.de", None),
            ("nas.xlan", None),
        ] {
            assert_eq!(not_public(name), expected, "{name}");
        }
    }
}
