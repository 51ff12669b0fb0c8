//! JA4: a fingerprint of the program that sent a ClientHello (FoxIO, technical_details/JA4.md). For the log only: whoever
//! wants another one sends another one, so nothing is decided by it, and tests/architecture.rs keeps it from those who decide.
//!
//! `t13d1516h2_8daaf6152771_e5627efa2ab1`: TLS over TCP, 1.3, with a server name, 15 cipher suites, 16 extensions, the first
//! application protocol; what the suites are; what the extensions and signature algorithms are. GREASE (RFC 8701) is left out
//! everywhere.

use std::borrow::Cow;
use std::fmt;

use crate::model::identity::{self, Sha256};

/// Longer lists than any client has are not looked at: no fingerprint.
const LIST_MAX: usize = 256;

/// Extensions (RFC 8446 section 4.2).
const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const APPLICATION_PROTOCOLS: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// The fingerprint of a ClientHello. Small, as it is kept for as long as its connection.
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
    /// The fingerprint of the ClientHello in these records, or `None` if they hold none that can be read.
    pub fn of(records: &[u8]) -> Option<Self> {
        let message = message(records)?;
        let (&[1, _, _, _], body) = message.split_first_chunk()? else { return None };
        let mut body = Reader(body);
        let legacy_version = body.number()?;
        // The random and the session id.
        body.take(32)?;
        body.vector8()?;
        let suites = List::of(body.vector16()?)?;
        // Compression methods.
        body.vector8()?;
        // Clients of old have no extensions at all.
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
        identity::write_hex(f, &self.suites_digest)?;
        f.write_str("_")?;
        identity::write_hex(f, &self.extensions_digest)
    }
}

/// What a fingerprint needs of the extensions.
struct Extensions {
    highest_version: Option<u16>,
    names_server: bool,
    count: u8,
    protocol: [u8; 2],
    /// All but the two that change with what is asked for.
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
                    read.protocol = ends(first);
                }
                kind => read.hashed.push(kind)?,
            }
            match kind {
                SIGNATURE_ALGORITHMS => read.signature_algorithms = List::of(Reader(body).vector16()?)?,
                SUPPORTED_VERSIONS => {
                    let versions = List::of(Reader(body).vector8()?)?;
                    read.highest_version = versions.as_slice().iter().copied().max();
                }
                _ => {}
            }
        }
        Some(read)
    }
}

/// The version in two letters.
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

/// The first and the last letter of a protocol's name: of its hexadecimal form if one of them is no letter or digit.
fn ends(protocol: &[u8]) -> [u8; 2] {
    match protocol {
        [] => *b"00",
        [first, .., last] | [first @ last] if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() => {
            [*first, *last]
        }
        [first, .., last] | [first @ last] => [digit(first >> 4), digit(last & 0xf)],
    }
}

/// A hexadecimal digit, of a number below 16.
fn digit(value: u8) -> u8 {
    b"0123456789abcdef".get(usize::from(value)).copied().unwrap_or(b'0')
}

/// Values that clients send to keep servers used to unknown ones (RFC 8701 section 2).
fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0xf == 0xa
}

/// The handshake message in these records: as it stands there if it is one record, as nearly always.
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

