//! A reader of PROXY protocol headers, version 2, by the specification's text and by nothing of the gate's. It refuses what the
//! text does not allow.

use std::net::{IpAddr, SocketAddr};

/// The first bytes (section 2.2).
pub(crate) const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bits of the field `client` in `PP2_TYPE_SSL` (section 2.2.6).
pub(crate) const SSL: u8 = 0x01;
pub(crate) const CERT_CONN: u8 = 0x02;
pub(crate) const CERT_SESS: u8 = 0x04;

/// TLVs: type and value.
pub(crate) type Tlvs = Vec<(u8, Vec<u8>)>;

/// A header of a connection that a proxy forwards.
#[derive(Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) tlvs: Tlvs,
}

/// `PP2_TYPE_SSL`.
#[derive(Debug, PartialEq)]
pub(crate) struct Ssl {
    pub(crate) client: u8,
    pub(crate) verify: u32,
    pub(crate) version: String,
    pub(crate) common_name: Option<String>,
    pub(crate) cipher: Option<String>,
    pub(crate) certificate: Option<Vec<u8>>,
}

/// Reads a header and gives what follows it.
#[track_caller]
pub(crate) fn read(bytes: &[u8]) -> (Header, Vec<u8>) {
    let rest = bytes.strip_prefix(V2_SIGNATURE).expect("the signature");
    assert_eq!(rest[0], 0x21, "version 2, PROXY");
    let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
    let (body, payload) = rest[4..].split_at(length);
    let size = match rest[1] {
        0x11 => 4,
        0x21 => 16,
        other => panic!("family {other:#x}"),
    };
    let ip = |at: usize| -> IpAddr {
        let bytes = &body[at..at + size];
        match <[u8; 4]>::try_from(bytes) {
            Ok(four) => four.into(),
            Err(_) => <[u8; 16]>::try_from(bytes).unwrap().into(),
        }
    };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let header = Header {
        source: SocketAddr::new(ip(0), port(2 * size)),
        destination: SocketAddr::new(ip(size), port(2 * size + 2)),
        tlvs: read_tlvs(&body[2 * size + 4..]),
    };
    (header, payload.to_vec())
}

fn read_tlvs(mut bytes: &[u8]) -> Tlvs {
    let mut tlvs: Tlvs = Vec::new();
    while let [kind, high, low, rest @ ..] = bytes {
        let (value, after) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        assert!(tlvs.iter().all(|(other, _)| other != kind), "type {kind:#x} stands there twice");
        tlvs.push((*kind, value.to_vec()));
        bytes = after;
    }
    assert!(bytes.is_empty(), "bytes behind the last TLV");
    tlvs
}

/// Takes the value of this type out.
fn take(tlvs: &mut Tlvs, kind: u8) -> Option<Vec<u8>> {
    let at = tlvs.iter().position(|(other, _)| *other == kind)?;
    Some(tlvs.remove(at).1)
}

impl Header {
    /// `PP2_TYPE_ALPN`, `PP2_TYPE_AUTHORITY` and `PP2_TYPE_SSL`; there must be no other.
    #[track_caller]
    pub(crate) fn tls(mut self) -> (Option<Vec<u8>>, Option<String>, Ssl) {
        let protocol = take(&mut self.tlvs, 0x01);
        let authority = take(&mut self.tlvs, 0x02).map(text);
        let value = take(&mut self.tlvs, 0x20).expect("PP2_TYPE_SSL");
        assert_eq!(self.tlvs, []);
        let (head, inner) = value.split_first_chunk::<5>().expect("client and verify");
        let mut inner = read_tlvs(inner);
        let ssl = Ssl {
            client: head[0],
            verify: u32::from_be_bytes([head[1], head[2], head[3], head[4]]),
            version: text(take(&mut inner, 0x21).expect("PP2_SUBTYPE_SSL_VERSION, where PP2_CLIENT_SSL is set")),
            common_name: take(&mut inner, 0x22).map(text),
            cipher: take(&mut inner, 0x23).map(text),
            certificate: take(&mut inner, 0x28),
        };
        assert_eq!(inner, [], "no other type");
        assert_eq!(ssl.client & !(CERT_CONN | CERT_SESS), SSL, "{ssl:?}");
        // A certificate of this connection is one of its session; without one there is no name, and nothing was verified.
        assert!(ssl.client & CERT_CONN == 0 || ssl.client & CERT_SESS != 0, "{ssl:?}");
        let shown = ssl.client & CERT_SESS != 0;
        assert!(shown || (ssl.verify, &ssl.common_name, &ssl.certificate) == (1, &None, &None), "{ssl:?}");
        (protocol, authority, ssl)
    }
}

fn text(value: Vec<u8>) -> String {
    String::from_utf8(value).unwrap()
}
