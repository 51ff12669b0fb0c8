//! PROXY protocol: taken from a proxy that is known, refused from everybody else, and sent to backends.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, mpsc};

use doorward::model::close::CloseReason;
use doorward::model::rejection::Reason;
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use serde_json::Value;

use crate::client::{
    Client, End, Hello, Shown, VERSIONS, client, connect, connect_from, plain_end, refused_plainly, showing,
};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki};
use crate::home::{House, Watch};

const NAME: &str = "nas.home.example";
const FROM_HERE: &str = "proxy_protocol_from = [\"127.0.0.1\"]";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A version 2 header (proxy-protocol.txt section 2.2) that speaks for a client.
fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[0x20 | command, family], &length, addresses].concat()
}

fn v2_tcp4(source: [u8; 4], port: u16) -> Vec<u8> {
    v2(1, 0x11, &[&source[..], &[192, 0, 2, 1], &port.to_be_bytes(), &443_u16.to_be_bytes()].concat())
}

fn v2_tcp6(source: &str, port: u16) -> Vec<u8> {
    let source: std::net::Ipv6Addr = source.parse().unwrap();
    let destination: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
    let ports = [port.to_be_bytes(), 443_u16.to_be_bytes()].concat();
    v2(1, 0x21, &[&source.octets()[..], &destination.octets(), &ports].concat())
}

