//! At which addresses of this machine a link may be: those of the home network, and not those that the internet can reach.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use serde::Serialize;

use crate::sys::interfaces::{self, InterfaceAddress};

/// Which clients a link answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those with a private address, and it listens at a private address.
    Private,
    /// All.
    Any,
}

/// Whether no host on the internet can have this address: private
/// (RFC 1918), unique local (RFC 4193), link-local (RFC 3927, RFC 4291 section 2.5.6) or loopback.
///
/// Carriers' shared addresses (100.64.0.0/10, RFC 6598) are not private: other households have them, too.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback(),
    }
}

/// The source address of the default route. Nothing is sent.
fn default_route_source() -> io::Result<IpAddr> {
    // Documentation addresses (RFC 5737, RFC 3849), which no host has.
    let ask = |from: SocketAddr, to: SocketAddr| -> io::Result<IpAddr> {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip())
    };
    ask((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into()).or_else(|_| {
        let unused = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        ask((Ipv6Addr::UNSPECIFIED, 0).into(), (unused, 9).into())
    })
}

/// What an interface connects to, the most likely one for a home network first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InterfaceKind {
    /// A network card, or a bridge of them.
    Network,
    /// This machine only.
    Loopback,
    /// Virtual machines and containers.
    Virtual,
    /// A VPN or another tunnel.
    Tunnel,
}

impl InterfaceKind {
    fn of(one: &InterfaceAddress) -> Self {
        let begins = |names: &[&str]| names.iter().any(|name| one.interface.starts_with(name));
        if one.loopback {
            Self::Loopback
        } else if one.point_to_point || begins(TUNNELS) || is_shared(one.address) {
            Self::Tunnel
        } else if begins(VIRTUAL) {
            Self::Virtual
        } else {
            Self::Network
        }
    }
}

impl fmt::Display for InterfaceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "network",
            Self::Loopback => "this machine only",
            Self::Virtual => "virtual machines or containers",
            Self::Tunnel => "VPN",
        })
    }
}

/// Names of interfaces of WireGuard, OpenVPN, Tailscale, ZeroTier, pppd and others.
const TUNNELS: &[&str] = &[
    "tun",
    "tap",
    "wg",
    "utun",
    "tailscale",
    "zt",
    "ppp",
    "nordlynx",
    "proton",
    "mullvad",
    "ipsec",
    "xfrm",
    "vti",
    "gre",
    "sit",
    "ip6tnl",
    "CloudflareWARP",
    "nebula",
    "netbird",
    "wt",
    "ham",
    "vpn",
];

/// Those of Docker, libvirt, LXD, VirtualBox, VMware and Kubernetes.
const VIRTUAL: &[&str] = &[
    "docker", "br-", "veth", "virbr", "vnet", "lxc", "lxd", "incus", "podman", "cni", "flannel", "cali", "kube",
    "vmnet", "vboxnet",
];

/// Carriers' shared addresses (RFC 6598), which Tailscale uses, too.
fn is_shared(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64)
}

/// An address that a link can be at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The address.
    pub address: IpAddr,
    /// The interface that has it.
    pub interface: String,
    /// What that interface connects to.
    pub kind: InterfaceKind,
}

/// The addresses of this machine that a link may be at, the most likely one in the home network first.
///
/// The default route alone does not decide: it may lead into a VPN, in which the phone is not.
///
/// # Errors
///
/// If no address is suitable and there is no default route. With one, its address is returned, so that [`check`] can say what
/// is wrong with it.
pub fn candidates(reach: Reach) -> io::Result<Vec<Candidate>> {
    let default = default_route_source();
    let found = sorted(interfaces::addresses()?, default.as_ref().ok().copied(), reach);
    if !found.is_empty() {
        return Ok(found);
    }
    Ok(vec![Candidate { address: default?, interface: String::new(), kind: InterfaceKind::Network }])
}

fn sorted(all: Vec<InterfaceAddress>, default: Option<IpAddr>, reach: Reach) -> Vec<Candidate> {
    let usable = |one: &InterfaceAddress| !one.address.is_loopback() && check(one.address, reach).is_ok();
    let mut found: Vec<Candidate> = all
        .iter()
        .filter(|one| usable(one))
        .map(|one| Candidate { address: one.address, interface: one.interface.clone(), kind: InterfaceKind::of(one) })
        .collect();
    found.sort_by_key(|one| {
        let has_default_route = one.kind == InterfaceKind::Network && Some(one.address) == default;
        (!is_private(one.address), one.kind, !has_default_route, range_rank(one.address))
    });
    found.dedup_by_key(|one| one.address);
    found
}

