//! `wake` of a route: how the machine of its backend is woken, and for which devices.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use super::{Mode, scalar};
use crate::config::checked::{Backend, ClientAuthMode, Mac, RouteMode, Wake};
use crate::config::raw::{RawRoute, RawWake};
use crate::config::reader::Scalar;
use crate::config::report::{At, Given, Place, Problem, Report, quoted};
use crate::config::values;

/// The longest time that a connection is held: no machine takes longer to start.
const TIMEOUT_MAX: Duration = Duration::from_secs(10 * 60);

/// How the machine is woken; `Some(None)` if it is not.
pub(super) fn check(
    raw: &RawRoute,
    mode: Option<Mode>,
    backends: Option<&(Vec<Backend>, Place)>,
    report: &mut Report,
) -> Option<Option<Wake>> {
    let At { value: wake, place } = match &raw.wake {
        Given::Absent => return Some(None),
        Given::Refused => return None,
        Given::Value(wake) => wake,
    };
    let mac = mac(wake, place, report);
    let timeout = scalar(&wake.timeout, timeout, Wake::TIMEOUT, report);
    if mode == Some(Mode::Passthrough) {
        report.error(
            place,
            "on a passthrough route the gate asks for no certificate, so every stranger could wake the machine",
            "remove \"wake\", or write mode = \"terminate\" to have the gate ask for certificates",
        );
        return None;
    }
    let Some((backends, at)) = backends else {
        // What is wrong with them was said.
        return None;
    };
    let backend = one_machine(backends, at, report);
    let broadcast = broadcast(wake, place, backend?, report);
    Some(Some(Wake { mac: mac?, broadcast: broadcast?, timeout: timeout? }))
}

/// Reports a route that admits clients without a verified certificate: each of them could wake the machine. Returns whether all is
/// right.
pub(super) fn is_for_devices_only(raw: &RawRoute, mode: &RouteMode, report: &mut Report) -> bool {
    let (Some(At { place, .. }), RouteMode::Terminate(terminate)) = (raw.wake.value(), mode) else { return true };
    let auth = terminate.client_auth.mode;
    if auth == ClientAuthMode::RequireAndVerify || auth.verifies() && !terminate.allow.unverified {
        return true;
    }
    report.error(
        place,
        "this route admits clients without a verified certificate, so every stranger could wake the machine",
        "remove \"unverified\" from \"allow\" and write mode = \"require_and_verify\" in client_auth, or remove \"wake\"",
    );
    false
}

/// The only backend, which is on another machine.
fn one_machine<'a>(backends: &'a [Backend], place: &Place, report: &mut Report) -> Option<&'a Backend> {
    let [backend] = backends else {
        report.error(
            place,
            "\"wake\" is about one machine, and this route has several backends",
            "leave the one that sleeps, and give the others a route of their own",
        );
        return None;
    };
    let here = match backend {
        Backend::Unix(_) => true,
        Backend::Address(address) => address.ip().to_canonical().is_loopback(),
        Backend::Host(host, _) => host == "localhost",
    };
    if here {
        report.error(
            place,
            format!("{backend} is on this machine, which is awake"),
            "remove \"wake\", or name a backend on the machine that sleeps",
        );
        return None;
    }
    Some(backend)
}

fn mac(wake: &RawWake, place: &Place, report: &mut Report) -> Option<Mac> {
    const REMEDY: &str = "write the address of the machine's wired network card, as in mac = \"3c:ec:ef:12:34:56\"; while the machine \
                          is on, \"ip neigh\" shows it";
    let text = match &wake.mac {
        Given::Refused => return None,
        Given::Value(text) => text,
        Given::Absent => {
            report.error(
                &place.child("mac"),
                "\"mac\" is missing, so it is not known which machine to wake",
                REMEDY.replace("write", "add"),
            );
            return None;
        }
    };
    let Some(mac) = parse_mac(&text.value) else {
        report.error(&text.place, format!("{} is not the address of a network card", quoted(&text.value)), REMEDY);
        return None;
    };
    // The bit of groups (IEEE 802-2014 section 8.2), which broadcast has too.
    let Mac([first, ..]) = mac;
    if mac == Mac([0; 6]) || first & 1 == 1 {
        report.error(&text.place, format!("{mac} is not the address of one network card"), REMEDY);
        return None;
    }
    Some(mac)
}

/// Six bytes in hexadecimal, with `:` or `-` between them, or with nothing.
fn parse_mac(text: &str) -> Option<Mac> {
    let text = text.trim();
    let separator = [':', '-'].into_iter().find(|separator| text.contains(*separator));
    let digits: String = match separator {
        Some(separator) => {
            let parts: Vec<&str> = text.split(separator).collect();
            (parts.len() == 6 && parts.iter().all(|part| part.len() == 2)).then(|| parts.concat())?
        }
        None => text.to_owned(),
    };
    if digits.len() != 12 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let number = u64::from_str_radix(&digits, 16).ok()?;
    let [_, _, mac @ ..] = number.to_be_bytes();
    Some(Mac(mac))
}

fn timeout(scalar: &Scalar) -> Result<Duration, Problem> {
    let timeout = values::duration(scalar)?;
    if timeout < Duration::from_secs(1) || timeout > TIMEOUT_MAX {
        return Err(Problem::new(
            "no machine is woken in less than a second, and a connection is held for ten minutes at most",
            "write the time that the machine takes to start, and some more, as in \"90s\"",
        ));
    }
    Ok(timeout)
}

/// Where the packet is sent. Without the key: to all machines on the network interface that leads to the backend.
fn broadcast(wake: &RawWake, place: &Place, backend: &Backend, report: &mut Report) -> Option<SocketAddr> {
    match &wake.broadcast {
        Given::Refused => None,
        Given::Value(text) => report.taken(&text.place, values::broadcast(&text.value)),
        Given::Absent => match backend {
            Backend::Address(SocketAddr::V6(v6)) if v6.scope_id() != 0 => {
                let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
                Some(SocketAddrV6::new(all, Wake::PORT, 0, v6.scope_id()).into())
            }
            Backend::Address(SocketAddr::V6(_)) => {
                report.error(
                    &place.child("broadcast"),
                    format!("{backend} is an IPv6 address, and IPv6 has no broadcast addresses"),
                    "add the IPv4 broadcast address of the same network, as in broadcast = \"192.168.1.255:9\", or the address of \
                     all machines behind an interface: broadcast = \"[ff02::1%eth0]:9\"",
                );
                None
            }
            _ => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::BROADCAST), Wake::PORT)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_is_read_in_the_usual_forms() {
        let mac = Mac([0x3c, 0xec, 0xef, 0x12, 0x34, 0x56]);
        for right in ["3c:ec:ef:12:34:56", "3C-EC-EF-12-34-56", "3cecef123456", " 3c:ec:ef:12:34:56 "] {
            assert_eq!(parse_mac(right), Some(mac), "{right}");
        }
        for wrong in
            ["", "3c:ec:ef:12:34", "3c:ec:ef:12:34:5g", "3c:ec-ef:12:34:56", "3c:ec:ef:12:34:56:78", "+cecef123456"]
        {
            assert_eq!(parse_mac(wrong), None, "{wrong}");
        }
        assert_eq!(mac.to_string(), "3c:ec:ef:12:34:56");
    }
}