/// Sends a header and the ClientHello behind it in one segment, and gets in or does not.
fn through_a_proxy(gate: &Gate, config: &Arc<ClientConfig>, header: &[u8]) -> Result<Client, End> {
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
    let gate = House::new(&pki)
        .listener(FROM_HERE)
        .timeouts("client_hello = \"600ms\"")
        .route("nas", backend.address())
        .open();
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

/// A backend that tells how each connection began, and ends it.
fn listening() -> (Backend, mpsc::Receiver<Vec<u8>>) {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let backend = Backend::serve("127.0.0.1:0", move |mut stream, state| {
        let mut first = Vec::new();
        state.each_read(stream, |bytes| {
            first.extend_from_slice(bytes);
            !first.ends_with(b"ping")
        });
        let _ = stream.write_all(b"ping");
        tell.lock().unwrap().send(first).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
    });
    (backend, told)
}

type Tlvs = Vec<(u8, Vec<u8>)>;

/// A version 2 header, read by the specification's text and by nothing of the gate's: addresses, TLVs, the rest.
fn read_v2(bytes: &[u8]) -> (SocketAddr, SocketAddr, Tlvs, Vec<u8>) {
    let rest = bytes.strip_prefix(V2_SIGNATURE).unwrap();
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
    let addresses = 2 * size + 4;
    (
        SocketAddr::new(ip(0), port(2 * size)),
        SocketAddr::new(ip(size), port(2 * size + 2)),
        read_tlvs(&body[addresses..]),
        payload.to_vec(),
    )
}

fn read_tlvs(mut bytes: &[u8]) -> Tlvs {
    let mut tlvs = Vec::new();
    while let [kind, high, low, rest @ ..] = bytes {
        let (value, after) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        tlvs.push((*kind, value.to_vec()));
        bytes = after;
    }
    assert!(bytes.is_empty(), "bytes behind the last TLV");
    tlvs
}

fn value(tlvs: &[(u8, Vec<u8>)], kind: u8) -> Option<&[u8]> {
    let mut fitting = tlvs.iter().filter(|(other, _)| *other == kind);
    let found = fitting.next().map(|(_, value)| value.as_slice());
    assert!(fitting.next().is_none(), "type {kind:#x} stands there twice");
    found
}

/// Gets in and tells which address it had, how the gate logged it, and what the backend was sent.
#[track_caller]
fn visit(
    gate: &Gate,
    told: &mpsc::Receiver<Vec<u8>>,
    config: &Arc<ClientConfig>,
    name: &str,
) -> (SocketAddr, Value, Vec<u8>) {
    let watch = Watch::begin(gate);
    let client = Client::admitted(gate.address(), config, name).unwrap();
    let own = client.tcp().local_addr().unwrap();
    let first = told.recv().unwrap();
    assert_eq!(client.end(), End::Orderly);
    drop(client);
    (own, watch.closed(CloseReason::BackendClosed), first)
}

#[test]
fn backends_are_told_the_clients_address_in_each_version() {
    let pki = TestPki::new();
    let (backend, told) = listening();
    let address = &*backend.address().to_string();
    let send = |form: &str| format!("allow = [\"any\"]\nsend_proxy_protocol = {form:?}");
    let gate = House::new(&pki)
        .route_with("off", &[address], &send("off"))
        .route_with("v1", &[address], &send("v1"))
        .route_with("v2", &[address], &send("v2"))
        .route_with("mail", &[address], "mode = \"passthrough\"\nsend_proxy_protocol = \"v2\"")
        .route_with("post", &[address], "mode = \"passthrough\"\nsend_proxy_protocol = \"v1\"")
        .open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let (_, line, first) = visit(&gate, &told, &config, "off.home.example");
    assert_eq!((&first[..], &line["bytes_to_backend"]), (&b"ping"[..], &4.into()), "{line}");

    let (own, line, first) = visit(&gate, &told, &config, "v1.home.example");
    let (ip, to) = (own.ip(), gate.address());
    let expected = format!("PROXY TCP4 {ip} {} {} {}\r\nping", to.ip(), own.port(), to.port());
    assert_eq!(String::from_utf8(first).unwrap(), expected);
    assert_eq!(line["bytes_to_backend"], 4, "a header is no payload: {line}");

    let (own, line, first) = visit(&gate, &told, &config, "v2.home.example");
    assert_eq!(read_v2(&first), (own, gate.address(), Vec::new(), b"ping".to_vec()));
    assert_eq!(line["bytes_to_backend"], 4, "{line}");

    for name in ["mail", "post"] {
        let mut stream = connect(gate.address());
        let own = stream.local_addr().unwrap();
        let hello = Hello { version: 0x0303, suites: &[0x1301], server_name: &format!("{name}.home.example") }.record();
        let bytes = [&hello[..], b"ping"].concat();
        stream.write_all(&bytes).unwrap();
        let first = told.recv().unwrap();
        if name == "mail" {
            assert_eq!(read_v2(&first), (own, gate.address(), Vec::new(), bytes));
        } else {
            let header = format!("PROXY TCP4 {} {} {} {}\r\n", own.ip(), to.ip(), own.port(), to.port());
            assert_eq!(first, [header.as_bytes(), &bytes].concat());
        }
    }
}

/// What a proxy in front said about the client is what the backend is told.
#[test]
fn proxys_word_is_passed_on() {
    let pki = TestPki::new();
    let (backend, told) = listening();
    let address = &*backend.address().to_string();
    let gate = House::new(&pki)
        .listener(FROM_HERE)
        .route_with("nas", &[address], "allow = [\"any\"]\nsend_proxy_protocol = \"v2\"")
        .open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    for (header, source, destination) in [
        (v2_tcp4([198, 51, 100, 7], 4444), "198.51.100.7:4444", "192.0.2.1:443"),
        (v2_tcp6("2001:db8::9", 4444), "[2001:db8::9]:4444", "[2001:db8::1]:443"),
    ] {
        drop(through_a_proxy(&gate, &config, &header).unwrap());
        let (from, to, tlvs, payload) = read_v2(&told.recv().unwrap());
        assert_eq!((from.to_string(), to.to_string()), (source.to_owned(), destination.to_owned()));
        assert_eq!((tlvs.len(), &payload[..]), (0, &b"ping"[..]));
    }
}

/// PP2_TYPE_SSL and what stands beside it (proxy-protocol.txt section 2.2.6).
#[test]
fn v2_tls_header_has_identity_and_verification() {
    const SSL: u8 = 0x01;
    const CERT_CONN: u8 = 0x02;
    const CERT_SESS: u8 = 0x04;
    let pki = TestPki::new();
    let (backend, told) = listening();
    let address = &*backend.address().to_string();
    let keys = |allow: &str, mode: &str| {
        format!(
            "allow = [{allow}]\nsend_proxy_protocol = \"v2-tls\"\napplication_protocols = [\"http/1.1\"]\n\
             [route.client_auth]\nmode = {mode:?}"
        )
    };
    let gate = House::new(&pki)
        .route_with("nas", &[address], &keys("\"any\"", "require_and_verify"))
        .route_with("open", &[address], &keys("\"unverified\"", "request"))
        .open();
    let unused = pki.client("unused");
    for version in VERSIONS {
        let device = |certified: Option<&Certified>, protocols: &[&[u8]]| {
            let shown = Shown::certificate(certified.unwrap_or(&unused));
            if certified.is_none() {
                shown.nothing_more();
            }
            let config = showing(&pki, shown as Arc<dyn ResolvesClientCert>, &[version]);
            let mut config = Arc::unwrap_or_clone(config);
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        let alice = pki.client("alice-phone");
        let web = device(Some(&alice), &[b"h2", b"http/1.1"]);
        // With its certificate at first, then with a session that stands for it.
        for (config, name, protocol, client_bits, verify, common_name) in [
            (&web, NAME, Some(&b"http/1.1"[..]), SSL | CERT_CONN, 0, Some("alice-phone")),
            (&web, NAME, Some(b"http/1.1"), SSL | CERT_SESS, 0, Some("alice-phone")),
            (&device(Some(&alice), &[]), NAME, None, SSL | CERT_CONN, 0, Some("alice-phone")),
            (&device(Some(&alice), &[]), "open.home.example", None, SSL | CERT_CONN, 1, Some("alice-phone")),
            (&device(None, &[]), "open.home.example", None, SSL, 1, None),
        ] {
            let (own, line, first) = visit(&gate, &told, config, name);
            let (from, to, tlvs, payload) = read_v2(&first);
            assert_eq!((from, to, &payload[..]), (own, gate.address(), &b"ping"[..]));
            assert_eq!(value(&tlvs, 0x01), protocol, "PP2_TYPE_ALPN");
            assert_eq!(value(&tlvs, 0x02), Some(name.as_bytes()), "PP2_TYPE_AUTHORITY");
            let ssl = value(&tlvs, 0x20).unwrap();
            assert_eq!(ssl[0], client_bits, "{line}");
            assert_eq!(u32::from_be_bytes(ssl[1..5].try_into().unwrap()), verify, "{line}");
            let inner = read_tlvs(&ssl[5..]);
            let text = |kind| value(&inner, kind).map(|value| String::from_utf8(value.to_vec()).unwrap());
            assert_eq!(text(0x21).as_deref(), line["tls"]["version"].as_str(), "{line}");
            assert_eq!(text(0x22).as_deref(), common_name, "{line}");
            let cipher = text(0x23).unwrap();
            assert_eq!(Some(&*cipher), line["tls"]["cipher_suite"].as_str(), "{line}");
        }
    }
}

/// Nothing that the client sends can pass for the header.
#[test]
fn proxy_spoofing_the_gates_own_header_comes_first() {
    let pki = TestPki::new();
    let (backend, told) = listening();
    let address = &*backend.address().to_string();
    let gate = House::new(&pki).route_with("nas", &[address], "allow = [\"any\"]\nsend_proxy_protocol = \"v2\"").open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let forged = [&v2_tcp4([198, 51, 100, 7], 1)[..], b"ping"].concat();
    let client = Client::on(connect(gate.address()), &config, NAME);
    client.send(&forged).unwrap();
    client.handshake().unwrap();
    let own = client.tcp().local_addr().unwrap();
    assert_eq!(read_v2(&told.recv().unwrap()), (own, gate.address(), Vec::new(), forged));
    drop(client);
    // And a connection on which nothing comes is one without a word, not one without a header.
    let stream = connect(gate.address());
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(plain_end(&stream), End::Truncated);
}