/// Ranks ranges of addresses, those that homes use most first.
fn range_rank(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) if v4.is_link_local() => 4,
        IpAddr::V4(v4) => match v4.octets()[0] {
            192 => 0,
            172 => 1,
            _ => 2,
        },
        IpAddr::V6(_) => 3,
    }
}

/// Why a link cannot be at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    /// Reachable from the internet.
    #[error("{0} is not a private address: the internet may be able to reach it")]
    Public(IpAddr),
    /// It means all addresses of the machine, the public ones included.
    #[error("an unspecified address means all addresses of this machine, the public ones included")]
    Every,
    /// A link-local IPv6 address needs a zone, which browsers do not take in a URL.
    #[error("{0} is a link-local IPv6 address, which browsers cannot open")]
    NeedsZone(Ipv6Addr),
}

/// Whether a link may be at `address`.
pub fn check(address: IpAddr, reach: Reach) -> Result<(), Unsuitable> {
    match address.to_canonical() {
        canonical if canonical.is_unspecified() => Err(Unsuitable::Every),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(Unsuitable::NeedsZone(v6)),
        canonical if reach == Reach::Private && !is_private(canonical) => Err(Unsuitable::Public(address)),
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
    fn home_network_comes_before_vpn_containers_and_default_route() {
        let one = |interface: &str, address: &str| InterfaceAddress {
            interface: interface.to_owned(),
            address: ip(address),
            point_to_point: interface == "xyz0",
            loopback: interface == "lo",
        };
        let first = |all: Vec<InterfaceAddress>, world: Option<&str>, reach| {
            let found = sorted(all, world.map(ip), reach);
            found.iter().map(|one| one.address.to_string()).collect::<Vec<_>>()
        };
        let home = || vec![one("lo", "127.0.0.1"), one("docker0", "172.17.0.1"), one("eth0", "192.168.1.5")];
        let with = |more: InterfaceAddress| home().into_iter().chain([more]).collect::<Vec<_>>();
        for vpn in ["tun0", "wg0", "xyz0", "tailscale0", "zt7nnig26"] {
            let found = first(with(one(vpn, "10.8.0.2")), Some("10.8.0.2"), Reach::Private);
            assert_eq!(found, ["192.168.1.5", "172.17.0.1", "10.8.0.2"], "{vpn}");
        }
        let tailscale = || with(one("tailscale0", "100.101.102.103"));
        assert_eq!(first(tailscale(), Some("100.101.102.103"), Reach::Private), ["192.168.1.5", "172.17.0.1"]);
        let all = ["192.168.1.5", "172.17.0.1", "100.101.102.103"];
        assert_eq!(first(tailscale(), Some("100.101.102.103"), Reach::Any), all, "what is public comes last");
        // Of two networks, the one with the default route.
        let two = with(one("eth1", "10.0.0.5"));
        assert_eq!(first(two.clone(), Some("10.0.0.5"), Reach::Private)[..2], ["10.0.0.5", "192.168.1.5"]);
        assert_eq!(first(two, None, Reach::Private)[..2], ["192.168.1.5", "10.0.0.5"]);
        // A machine with a public address, and IPv6.
        let public = || vec![one("eth0", "203.0.113.9"), one("eth0", "fe80::1"), one("eth0", "fd00::5")];
        assert_eq!(first(public(), Some("203.0.113.9"), Reach::Private), ["fd00::5"]);
        assert_eq!(first(public(), Some("203.0.113.9"), Reach::Any), ["fd00::5", "203.0.113.9"]);
    }

    #[test]
    fn public_addresses_are_refused_unless_allowed() {
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
            assert_eq!(check(ip(private), Reach::Private), Ok(()), "{private}");
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
            assert_eq!(check(ip(public), Reach::Private), Err(Unsuitable::Public(ip(public))), "{public}");
            assert_eq!(check(ip(public), Reach::Any), Ok(()), "{public}");
        }
        for reach in [Reach::Private, Reach::Any] {
            for every in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
                assert_eq!(check(ip(every), reach), Err(Unsuitable::Every), "{every}");
            }
            assert!(matches!(check(ip("fe80::1"), reach), Err(Unsuitable::NeedsZone(_))));
        }
    }
}
