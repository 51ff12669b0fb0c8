//! Services on TCP that are not HTTP, and the application protocols that keep browsers out of them.
//!
//! A page that a device opens anywhere can make its browser send a POST to a server name of the owner's; the browser shows
//! the device's certificate if it was told to show it there, and the body of the request reaches the service. SMTP, Redis
//! and others take commands from such a body ("cross-protocol attack"). A browser always offers `h2` and `http/1.1`
//! (ALPN, RFC 7301), so a route that has other application protocols refuses it, and a client that offers none, as OpenSSL,
//! stunnel and most programs do, gets in.

use super::checked::{Backend, Route, RouteMode};
use crate::model::service::ServiceKind;

/// A kind of service.
#[derive(Debug)]
struct Service {
    /// Where it listens by custom.
    ports: &'static [u16],
    /// What owners call it.
    words: &'static [&'static str],
    /// The names that its clients offer, if they offer any: from IANA's registry where there is one.
    protocols: &'static [&'static str],
}

const fn service(ports: &'static [u16], words: &'static [&'static str], protocols: &'static [&'static str]) -> Service {
    Service { ports, words, protocols }
}

const SERVICES: &[Service] = &[
    service(&[22], &["ssh", "sftp", "scp", "rsync"], &["ssh"]),
    service(&[445, 139], &["smb", "samba", "cifs"], &["smb"]),
    service(&[2049, 111], &["nfs"], &["nfs"]),
    service(&[548], &["afp"], &["afp"]),
    service(&[873], &["rsyncd"], &["rsync"]),
    service(&[20, 21, 989, 990], &["ftp", "ftps"], &["ftp"]),
    service(&[23, 992], &["telnet"], &["telnet"]),
    // psql 17 and later, with sslnegotiation=direct.
    service(&[5432, 5433, 6432], &["postgres", "postgresql", "psql", "pg", "pgsql"], &["postgresql"]),
    service(&[3306, 33060], &["mysql", "mariadb"], &["mysql"]),
    // TDS 8.0 of SQL Server 2022.
    service(&[1433, 1434], &["mssql", "sqlserver"], &["tds/8.0"]),
    service(&[1521, 2484], &["oracle"], &["oracle"]),
    service(&[3050], &["firebird"], &["firebird"]),
    service(&[6379, 6380, 26379], &["redis", "valkey", "keydb"], &["redis"]),
    service(&[11211], &["memcached", "memcache"], &["memcached"]),
    service(&[27017, 27018, 27019], &["mongo", "mongodb"], &["mongodb"]),
    service(&[9042, 9142], &["cassandra"], &["cassandra"]),
    service(&[5672, 5671], &["amqp", "rabbitmq"], &["amqp"]),
    service(&[1883, 8883], &["mqtt", "mosquitto"], &["mqtt"]),
    service(&[4222], &["nats"], &["nats"]),
    service(&[9092, 9093, 9094], &["kafka"], &["kafka"]),
    service(&[2181], &["zookeeper"], &["zookeeper"]),
    service(&[25, 465, 587, 2525], &["smtp", "smtps", "submission"], &["smtp"]),
    service(&[143, 993], &["imap", "imaps"], &["imap"]),
    service(&[110, 995], &["pop", "pop3", "pop3s"], &["pop3"]),
    service(&[4190], &["sieve", "managesieve"], &["managesieve"]),
    service(&[119, 563], &["nntp", "nntps"], &["nntp"]),
    service(&[389, 636, 3268, 3269], &["ldap", "ldaps"], &["ldap"]),
    service(&[53, 853], &["dns", "dot"], &["dot"]),
    service(&[194, 6667, 6697], &["irc", "ircs"], &["irc"]),
    service(&[5222, 5223], &["xmpp", "jabber"], &["xmpp-client"]),
    service(&[5060, 5061], &["sip", "sips"], &["sip/2"]),
    service(&[3389], &["rdp"], &["rdp"]),
    service(&[5900, 5901, 5902, 5903], &["vnc", "rfb"], &["rfb"]),
    service(&[1194], &["openvpn"], &["openvpn"]),
    service(&[9418], &[], &["git"]),
    service(&[6600], &["mpd"], &["mpd"]),
    service(&[515, 9100], &["lpd", "jetdirect"], &["printer"]),
    service(&[502, 802], &["modbus"], &["mbap"]),
    service(&[25565], &["minecraft"], &["minecraft"]),
    // What is behind it is not known: databases of the usual kinds.
    service(&[], &["db", "database", "sql"], &["postgresql", "mysql", "tds/8.0", "redis", "mongodb"]),
];

/// Ports of HTTP: what listens there is a web page, whatever the route is called.
const WEB: &[u16] = &[
    80, 443, 3000, 5000, 5001, 5666, 5667, 8000, 8006, 8008, 8080, 8081, 8088, 8096, 8123, 8443, 8888, 9000, 9090, 9443,
];

/// The application protocols of a route with this name and these ports, if it leads to a service that is not HTTP.
///
/// A port that is known decides, then the words of the name.
pub fn raw_protocols(name: &str, ports: impl IntoIterator<Item = u16>) -> Option<&'static [&'static str]> {
    let ports: Vec<u16> = ports.into_iter().collect();
    if let Some(found) = SERVICES.iter().find(|service| service.ports.iter().any(|port| ports.contains(port))) {
        return Some(found.protocols);
    }
    if ports.iter().any(|port| WEB.contains(port)) {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    // "ssh2" is a second one, and "pop3" a word.
    let is =
        |word: &str| words.iter().any(|own| *own == word || own.trim_end_matches(|c: char| c.is_ascii_digit()) == word);
    SERVICES.iter().find(|service| service.words.iter().any(|word| is(word))).map(|service| service.protocols)
}

/// As [`raw_protocols`], for the address of one backend; empty for a web page.
pub fn protocols_of_address(name: &str, backend: &str) -> &'static [&'static str] {
    let port = backend.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    raw_protocols(name, port).unwrap_or_default()
}

/// As [`protocols_of_address`], for a route whose kind may be given.
pub fn protocols_of_kind(kind: Option<ServiceKind>, name: &str, backend: &str) -> &'static [&'static str] {
    match kind {
        Some(ServiceKind::Http) => &[],
        Some(ServiceKind::Ssh) => &["ssh"],
        Some(ServiceKind::Smb) => &["smb"],
        Some(ServiceKind::Other) | None => protocols_of_address(name, backend),
    }
}

