//! Which key is meant: a `pkcs11:` URI (RFC 7512).

use std::fmt;
use std::path::PathBuf;

use crate::model::names::printable;

/// How every such URI begins.
pub const SCHEME: &str = "pkcs11:";

/// The longest URI, in bytes. One that names everything has about 300.
const BYTES_MAX: usize = 512;

/// The longest part of a URI that is repeated in a message, in characters.
const SHOWN_MAX: usize = 64;

/// A key in a token. What is not said fits every token and every key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenUri {
    text: String,
    /// The label of the token, as in `SoftHSM2` or `YubiKey PIV #123`.
    pub token: Option<String>,
    /// Who made it.
    pub manufacturer: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// The slot that it is in.
    pub slot: Option<u64>,
    /// The label of the key.
    pub object: Option<String>,
    /// The identifier of the key.
    pub id: Option<Vec<u8>>,
    /// The library that speaks to the token.
    pub module: Option<PathBuf>,
    /// The file whose first line is the PIN.
    pub pin_file: Option<PathBuf>,
}

/// Why a text does not name a key in a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidUri(String);

impl TokenUri {
    /// Reads a URI.
    ///
    /// # Errors
    /// What is wrong with it, with what to write instead.
    pub fn parse(text: &str) -> Result<Self, InvalidUri> {
        let wrong = |what: String| InvalidUri(format!("not the URI of a key in a token: {what}"));
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| wrong(format!("it does not begin with {SCHEME:?}")))?;
        if text.len() > BYTES_MAX {
            return Err(wrong(format!("it is longer than {BYTES_MAX} bytes")));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(
                "a space, or a character that is not ASCII, is written with \"%\", as in %20".to_owned(),
            ));
        }
        let mut uri = Self {
            text: text.to_owned(),
            token: None,
            manufacturer: None,
            serial: None,
            model: None,
            slot: None,
            object: None,
            id: None,
            module: None,
            pin_file: None,
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut seen: Vec<&str> = Vec::new();
        let parts = path.split(';').map(|part| (false, part)).chain(query.split('&').map(|part| (true, part)));
        for (in_query, part) in parts.filter(|(_, part)| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| wrong(format!("{} has no value", shown(part))))?;
            if seen.contains(&name) {
                return Err(wrong(format!("{} is there twice", shown(name))));
            }
            seen.push(name);
            let bytes =
                decoded(value).ok_or_else(|| wrong(format!("{}: \"%\" is not followed by two digits", shown(name))))?;
            let text = || String::from_utf8(bytes.clone()).map_err(|_| wrong(format!("{} is not UTF-8", shown(name))));
            match (in_query, name) {
                (false, "token") => uri.token = Some(text()?),
                (false, "manufacturer") => uri.manufacturer = Some(text()?),
                (false, "serial") => uri.serial = Some(text()?),
                (false, "model") => uri.model = Some(text()?),
                (false, "object") => uri.object = Some(text()?),
                (false, "id") => uri.id = Some(bytes),
                (false, "slot-id") => {
                    let slot = text()?.parse().map_err(|_| wrong("slot-id is not a number".to_owned()))?;
                    uri.slot = Some(slot);
                }
                (false, "type") if bytes == b"private" => {}
                (false, "type") => return Err(wrong("it is not of a private key: leave \"type\" out".to_owned())),
                (true, "module-path") => uri.module = Some(absolute(name, text()?).map_err(wrong)?),
                (true, "pin-source") => uri.pin_file = Some(pin_source(text()?).map_err(wrong)?),
                // It would be in the list of processes, and in the history of the shell.
                (true, "pin-value") => {
                    return Err(wrong(
                        "a PIN in it is not taken (RFC 7512 section 7)\n  leave pin-value out to be asked for it, or name a file \
                         that only you can read: pin-source=file:/PATH"
                            .to_owned(),
                    ));
                }
                (true, "module-name") => {
                    return Err(wrong("module-name is not supported: write module-path=/PATH".to_owned()));
                }
                _ => return Err(wrong(format!("{} is not supported", shown(name)))),
            }
        }
        Ok(uri)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What messages call the token.
    pub fn describe(&self) -> String {
        let known = [&self.token, &self.serial, &self.model, &self.manufacturer];
        match known.into_iter().flatten().next() {
            Some(name) => format!("the token {}", shown(name)),
            None => "the token".to_owned(),
        }
    }
}

impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A text of a URI or a token as it is shown.
pub(super) fn shown(text: &str) -> String {
    format!("\"{}\"", printable(text, SHOWN_MAX))
}

