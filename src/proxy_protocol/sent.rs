//! The headers that backends are sent.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{V1_MAX, V2_SIGNATURE};
use crate::config::checked::SendProxyProtocol;
use crate::model::identity::{Chain, Identity};

/// The longest name from a certificate that is sent. A cut one could be that of another device.
const NAME_MAX: usize = 1024;

// The length of a header has 16 bits. Addresses, ALPN, server name, version and cipher suite take less than 1 KiB.
const _: () = assert!(Chain::BYTES_MAX + NAME_MAX + 1024 <= u16::MAX as usize, "every certificate fits the header");

/// The TLS parameters in a version 2 header (section 2.2.6, `PP2_TYPE_SSL`).
#[derive(Clone, Copy, Debug)]
pub struct TlsFacts<'a> {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'a str,
    /// The cipher suite's name.
    pub cipher_suite: &'a str,
    /// The identity in the client's certificate, if it presented one.
    pub identity: Option<&'a Identity>,
    /// The certificate itself, in DER, if it presented one.
    pub certificate: Option<&'a [u8]>,
    /// Whether the session was resumed, so that the certificate was presented in an earlier connection.
    pub resumed: bool,
    /// The server name the client asked for.
    pub server_name: Option<&'a str>,
    /// The application protocol (ALPN), if one was negotiated.
    pub application_protocol: Option<&'a [u8]>,
}

/// The header for the backends of a route; empty if they get none. `local` is the address that the client connected to.
pub fn header(
    form: SendProxyProtocol,
    client: SocketAddr,
    local: impl FnOnce() -> SocketAddr,
    tls: Option<TlsFacts<'_>>,
) -> Vec<u8> {
    match form {
        SendProxyProtocol::Off => Vec::new(),
        SendProxyProtocol::V1 => v1(client, local()),
        SendProxyProtocol::V2 => v2(client, local(), None),
        SendProxyProtocol::V2Tls { certificate } => {
            let tls = tls.map(|tls| TlsFacts { certificate: tls.certificate.filter(|_| certificate), ..tls });
            v2(client, local(), tls)
        }
    }
}

/// The header of a connection that the gate makes for itself, as a health check; empty if they get none. Its receiver uses the
/// real addresses, or none.
pub const fn local(form: SendProxyProtocol) -> &'static [u8] {
    match form {
        SendProxyProtocol::Off => b"",
        // Section 2.1.
        SendProxyProtocol::V1 => b"PROXY UNKNOWN\r\n",
        // Section 2.2: version 2, command LOCAL, family and protocol UNSPEC, no addresses.
        SendProxyProtocol::V2 | SendProxyProtocol::V2Tls { .. } => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}

/// A version 1 header.
pub fn v1(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let mut line = String::with_capacity(V1_MAX);
    // Writing to a String cannot fail.
    let _ = match same_family(client, local) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            write!(line, "PROXY TCP4 {source} {destination} {} {}\r\n", client.port(), local.port())
        }
        (source, destination) => {
            write!(line, "PROXY TCP6 {source} {destination} {} {}\r\n", client.port(), local.port())
        }
    };
    line.into_bytes()
}

/// A version 2 header, with TLVs for `tls`, if it is given.
pub fn v2(client: SocketAddr, local: SocketAddr, tls: Option<TlsFacts<'_>>) -> Vec<u8> {
    let mut payload = Vec::with_capacity(64);
    let family = match same_family(client, local) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            payload.extend(source.octets());
            payload.extend(destination.octets());
            0x11
        }
        (source, destination) => {
            payload.extend(to_v6(source).octets());
            payload.extend(to_v6(destination).octets());
            0x21
        }
    };
    payload.extend(client.port().to_be_bytes());
    payload.extend(local.port().to_be_bytes());
    if let Some(tls) = tls {
        if let Some(protocol) = tls.application_protocol {
            tlv(&mut payload, 0x01, protocol); // PP2_TYPE_ALPN
        }
        if let Some(name) = tls.server_name {
            tlv(&mut payload, 0x02, name.as_bytes()); // PP2_TYPE_AUTHORITY
        }
        tlv(&mut payload, 0x20, &ssl_tlv(tls)); // PP2_TYPE_SSL
    }
    let mut header = Vec::with_capacity(16 + payload.len());
    header.extend(V2_SIGNATURE);
    header.extend([0x21, family]);
    header.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
    header.extend(payload);
    header
}

fn ssl_tlv(tls: TlsFacts<'_>) -> Vec<u8> {
    // PP2_CLIENT_SSL; and PP2_CLIENT_CERT_SESS if the client presented a certificate "at least once over the TLS session this
    // connection belongs to", with PP2_CLIENT_CERT_CONN if that was in this connection: it was unless the session is resumed.
    let client = match (tls.identity, tls.resumed) {
        (None, _) => 0x01,
        (Some(_), false) => 0x01 | 0x02 | 0x04,
        (Some(_), true) => 0x01 | 0x04,
    };
    let mut value = vec![client];
    // `verify` is zero only if a certificate was presented and verified.
    value.extend(u32::from(!tls.identity.is_some_and(|identity| identity.verified)).to_be_bytes());
    tlv(&mut value, 0x21, tls.version.as_bytes()); // PP2_SUBTYPE_SSL_VERSION
    if let Some(identity) = tls.identity {
        let name = identity.common_name.clone().unwrap_or_else(|| identity.display_name());
        if name.len() <= NAME_MAX {
            tlv(&mut value, 0x22, name.as_bytes()); // PP2_SUBTYPE_SSL_CN
        }
    }
    tlv(&mut value, 0x23, tls.cipher_suite.as_bytes()); // PP2_SUBTYPE_SSL_CIPHER
    if let Some(certificate) = tls.certificate {
        tlv(&mut value, 0x28, certificate); // PP2_SUBTYPE_SSL_CLIENT_CERT
    }
    value
}

/// Appends a TLV. No value is longer than its length can say.
fn tlv(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.push(kind);
    out.extend(length.to_be_bytes());
    out.extend(value.iter().take(usize::from(length)));
}

/// Both addresses in one family: IPv6 if they differ.
fn same_family(client: SocketAddr, local: SocketAddr) -> (IpAddr, IpAddr) {
    let (client, local) = (client.ip().to_canonical(), local.ip().to_canonical());
    if client.is_ipv4() == local.is_ipv4() { (client, local) } else { (to_v6(client).into(), to_v6(local).into()) }
}

fn to_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