/// A list of values without GREASE, in place: connections that are refused shall not cost an allocation for it.
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
    fn of(bytes: &[u8]) -> Option<Self> {
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

    /// The first bytes of the SHA-256 of `0005,000a_0403,0804`, where the part from `_` on is `more`, if it has any. Zeros
    /// if there is nothing before it.
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

/// Takes parts off the front of bytes (RFC 8446 section 3).
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
mod tests {
    use super::*;

    fn vector(length_bytes: usize, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).expect("a length").to_be_bytes();
        [&length[4 - length_bytes..], content].concat()
    }

    /// Numbers as the specification lists them: `1301,c02b`.
    fn numbers(list: &str) -> Vec<u8> {
        let values = list.split(',').filter(|value| !value.is_empty());
        values.flat_map(|value| u16::from_str_radix(value, 16).expect("a number").to_be_bytes()).collect()
    }

    /// What a hello says of itself, in the order in which it says it.
    #[derive(Clone, Copy)]
    struct Said<'a> {
        version: u16,
        suites: &'a str,
        extensions: &'a str,
        signature_algorithms: &'a str,
        protocol: &'a [u8],
        versions: &'a str,
    }

    impl Said<'_> {
        fn records(&self, record_max: usize) -> Vec<u8> {
            let mut extensions = Vec::new();
            for kind in numbers(self.extensions).chunks(2) {
                let body = match u16::from_be_bytes([kind[0], kind[1]]) {
                    SERVER_NAME => vector(2, &[&[0], &vector(2, b"nas.home.example")[..]].concat()),
                    SIGNATURE_ALGORITHMS => vector(2, &numbers(self.signature_algorithms)),
                    APPLICATION_PROTOCOLS => vector(2, &vector(1, self.protocol)),
                    SUPPORTED_VERSIONS => vector(1, &numbers(self.versions)),
                    _ => b"whatever".to_vec(),
                };
                extensions.extend([kind, &vector(2, &body)].concat());
            }
            let extensions = if extensions.is_empty() { Vec::new() } else { vector(2, &extensions) };
            let suites = vector(2, &numbers(self.suites));
            let version = self.version.to_be_bytes();
            let body = [&version[..], &[7; 32], &vector(1, &[9; 32]), &suites, &vector(1, &[0]), &extensions].concat();
            let message = [&[1], &vector(3, &body)[..]].concat();
            message.chunks(record_max).flat_map(|part| [&[22, 3, 1], &vector(2, part)[..]].concat()).collect()
        }

        fn fingerprint(&self) -> String {
            let fingerprint = Ja4::of(&self.records(1 << 14)).expect("a fingerprint");
            assert_eq!(Ja4::of(&self.records(3)), Some(fingerprint), "in pieces");
            fingerprint.to_string()
        }
    }

    /// The example of the specification, with GREASE in every list.
    const CHROME: Said<'_> = Said {
        version: 0x0303,
        suites: "4a4a,1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035",
        extensions: "0a0a,001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,6a6a,0015",
        signature_algorithms: "fafa,0403,0804,0401,0503,0805,0501,0806,0601",
        protocol: b"h2",
        versions: "7a7a,0304,0303",
    };

    #[test]
    fn the_example_of_the_specification() {
        assert_eq!(CHROME.fingerprint(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
        let shuffled = Said {
            suites: "1301,1302,1303,002f,0035,009c,009d,c013,c014,c02b,c02c,c02f,c030,cca8,cca9,0a0a",
            extensions: "0015,000a,000b,ff01,002b,0012,0023,0005,000d,002d,0017,4469,0010,0033,0000,001b",
            ..CHROME
        };
        assert_eq!(shuffled.fingerprint(), CHROME.fingerprint());
    }

    /// Hellos of the specification's test recordings, and what its own program makes of them.
    #[test]
    fn programs_as_they_were_recorded() {
        for (said, fingerprint) in [
            (
                Said {
                    suites: "aaaa,1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035,000a",
                    extensions: "4a4a,0000,0017,ff01,000a,000b,0023,0010,0005,000d,0012,0033,002d,002b,001b,7a7a,0015",
                    signature_algorithms: "0403,0804,0401,0503,0805,0501,0806,0601,0201",
                    versions: "2a2a,0304,0303,0302,0301",
                    ..CHROME
                },
                "t13d1615h2_46e7e9700bed_45f260be83e2",
            ),
            (
                Said {
                    suites: "1301,1303,1302,c02b,c02f,cca9,cca8,c02c,c030,c00a,c009,c013,c014,009c,009d,002f,0035",
                    extensions: "0000,0017,ff01,000a,000b,0023,0010,0005,0022,0033,002b,000d,002d,001c,0015",
                    signature_algorithms: "0403,0503,0603,0804,0805,0806,0401,0501,0601,0203,0201",
                    versions: "0304,0303",
                    ..CHROME
                },
                "t13d1715h2_5b57614c22b0_3d5424432f57",
            ),
            // TLS 1.2, without application protocols.
            (
                Said {
                    suites: "c02c,c02b,c030,c02f,c024,c023,c028,c027,c00a,c009,c014,c013,009d,009c,003d,003c,0035,002f,\
                             000a",
                    extensions: "0000,0005,000a,000b,000d,0023,0017,ff01",
                    signature_algorithms: "0804,0805,0806,0401,0501,0201,0403,0503,0203,0202,0601,0603",
                    ..CHROME
                },
                "t12d190800_d83cc789557e_7af1ed941c26",
            ),
            // TLS 1.0, with a server name and nothing more.
            (
                Said {
                    version: 0x0301,
                    suites: "0039,0038,0035,0016,0013,000a,0033,0032,002f,009a,0099,0096,0005,0004,0015,0012,0009,0014,0011,\
                             0008,0006,0003,00ff",
                    extensions: "0000",
                    ..CHROME
                },
                "t10d230100_6a57a6f57151_000000000000",
            ),
        ] {
            assert_eq!(said.fingerprint(), fingerprint);
        }
    }

    #[test]
    fn what_is_missing_is_zeros() {
        let bare = Said { version: 0x0300, suites: "0a0a", extensions: "", ..CHROME };
        assert_eq!(bare.fingerprint(), "ts3i000000_000000000000_000000000000");
        let unsigned = Said {
            extensions: "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015",
            signature_algorithms: "",
            ..CHROME
        };
        assert_eq!(unsigned.fingerprint(), "t13d1516h2_8daaf6152771_6d807ffa2a79");
    }

    #[test]
    fn protocols_are_two_letters_that_can_be_printed() {
        for (protocol, letters) in [
            (&b"h2"[..], "h2"),
            (b"http/1.1", "h1"),
            (b"", "00"),
            (b"x", "xx"),
            (b"\xab", "ab"),
            (b"\xab\xcd", "ad"),
            (b"\x30\xab", "3b"),
            (b"\x30\x31\xab\xcd", "3d"),
            (b"\x30\xab\xcd\x31", "01"),
            (b"\" route=admin\n", "2a"),
        ] {
            let fingerprint = Said { protocol, ..CHROME }.fingerprint();
            assert_eq!(fingerprint.get(8..10), Some(letters), "{fingerprint}");
        }
    }

    #[test]
    fn counts_end_at_99_and_longer_lists_than_anybody_has_are_not_looked_at() {
        let many = |count: u16| (0..count).map(|value| format!("{value:04x}")).collect::<Vec<_>>().join(",");
        let suites = many(120);
        let fingerprint = Said { suites: &suites, ..CHROME }.fingerprint();
        assert!(fingerprint.starts_with("t13d9916h2_"), "{fingerprint}");
        let suites = many(1000);
        assert_eq!(Ja4::of(&Said { suites: &suites, ..CHROME }.records(1 << 14)), None);
        let extensions = many(1000);
        assert_eq!(Ja4::of(&Said { extensions: &extensions, ..CHROME }.records(1 << 14)), None);
    }

    /// Whatever comes: a fingerprint of plain letters and digits, or none.
    #[test]
    fn nonsense_has_none_and_does_no_harm() {
        let right = CHROME.records(1 << 14);
        for end in 0..right.len() {
            assert_eq!(Ja4::of(&right[..end]), None, "cut at {end}");
        }
        let (mut some, mut state) = (0, 0x9e37_79b9_7f4a_7c15_u64);
        for _ in 0..20_000 {
            let mut bytes = right.clone();
            for _ in 0..4 {
                // xorshift64 (Marsaglia 2003) with a fixed seed: the same rounds every time.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let [value, _, _, _, a, b, _, _] = state.to_be_bytes();
                let at = usize::from(u16::from_be_bytes([a, b])) % bytes.len();
                bytes[at] = value;
            }
            if let Some(fingerprint) = Ja4::of(&bytes) {
                let fingerprint = fingerprint.to_string();
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                assert!(fingerprint.len() == 36 && fingerprint.chars().all(plain), "{fingerprint}");
                some += 1;
            }
        }
        assert!((1_000..19_000).contains(&some), "the rounds have to reach both: {some}");
    }
}
