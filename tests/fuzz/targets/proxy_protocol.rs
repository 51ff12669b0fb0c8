//! A PROXY protocol header.
#![no_main]

use doorward::proxy_protocol::{Header, Parsed, V2_SIGNATURE, parse, v1, v2};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| match parse(bytes) {
    // Otherwise the gate would wait for ever; and no header is longer than 2048 bytes.
    Parsed::Incomplete(total) => assert!(bytes.len() < total && total <= 2048),
    complete @ Parsed::Complete(length, header) => {
        // Bytes after the header do not change it, and every byte of it is needed.
        assert_eq!(parse(&bytes[..length]), complete);
        assert!(matches!(parse(&bytes[..length - 1]), Parsed::Incomplete(_)));
        same_as_ppp(&bytes[..length], header);
        // As the gate writes it for its own backends, it is the same.
        if let Header::Proxied { source, destination } = header
            && source.is_ipv4() == destination.is_ipv4()
        {
            for written in [v1(source, destination), v2(source, destination, None)] {
                assert_eq!(parse(&written), Parsed::Complete(written.len(), header));
            }
        }
    }
    Parsed::Missing | Parsed::Invalid(_) => {}
});

/// The crate ppp reads the same addresses.
fn same_as_ppp(bytes: &[u8], header: Header) {
    use ppp::v1::Addresses as V1;
    use ppp::v2::Addresses as V2;
    let (theirs, local) = if bytes.starts_with(V2_SIGNATURE) {
        // A connection of the proxy's own may say anything about addresses.
        let read = match ppp::v2::Header::try_from(bytes) {
            Err(_) if header == Header::Local => return,
            read => read.expect("a header of version 2"),
        };
        let local = read.command == ppp::v2::Command::Local;
        let theirs = match read.addresses {
            V2::IPv4(a) => {
                Some(((a.source_address.into(), a.source_port), (a.destination_address.into(), a.destination_port)))
            }
            V2::IPv6(a) => {
                Some(((a.source_address.into(), a.source_port), (a.destination_address.into(), a.destination_port)))
            }
            V2::Unspecified | V2::Unix(_) => None,
        };
        (theirs, local)
    } else {
        let read = match ppp::v1::Header::try_from(bytes) {
            Err(_) if header == Header::Local => return,
            read => read.expect("a header of version 1"),
        };
        let theirs = match read.addresses {
            V1::Tcp4(a) => {
                Some(((a.source_address.into(), a.source_port), (a.destination_address.into(), a.destination_port)))
            }
            V1::Tcp6(a) => {
                Some(((a.source_address.into(), a.source_port), (a.destination_address.into(), a.destination_port)))
            }
            V1::Unknown => None,
        };
        (theirs, false)
    };
    let canonical = |(ip, port): (std::net::IpAddr, u16)| std::net::SocketAddr::new(ip.to_canonical(), port);
    match header {
        Header::Proxied { source, destination } => {
            assert!(!local);
            assert_eq!(theirs.map(|(s, d)| (canonical(s), canonical(d))), Some((source, destination)));
        }
        Header::Local => assert!(local || theirs.is_none()),
    }
}
