//! Names: of things in the configuration, and of hosts as clients ask for them.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::DnsName;

/// The name of a listener, route, group or device, as the configuration gives it.
///
/// Names become label values, file names and words on a command line, so only ASCII letters, digits,
/// `.`, `_` and `-` are taken, at most [`Name::MAX`] of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The longest name, in bytes.
    pub const MAX: usize = 64;

    /// Takes `text` as a name, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if text.len() > Self::MAX {
            return Err(InvalidName::TooLong);
        }
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
            Some(c) => Err(InvalidName::Character(c)),
            None if text.starts_with(['.', '-']) => Err(InvalidName::FirstCharacter),
            None => Ok(Self(text.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing was given.
    #[error("a name may not be empty")]
    Empty,
    /// More than [`Name::MAX`] bytes.
    #[error("a name may have at most {} characters", Name::MAX)]
    TooLong,
    /// A character other than ASCII letters, digits, `.`, `_`, `-`.
    #[error("a name may not contain {0:?}: use letters, digits, \".\", \"_\" and \"-\"")]
    Character(char),
    /// Starts with `.` or `-`, which would read as a hidden file or an option.
    #[error("a name may not start with \".\" or \"-\"")]
    FirstCharacter,
}

/// A host name as the `server_name` extension carries it (RFC 6066 section 3), in the one form that is
/// compared: ASCII, lower case, no trailing dot, never an IP address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName(Arc<str>);

impl ServerName {
    /// Takes a name from a configuration file or a command line: case and one trailing dot do not
    /// matter, and an internationalised name becomes its `xn--` form (UTS 46).
    pub fn parse(text: &str) -> Result<Self, InvalidServerName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.parse::<std::net::IpAddr>().is_ok() {
            return Err(InvalidServerName::IpAddress);
        }
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii(text).map_err(|_| InvalidServerName::Syntax)?
        };
        if ascii.ends_with('.') || DnsName::try_from(ascii.as_str()).is_err() {
            return Err(InvalidServerName::Syntax);
        }
        Ok(Self(ascii.into()))
    }

    /// Takes a name that rustls read from a ClientHello, which is in the compared form already.
    pub fn from_client_hello(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its first label: `nas.home.example` gives `home.example`.
    pub fn parent(&self) -> Option<&str> {
        self.0.split_once('.').map(|(_, parent)| parent)
    }
}

