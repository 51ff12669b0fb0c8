//! The values of the options.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::RouteArg;
use crate::cli::ca;
use crate::cli::corrections::NO_DOMAIN;
use crate::config::nearest;
use crate::enrolment::{PUBLIC_PORT, ServiceKind};
use crate::model::names::{Name, ServerName};

/// A domain. An address as a browser shows it is understood.
pub(super) fn parse_domain(text: &str) -> Result<ServerName, String> {
    let host = ca::host_of(text);
    if host.parse::<IpAddr>().is_ok() {
        return Err(format!("{host} is an IP address, and the gate needs a name\n  {NO_DOMAIN}"));
    }
    if let Some((host, port)) = host.rsplit_once(':')
        && let Ok(port) = port.parse::<u16>()
    {
        let also = if port == PUBLIC_PORT { String::new() } else { format!(" --public-port {port}") };
        return Err(format!("a domain has no port: write --domain {host}{also}"));
    }
    ca::parse_domain(host)
}

/// An address, or a port of all addresses of this machine.
pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse() {
        return Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port));
    }
    let example = match text.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => format!("the port is missing: write {}", SocketAddr::new(ip, 8443)),
        Err(_) => {
            "write a port, as in 8443, or an address of this machine and a port, as in 192.168.1.5:8443".to_owned()
        }
    };
    text.parse().map_err(|_| example)
}

/// A `--route`.
pub(super) fn parse_route(text: &str) -> Result<RouteArg, String> {
    const EXAMPLE: &str = "write NAME=ADDRESS:PORT, as in nas=192.168.1.10:5666";
    let (text, kind) = match text.rsplit_once(",kind=") {
        Some((text, word)) => (text, Some(parse_kind(word)?)),
        None => (text, None),
    };
    let Some((name, backend)) = text.split_once('=') else {
        return Err(format!("missing \"=\": {EXAMPLE}"));
    };
    let name = Name::parse(name).map_err(|error| format!("{error}: {EXAMPLE}"))?;
    if name.as_str().contains('.') {
        return Err(format!(
            "the name must not contain a dot, since the certificate covers one label below the domain: {EXAMPLE}"
        ));
    }
    check_backend(backend).map_err(|problem| format!("{problem}: {EXAMPLE}"))?;
    Ok(RouteArg { name, backend: backend.to_owned(), kind })
}

fn parse_kind(word: &str) -> Result<ServiceKind, String> {
    let found = ServiceKind::WORDS.iter().find(|(known, _)| *known == word).map(|(_, kind)| *kind);
    found.ok_or_else(|| {
        let known: Vec<&str> = ServiceKind::WORDS.iter().map(|(known, _)| *known).collect();
        let meant = nearest(word, &known).map(|known| format!("; did you mean {known}?")).unwrap_or_default();
        format!("unknown kind {word:?}: the kinds are {}{meant}", known.join(", "))
    })
}

fn check_backend(text: &str) -> Result<(), &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.starts_with('/') { Ok(()) } else { Err("the path of a unix socket must start with \"/\"") };
    }
    if text.contains("://") {
        return Err("a backend is not a URL: leave out the scheme and what follows the port");
    }
    let Some((host, port)) = text.rsplit_once(':') else { return Err("missing port") };
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err("the port must be a number from 1 to 65535");
    }
    if text.parse::<SocketAddr>().is_ok() || ServerName::parse(host).is_ok() {
        return Ok(());
    }
    Err(if host.contains(':') {
        "an IPv6 address needs brackets, as in [fd00::1]:22"
    } else {
        "not an address or host name before the port"
    })
}
