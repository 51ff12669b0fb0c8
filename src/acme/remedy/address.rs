//! Addresses that are none of the internet.

use std::net::IpAddr;

/// What an address of RFC 6598 is.
pub(super) const SHARED: &str = "which your provider shares among its customers (CGNAT)";

/// What an address is that nothing on the internet can connect to.
pub(super) fn not_public(address: IpAddr) -> Option<&'static str> {
    if is_shared(address) {
        return Some(SHARED);
    }
    let (loopback, private, local, unspecified) = match address.to_canonical() {
        IpAddr::V4(address) => {
            (address.is_loopback(), address.is_private(), address.is_link_local(), address.is_unspecified())
        }
        IpAddr::V6(address) => {
            let local = address.is_unicast_link_local();
            (address.is_loopback(), address.is_unique_local(), local, address.is_unspecified())
        }
    };
    if loopback || unspecified {
        Some("an address that means each machine itself (loopback)")
    } else if private {
        Some("a private address of a home network")
    } else if local {
        Some("an address of one network segment (link-local)")
    } else {
        None
    }
}

/// Whether a provider shares the address among its customers (RFC 6598).
pub(super) fn is_shared(address: IpAddr) -> bool {
    matches!(address.to_canonical(), IpAddr::V4(address) if matches!(address.octets(), [100, second, ..] if second & 0xc0 == 64))
}
