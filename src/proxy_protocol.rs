//! The PROXY protocol (proxy-protocol.txt, version 2.2 of 2020): received from a proxy in front of the gate, and sent to
//! backends.

mod sent;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::time::{Instant, timeout_at};

use crate::model::rejection::{Cause, ProxyHeaderFault, Rejection};
use crate::sys::accepted::AcceptedStream;
use crate::sys::socket::{Peeked, discard, peek_until};

pub use sent::{TlsFacts, header, local, v1, v2};

/// The first bytes of a version 2 header (section 2.2).
pub const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest version 1 header, CRLF included (section 2.1).
const V1_MAX: usize = 107;

/// The longest version 2 header accepted. The length field allows 64 KiB; addresses and registered TLVs need far less.
const V2_MAX: usize = 2048;

/// The content of a received header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The connection is the proxy's own (`LOCAL`, or `UNKNOWN` in version 1).
    Local,
    /// The connection is forwarded for a client.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
}

/// The result of parsing the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// At least this many bytes are needed in total.
    Incomplete(usize),
    /// A header, and its length in bytes.
    Complete(usize, Header),
    /// The bytes are not a header.
    Missing,
    /// They do, but it cannot be read.
    Invalid(ProxyHeaderFault),
}

/// Waits for a header and removes it from the socket.
pub async fn receive(stream: &mut AcceptedStream, deadline: Instant) -> Result<Header, Rejection> {
    let looked = timeout_at(
        deadline,
        peek_until(stream, |bytes| match parse(bytes) {
            Parsed::Incomplete(total) => Peeked::NeedsBytes(total),
            other => Peeked::Done(other),
        }),
    );
    match looked.await {
        Ok(Ok(Some(Parsed::Complete(length, header)))) => match discard(stream, length) {
            Ok(()) => Ok(header),
            Err(error) => Err(Rejection::silent(Cause::ProxyHeaderIo(error.into()))),
        },
        Ok(Ok(Some(Parsed::Invalid(why)))) => Err(Rejection::silent(Cause::ProxyHeaderInvalid(why))),
        Ok(Ok(Some(Parsed::Missing | Parsed::Incomplete(_)))) => Err(Rejection::silent(Cause::ProxyHeaderAbsent)),
        Ok(Ok(None)) => Err(Rejection::silent(Cause::ProxyHeaderEnded)),
        Ok(Err(error)) => Err(Rejection::silent(Cause::ProxyHeaderIo(error.into()))),
        Err(_) => Err(Rejection::silent(Cause::ProxyHeaderTimeout)),
    }
}

/// Parses the header at the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed {
    if bytes.starts_with(V2_SIGNATURE) {
        parse_v2(bytes)
    } else if bytes.starts_with(b"PROXY ") {
        parse_v1(bytes)
    } else if V2_SIGNATURE.starts_with(bytes) {
        Parsed::Incomplete(16)
    } else if b"PROXY ".starts_with(bytes) {
        Parsed::Incomplete(15)
    } else {
        Parsed::Missing
    }
}

fn parse_v1(bytes: &[u8]) -> Parsed {
    let Some(end) = bytes.iter().take(V1_MAX).position(|&byte| byte == b'\n') else {
        return if bytes.len() < V1_MAX {
            Parsed::Incomplete(bytes.len() + 1)
        } else {
            Parsed::Invalid(ProxyHeaderFault::NoEndOfLine(V1_MAX))
        };
    };
    let Some(line) = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")) else {
        return Parsed::Invalid(ProxyHeaderFault::NoCrlf);
    };
    let Ok(line) = std::str::from_utf8(line) else {
        return Parsed::Invalid(ProxyHeaderFault::NotAscii);
    };
    let length = end + 1;
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Parsed::Complete(length, Header::Local),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] => {
            let four = *family == "TCP4";
            match (endpoint(source, source_port, four), endpoint(destination, destination_port, four)) {
                (Some(source), Some(destination)) => Parsed::Complete(length, Header::Proxied { source, destination }),
                _ => Parsed::Invalid(ProxyHeaderFault::Address),
            }
        }
        _ => Parsed::Invalid(ProxyHeaderFault::Form),
    }
}

fn endpoint(address: &str, port: &str, four: bool) -> Option<SocketAddr> {
    let ip: IpAddr =
        if four { address.parse::<Ipv4Addr>().ok()?.into() } else { address.parse::<Ipv6Addr>().ok()?.into() };
    // "0" to "65535", and no "+1" or "01" (section 2.1).
    if port.len() > 1 && port.starts_with('0') || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(SocketAddr::new(ip.to_canonical(), port.parse().ok()?))
}

