//! PROXY protocol: taken from a proxy that is known, and refused from everybody else.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;

use doorward::model::close::CloseReason;
use doorward::model::rejection::Reason;
use rustls::ClientConfig;

use crate::client::{Client, End, Hello, client, connect, connect_from, refused_plainly};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::proxy_header::V2_SIGNATURE;
use crate::home::{House, Watch};

pub(crate) const NAME: &str = "nas.home.example";
pub(crate) const FROM_HERE: &str = "proxy_protocol_from = [\"127.0.0.1\"]";

/// A version 2 header (proxy-protocol.txt section 2.2) that speaks for a client.
fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[0x20 | command, family], &length, addresses].concat()
}

pub(crate) fn v2_tcp4(source: [u8; 4], port: u16) -> Vec<u8> {
    v2(1, 0x11, &[&source[..], &[192, 0, 2, 1], &port.to_be_bytes(), &443_u16.to_be_bytes()].concat())
}

pub(crate) fn v2_tcp6(source: &str, port: u16) -> Vec<u8> {
    let source: std::net::Ipv6Addr = source.parse().unwrap();
    let destination: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
    let ports = [port.to_be_bytes(), 443_u16.to_be_bytes()].concat();
    v2(1, 0x21, &[&source.octets()[..], &destination.octets(), &ports].concat())
}

/// Sends a header and the ClientHello behind it in one segment, and gets in or does not.
pub(crate) fn through_a_proxy(gate: &Gate, config: &Arc<ClientConfig>, header: &[u8]) -> Result<Client, End> {
    let tcp = connect(gate.address());
    let client = Client::on(tcp, config, NAME);
    let mut first = header.to_vec();
    client.tls(|connection| connection.write_tls(&mut first)).unwrap();
    client.tcp().write_all(&first).unwrap();
    client.handshake()?;
    client.ping()?;
    Ok(client)
}

#[test]
fn known_proxy_speaks_for_its_clients_in_every_form() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).listener(FROM_HERE).route("nas", backend.address()).open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let with_tlvs =
        [&[203, 0, 113, 9, 192, 0, 2, 1, 0x15, 0xb3, 1, 0xbb][..], &[0x04, 0, 5, 0, 0, 0, 0, 0], &[0xe0, 0, 0]]
            .concat();
    for (header, source) in [
        (b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\n".to_vec(), Some("203.0.113.9:5555")),
        (b"PROXY TCP6 2001:db8::9 2001:db8::1 5555 443\r\n".to_vec(), Some("[2001:db8::9]:5555")),
        (b"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:192.0.2.1 5555 443\r\n".to_vec(), Some("203.0.113.9:5555")),
        (v2_tcp4([203, 0, 113, 9], 5555), Some("203.0.113.9:5555")),
        (v2_tcp6("2001:db8::9", 5555), Some("[2001:db8::9]:5555")),
        (v2(1, 0x11, &with_tlvs), Some("203.0.113.9:5555")),
        // It speaks for itself.
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (v2(0, 0, &[]), None),
    ] {
        let watch = Watch::begin(&gate);
        let client = through_a_proxy(&gate, &config, &header).unwrap();
        let own = client.tcp().local_addr().unwrap().to_string();
        client.close_notify();
        assert_eq!(client.end(), End::Orderly);
        let line = watch.closed(CloseReason::ClientClosed);
        assert_eq!(line["source"], source.unwrap_or(&own), "{line}");
    }
}

#[test]
fn header_may_come_byte_by_byte_and_the_hello_after_it() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).listener(FROM_HERE).route("nas", backend.address()).open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    for header in [&b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\n"[..], &v2_tcp4([203, 0, 113, 9], 5555)] {
        let client = Client::on(connect(gate.address()), &config, NAME);
        for byte in header {
            client.tcp().write_all(&[*byte]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        client.handshake().unwrap();
        client.ping().unwrap();
    }
}

#[test]
fn proxy_spoofing_a_stranger_may_not_speak_for_others() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let hello = Hello { version: 0x0303, suites: &[0x1301], server_name: NAME }.record();
    // No address is a proxy; or another one is.
    for keys in ["", "proxy_protocol_from = [\"127.0.0.2\"]"] {
        let gate = House::new(&pki).listener(keys).route("nas", backend.address()).open();
        for header in [b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\n".to_vec(), v2_tcp4([203, 0, 113, 9], 5555)] {
            let watch = Watch::begin(&gate);
            let stream = connect(gate.address());
            let own = stream.local_addr().unwrap().to_string();
            let end = refused_plainly(&stream, &[&header[..], &hello].concat());
            assert!(matches!(end, End::Truncated | End::Reset), "{end:?}");
            let line = watch.rejected(Reason::NotTls, &end);
            assert_eq!((&line["detail"], &line["source"]), (&"proxy header".into(), &own.into()), "{line}");
        }
        Client::admitted(gate.address(), &config, NAME).unwrap();
    }
}

