//! Clients that ask for TLS as PostgreSQL's do: answered where a route asks for it, once, and never past the handshake.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use doorward::model::rejection::{Alert, Reason};
use rustls::ClientConfig;

use crate::client::{Client, End, Hello, client, connect, plain_end, refused_plainly};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::home::{House, Watch, assert_admitted, assert_refused};
use crate::proxy::{FROM_HERE, v2_tcp4};

const NAME: &str = "db.home.example";
const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSS_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";
const STARTUP: &[u8] = b"\0\0\0\x14\0\x03\0\0user\0alice\0\0";
const KEYS: &str = "allow = [\"any\"]\nstarttls = \"postgres\"";

/// A gate with a route for PostgreSQL and one that is none.
fn gate(pki: &TestPki, backend: &Backend) -> Gate {
    house(pki, backend).open()
}

fn house<'a>(pki: &'a TestPki, backend: &Backend) -> House<'a> {
    let address = backend.address();
    House::new(pki).route_with("db", &[&address.to_string()], KEYS).route("nas", address)
}

/// Sends a request and takes the answer, which is one byte.
#[track_caller]
fn ask(mut stream: &TcpStream, request: &[u8]) -> u8 {
    stream.write_all(request).unwrap();
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).unwrap();
    assert_eq!(length, 1, "{answer:?}");
    answer[0]
}

/// Asks for TLS, makes the handshake, and gets an answer of the echo service.
fn admitted(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Result<Client, End> {
    let tcp = connect(address);
    assert_eq!(ask(&tcp, SSL_REQUEST), b'S');
    let client = Client::on(tcp, config, name);
    client.handshake()?;
    client.ping()?;
    Ok(client)
}

#[test]
fn client_that_asks_for_tls_is_admitted() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = gate(&pki, &backend);
    let mut config = pki.client_config(Some(&pki.client("alice-laptop")), crate::client::TLS13);
    let plain = Arc::new(config.clone());
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let config = Arc::new(config);
    for config in [&config, &plain] {
        // As psql does, and with sslnegotiation=direct.
        let line = assert_admitted(&gate, || admitted(gate.address(), config, NAME));
        assert_eq!((&line["route"], &line["bytes_to_backend"]), (&"db".into(), &4.into()), "{line}");
        assert_admitted(&gate, || Client::admitted(gate.address(), config, NAME));
    }
    let direct = Client::handshaken(gate.address(), &config, NAME).unwrap();
    assert_eq!(direct.tls(|tls| tls.alpn_protocol().map(<[u8]>::to_vec)).as_deref(), Some(&b"postgresql"[..]));
    direct.ping().unwrap();
    // Byte by byte, it is answered with the last one.
    let tcp = connect(gate.address());
    for byte in &SSL_REQUEST[..7] {
        (&tcp).write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(ask(&tcp, &SSL_REQUEST[7..]), b'S');
    let client = Client::on(tcp, &config, NAME);
    client.handshake().unwrap();
    client.ping().unwrap();
}

/// A client with Kerberos asks for that first, and goes on with TLS.
#[test]
fn gss_encryption_is_declined_once() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = gate(&pki, &backend);
    let config = client(&pki, Some(&pki.client("alice-laptop")));
    let tcp = connect(gate.address());
    assert_eq!(ask(&tcp, GSS_REQUEST), b'N');
    assert_eq!(ask(&tcp, SSL_REQUEST), b'S');
    let client = Client::on(tcp, &config, NAME);
    client.handshake().unwrap();
    client.ping().unwrap();
    drop(client);
    gate.settled();
    for (asked, again) in [
        (&[GSS_REQUEST][..], GSS_REQUEST),
        (&[SSL_REQUEST], SSL_REQUEST),
        (&[SSL_REQUEST], GSS_REQUEST),
        (&[GSS_REQUEST, SSL_REQUEST], SSL_REQUEST),
        // What follows is TLS, or nothing.
        (&[GSS_REQUEST], STARTUP),
        (&[SSL_REQUEST], STARTUP),
    ] {
        let watch = Watch::begin(&gate);
        let tcp = connect(gate.address());
        for request in asked {
            ask(&tcp, request);
        }
        let line = watch.rejected(Reason::NotTls, &refused_plainly(&tcp, again));
        assert_eq!(line["detail"], "postgres", "{line}");
    }
    assert_eq!(backend.accepted(), 1);
}

