//! Single values: text in, checked value or a [`Problem`] out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::checked::{Backend, LogOutput, Rate};
use super::reader::Scalar;
use super::report::{Problem, quoted};
use super::suggest;
use crate::model::names::ServerName;
use crate::model::shell;

/// No phase takes longer; timers further ahead than the clock can count would be a panic.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// More connections than any machine holds (a port has 65 535 for each source address), and safely within what a
/// semaphore counts.
const MOST: usize = 1_000_000;

/// The longest path of a unix socket on Linux (unix(7): `sun_path` has 108 bytes, one of them the closing zero).
const LONGEST_SOCKET_PATH: usize = 107;

/// One of some words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Problem> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let meant = suggest::nearest(&text.to_ascii_lowercase().replace('-', "_"), &known);
    let hint = meant.map(|word| format!("did you mean \"{word}\"? ")).unwrap_or_default();
    Err(Problem::new(
        format!("{} is not a word that is known here", quoted(text)),
        format!("{hint}write one of {}", listed(&known, "or")),
    ))
}

/// `"a", "b" or "c"`.
pub(super) fn listed(words: &[&str], last: &str) -> String {
    match words {
        [] => String::new(),
        [only] => format!("\"{only}\""),
        [first @ .., end] => {
            let first: Vec<String> = first.iter().map(|word| format!("\"{word}\"")).collect();
            format!("{} {last} \"{end}\"", first.join(", "))
        }
    }
}

/// `500ms`, `10s`, `5m`, `2h`, `1d`: more than nothing, at most a year.
pub(super) fn duration(scalar: &Scalar) -> Result<Duration, Problem> {
    let text = match scalar {
        Scalar::Number(number) => {
            return Err(Problem::new(
                format!("{number} of what? A time needs a unit, in quotes"),
                format!("write \"{number}s\" for seconds, or use ms, m (minutes), h or d"),
            ));
        }
        Scalar::Text(text) => text.trim(),
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = |message: String| {
        Problem::new(
            message,
            "write a whole number and one unit, as in \"500ms\", \"10s\", \"5m\" (minutes), \"2h\" or \"1d\"",
        )
    };
    if text == "off" {
        return Err(Problem::new("this time cannot be off", "write a long one, as in \"7d\" or \"365d\""));
    }
    if number.is_empty() {
        return Err(wrong(format!("{} is not a time", quoted(text))));
    }
    let milliseconds: u64 = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60 * 1_000,
        "h" => 60 * 60 * 1_000,
        "d" => 24 * 60 * 60 * 1_000,
        "" => return Err(wrong(format!("{} has no unit: {number} of what?", quoted(text)))),
        _ => return Err(wrong(format!("{} is not a time with one unit", quoted(text)))),
    };
    // Digits that do not fit into the type are too many in any unit.
    let time = number.parse::<u64>().ok().and_then(|n| n.checked_mul(milliseconds)).map(Duration::from_millis);
    match time {
        Some(Duration::ZERO) => Err(Problem::new(
            format!("{} would end everything before it has begun", quoted(text)),
            "write a time longer than nothing, as in \"10s\"",
        )),
        Some(time) if time <= LONGEST => Ok(time),
        _ => Err(Problem::new(format!("{} is longer than a year", quoted(text)), "write at most \"365d\"")),
    }
}

/// A [`duration`], or `off` for none.
pub(super) fn duration_or_off(scalar: &Scalar) -> Result<Option<Duration>, Problem> {
    match scalar {
        Scalar::Text(text) if text == "off" => Ok(None),
        scalar => duration(scalar).map(Some).map_err(|problem| Problem {
            remedy: format!("{}; write \"off\" for no limit", problem.remedy),
            ..problem
        }),
    }
}

/// A whole number from 1 to a million, without quotes.
pub(super) fn count(scalar: &Scalar) -> Result<usize, Problem> {
    let number = match scalar {
        Scalar::Number(number) => number.replace('_', ""),
        Scalar::Text(text) if text.parse::<usize>().is_ok() => {
            return Err(Problem::new("the number is in quotes", format!("write it without them: {text}")));
        }
        Scalar::Text(text) if text == "off" => {
            return Err(Problem::new("this limit cannot be off", "write a number, as in 512 or 100000"));
        }
        Scalar::Text(text) => {
            return Err(Problem::new(format!("{} is not a number", quoted(text)), "write a number, as in 512"));
        }
    };
    match number.strip_prefix('+').unwrap_or(&number).parse() {
        Ok(0) => Err(Problem::new("0 would let nobody in", "write a number from 1 on")),
        Ok(number) if number <= MOST => Ok(number),
        Err(_) if number.starts_with('-') => {
            Err(Problem::new("a limit cannot be less than nothing", "write a number from 1 on"))
        }
        _ => Err(Problem::new("the number is larger than any machine can hold", format!("write at most {MOST}"))),
    }
}