/// Lets tables that are keyed by names be asked for a part of one.
impl Borrow<str> for ServerName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a [`ServerName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidServerName {
    /// An IP address: RFC 6066 section 3 forbids them in `server_name`, so no client could ask for it.
    #[error("an IP address cannot be a server name (RFC 6066 section 3)")]
    IpAddress,
    /// Not a DNS host name.
    #[error("not a host name")]
    Syntax,
}

/// Whether a name in a certificate is a wildcard directly below a top-level name, as in `*.lan`: OpenSSL and browsers do not
/// take them, as one could stand for a whole registry.
pub fn is_wildcard_too_wide(name: &str) -> bool {
    name.strip_prefix("*.").is_some_and(|rest| !rest.trim_end_matches('.').contains('.'))
}

/// What a route answers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerNamePattern {
    /// This name only.
    Exact(ServerName),
    /// `*.x`: any one label below `x`, as in a certificate (RFC 6125 section 6.4.3), never `x` itself.
    Wildcard(ServerName),
    /// `*`: whatever no other route answers to, a missing server name included.
    Default,
}

impl ServerNamePattern {
    /// Takes `name`, `*.name` or `*`.
    pub fn parse(text: &str) -> Result<Self, InvalidServerName> {
        if text == "*" {
            return Ok(Self::Default);
        }
        match text.strip_prefix("*.") {
            Some(rest) => ServerName::parse(rest).map(Self::Wildcard),
            None => ServerName::parse(text).map(Self::Exact),
        }
    }
}

impl fmt::Display for ServerNamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Wildcard(name) => write!(f, "*.{name}"),
            Self::Default => f.write_str("*"),
        }
    }
}

/// Text that a stranger chose, made safe to print between quotes: control characters, quotes, backslashes, bidirectional
/// marks and everything else that is not plainly visible are escaped, and at most `max` characters are kept.
pub fn printable(text: &str, max: usize) -> String {
    // An ellipsis says that something was left out.
    escape(text, max, |c| !matches!(c, '"' | '\\' | '…'))
}

/// Text of ours or of a library's, in which a stranger's may be quoted, made safe to print at the end of a line: as
/// [`printable`], but what is escaped already stays as it is.
pub fn visible(text: &str, max: usize) -> String {
    escape(text, max, |_| true)
}

/// Letters by their Unicode category that leave no mark: fillers of Hangul, inherent vowels of Khmer.
const INVISIBLE: [char; 6] = ['\u{115f}', '\u{1160}', '\u{17b4}', '\u{17b5}', '\u{3164}', '\u{ffa0}'];

fn escape(text: &str, max: usize, keep: impl Fn(char) -> bool) -> String {
    // As nearly always.
    if text.len() <= max && text.bytes().all(|byte| matches!(byte, b' '..=b'~') && keep(char::from(byte))) {
        return text.to_owned();
    }
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == max {
            out.push('…');
            break;
        }
        match c {
            ' '..='~' | '…' if keep(c) => out.push(c),
            _ if c.is_alphanumeric() && !INVISIBLE.contains(&c) => out.push(c),
            _ => out.extend(c.escape_default()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_names_are_normalised_as_rustls_does() {
        for (given, kept) in [
            ("NAS.Home.Example", "nas.home.example"),
            ("nas.home.example.", "nas.home.example"),
            ("Müller.example", "xn--mller-kva.example"),
            ("under_score.example", "under_score.example"),
        ] {
            assert_eq!(ServerName::parse(given).map(|n| n.to_string()), Ok(kept.to_owned()));
        }
        for wrong in ["", ".", "a..b", "a b", "a/b", "a\nb", "*.x", "-a.example", "a.example.."] {
            assert_eq!(ServerName::parse(wrong), Err(InvalidServerName::Syntax), "{wrong:?}");
        }
        for ip in ["192.168.1.1", "::1"] {
            assert_eq!(ServerName::parse(ip), Err(InvalidServerName::IpAddress), "{ip:?}");
        }
    }

    #[test]
    fn server_name_patterns_are_exact_wildcard_or_default() {
        assert_eq!(ServerNamePattern::parse("*"), Ok(ServerNamePattern::Default));
        assert_eq!(ServerNamePattern::parse("*.X.example").map(|p| p.to_string()), Ok("*.x.example".into()));
        assert!(ServerNamePattern::parse("a.*.example").is_err());
        assert!(ServerNamePattern::parse("*x.example").is_err());
    }

    #[test]
    fn printable_escapes_what_could_mislead_a_reader() {
        assert_eq!(printable("a\nb\u{1b}[31m\"\\", 99), r#"a\nb\u{1b}[31m\"\\"#);
        assert_eq!(visible("a\n\"b\\n\"", 99), r#"a\n"b\n""#);
        assert_eq!(printable("\u{202e}evil", 99), "\\u{202e}evil");
        assert_eq!(printable("ähm", 99), "ähm");
        // Unicode has letters that cannot be seen.
        for filler in INVISIBLE {
            assert_eq!(printable(&format!("alice{filler}"), 99), format!("alice\\u{{{:x}}}", u32::from(filler)));
        }
        assert_eq!(printable("abcdef", 3), "abc…");
    }

    #[test]
    fn names_are_safe_as_labels_files_and_arguments() {
        assert!(Name::parse("alice-phone").is_ok());
        assert_eq!(Name::parse(""), Err(InvalidName::Empty));
        assert_eq!(Name::parse("a b"), Err(InvalidName::Character(' ')));
        assert_eq!(Name::parse("../x"), Err(InvalidName::Character('/')));
        assert_eq!(Name::parse("-x"), Err(InvalidName::FirstCharacter));
        assert_eq!(Name::parse(&"x".repeat(65)), Err(InvalidName::TooLong));
    }
}
