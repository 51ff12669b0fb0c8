//! Machines whose kernel has no IPv6 (`ipv6.disable=1`, or not built in): a listener on all addresses accepts IPv4 only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Whether the error means that the kernel has no IPv6.
pub(super) fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Whether this machine has no IPv6.
pub(super) fn machine_has_none() -> bool {
    Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).is_err_and(|error| is_missing(&error))
}

/// Where a listener on all addresses listens then.
pub(super) fn without_ipv6(address: SocketAddr) -> Option<SocketAddr> {
    let all = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    all.then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
}

/// The warning about a listener there.
pub(super) fn ipv4_only(listener: &str, address: SocketAddr, configured: SocketAddr) -> String {
    format!("this machine has no IPv6: listener {listener:?} accepts IPv4 only, on {address} instead of {configured}")
}
