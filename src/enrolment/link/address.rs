//! Which addresses are of the home, and which of the world.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// How far away who uses the link may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In the same network: the link is at a private address, and only private addresses are answered.
    Home,
    /// Anywhere.
    World,
}

/// Whether nobody on the internet can have this address, and no packet from there can carry it and be answered: private
/// (RFC 1918), unique local (RFC 4193), link-local (RFC 3927, RFC 4291 section 2.5.6) or loopback.
///
/// Carriers' shared addresses (100.64.0.0/10, RFC 6598) are not: behind them are other households.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback(),
    }
}

/// The address of this machine in the network that its packets to the rest of the world leave through.
///
/// Nothing is sent: the kernel is only asked which address it would take.
pub fn own() -> io::Result<IpAddr> {
    // Documentation addresses (RFC 5737, RFC 3849), which nobody has.
    let ask = |from: SocketAddr, to: SocketAddr| -> io::Result<IpAddr> {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip())
    };
    ask((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into()).or_else(|_| {
        let nobody = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        ask((Ipv6Addr::UNSPECIFIED, 0).into(), (nobody, 9).into())
    })
}

/// Why a link cannot be at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsuitable {
    /// Anybody on the internet may be able to come there.
    Public(IpAddr),
    /// It means every address of the machine, and so the public ones.
    Every,
    /// A link-local IPv6 address needs a zone, which browsers do not take in a URL.
    NeedsZone(Ipv6Addr),
}

impl fmt::Display for Unsuitable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public(address) => {
                write!(f, "{address} is no private address: anybody on the internet may be able to come there")
            }
            Self::Every => f.write_str("this is every address of the machine: name the one in your home network"),
            Self::NeedsZone(address) => {
                write!(f, "browsers cannot open a link-local IPv6 address such as {address}: take another one")
            }
        }
    }
}

impl std::error::Error for Unsuitable {}

/// Whether a link may be at `address`.
pub fn check(address: IpAddr, reach: Reach) -> Result<(), Unsuitable> {
    match address.to_canonical() {
        canonical if canonical.is_unspecified() => Err(Unsuitable::Every),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(Unsuitable::NeedsZone(v6)),
        canonical if reach == Reach::Home && !is_private(canonical) => Err(Unsuitable::Public(address)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_link_is_in_the_home_unless_it_is_told_otherwise() {
        for private in [
            "192.168.1.5",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "169.254.1.1",
            "127.0.0.1",
            "fd00::1",
            "::1",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(check(ip(private), Reach::Home), Ok(()), "{private}");
        }
        for public in [
            "203.0.113.9",
            "8.8.8.8",
            "172.32.0.1",
            "100.64.0.1",
            "192.169.0.1",
            "2001:db8::1",
            "2a00::1",
            "fec0::1",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(check(ip(public), Reach::Home), Err(Unsuitable::Public(ip(public))), "{public}");
            assert_eq!(check(ip(public), Reach::World), Ok(()), "{public}");
        }
        for reach in [Reach::Home, Reach::World] {
            for every in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
                assert_eq!(check(ip(every), reach), Err(Unsuitable::Every), "{every}");
            }
            assert!(matches!(check(ip("fe80::1"), reach), Err(Unsuitable::NeedsZone(_))));
        }
    }
}
