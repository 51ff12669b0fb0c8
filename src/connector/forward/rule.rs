//! Which route is forwarded from which local address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use toml::Spanned;

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

impl Local {
    /// Whether only one of them can be listened on, and this is why.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => {
                let any = one.ip().is_unspecified() || other.ip().is_unspecified();
                one.port() != 0 && one.port() == other.port() && (any || one.ip() == other.ip())
            }
            (one, other) => one == other,
        }
    }
}

/// A route and where it is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The route's name, `route.home`, or a server name.
    pub route: String,
    /// Where; if nothing is given, on the usual port of its kind.
    pub local: Option<Local>,
    /// Where it is written, if not on the command line.
    pub place: Option<Place>,
}

/// Where a rule is written in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line of the route.
    pub route: usize,
    /// The line of the local address.
    pub listen: usize,
}

impl Rule {
    /// A route on its usual port.
    pub const fn of(route: String) -> Self {
        Self { route, local: None, place: None }
    }

    /// What is wrong with the route, after the line where it is written.
    pub(super) fn wrong_route(&self, error: impl fmt::Display) -> String {
        self.wrong(error, |place| place.route)
    }

    /// What is wrong with the local address.
    pub(super) fn wrong_local(&self, error: impl fmt::Display) -> String {
        self.wrong(error, |place| place.listen)
    }

    fn wrong(&self, error: impl fmt::Display, line: fn(&Place) -> usize) -> String {
        match &self.place {
            Some(place) => format!("{}:{}: {error}", place.file.display(), line(place)),
            None => error.to_string(),
        }
    }

    /// How another local address is chosen.
    pub(super) fn advice(&self) -> String {
        match &self.place {
            Some(_) => "choose another one there: listen = \"ADDRESS:PORT\"".to_owned(),
            None => format!("choose another one: doorward forward {}=ADDRESS:PORT", self.route),
        }
    }
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
        Ok(Self { local, ..Self::of(route.to_owned()) })
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
    route: Spanned<String>,
    listen: Option<Spanned<Local>>,
}

/// Of `listen`, so that a mistake is told with its line.
impl<'de> Deserialize<'de> for Local {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Listen;

        impl Visitor<'_> for Listen {
            type Value = Local;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port, ADDRESS:PORT or unix:/PATH")
            }

            fn visit_i64<E: Error>(self, port: i64) -> Result<Local, E> {
                let port =
                    u16::try_from(port).map_err(|_| E::custom(format!("{port} is no port: they end at 65535")))?;
                Ok(Local::Tcp(loopback(port)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Local, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Listen)
    }
}

/// Reads the text of this `forward.toml`.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Rule>, String> {
    let file: File =
        toml::from_str(text).map_err(|error| format!("{}: {}", path.display(), error.to_string().trim_end()))?;
    let line = |offset: usize| text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    let rule = |Entry { route, listen }: Entry| {
        let route_line = line(route.span().start);
        let listen_line = listen.as_ref().map_or(route_line, |listen| line(listen.span().start));
        let place = Place { file: path.to_owned(), route: route_line, listen: listen_line };
        Rule { route: route.into_inner(), local: listen.map(Spanned::into_inner), place: Some(place) }
    };
    Ok(file.forward.into_iter().map(rule).collect())
}

/// The port of SMB, which file managers take for granted.
pub(super) const SMB: u16 = 445;

/// The ports that are tried for a route, the preferred one first. `0` is a free one that the system chooses.
pub(super) fn usual_ports(name: &str, kind: ServiceKind) -> Vec<u16> {
    let mut ports = preferred_ports(name, kind);
    ports.push(0);
    ports
}

fn preferred_ports(name: &str, kind: ServiceKind) -> Vec<u16> {
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
                () => Vec::new(),
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
        assert_eq!(rule("ssh"), Rule::of("ssh".to_owned()));
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
        let path = Path::new("/a/forward.toml");
        let at =
            |rule: Rule, route, listen| Rule { place: Some(Place { file: path.to_owned(), route, listen }), ..rule };
        let expected = [at(rule("ssh=2222"), 2, 3), at(rule("db=unix:/a"), 6, 7), at(rule("smb"), 10, 10)];
        assert_eq!(parse(text, path).unwrap(), expected);
        assert_eq!(parse("", path).unwrap(), []);
        let error = parse("[[forward]]\nroute = \"ssh\"\nport = 2222\n", path).unwrap_err();
        assert!(error.starts_with("/a/forward.toml: ") && error.contains("unknown field `port`"), "{error}");
        let error = parse("[[forward]]\nroute = \"ssh\"\nlisten = \"2222:ssh\"\n", path).unwrap_err();
        assert!(error.contains("line 3") && error.contains("\"2222:ssh\" is no local address"), "{error}");
    }

    #[test]
    fn addresses_overlap_where_one_can_be_listened_on() {
        let overlap = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| text.parse::<Local>().unwrap());
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        assert!(overlap("22", "localhost:22") && overlap("0.0.0.0:22", "22") && overlap("unix:/a", "unix:/a"));
        assert!(
            !overlap("22", "23") && !overlap("22", "127.0.0.2:22") && !overlap("0", "0") && !overlap("22", "unix:/a")
        );
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