/// CVE-2021-23214, CVE-2021-23222: what comes with a request is refused, and not even answered.
#[test]
fn bytes_behind_a_request_reach_neither_backend_nor_handshake() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = gate(&pki, &backend);
    let hello = Hello { version: 0x0303, suites: &[0x1301], server_name: NAME }.record();
    for request in [SSL_REQUEST, GSS_REQUEST] {
        for behind in [&b"Q"[..], STARTUP, &hello, SSL_REQUEST] {
            let watch = Watch::begin(&gate);
            // One segment, so that it arrives at once.
            let end = refused_plainly(&connect(gate.address()), &[request, behind].concat());
            assert!(matches!(end, End::Truncated | End::Reset), "{end:?}");
            let line = watch.rejected(Reason::Malformed, &end);
            assert_eq!(line["detail"], "bytes behind a request for TLS, before it was answered", "{line}");
        }
    }
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn other_routes_are_not_reached_by_a_request_for_tls() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = house(&pki, &backend).passthrough("mail", backend.address()).open();
    let config = client(&pki, Some(&pki.client("alice-laptop")));
    for name in ["nas.home.example", "mail.home.example", "none.home.example"] {
        let alert = Alert(112);
        let line = assert_refused(&gate, &backend, Reason::ServerNameUnknown, alert, || {
            admitted(gate.address(), &config, name)
        });
        let expected = match name {
            "none.home.example" => "no route answers to none.home.example".to_owned(),
            _ => format!(
                "a PostgreSQL client asked for the route {}, which lacks starttls = \"postgres\"",
                name.split('.').next().unwrap()
            ),
        };
        assert_eq!(line["detail"], expected, "{line}");
    }
    assert_admitted(&gate, || Client::admitted(gate.address(), &config, "nas.home.example"));
    // The rights are those of any other connection.
    let stranger = client(&pki, None);
    assert_refused(&gate, &backend, Reason::CertificateRequired, Alert::CERTIFICATE_REQUIRED, || {
        admitted(gate.address(), &stranger, NAME)
    });
}

/// Without such a route there is no answer, and no waiting for the rest of a request.
#[test]
fn gate_without_such_a_route_names_the_protocol_and_closes() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let address = backend.address();
    let plain = || House::new(&pki).route("db", address).route("nas", address).config();
    let asking = house(&pki, &backend).config();
    let gate = Gate::start(&plain());
    let refused = || {
        for (bytes, detail) in [
            (SSL_REQUEST, "postgres"),
            (GSS_REQUEST, "postgres"),
            (STARTUP, "postgres"),
            (b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02", "postgres"),
            (&SSL_REQUEST[..7], "other"),
        ] {
            let watch = Watch::begin(&gate);
            let end = refused_plainly(&connect(gate.address()), bytes);
            assert!(matches!(end, End::Truncated | End::Reset), "{end:?}");
            let line = watch.rejected(Reason::NotTls, &end);
            assert_eq!(line["detail"], detail, "{line}");
        }
    };
    refused();
    // A reload decides anew.
    let config = client(&pki, Some(&pki.client("alice-laptop")));
    assert_eq!(gate.reload(&asking)["event"], "reloaded");
    assert_admitted(&gate, || admitted(gate.address(), &config, NAME));
    assert_eq!(gate.reload(&plain())["event"], "reloaded");
    refused();
    assert_eq!(backend.accepted(), 1);
}

/// The request is a part of the time for the ClientHello, and gives no more of it.
#[test]
fn request_does_not_extend_the_deadline() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = house(&pki, &backend).timeouts("client_hello = \"6s\"").open();
    for (sent, answer) in [(&SSL_REQUEST[..7], None), (GSS_REQUEST, Some(b'N')), (SSL_REQUEST, Some(b'S'))] {
        let watch = Watch::begin(&gate);
        let mut tcp = connect(gate.address());
        // With an answer late in that time, a new deadline would be seen.
        std::thread::sleep(Duration::from_secs(3));
        match answer {
            Some(answer) => assert_eq!(ask(&tcp, sent), answer),
            None => tcp.write_all(sent).unwrap(),
        }
        let line = watch.rejected(Reason::ClientHelloTimeout, &plain_end(&tcp));
        let seconds = line["seconds"].as_f64().unwrap();
        assert!((6.0..9.0).contains(&seconds), "from accept: {line}");
    }
    let watch = Watch::begin(&gate);
    let tcp = connect(gate.address());
    assert_eq!(ask(&tcp, SSL_REQUEST), b'S');
    tcp.shutdown(Shutdown::Write).unwrap();
    watch.rejected(Reason::ClientHelloClosedEarly, &plain_end(&tcp));
    assert_eq!(backend.accepted(), 0);
}

/// Behind a proxy, the request follows the proxy's header, in the same segment or not.
#[test]
fn request_may_follow_a_proxy_header() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = house(&pki, &backend).listener(FROM_HERE).open();
    let config = client(&pki, Some(&pki.client("alice-laptop")));
    let line = assert_admitted(&gate, || {
        let tcp = connect(gate.address());
        let first = [&v2_tcp4([203, 0, 113, 9], 5555)[..], SSL_REQUEST].concat();
        assert_eq!(ask(&tcp, &first), b'S');
        let client = Client::on(tcp, &config, NAME);
        client.handshake()?;
        client.ping()?;
        Ok(client)
    });
    assert_eq!(line["source"], "203.0.113.9:5555", "{line}");
}