/// How many bits of an address of `bits` bits are looked at: 1 to all of them.
pub(super) fn prefix(scalar: &Scalar, bits: u8) -> Result<u8, Problem> {
    let remedy = format!("write how many bits of the address are looked at: 1 to {bits}");
    let number = match scalar {
        Scalar::Number(number) => number,
        Scalar::Text(text) => return Err(Problem::new(format!("{} is not a number", quoted(text)), remedy)),
    };
    match number.parse() {
        Ok(0) => Err(Problem::new("0 would make everybody one source", remedy)),
        Ok(number) if number <= bits => Ok(number),
        _ => Err(Problem::new(format!("{number} is not a length that a prefix can have here"), remedy)),
    }
}

/// A [`count`], or `off` for none.
pub(super) fn count_or_off(scalar: &Scalar) -> Result<Option<usize>, Problem> {
    match scalar {
        Scalar::Text(text) if text == "off" => Ok(None),
        scalar => count(scalar)
            .map(Some)
            .map_err(|problem| Problem { remedy: format!("{}, or \"off\" for no limit", problem.remedy), ..problem }),
    }
}

/// Where the log goes: `stdout`, `journald` or the path of a file; a relative path starts at `folder`.
pub(super) fn log_output(text: &str, folder: &Path) -> Result<LogOutput, Problem> {
    const PATH: &str = "\"/var/log/doorward/doorward.log\"";
    if !text.contains('/') {
        let words = [("stdout", false), ("journald", true)];
        return word(text, &words)
            .map(|journald| if journald { LogOutput::Journald } else { LogOutput::Stdout })
            .map_err(|problem| Problem {
                remedy: format!("{}, or the path of a file, as in {PATH}", problem.remedy),
                ..problem
            });
    }
    let path = folder.join(text);
    if path.is_dir() || text.ends_with('/') {
        return Err(Problem::new(
            format!("{} is a folder", path.display()),
            format!("write the path of a file in it, as in {PATH}"),
        ));
    }
    if path.exists() && !path.is_file() {
        return Err(Problem::new(
            format!("{} is no file that lines can be appended to", path.display()),
            format!("write the path of a file, as in {PATH}, or \"stdout\""),
        ));
    }
    match path.parent() {
        Some(parent) if !parent.is_dir() => Err(Problem::new(
            format!("there is no folder {}", parent.display()),
            format!("make it, and let the user that doorward runs as write to it: mkdir -p {}", shell::path(parent)),
        )),
        _ => Ok(LogOutput::File(path)),
    }
}

/// `50/s`, `600/min`, `1000/h`, or `off` for none.
pub(super) fn rate_or_off(scalar: &Scalar) -> Result<Option<Rate>, Problem> {
    let remedy = "write how many in how long, as in \"50/s\", \"600/min\" or \"1000/h\", or \"off\" for no limit";
    let text = match scalar {
        Scalar::Number(number) => {
            return Err(Problem::new(format!("{number} in what time?"), remedy));
        }
        Scalar::Text(text) if text == "off" => return Ok(None),
        Scalar::Text(text) => text,
    };
    let wrong = || Problem::new(format!("{} is not a rate", quoted(text)), remedy);
    let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
    let per = match unit.trim() {
        "s" | "sec" | "second" => Duration::from_secs(1),
        "m" | "min" | "minute" => Duration::from_secs(60),
        "h" | "hour" => Duration::from_secs(60 * 60),
        _ => return Err(wrong()),
    };
    let number = number.trim();
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    match number.parse::<u32>() {
        Ok(0) => Err(Problem::new("0 would let nobody in", remedy)),
        Ok(count) if usize::try_from(count).is_ok_and(|count| count <= MOST) => Ok(Some(Rate { count, per })),
        _ => Err(Problem::new("the number is larger than any machine can take", format!("write at most {MOST}"))),
    }
}

/// An address to listen on: `[::]:8443`, `127.0.0.1:0`.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, Problem> {
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
            "{ip} is a link-local address, which means nothing without the number of its interface, as in \"[{ip}%2]\" \
             (\"ip link\" shows it)"
        )),
        ip if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) => {
            Some(format!("{ip} is an address of many machines at once, and TCP goes to one"))
        }
        _ => None,
    }
}

