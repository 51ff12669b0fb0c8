//! Addresses to listen on, networks, and where backends are.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};

use crate::config::checked::{Backend, Wake};
use crate::config::report::{Problem, quoted};
use crate::model::names::ServerName;
use crate::sys::interfaces;

/// The longest path of a unix socket on Linux (unix(7): `sun_path` has 108 bytes, one of them the closing zero).
const LONGEST_SOCKET_PATH: usize = 107;

/// Replaces the name of an interface in a link-local address by its number: `[fe80::10%eth0]:22` (RFC 4007 section 11).
fn with_number_of_interface(text: &str) -> Result<Cow<'_, str>, Problem> {
    let zone = text.split_once('%').and_then(|(address, rest)| Some((address, rest.split_once(']')?)));
    let Some((address, (name, port))) = zone.filter(|(_, (name, _))| name.parse::<u32>().is_err()) else {
        return Ok(text.into());
    };
    let number = interfaces::index(name).map_err(|_| {
        Problem::new(
            format!("this machine has no network interface named {}", quoted(name)),
            "write the name of the interface that leads there; \"ip link\" lists them",
        )
    })?;
    Ok(format!("{address}%{number}]{port}").into())
}

/// An address to listen on: `[::]:8443`, `127.0.0.1:0`, `[fe80::1%eth0]:8443`.
pub(in crate::config) fn listen_address(text: &str) -> Result<SocketAddr, Problem> {
    let text = &*with_number_of_interface(text)?;
    if let Ok(address) = text.parse::<SocketAddr>() {
        let scoped = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
        return match unusable(address.ip()).filter(|_| !scoped) {
            Some(why) => {
                Err(Problem::new(why, "write \"[::]:8443\" for every address of this machine, or one of its own"))
            }
            None => Ok(address),
        };
    }
    let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let wrong = |why: &str, instead: String| {
        Err(Problem::new(format!("{} is not an address to listen on: {why}", quoted(text)), instead))
    };
    match (text.parse::<IpAddr>(), port) {
        (Ok(IpAddr::V6(ip)), _) => {
            wrong("the port is missing", format!("write an IPv6 address in brackets, then the port: \"[{ip}]:8443\""))
        }
        (Ok(IpAddr::V4(ip)), _) => wrong("the port is missing", format!("write \"{ip}:8443\"")),
        (Err(_), Some(port)) => wrong(
            "there is no IP address before the port",
            format!(
                "write \"[::]:{port}\" for every address of this machine, or \"127.0.0.1:{port}\" for this machine only"
            ),
        ),
        (Err(_), None) => wrong(
            "it has to be an IP address and a port",
            "write \"[::]:8443\" for every address of this machine, or \"127.0.0.1:8443\" for this machine only"
                .to_owned(),
        ),
    }
}

/// Why no connection can go to an address, or come to it.
fn unusable(ip: IpAddr) -> Option<String> {
    match ip.to_canonical() {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(format!(
            "{ip} is a link-local address, which means nothing without its network interface, as in \"[{ip}%eth0]\" \
             (\"ip link\" lists them)"
        )),
        ip if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) => {
            Some(format!("{ip} is an address of many machines at once, and TCP goes to one"))
        }
        _ => None,
    }
}

/// A network in CIDR form or one address, in the form that is compared with source addresses: IPv4 as IPv4 even if it
/// was written as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2), and no bits after the prefix.
pub(in crate::config) fn network(text: &str) -> Result<IpNet, Problem> {
    let given: IpNet = match text.parse::<IpAddr>() {
        Ok(ip) => ip.into(),
        Err(_) => text.parse().map_err(|_| {
            Problem::new(
                format!("{} is neither an address nor a network", quoted(text)),
                "write an address as in \"192.168.1.5\" or \"2001:db8::5\", or a network as in \"192.168.1.0/24\" \
                 (every address that starts with 192.168.1)",
            )
        })?,
    };
    if let IpNet::V6(v6) = given
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Some(prefix) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(v4, prefix)
    {
        return Ok(IpNet::V4(v4.trunc()));
    }
    Ok(given.trunc())
}