#[test]
fn proxy_spoofing_a_second_header_is_refused() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).listener(FROM_HERE).route("nas", backend.address()).open();
    let hello = Hello { version: 0x0303, suites: &[0x1301], server_name: NAME }.record();
    let one = b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\n".to_vec();
    let two = v2_tcp4([198, 51, 100, 7], 5555);
    for (first, second) in [(&one, &one), (&one, &two), (&two, &one), (&two, &two)] {
        let watch = Watch::begin(&gate);
        let end = refused_plainly(&connect(gate.address()), &[&first[..], second, &hello].concat());
        let line = watch.rejected(Reason::NotTls, &end);
        assert_eq!(line["detail"], "proxy header", "{line}");
        let source = if std::ptr::eq(first, &one) { "203.0.113.9:5555" } else { "198.51.100.7:5555" };
        assert_eq!(line["source"], source, "the first one counts: {line}");
    }
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn known_proxy_must_speak_and_must_speak_well() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate =
        House::new(&pki).listener(FROM_HERE).timeouts("client_hello = \"2s\"").route("nas", backend.address()).open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let hello = Hello { version: 0x0303, suites: &[0x1301], server_name: NAME }.record();
    for (bytes, reason) in [
        (hello, Reason::ProxyHeaderMissing),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Reason::ProxyHeaderMissing),
        // It waits for the rest.
        (b"PROXY TCP4 203.0.113.9".to_vec(), Reason::ProxyHeaderMissing),
        (Vec::new(), Reason::ProxyHeaderMissing),
        (b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\n".to_vec(), Reason::ProxyHeaderInvalid),
        (b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 99999\r\n".to_vec(), Reason::ProxyHeaderInvalid),
        ([&b"PROXY TCP4 "[..], &[b'1'; 200]].concat(), Reason::ProxyHeaderInvalid),
        (v2(1, 0x11, &[1, 2, 3]), Reason::ProxyHeaderInvalid),
        (v2(1, 0x31, &[0; 216]), Reason::ProxyHeaderInvalid),
        (v2(2, 0x11, &[0; 12]), Reason::ProxyHeaderInvalid),
        ([V2_SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(), Reason::ProxyHeaderInvalid),
    ] {
        let watch = Watch::begin(&gate);
        let end = refused_plainly(&connect(gate.address()), &bytes);
        assert!(matches!(end, End::Truncated | End::Reset), "{bytes:?}: {end:?}");
        watch.rejected(reason, &end);
    }
    // Another address on the same listener is no proxy, and needs no header.
    let neighbour = Client::on(connect_from(Ipv4Addr::new(127, 0, 0, 2).into(), gate.address()), &config, NAME);
    neighbour.handshake().unwrap();
    neighbour.ping().unwrap();
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn limits_apply_to_the_client_and_not_to_the_proxy() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki)
        .listener(&format!(
            "{FROM_HERE}\ndeny_sources = [\"203.0.113.0/24\"]\nallow_sources = [\"0.0.0.0/0\", \"::/0\"]"
        ))
        .limits("connections_per_source = 2\nconnection_rate_per_source = \"off\"")
        .route("nas", backend.address())
        .open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let refused = |header: &[u8], reason: Reason| {
        let watch = Watch::begin(&gate);
        let end = through_a_proxy(&gate, &config, header).map(|_| ()).unwrap_err();
        watch.rejected(reason, &end)
    };
    let line = refused(&v2_tcp4([203, 0, 113, 77], 1), Reason::SourceDenied);
    assert_eq!(line["source"], "203.0.113.77:1", "{line}");
    let _held = [1, 2].map(|port| through_a_proxy(&gate, &config, &v2_tcp4([198, 51, 100, 1], port)).unwrap());
    refused(&v2_tcp4([198, 51, 100, 1], 3), Reason::SourceLimit);
    through_a_proxy(&gate, &config, &v2_tcp4([198, 51, 100, 2], 3)).unwrap();
}

/// What one household has is one source, however many addresses it makes of it.
#[test]
fn cgnat_and_ipv6_a_64_is_one_source() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki)
        .listener(FROM_HERE)
        .limits("connections_per_source = 2\nconnection_rate_per_source = \"off\"")
        .route("nas", backend.address())
        .open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let _held = ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2"]
        .map(|source| through_a_proxy(&gate, &config, &v2_tcp6(source, 1)).unwrap());
    let watch = Watch::begin(&gate);
    let end = through_a_proxy(&gate, &config, &v2_tcp6("2001:db8:0:1:a:b:c:d", 1)).map(|_| ()).unwrap_err();
    watch.rejected(Reason::SourceLimit, &end);
    through_a_proxy(&gate, &config, &v2_tcp6("2001:db8:0:2::1", 1)).unwrap();
}
