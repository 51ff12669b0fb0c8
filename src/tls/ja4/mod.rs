//! JA4: a fingerprint of the program that sent a ClientHello (FoxIO, technical_details/JA4.md). For the log only: a client
//! can choose its fingerprint, so nothing may be decided by it.
//!
//! `t13d1516h2_8daaf6152771_e5627efa2ab1` means: TLS over TCP, version 1.3, with a server name, 15 cipher suites, 16
//! extensions, first application protocol `h2`; a hash of the suites; a hash of the extensions and signature algorithms.
//! GREASE values (RFC 8701) are ignored.

use std::borrow::Cow;
use std::fmt;

use crate::model::identity::{self, Sha256};

/// A ClientHello with a longer list gets no fingerprint. No client has one.
const LIST_MAX: usize = 256;

/// Extensions (RFC 8446 section 4.2).
const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const APPLICATION_PROTOCOLS: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// The fingerprint of a ClientHello. Small, because it lives as long as its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ja4 {
    version: [u8; 2],
    names_server: bool,
    suites: u8,
    extensions: u8,
    protocol: [u8; 2],
    suites_digest: [u8; 6],
    extensions_digest: [u8; 6],
}

impl Ja4 {
    /// The fingerprint of the ClientHello in these records, or `None` if they hold no valid one.
    pub fn of(records: &[u8]) -> Option<Self> {
        let message = message(records)?;
        let (&[1, _, _, _], body) = message.split_first_chunk()? else { return None };
        let mut body = Reader(body);
        let legacy_version = body.number()?;
        // The random and the session id.
        body.take(32)?;
        body.vector8()?;
        let suites = List::parse(body.vector16()?)?;
        // Compression methods.
        body.vector8()?;
        // Extensions are optional before TLS 1.3.
        let extensions = if body.0.is_empty() { &[][..] } else { body.vector16()? };
        let extensions = Extensions::read(extensions)?;
        Some(Self {
            version: version(extensions.highest_version.unwrap_or(legacy_version)),
            names_server: extensions.names_server,
            suites: suites.count(),
            extensions: extensions.count,
            protocol: extensions.protocol,
            suites_digest: suites.sorted().digest_with(&List::default()),
            extensions_digest: extensions.hashed.sorted().digest_with(&extensions.signature_algorithms),
        })
    }
}

impl fmt::Display for Ja4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor] = self.version.map(char::from);
        let server_name = if self.names_server { 'd' } else { 'i' };
        let [first, last] = self.protocol.map(char::from);
        write!(f, "t{major}{minor}{server_name}{:02}{:02}{first}{last}_", self.suites, self.extensions)?;
        identity::digest::write_hex(f, &self.suites_digest)?;
        f.write_str("_")?;
        identity::digest::write_hex(f, &self.extensions_digest)
    }
}

/// The parts of the extensions that go into a fingerprint.
struct Extensions {
    highest_version: Option<u16>,
    names_server: bool,
    count: u8,
    protocol: [u8; 2],
    /// All but server name and ALPN, which depend on the server.
    hashed: List,
    signature_algorithms: List,
}

impl Extensions {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut read = Self {
            highest_version: None,
            names_server: false,
            count: 0,
            protocol: *b"00",
            hashed: List::default(),
            signature_algorithms: List::default(),
        };
        let mut rest = Reader(bytes);
        while !rest.0.is_empty() {
            let (kind, body) = (rest.number()?, rest.vector16()?);
            if is_grease(kind) {
                continue;
            }
            read.count = (read.count + 1).min(99);
            match kind {
                SERVER_NAME => read.names_server = true,
                APPLICATION_PROTOCOLS => {
                    let first = Reader(Reader(body).vector16()?).vector8().unwrap_or_default();
                    read.protocol = first_and_last(first);
                }
                kind => read.hashed.push(kind)?,
            }
            match kind {
                SIGNATURE_ALGORITHMS => read.signature_algorithms = List::parse(Reader(body).vector16()?)?,
                SUPPORTED_VERSIONS => {
                    let versions = List::parse(Reader(body).vector8()?)?;
                    read.highest_version = versions.as_slice().iter().copied().max();
                }
                _ => {}
            }
        }
        Some(read)
    }
}