/// Where a backend is: `host:port`, `[v6]:port`, `v4:port`, `unix:/path`; a relative path starts at `folder`.
pub(in crate::config) fn backend(text: &str, folder: &Path) -> Result<Backend, Problem> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_backend(text, path, folder);
    }
    let text = &*with_number_of_interface(text)?;
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or_default();
        let port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => ":22",
        };
        let port = if host_and_port(rest).is_some() { "" } else { port };
        let address = quoted(&format!("{rest}{port}"));
        let remedy = match scheme {
            "https" | "wss" => format!(
                "write {address}, and add a line to the route, since this service speaks TLS: backend_tls = {{ trust = \
                 \"sha256:…\" }}; without that line, \"doorward check --connect\" shows it with the fingerprint filled in"
            ),
            _ => format!("write {address}"),
        };
        return Err(Problem::new(
            format!("{} is a web address, and a backend is only a machine and a port", quoted(text)),
            remedy,
        ));
    }
    if let Some((_, port)) = text.rsplit_once(':').filter(|(host, _)| !host.contains(':'))
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.len() >= 5
        && port.parse::<u16>().is_err()
    {
        return Err(Problem::new(
            format!("{port} is not a port: they end at 65535"),
            "write the port that the service listens on, a number from 1 to 65535",
        ));
    }
    let Some((host, port)) = host_and_port(text) else {
        let host = match text.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => text.split([':', '/', ' ']).next().unwrap_or_default().to_owned(),
        };
        let host = if host.is_empty() { "192.168.1.10".to_owned() } else { host };
        return Err(Problem::new(
            format!("{} has no port", quoted(text)),
            format!(
                "write the port that the service listens on after the address: {} for SSH, {} for a web page",
                quoted(&format!("{host}:22")),
                quoted(&format!("{host}:80")),
            ),
        ));
    };
    if port == 0 {
        return Err(Problem::new(
            "nothing can be reached on port 0",
            "write the port that the service listens on, a number from 1 to 65535",
        ));
    }
    // A link-local address with the number of its interface, as in "[fe80::10%2]:22".
    if let Ok(SocketAddr::V6(scoped)) = text.parse()
        && scoped.scope_id() != 0
    {
        return Ok(Backend::Address(SocketAddr::V6(scoped)));
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        if ip.is_unspecified() {
            return Err(Problem::new(
                format!("{ip} means \"every address of this machine\", which is for listening and not for connecting"),
                format!("write \"127.0.0.1:{port}\" for a service on this machine"),
            ));
        }
        if let Some(why) = unusable(ip) {
            let instead = match ip {
                IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                    format!("write \"[{ip}%eth0]:{port}\", with the interface that leads there")
                }
                _ => "write the address, or the host name, that the service is reached by".to_owned(),
            };
            return Err(Problem::new(why, instead));
        }
        return Ok(Backend::Address(SocketAddr::new(ip.to_canonical(), port)));
    }
    if bare.bytes().all(|b| b.is_ascii_digit() || b == b'.') || bare != host {
        return Err(Problem::new(
            format!("{} is not an IP address", quoted(bare)),
            "write four numbers from 0 to 255 with dots between them, as in \"192.168.1.10:22\", or an IPv6 address \
             in brackets, as in \"[fd00::10]:22\"",
        ));
    }
    match ServerName::parse(host) {
        Ok(name) => Ok(Backend::Host(name.to_string(), port)),
        Err(_) => Err(Problem::new(
            format!("{} is not the name of a machine", quoted(host)),
            "write a host name or an IP address, then \":\" and the port, as in \"nas.local:5666\" or \
             \"192.168.1.10:5666\"",
        )),
    }
}

/// Where packets are sent that wake a machine: `192.168.1.255:9`, `[ff02::1%eth0]:9`; without a port, to the usual one.
pub(in crate::config) fn broadcast(text: &str) -> Result<SocketAddr, Problem> {
    const REMEDY: &str = "write the broadcast address of the machine's network, as in \"192.168.1.255:9\"; \"ip addr\" shows it behind \
                          \"brd\" on a machine of that network";
    let text = &*with_number_of_interface(text)?;
    let address = text.parse::<SocketAddr>().ok();
    let address = address.or_else(|| Some(SocketAddr::new(text.parse().ok()?, Wake::PORT)));
    let Some(address) = address.filter(|address| address.port() != 0) else {
        return Err(Problem::new(format!("{} is not a broadcast address and a port", quoted(text)), REMEDY));
    };
    let ip = address.ip().to_canonical();
    if ip.is_unspecified() || ip.is_loopback() {
        return Err(Problem::new(format!("{ip} is an address of this machine alone"), REMEDY));
    }
    match address {
        SocketAddr::V6(v6)
            if ip.is_ipv6()
                && v6.scope_id() == 0
                && (matches!(v6.ip().octets(), [0xff, 2, ..]) || v6.ip().is_unicast_link_local()) =>
        {
            Err(Problem::new(
                format!("{ip} means nothing without the network interface that leads there"),
                format!("write \"[{ip}%eth0]:{}\"; \"ip link\" lists the interfaces", address.port()),
            ))
        }
        SocketAddr::V6(_) if ip.is_ipv6() => Ok(address),
        _ => Ok(SocketAddr::new(ip, address.port())),
    }
}

