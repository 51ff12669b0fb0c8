//! PROXY protocol: what backends are sent.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};

use doorward::model::close::CloseReason;
use rcgen::CustomExtension;
use rustls::client::ResolvesClientCert;
use rustls::{ClientConfig, SupportedProtocolVersion};
use serde_json::Value;

use crate::client::{Client, End, Hello, Shown, VERSIONS, client, connect, plain_end, showing};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki};
use crate::common::proxy_header::{CERT_CONN, CERT_SESS, Header, SSL, Ssl, read};
use crate::home::{House, Watch};
use crate::proxy::{FROM_HERE, NAME, through_a_proxy, v2_tcp4, v2_tcp6};

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

fn without_tlvs(source: SocketAddr, destination: SocketAddr) -> Header {
    Header { source, destination, tlvs: Vec::new() }
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
    assert_eq!(read(&first), (without_tlvs(own, gate.address()), b"ping".to_vec()));
    assert_eq!(line["bytes_to_backend"], 4, "{line}");

    for name in ["mail", "post"] {
        let mut stream = connect(gate.address());
        let own = stream.local_addr().unwrap();
        let hello = Hello { version: 0x0303, suites: &[0x1301], server_name: &format!("{name}.home.example") }.record();
        let bytes = [&hello[..], b"ping"].concat();
        stream.write_all(&bytes).unwrap();
        let first = told.recv().unwrap();
        if name == "mail" {
            assert_eq!(read(&first), (without_tlvs(own, gate.address()), bytes));
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
        let expected = without_tlvs(source.parse().unwrap(), destination.parse().unwrap());
        assert_eq!(read(&told.recv().unwrap()), (expected, b"ping".to_vec()));
    }
}

/// A device that shows this certificate, and asks for these application protocols.
fn device(
    pki: &TestPki,
    certified: Option<&Certified>,
    protocols: &[&[u8]],
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let unused = pki.client("unused");
    let shown = Shown::certificate(certified.unwrap_or(&unused));
    if certified.is_none() {
        shown.nothing_more();
    }
    let config = showing(pki, shown as Arc<dyn ResolvesClientCert>, &[version]);
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// A gate whose routes `nas` and `open` send `form`; the second one verifies no certificate.
fn gate_sending(pki: &TestPki, address: &str, form: &str) -> Gate {
    let keys = |allow: &str, mode: &str| {
        format!(
            "allow = [{allow}]\nsend_proxy_protocol = {form}\napplication_protocols = [\"http/1.1\"]\n\
             [route.client_auth]\nmode = {mode:?}"
        )
    };
    House::new(pki)
        .route_with("nas", &[address], &keys("\"any\"", "require_and_verify"))
        .route_with("open", &[address], &keys("\"unverified\"", "request"))
        .open()
}

/// PP2_TYPE_SSL and what stands beside it (proxy-protocol.txt section 2.2.6). "PP2_CLIENT_CERT_CONN indicates that the client
/// provided a certificate over the current connection. PP2_CLIENT_CERT_SESS indicates that the client provided a certificate at
/// least once over the TLS session this connection belongs to": in a full handshake it is both, in a resumed one the second.
#[test]
fn v2_tls_header_has_identity_and_verification() {
    let pki = TestPki::new();
    let (backend, told) = listening();
    for (form, with_certificate) in [("\"v2-tls\"", false), ("{ version = \"v2-tls\", certificate = true }", true)] {
        let gate = gate_sending(&pki, &backend.address().to_string(), form);
        for version in VERSIONS {
            let alice = pki.client("alice-phone");
            let web = device(&pki, Some(&alice), &[b"h2", b"http/1.1"], version);
            let plain = device(&pki, Some(&alice), &[], version);
            let (full, resumed) = (SSL | CERT_CONN | CERT_SESS, SSL | CERT_SESS);
            // With its certificate at first, then with a session that has it.
            for (config, name, protocol, client_bits, verify, shown) in [
                (&web, NAME, Some(&b"http/1.1"[..]), full, 0, true),
                (&web, NAME, Some(b"http/1.1"), resumed, 0, true),
                (&plain, NAME, None, full, 0, true),
                (&device(&pki, Some(&alice), &[], version), "open.home.example", None, full, 1, true),
                (&device(&pki, None, &[], version), "open.home.example", None, SSL, 1, false),
            ] {
                let (own, line, first) = visit(&gate, &told, config, name);
                let (header, payload) = read(&first);
                assert_eq!(
                    (header.source, header.destination, &payload[..]),
                    (own, gate.address(), &b"ping"[..]),
                    "{line}"
                );
                let (alpn, authority, ssl) = header.tls();
                assert_eq!((alpn.as_deref(), authority.as_deref()), (protocol, Some(name)), "{line}");
                let expected = Ssl {
                    client: client_bits,
                    verify,
                    version: line["tls"]["version"].as_str().unwrap().to_owned(),
                    common_name: shown.then(|| "alice-phone".to_owned()),
                    cipher: line["tls"]["cipher_suite"].as_str().map(str::to_owned),
                    certificate: (shown && with_certificate).then(|| alice.chain()[0].to_vec()),
                };
                assert_eq!(ssl, expected, "{line}");
            }
        }
    }
}

/// The longest certificate that is let in (`certificates::cost`) reaches the backend whole, and a name that would have to be
/// cut does not reach it at all.
#[test]
fn v2_tls_header_has_large_certificates_and_no_cut_name() {
    let pki = TestPki::new();
    let (backend, told) = listening();
    let form = "{ version = \"v2-tls\", certificate = true }";
    let gate = gate_sending(&pki, &backend.address().to_string(), form);
    let mut params = Certified::for_clients(&"x".repeat(1025));
    let padding = CustomExtension::from_oid_content(&[2, 999, 1], vec![7; 30_000]);
    params.custom_extensions.push(padding);
    let large = pki.clients.issue(params);
    for version in VERSIONS {
        let config = device(&pki, Some(&large), &[], version);
        // No ticket has room for it: each handshake is a full one.
        for _ in 0..2 {
            let (_, line, first) = visit(&gate, &told, &config, NAME);
            let (_, _, ssl) = read(&first).0.tls();
            assert_eq!((ssl.client, ssl.verify), (SSL | CERT_CONN | CERT_SESS, 0), "{line}");
            assert_eq!(ssl.common_name, None, "{line}");
            assert!(ssl.certificate.is_some_and(|sent| sent == large.chain()[0].as_ref()), "{line}");
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
    assert_eq!(read(&told.recv().unwrap()), (without_tlvs(own, gate.address()), forged));
    drop(client);
    // And a connection on which nothing comes is one without a word, not one without a header.
    let stream = connect(gate.address());
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(plain_end(&stream), End::Truncated);
}