fn parse_v2(bytes: &[u8]) -> Parsed {
    let Some((&[.., version_command, family, high, low], rest)) = bytes.split_first_chunk::<16>() else {
        return Parsed::Incomplete(16);
    };
    let payload = usize::from(u16::from_be_bytes([high, low]));
    let length = 16 + payload;
    if version_command >> 4 != 2 {
        return Parsed::Invalid(ProxyHeaderFault::Version);
    }
    if length > V2_MAX {
        return Parsed::Invalid(ProxyHeaderFault::TooLong(V2_MAX));
    }
    let Some(payload) = rest.get(..payload) else {
        return Parsed::Incomplete(length);
    };
    match (version_command & 0xf, family) {
        // UNSPEC: the receiver uses the real addresses (section 2.2).
        (0, _) | (1, 0x00) => Parsed::Complete(length, Header::Local),
        (1, 0x11) => match payload.first_chunk::<12>() {
            Some(&[a, b, c, d, e, f, g, h, i, j, k, l]) => Parsed::Complete(
                length,
                Header::Proxied {
                    source: (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([i, j])).into(),
                    destination: (Ipv4Addr::new(e, f, g, h), u16::from_be_bytes([k, l])).into(),
                },
            ),
            None => Parsed::Invalid(ProxyHeaderFault::TooShort),
        },
        (1, 0x21) => match payload.split_first_chunk::<16>() {
            Some((&source, rest)) => match rest.first_chunk::<20>() {
                Some(&[ref destination @ .., a, b, c, d]) => Parsed::Complete(
                    length,
                    Header::Proxied {
                        source: SocketAddr::new(
                            IpAddr::from(Ipv6Addr::from(source)).to_canonical(),
                            u16::from_be_bytes([a, b]),
                        ),
                        destination: SocketAddr::new(
                            IpAddr::from(Ipv6Addr::from(*destination)).to_canonical(),
                            u16::from_be_bytes([c, d]),
                        ),
                    },
                ),
                None => Parsed::Invalid(ProxyHeaderFault::TooShort),
            },
            None => Parsed::Invalid(ProxyHeaderFault::TooShort),
        },
        (1, _) => Parsed::Invalid(ProxyHeaderFault::Family),
        _ => Parsed::Invalid(ProxyHeaderFault::Command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn written_headers_are_parsed() {
        for (client, local) in [("192.0.2.1:5", "192.0.2.2:443"), ("[2001:db8::1]:5", "[2001:db8::2]:443")] {
            let (source, destination) = (address(client), address(local));
            let tls = TlsFacts {
                version: "TLSv1.3",
                cipher_suite: "TLS13_AES_256_GCM_SHA384",
                identity: None,
                certificate: None,
                resumed: false,
                server_name: Some("nas.home.example"),
                application_protocol: Some(b"http/1.1"),
            };
            for header in [v1(source, destination), v2(source, destination, None), v2(source, destination, Some(tls))] {
                let whole = Parsed::Complete(header.len(), Header::Proxied { source, destination });
                assert_eq!(parse(&header), whole);
                let mut longer = header.clone();
                longer.extend(b"\x16\x03\x01");
                assert_eq!(parse(&longer), whole);
                for cut in 1..header.len() {
                    match parse(&header[..cut]) {
                        Parsed::Incomplete(total) => assert!(cut < total && total <= header.len(), "{cut} {total}"),
                        other => panic!("{cut}: {other:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn specification_examples_are_parsed() {
        let line = b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
        assert!(matches!(parse(line), Parsed::Complete(56, Header::Proxied { .. })));
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), Parsed::Complete(15, Header::Local));
        assert_eq!(parse(b"PROXY UNKNOWN ffff:: ffff:: 1 1\r\n"), Parsed::Complete(33, Header::Local));
    }

    #[test]
    fn proxy_spoofing_malformed_headers_are_rejected() {
        for wrong in [
            &b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n"[..],
            b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n",
            b"PROXY TCP4 ::1 ::1 1 1\r\n",
            b"PROXY TCP4 1.2.3.4  1.2.3.4 1 1\r\n",
            b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 x\r\n",
            b"PROXY TCP4 \xff 1.2.3.4 1 1\r\n",
            &[b'P', b'R', b'O', b'X', b'Y', b' '].iter().copied().chain([b'x'; 200]).collect::<Vec<u8>>(),
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        ] {
            assert!(matches!(parse(wrong), Parsed::Invalid(_)), "{wrong:?}");
        }
        assert_eq!(parse(b"\x16\x03\x01"), Parsed::Missing);
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Parsed::Missing);
    }
}