/// Splits `host:port`; what is before the port may hold colons only inside brackets.
fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let whole = host.starts_with('[') && host.ends_with(']') || !host.contains(':');
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    (whole && digits && !host.is_empty()).then_some(())?;
    Some((host, port.parse().ok()?))
}

fn unix_backend(text: &str, path: &str, folder: &Path) -> Result<Backend, Problem> {
    let whole: PathBuf = folder.join(path);
    if path.is_empty() || path.contains('\0') {
        return Err(Problem::new(
            format!("{} names no socket", quoted(text)),
            "write the path of the socket, as in \"unix:/run/service.sock\"",
        ));
    }
    if whole.as_os_str().len() > LONGEST_SOCKET_PATH {
        return Err(Problem::new(
            format!("the path of a unix socket may have at most {LONGEST_SOCKET_PATH} bytes"),
            "let the service listen on a shorter path, as in \"unix:/run/service.sock\"",
        ));
    }
    Ok(Backend::Unix(whole))
}

/// Whether a listener on one address leaves no room for one on the other.
pub(in crate::config) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() != 0 && a.port() == b.port() && (covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

/// Whether a listener on `listener` takes connections to `ip`. `::` takes IPv4 too.
fn covers(listener: IpAddr, ip: IpAddr) -> bool {
    match listener.to_canonical() {
        IpAddr::V6(v6) if v6.is_unspecified() => true,
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => ip.to_canonical().is_ipv4(),
        listener => listener == ip.to_canonical(),
    }
}

/// Whether dialling `backend` would reach the listener on `listener`. Of the addresses of this machine only those that
/// are known without asking the system are looked at.
pub(in crate::config) fn reaches(backend: &Backend, listener: SocketAddr) -> bool {
    let loopback = |listener: IpAddr| listener.is_unspecified() || listener.is_loopback();
    match backend {
        Backend::Unix(_) => false,
        Backend::Host(host, port) => *port == listener.port() && host == "localhost" && loopback(listener.ip()),
        Backend::Address(address) => {
            let ip = address.ip().to_canonical();
            let same = ip == listener.ip().to_canonical();
            let local = ip.is_loopback() && covers(listener.ip(), ip);
            address.port() == listener.port() && (same || local)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_listen_address_is_answered_with_a_right_one() {
        for right in ["[::]:8443", "127.0.0.1:0", "0.0.0.0:443"] {
            assert!(listen_address(right).is_ok(), "{right}");
        }
        for (wrong, hint) in [
            ("8443", "[::]:8443"),
            (":8443", "[::]:8443"),
            ("*:443", "[::]:443"),
            ("localhost:443", "127.0.0.1:443"),
            ("192.168.1.1", "192.168.1.1:8443"),
            ("::1", "[::1]:8443"),
            ("", "[::]:8443"),
            ("[::]:99999", "[::]:8443"),
        ] {
            let problem = listen_address(wrong).expect_err(wrong);
            assert!(problem.remedy.contains(hint), "{wrong}: {problem:?}");
        }
    }

    #[test]
    fn networks_are_normalised() {
        for (given, kept) in [
            ("192.168.1.5", "192.168.1.5/32"),
            ("192.168.1.5/24", "192.168.1.0/24"),
            ("::ffff:192.168.1.5", "192.168.1.5/32"),
            ("::ffff:192.168.1.0/120", "192.168.1.0/24"),
            ("::ffff:0.0.0.0/96", "0.0.0.0/0"),
            ("2001:db8::5", "2001:db8::5/128"),
            ("2001:db8::5/32", "2001:db8::/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(given).map(|net| net.to_string()), Ok(kept.to_owned()), "{given}");
        }
        for wrong in ["", "nas", "192.168.1", "192.168.1.0/33", "192.168.1.0/", "/24", "10.0.0.0-10.0.0.9"] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_backend_is_answered_with_a_right_one() {
        let folder = Path::new("/etc/doorward");
        for (given, kept) in [
            ("192.168.1.10:5666", "192.168.1.10:5666"),
            ("[fd00::10]:22", "[fd00::10]:22"),
            ("[fe80::10%2]:22", "[fe80::10%2]:22"),
            ("[fe80::10%lo]:22", "[fe80::10%1]:22"),
            ("[::ffff:10.0.0.1]:22", "10.0.0.1:22"),
            ("NAS.local:445", "nas.local:445"),
            ("smb_server:445", "smb_server:445"),
            ("localhost:22", "localhost:22"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("unix:x.sock", "unix:/etc/doorward/x.sock"),
        ] {
            assert_eq!(backend(given, folder).map(|b| b.to_string()), Ok(kept.to_owned()), "{given}");
        }
        for (wrong, hint) in [
            ("192.168.1.10", "192.168.1.10:22"),
            ("nas", "nas:22"),
            ("fd00::10", "[fd00::10]:22"),
            ("http://192.168.1.10:5666/", "\"192.168.1.10:5666\""),
            ("https://nas.local", "\"nas.local:443\""),
            ("192.168.1.300:22", "0 to 255"),
            ("[nas]:22", "brackets"),
            ("[fe80::10%nowhere0]:22", "ip link"),
            ("[fe80::10]:22", "%eth0"),
            ("a b:22", "host name"),
            ("0.0.0.0:22", "127.0.0.1:22"),
            ("[::]:22", "127.0.0.1:22"),
            ("nas:0", "1 to 65535"),
            ("nas:65536", "1 to 65535"),
            ("nas:+22", "nas:22"),
            (":22", "192.168.1.10:22"),
            ("", "192.168.1.10:22"),
            ("unix:", "unix:/run"),
        ] {
            let problem = backend(wrong, folder).expect_err(wrong);
            assert!(problem.remedy.contains(hint), "{wrong}: {problem:?}");
        }
        assert!(backend(&format!("unix:/{}", "x".repeat(107)), folder).is_err());
        assert!(backend(&format!("unix:/{}", "x".repeat(106)), folder).is_ok());
    }

    #[test]
    fn listeners_on_overlapping_addresses_are_detected() {
        let overlap = |a: &str, b: &str| {
            let (a, b) = (a.parse().expect(a), b.parse().expect(b));
            assert_eq!(overlap(a, b), overlap(b, a));
            overlap(a, b)
        };
        assert!(overlap("[::]:8443", "0.0.0.0:8443"));
        assert!(overlap("[::]:8443", "127.0.0.1:8443"));
        assert!(overlap("0.0.0.0:8443", "127.0.0.1:8443"));
        assert!(overlap("[::1]:8443", "[::1]:8443"));
        assert!(!overlap("0.0.0.0:8443", "[::1]:8443"));
        assert!(!overlap("127.0.0.1:8443", "127.0.0.2:8443"));
        assert!(!overlap("[::]:8443", "[::]:8444"));
        assert!(!overlap("[::]:0", "[::]:0"));
    }

    #[test]
    fn backend_that_reaches_the_gate_itself_is_detected() {
        let reaches = |to: &str, listener: &str| {
            reaches(&backend(to, Path::new("/")).expect(to), listener.parse().expect(listener))
        };
        assert!(reaches("127.0.0.1:8443", "[::]:8443"));
        assert!(reaches("127.0.0.1:8443", "0.0.0.0:8443"));
        assert!(reaches("localhost:8443", "[::]:8443"));
        assert!(reaches("localhost:8443", "127.0.0.1:8443"));
        assert!(reaches("192.168.1.1:8443", "192.168.1.1:8443"));
        assert!(reaches("[::1]:8443", "[::]:8443"));
        assert!(!reaches("[::1]:8443", "0.0.0.0:8443"));
        assert!(!reaches("127.0.0.1:8443", "192.168.1.1:8443"));
        assert!(!reaches("192.168.1.10:8443", "[::]:8443"));
        assert!(!reaches("127.0.0.1:22", "[::]:8443"));
        assert!(!reaches("unix:/x", "[::]:8443"));
    }
}