/// A network in CIDR form or one address, in the form that is compared with source addresses: IPv4 as IPv4 even if it
/// was written as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2), and no bits after the prefix.
pub(super) fn network(text: &str) -> Result<IpNet, Problem> {
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
pub(super) fn backend(text: &str, folder: &Path) -> Result<Backend, Problem> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_backend(text, path, folder);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or_default();
        let port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => ":22",
        };
        let port = if host_and_port(rest).is_some() { "" } else { port };
        return Err(Problem::new(
            format!("{} is a web address, and a backend is only a machine and a port", quoted(text)),
            format!("write {}", quoted(&format!("{rest}{port}"))),
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
            format!("{} has no port, so it is not known which service of that machine is meant", quoted(text)),
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
            return Err(Problem::new(why, "write the address, or the host name, that the service is reached by"));
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
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
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
pub(super) fn reaches(backend: &Backend, listener: SocketAddr) -> bool {
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

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    fn number(text: &str) -> Scalar {
        Scalar::Number(text.to_owned())
    }

    #[test]
    fn durations() {
        for (given, milliseconds) in
            [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("2h", 7_200_000), ("1d", 86_400_000), (" 1 s ", 1000)]
        {
            assert_eq!(duration(&text(given)), Ok(Duration::from_millis(milliseconds)), "{given}");
        }
        assert_eq!(duration(&text("365d")), Ok(LONGEST));
        for wrong in
            ["", "s", "10", "1.5s", "1h30m", "-1s", "10 seconds", "0s", "0ms", "366d", "99999999999999999999d", "٣s"]
        {
            assert!(duration(&text(wrong)).is_err(), "{wrong}");
        }
        let bare = duration(&number("10")).expect_err("a bare number");
        assert!(bare.remedy.contains("\"10s\""), "{bare:?}");
    }

    #[test]
    fn off_is_no_duration_but_a_lifetime() {
        assert_eq!(duration_or_off(&text("off")), Ok(None));
        assert_eq!(duration_or_off(&text("1s")), Ok(Some(Duration::from_secs(1))));
        assert!(duration(&text("off")).is_err());
    }

    #[test]
    fn counts() {
        assert_eq!(count(&number("1")), Ok(1));
        assert_eq!(count(&number("1_000_000")), Ok(MOST));
        for wrong in ["0", "-1", "1000001", "99999999999999999999999999"] {
            assert!(count(&number(wrong)).is_err(), "{wrong}");
        }
        assert!(count(&text("10")).is_err_and(|p| p.message.contains("quotes")));
        assert!(count(&text("off")).is_err());
        assert_eq!(count_or_off(&text("off")), Ok(None));
        assert_eq!(count_or_off(&number("7")), Ok(Some(7)));
    }

    #[test]
    fn prefixes() {
        assert_eq!(
            (prefix(&number("1"), 32), prefix(&number("32"), 32), prefix(&number("128"), 128)),
            (Ok(1), Ok(32), Ok(128))
        );
        for wrong in ["0", "-1", "33", "256", "99999999999999999999"] {
            assert!(prefix(&number(wrong), 32).is_err(), "{wrong}");
        }
        assert!(prefix(&text("/24"), 32).is_err_and(|problem| problem.message.contains("/24")));
    }

    #[test]
    fn rates() {
        let per = |count, seconds| Ok(Some(Rate { count, per: Duration::from_secs(seconds) }));
        assert_eq!(rate_or_off(&text("50/s")), per(50, 1));
        assert_eq!(rate_or_off(&text("600/min")), per(600, 60));
        assert_eq!(rate_or_off(&text("1000 / h")), per(1000, 3600));
        assert_eq!(rate_or_off(&text("off")), Ok(None));
        for wrong in ["", "50", "/s", "50/", "0/s", "-1/s", "+1/s", "1.5/s", "50/day", "99999999999/s", "4294967295/s"]
        {
            assert!(rate_or_off(&text(wrong)).is_err(), "{wrong}");
        }
        assert!(rate_or_off(&number("50")).is_err());
    }

    #[test]
    fn listen_addresses() {
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
    fn networks_are_compared_in_one_form() {
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
    fn backends() {
        let folder = Path::new("/etc/doorward");
        for (given, kept) in [
            ("192.168.1.10:5666", "192.168.1.10:5666"),
            ("[fd00::10]:22", "[fd00::10]:22"),
            ("[fe80::10%2]:22", "[fe80::10%2]:22"),
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
    fn listeners_that_leave_no_room_for_each_other() {
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
    fn backends_that_would_loop() {
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

    #[test]
    fn words() {
        let words = [("off", 0), ("v2-tls", 1)];
        assert_eq!(word("off", &words), Ok(0));
        let problem = word("Off", &words).expect_err("words are lower case");
        assert!(problem.remedy.starts_with("did you mean \"off\"? write one of \"off\" or \"v2-tls\""), "{problem:?}");
    }
}
