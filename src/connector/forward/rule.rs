//! Which route is forwarded from which local address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use crate::model::service::ServiceKind;

/// What is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Local {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err(format!("{text:?}: give the whole path, as in unix:/run/user/1000/nas.sock"))
            };
        }
        if let Ok(port) = text.parse() {
            return Ok(Self::Tcp(loopback(port)));
        }
        let text = text.strip_prefix("localhost").map_or_else(|| text.to_owned(), |rest| format!("127.0.0.1{rest}"));
        text.parse().map(Self::Tcp).map_err(|_| {
            format!("{text:?} is no local address: give a port, ADDRESS:PORT as in 127.0.0.1:2222, or unix:/PATH")
        })
    }
}

pub(super) const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// A route and where it is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The route's name, `route.home`, or a server name.
    pub route: String,
    /// Where; if nothing is given, on the usual port of its kind.
    pub local: Option<Local>,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (route, local) = match text.split_once('=') {
            Some((route, local)) => (route, Some(local.parse()?)),
            None => (text, None),
        };
        if route.is_empty() {
            return Err(format!("{text:?} names no route: ROUTE or ROUTE=ADDRESS:PORT"));
        }
        Ok(Self { route: route.to_owned(), local })
    }
}

/// The file `forward.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    forward: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    route: String,
    listen: Option<Listen>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Listen {
    Port(u16),
    Text(String),
}

/// Reads `forward.toml`.
pub fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    let rule = |entry: Entry| {
        let local = match entry.listen {
            None => None,
            Some(Listen::Port(port)) => Some(Local::Tcp(loopback(port))),
            Some(Listen::Text(text)) => Some(text.parse().map_err(|error| format!("route {}: {error}", entry.route))?),
        };
        Ok(Rule { route: entry.route, local })
    };
    file.forward.into_iter().map(rule).collect()
}

/// The port of SMB, which file managers take for granted.
pub(super) const SMB: u16 = 445;

/// The ports that are tried for a route, the preferred one first. `0` is a free one that the system chooses.
pub(super) fn usual_ports(name: &str, kind: ServiceKind) -> Vec<u16> {
    match kind {
        ServiceKind::Http => vec![8080, 8081, 8082, 8083],
        ServiceKind::Ssh => vec![2222, 2223, 2224, 2225],
        // 445 is a privileged port on most systems, and taken by Windows on its own.
        ServiceKind::Smb => vec![SMB, 4450, 4451, 4452],
        ServiceKind::Other => {
            let name = name.split('.').next().unwrap_or(name);
            let known = |names: &[&str]| names.contains(&name);
            match () {
                () if known(&["postgres", "postgresql", "db"]) => vec![5432, 5433, 5434],
                () if known(&["mysql", "mariadb"]) => vec![3306, 3307],
                () if known(&["rdp"]) => vec![3389, 3390],
                () if known(&["vnc"]) => vec![5900, 5901],
                () if known(&["mqtt"]) => vec![1883, 1884],
                () if known(&["redis"]) => vec![6379, 6380],
                () => vec![0],
            }
        }
    }
}

/// Refuses addresses that other machines can reach: who connects there needs no certificate.
pub(super) fn check(local: &Local, beyond_loopback: bool) -> Result<(), String> {
    match local {
        Local::Tcp(address) if !beyond_loopback && !address.ip().to_canonical().is_loopback() => Err(format!(
            "{address} can be reached from other machines, which would use this device's certificate\n  give 127.0.0.1:{}, or \
             add --listen-beyond-loopback if that is meant",
            address.port()
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap()
    }

    #[test]
    fn rules_are_a_route_and_an_address() {
        let tcp = |text: &str| Some(Local::Tcp(text.parse().unwrap()));
        assert_eq!(rule("ssh"), Rule { route: "ssh".to_owned(), local: None });
        assert_eq!(rule("ssh=2222").local, tcp("127.0.0.1:2222"));
        assert_eq!(rule("ssh=localhost:2222").local, tcp("127.0.0.1:2222"));
        assert_eq!(rule("ssh.home.example=[::1]:0").local, tcp("[::1]:0"));
        assert_eq!(rule("db=unix:/run/db.sock").local, Some(Local::Unix("/run/db.sock".into())));
        for wrong in ["=2222", "", "ssh=", "ssh=70000", "ssh=nas:22", "db=unix:db.sock"] {
            assert!(wrong.parse::<Rule>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn file_is_read_and_unknown_keys_are_refused() {
        let text = "[[forward]]\nroute = \"ssh\"\nlisten = 2222\n\n[[forward]]\nroute = \"db\"\nlisten = \"unix:/a\"\n\n\
                    [[forward]]\nroute = \"smb\"\n";
        assert_eq!(parse(text).unwrap(), [rule("ssh=2222"), rule("db=unix:/a"), rule("smb")]);
        assert_eq!(parse("").unwrap(), []);
        let error = parse("[[forward]]\nroute = \"ssh\"\nport = 2222\n").unwrap_err();
        assert!(error.contains("unknown field `port`") && error.contains("line 3"), "{error}");
        let error = parse("[[forward]]\nroute = \"ssh\"\nlisten = \"2222:ssh\"\n").unwrap_err();
        assert!(error.contains("route ssh: \"2222:ssh\" is no local address"), "{error}");
    }

    #[test]
    fn other_machines_are_kept_out_unless_told() {
        for open in ["0.0.0.0:22", "[::]:22", "192.168.1.2:22", "[::ffff:192.168.1.2]:22"] {
            let local: Local = open.parse().unwrap();
            assert!(check(&local, false).is_err(), "{open}");
            assert_eq!(check(&local, true), Ok(()));
        }
        for own in ["22", "127.1.2.3:22", "[::1]:22", "[::ffff:127.0.0.1]:22", "unix:/run/nas"] {
            assert_eq!(check(&own.parse().unwrap(), false), Ok(()), "{own}");
        }
    }
}
