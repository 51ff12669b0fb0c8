//! Sources: the addresses that limits count together.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many leading bits of an address identify a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// For IPv4: 1 to 32.
    pub v4: u8,
    /// For IPv6: 1 to 128.
    pub v6: u8,
}

impl Default for Prefixes {
    /// A whole IPv4 address, and an IPv6 /64, the smallest network that a household or a server gets (RFC 6177).
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

/// All addresses with one prefix, so that a client is not a new source with every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The first address.
    address: IpAddr,
    /// How many leading bits they share.
    bits: u8,
}

impl Source {
    /// The source that `address` belongs to.
    pub fn of(address: IpAddr, prefixes: Prefixes) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(u32::BITS.saturating_sub(prefixes.v4.into())).unwrap_or(0);
                Self { address: IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask)), bits: prefixes.v4 }
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(u128::BITS.saturating_sub(prefixes.v6.into())).unwrap_or(0);
                Self { address: IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask)), bits: prefixes.v6 }
            }
        }
    }

    /// Its first address, and how many leading bits its addresses share: [`Source::of`] makes it again.
    pub const fn parts(self) -> (IpAddr, u8) {
        (self.address, self.bits)
    }

    /// Whether `address` belongs to it.
    pub fn contains(self, address: IpAddr) -> bool {
        // Only the length for the family of `address` is used.
        Self::of(address, Prefixes { v4: self.bits, v6: self.bits }) == self
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        self.address.fmt(f)?;
        if self.bits < whole { write!(f, "/{}", self.bits) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str, prefixes: Prefixes) -> Source {
        Source::of(text.parse().expect("an address"), prefixes)
    }

    #[test]
    fn cgnat_and_ipv6_default_source_is_an_address_or_a_64() {
        let source = |text| source(text, Prefixes::default());
        assert_eq!(source("2001:db8:1:2:3::4"), source("2001:db8:1:2:ffff::"));
        assert_ne!(source("2001:db8:1:2::"), source("2001:db8:1:3::"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8:1:2:3::4").to_string(), "2001:db8:1:2::/64");
        assert_eq!(source("::ffff:192.0.2.1").to_string(), "192.0.2.1");
    }

    #[test]
    fn source_contains_the_addresses_of_its_prefix() {
        let prefixes = Prefixes { v4: 24, v6: 48 };
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let (v4, v6) = (source("192.0.2.1", prefixes), source("2001:db8:1::1", prefixes));
        for (text, of_v4, of_v6) in [
            ("192.0.2.255", true, false),
            ("::ffff:192.0.2.9", true, false),
            ("192.0.3.1", false, false),
            ("2001:db8:1:ffff::", false, true),
            ("2001:db8:2::", false, false),
        ] {
            assert_eq!((v4.contains(address(text)), v6.contains(address(text))), (of_v4, of_v6), "{text}");
        }
        let single = source("2001:db8::1", Prefixes { v4: 32, v6: 128 });
        assert!(single.contains(address("2001:db8::1")) && !single.contains(address("2001:db8::2")));
    }

    #[test]
    fn prefix_lengths_decide_what_is_one_source() {
        let wide = |text| source(text, Prefixes { v4: 24, v6: 48 });
        assert_eq!(wide("192.0.2.1"), wide("::ffff:192.0.2.254"));
        assert_ne!(wide("192.0.2.1"), wide("192.0.3.1"));
        assert_eq!(wide("2001:db8:1:2::"), wide("2001:db8:1:ffff::1"));
        assert_ne!(wide("2001:db8:1::"), wide("2001:db8:2::"));
        let single = |text| source(text, Prefixes { v4: 32, v6: 128 });
        assert_ne!(single("2001:db8::1"), single("2001:db8::2"));
        let halves = |text| source(text, Prefixes { v4: 1, v6: 1 });
        assert_eq!(halves("192.0.2.1"), halves("255.255.255.255"));
        assert_ne!(halves("192.0.2.1"), halves("127.0.0.1"));
        assert_ne!(halves("8000::"), halves("2001:db8::1"));
    }
}