/// Takes `%41` for `A`.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

/// A relative path would mean another file wherever the program is started.
fn absolute(name: &str, text: String) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(format!("{name} must be an absolute path")) }
}

fn pin_source(text: String) -> Result<PathBuf, String> {
    if text.starts_with('|') {
        return Err("pin-source is a file here, not a command: pin-source=file:/PATH".to_owned());
    }
    let path = text.strip_prefix("file:").unwrap_or(&text);
    // A file: URI may name an empty host (RFC 8089).
    let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
    absolute("pin-source", path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        TokenUri::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn parts_are_read_and_decoded() {
        let text = "pkcs11:token=The%20Software%20PKCS%2311;object=my-key;id=%69%95%3E\
                    ;manufacturer=Snake%20Oil;serial=DE%3bAD;model=1.0;slot-id=327;type=private\
                    ?module-path=/usr/lib/lib%3Ahsm.so&pin-source=file:/etc/token_pin";
        let uri = TokenUri::parse(text).expect("a URI");
        assert_eq!(uri.token.as_deref(), Some("The Software PKCS#11"));
        assert_eq!(uri.object.as_deref(), Some("my-key"));
        assert_eq!(uri.id.as_deref(), Some(&[0x69, 0x95, 0x3e][..]));
        assert_eq!(uri.manufacturer.as_deref(), Some("Snake Oil"));
        assert_eq!((uri.serial.as_deref(), uri.model.as_deref(), uri.slot), (Some("DE;AD"), Some("1.0"), Some(327)));
        assert_eq!(uri.module, Some(PathBuf::from("/usr/lib/lib:hsm.so")));
        assert_eq!(uri.pin_file, Some(PathBuf::from("/etc/token_pin")));
        assert_eq!((uri.as_str(), uri.describe().as_str()), (text, "the token \"The Software PKCS#11\""));
        for source in ["file:///etc/token_pin", "file:/etc/token_pin", "/etc/token_pin"] {
            let uri = TokenUri::parse(&format!("pkcs11:?pin-source={source}")).expect(source);
            assert_eq!(uri.pin_file, Some(PathBuf::from("/etc/token_pin")), "{source}");
        }
        let any = TokenUri::parse("pkcs11:").expect("every key of every token");
        assert_eq!((any.token.as_deref(), any.describe().as_str()), (None, "the token"));
        // A label is whatever its owner chose.
        let evil = TokenUri::parse("pkcs11:token=%1b[31m%0a").expect("a URI");
        assert!(!evil.describe().contains(['\u{1b}', '\n']), "{}", evil.describe());
    }

    #[test]
    fn pin_in_it_is_not_taken_and_not_repeated() {
        let error = error("pkcs11:token=a?pin-value=123456");
        assert!(error.contains("pin-source=file:/PATH") && !error.contains("123456"), "{error}");
    }

    #[test]
    fn wrong_ones_are_refused_with_what_is_wrong() {
        for (text, said) in [
            ("", "does not begin with"),
            ("pkcs12:token=a", "does not begin with"),
            ("pkcs11:token", "\"token\" has no value"),
            ("pkcs11:token=a;token=b", "\"token\" is there twice"),
            ("pkcs11:token=%4", "not followed by two digits"),
            ("pkcs11:token=%zz", "not followed by two digits"),
            ("pkcs11:token=%+1", "not followed by two digits"),
            ("pkcs11:token=%ff", "not UTF-8"),
            ("pkcs11:token=a b", "a space"),
            ("pkcs11:token=ä", "a space"),
            ("pkcs11:slot-id=-1", "not a number"),
            ("pkcs11:type=cert", "not of a private key"),
            ("pkcs11:colour=red", "\"colour\" is not supported"),
            ("pkcs11:module-path=/lib.so", "\"module-path\" is not supported"),
            ("pkcs11:?token=a", "\"token\" is not supported"),
            ("pkcs11:?module-name=softhsm2", "module-path=/PATH"),
            ("pkcs11:?module-path=lib.so", "must be an absolute path"),
            ("pkcs11:?module-path=../lib.so", "must be an absolute path"),
            ("pkcs11:?pin-source=file:pin", "must be an absolute path"),
            ("pkcs11:?pin-source=%7C/bin/pin", "not a command"),
        ] {
            assert!(error(text).contains(said), "{text}: {}", error(text));
        }
        assert!(error(&format!("pkcs11:token={}", "a".repeat(BYTES_MAX))).contains("longer than 512 bytes"));
    }
}