/// As [`raw_protocols`], for a route, whose kind may have been given.
pub(super) fn raw_protocols_of(route: &Route) -> Option<&'static [&'static str]> {
    match route.kind {
        ServiceKind::Http => None,
        ServiceKind::Ssh => Some(&["ssh"]),
        ServiceKind::Smb => Some(&["smb"]),
        ServiceKind::Other => raw_protocols(route.name.as_str(), route.backends.iter().filter_map(port)),
    }
}

/// The kind of a route whose configuration does not name one: its application protocols say it, else its port and name.
pub(super) fn default_kind(name: &str, backends: &[Backend], mode: &RouteMode) -> ServiceKind {
    let protocols = match mode {
        RouteMode::Terminate(terminate) => ServiceKind::of_protocols(&terminate.application_protocols),
        RouteMode::Passthrough => None,
    };
    protocols.unwrap_or_else(|| kind(raw_protocols(name, backends.iter().filter_map(port))))
}

/// The kind of a route with this name, from the address of its backend.
pub fn kind_of_address(name: &str, backend: &str) -> ServiceKind {
    kind(Some(protocols_of_address(name, backend)))
}

fn kind(protocols: Option<&'static [&'static str]>) -> ServiceKind {
    ServiceKind::of_protocols(protocols.unwrap_or_default()).unwrap_or(ServiceKind::Http)
}

const fn port(backend: &Backend) -> Option<u16> {
    match backend {
        Backend::Address(address) => Some(address.port()),
        Backend::Host(_, port) => Some(*port),
        Backend::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn port_decides_before_the_name_of_the_route() {
        for (name, port, expected) in [
            ("nas", 5666, None),
            ("nas", 22, Some("ssh")),
            ("files", 445, Some("smb")),
            ("ssh", 41_234, Some("ssh")),
            ("nas-ssh2", 2222, Some("ssh")),
            ("Redis.cache", 41_234, Some("redis")),
            ("mail", 993, Some("imap")),
            ("mail", 8080, None),
            ("ssh-web", 8080, None),
            ("pop3", 41_234, Some("pop3")),
            ("db", 41_234, Some("postgresql")),
            ("sshfront", 41_234, None),
            ("photos", 2342, None),
        ] {
            let found = raw_protocols(name, [port]);
            assert_eq!(found.and_then(|protocols| protocols.first().copied()), expected, "{name} {port}");
        }
        assert_eq!(raw_protocols("x", [8080, 6379]), Some(&["redis"][..]), "any of several backends");
        assert_eq!(raw_protocols("ssh", []), Some(&["ssh"][..]), "a unix socket has no port");
    }

    #[test]
    fn table_is_unambiguous_and_lets_no_browser_in() {
        let (mut ports, mut words) = (HashSet::new(), HashSet::new());
        for service in SERVICES {
            assert!(service.ports.iter().all(|port| ports.insert(port) && !WEB.contains(port)), "{service:?}");
            assert!(service.words.iter().all(|word| words.insert(word)), "{service:?}");
            let browser = |protocol: &&str| ["h2", "h3", "http/1.1", "http/1.0", "http/0.9"].contains(protocol);
            assert!(!service.protocols.is_empty() && !service.protocols.iter().any(browser), "{service:?}");
        }
    }
}
