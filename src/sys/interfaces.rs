//! This machine's network interfaces: their addresses and numbers.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

use rustix::net::{AddressFamily, SocketType, netdevice, socket};

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The name of the interface.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// The interface has one peer and no network, as tunnels do.
    pub point_to_point: bool,
    /// The interface is a loopback.
    pub loopback: bool,
}

/// The number of the interface of this name (netdevice(7), `SIOCGIFINDEX`). Numbers change when interfaces come and go.
///
/// # Errors
/// `ENODEV` if there is none.
pub fn index(name: &str) -> io::Result<u32> {
    let any = socket(AddressFamily::INET6, SocketType::STREAM, None);
    let any = any.or_else(|_| socket(AddressFamily::INET, SocketType::STREAM, None))?;
    Ok(netdevice::name_to_index(any, name)?)
}

/// A list allocated by getifaddrs(3).
struct List(*mut libc::ifaddrs);

impl Drop for List {
    #[expect(unsafe_code, reason = "neither rustix nor socket2 lists interfaces")]
    fn drop(&mut self) {
        // SAFETY: the list came from getifaddrs, is freed once, and nothing refers to it any more.
        unsafe { libc::freeifaddrs(self.0) }
    }
}

/// The addresses of every interface that is up.
///
/// # Errors
///
/// Those of `getifaddrs(3)`.
#[expect(unsafe_code, reason = "neither rustix nor socket2 lists interfaces")]
pub fn addresses() -> io::Result<Vec<InterfaceAddress>> {
    let mut first = ptr::null_mut();
    // SAFETY: the function writes the head of a list that it allocates to `first`, and keeps no pointer to it.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let list = List(first);
    let mut found = Vec::new();
    let mut next = list.0.cast_const();
    // SAFETY: `next` is null or an entry of the list, which `list` keeps alive and nothing changes.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next.cast_const();
        let has = |flag: libc::c_int| entry.ifa_flags & flag.unsigned_abs() != 0;
        let Some(address) = address(entry.ifa_addr) else { continue };
        if entry.ifa_name.is_null() || !has(libc::IFF_UP) {
            continue;
        }
        // SAFETY: the name of an entry is a string that ends with NUL (getifaddrs(3)) and lives as long as the list.
        let name = unsafe { CStr::from_ptr(entry.ifa_name) };
        found.push(InterfaceAddress {
            interface: name.to_string_lossy().into_owned(),
            address,
            point_to_point: has(libc::IFF_POINTOPOINT),
            loopback: has(libc::IFF_LOOPBACK),
        });
    }
    Ok(found)
}

#[expect(unsafe_code, reason = "the form of an address depends on its family")]
fn address(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: null or the address of an entry of the list, which its caller keeps alive.
    let family = i32::from(unsafe { address.as_ref() }?.sa_family);
    match family {
        libc::AF_INET => {
            // SAFETY: an address of this family is a sockaddr_in (ip(7)); it may lie anywhere.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: an address of this family is a sockaddr_in6 (ipv6(7)); it may lie anywhere.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_a_number_and_unknown_names_have_none() {
        assert!(index("lo").expect("every machine has it") > 0);
        for unknown in ["", "nowhere0", "a name that is far too long"] {
            assert!(index(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn loopback_is_among_the_interfaces() {
        let found = addresses().expect("a list");
        let own = found.iter().find(|one| one.address == IpAddr::V4(Ipv4Addr::LOCALHOST)).expect("127.0.0.1");
        assert_eq!((own.interface.as_str(), own.loopback, own.point_to_point), ("lo", true, false));
    }
}
