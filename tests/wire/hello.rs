//! Handmade ClientHellos (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).

/// TLS versions on the wire.
pub(crate) const SSL3: u16 = 0x0300;
pub(crate) const TLS10: u16 = 0x0301;
pub(crate) const TLS11: u16 = 0x0302;
pub(crate) const TLS12: u16 = 0x0303;
pub(crate) const TLS13: u16 = 0x0304;

/// Extension types (RFC 8446 section 4.2).
pub(crate) const SERVER_NAME: u16 = 0;
pub(crate) const SUPPORTED_GROUPS: u16 = 10;
pub(crate) const SIGNATURE_ALGORITHMS: u16 = 13;
pub(crate) const ALPN: u16 = 16;
pub(crate) const PADDING: u16 = 21;
pub(crate) const EARLY_DATA: u16 = 42;
pub(crate) const SUPPORTED_VERSIONS: u16 = 43;
pub(crate) const KEY_SHARE: u16 = 51;

/// Content types (RFC 8446 section 5.1).
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION_DATA: u8 = 23;

const X25519: u16 = 0x001d;
const ECDSA_SECP256R1_SHA256: u16 = 0x0403;

/// The parts of a ClientHello. All can be changed, and nothing is checked.
#[derive(Clone)]
pub(crate) struct Hello {
    /// `legacy_version`.
    pub(crate) version: u16,
    pub(crate) suites: Vec<u16>,
    pub(crate) extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    /// A minimal ClientHello for TLS 1.3 only. The gate answers it with its complete flight.
    pub(crate) fn tls13(name: &str) -> Self {
        let mut hello = Self::tls12(name);
        hello.suites = vec![0x1301];
        // Any 32 bytes are a public key of X25519 (RFC 7748 section 5).
        let share = [&X25519.to_be_bytes()[..], &vector16(&[9; 32])].concat();
        hello.with(SUPPORTED_VERSIONS, vector8(&TLS13.to_be_bytes())).with(KEY_SHARE, vector16(&share))
    }

    /// A minimal ClientHello for TLS 1.2. The gate answers it with its complete flight.
    pub(crate) fn tls12(name: &str) -> Self {
        let hello = Self { version: TLS12, suites: vec![0xc02b], extensions: Vec::new() };
        hello
            .with(SERVER_NAME, server_names(&[(0, name.as_bytes())]))
            .with(SUPPORTED_GROUPS, vector16(&X25519.to_be_bytes()))
            .with(SIGNATURE_ALGORITHMS, vector16(&ECDSA_SECP256R1_SHA256.to_be_bytes()))
    }

    /// Replaces the extension of this type, or adds it.
    pub(crate) fn with(self, kind: u16, body: Vec<u8>) -> Self {
        self.without(kind).and(kind, body)
    }

    /// Adds an extension, even if there is one of its type.
    pub(crate) fn and(mut self, kind: u16, body: Vec<u8>) -> Self {
        self.extensions.push((kind, body));
        self
    }

    /// Removes the extensions of this type.
    pub(crate) fn without(mut self, kind: u16) -> Self {
        self.extensions.retain(|extension| extension.0 != kind);
        self
    }

    /// The handshake message.
    pub(crate) fn message(&self) -> Vec<u8> {
        let suites: Vec<u8> = self.suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
        let extensions: Vec<u8> = self
            .extensions
            .iter()
            .flat_map(|(kind, body)| [&kind.to_be_bytes()[..], &vector16(body)].concat())
            .collect();
        let random = [0x5a; 32];
        let (no_session_id, null_compression) = (vector8(&[]), vector8(&[0]));
        let mut body =
            [&self.version.to_be_bytes()[..], &random, &no_session_id, &vector16(&suites), &null_compression].concat();
        // Extensions are optional before TLS 1.3.
        if !extensions.is_empty() {
            body.extend(vector16(&extensions));
        }
        message(1, &body)
    }

    /// The message in records of the maximum length.
    pub(crate) fn records(&self) -> Vec<u8> {
        records(&self.message(), 1 << 14)
    }
}

/// A handshake message of this type.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

/// A handshake message in records of at most `size` bytes of payload.
pub(crate) fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| record(HANDSHAKE, part)).collect()
}

/// A record with the version of first records.
pub(crate) fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind], &TLS10.to_be_bytes()[..], &vector16(payload)].concat()
}

/// The body of `server_name` with these entries: name type and name (RFC 6066 section 3).
pub(crate) fn server_names(entries: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = entries.iter().flat_map(|&(kind, name)| [&[kind], &vector16(name)[..]].concat()).collect();
    vector16(&list)
}

/// Bytes preceded by their length in one byte.
pub(crate) fn vector8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// Bytes preceded by their length in two bytes.
pub(crate) fn vector16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}