/// The version as two characters.
fn version(version: u16) -> [u8; 2] {
    *match version {
        0x0304 => b"13",
        0x0303 => b"12",
        0x0302 => b"11",
        0x0301 => b"10",
        0x0300 => b"s3",
        0x0002 => b"s2",
        _ => b"00",
    }
}

/// The first and the last character of a protocol's name, or of its hexadecimal form if one of them is not alphanumeric.
fn first_and_last(protocol: &[u8]) -> [u8; 2] {
    match protocol {
        [] => *b"00",
        [first, .., last] | [first @ last] if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() => {
            [*first, *last]
        }
        [first, .., last] | [first @ last] => [digit(first >> 4), digit(last & 0xf)],
    }
}

/// The hexadecimal digit of a number below 16.
fn digit(value: u8) -> u8 {
    b"0123456789abcdef".get(usize::from(value)).copied().unwrap_or(b'0')
}

/// Whether a value is reserved for GREASE (RFC 8701 section 2).
fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0xf == 0xa
}

/// The handshake message in these records, borrowed if it is in one record, which is the usual case.
fn message(records: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut message: Cow<'_, [u8]> = Cow::default();
    let mut rest = Reader(records);
    while !rest.0.is_empty() {
        let &[22, _, _] = rest.take(3)? else { return None };
        let payload = rest.vector16()?;
        if message.is_empty() {
            message = Cow::Borrowed(payload);
        } else {
            message.to_mut().extend_from_slice(payload);
        }
    }
    Some(message)
}

/// A list of values without GREASE. On the stack, so that a rejected connection costs no allocation.
struct List {
    values: [u16; LIST_MAX],
    length: usize,
}

impl Default for List {
    fn default() -> Self {
        Self { values: [0; LIST_MAX], length: 0 }
    }
}

impl List {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut list = Self::default();
        let mut rest = Reader(bytes);
        while !rest.0.is_empty() {
            let value = rest.number()?;
            if !is_grease(value) {
                list.push(value)?;
            }
        }
        Some(list)
    }

    fn push(&mut self, value: u16) -> Option<()> {
        *self.values.get_mut(self.length)? = value;
        self.length += 1;
        Some(())
    }

    fn as_slice(&self) -> &[u16] {
        self.values.get(..self.length).unwrap_or_default()
    }

    fn count(&self) -> u8 {
        u8::try_from(self.length).unwrap_or(99).min(99)
    }

    fn sorted(mut self) -> Self {
        if let Some(values) = self.values.get_mut(..self.length) {
            values.sort_unstable();
        }
        self
    }

    /// The first bytes of the SHA-256 of a text such as `0005,000a_0403,0804`, with `more` after the `_`, if it is not
    /// empty. Zeros if this list is empty.
    fn digest_with(&self, more: &Self) -> [u8; 6] {
        if self.length == 0 {
            return [0; 6];
        }
        let mut text = [0; 2 * 5 * LIST_MAX];
        let mut length = 0;
        for list in [self, more] {
            let mut separator = b'_';
            for value in list.as_slice() {
                write_hex(&mut text, &mut length, separator, *value);
                separator = b',';
            }
        }
        // Without the first separator.
        let digest = Sha256::of(text.get(1..length).unwrap_or_default());
        digest.0.first_chunk().copied().unwrap_or_default()
    }
}

fn write_hex(text: &mut [u8], length: &mut usize, separator: u8, value: u16) {
    let [high, low] = value.to_be_bytes();
    let written = [separator, digit(high >> 4), digit(high & 0xf), digit(low >> 4), digit(low & 0xf)];
    if let Some(place) = text.get_mut(*length..*length + written.len()) {
        place.copy_from_slice(&written);
        *length += written.len();
    }
}

/// Reads values from the front of a slice (RFC 8446 section 3).
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = *self.take(1)?.first()?;
        self.take(usize::from(length))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests;
