//! What went wrong in other gates (see the list in `main.rs`), where no other file of this folder tests it.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::Arc;

use doorward::model::close::CloseReason;
use doorward::model::rejection::{Alert, Reason};
use rustls::client::ResolvesClientCert;
use tokio::time::Instant;

use crate::client::{Client, End, Hello, Shown, VERSIONS, client, connect, plain_end, refused_plainly, showing};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki};
use crate::common::process::run;
use crate::home::{House, Watch, assert_admitted, assert_refused};

/// Neither a Host header nor anything else in the payload leads to another backend than the server name did.
#[test]
fn sni_is_not_host_the_server_name_alone_chooses_the_backend() {
    let pki = TestPki::new();
    let (photos, ssh) = (Backend::echo(), Backend::echo());
    let gate = House::new(&pki)
        .route("photos", photos.address())
        .route_with("ssh", &[&ssh.address().to_string()], "allow = [\"bob-laptop\"]")
        .open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let line = assert_admitted(&gate, || {
        let client = Client::handshaken(gate.address(), &config, "photos.home.example")?;
        let request = b"GET / HTTP/1.1\r\nHost: ssh.home.example\r\n\r\n";
        client.send(request).unwrap();
        let mut echo = [0; 42];
        client.read_exact(&mut echo)?;
        assert_eq!(&echo, request);
        Ok(client)
    });
    assert_eq!((&line["route"], ssh.accepted()), (&"photos".into(), 0), "{line}");
    assert_refused(&gate, &ssh, Reason::IdentityNotAllowed, Alert::ACCESS_DENIED, || {
        Client::admitted(gate.address(), &config, "ssh.home.example")
    });
}

/// The forms of one name are one name, and lead to one policy.
#[test]
fn sni_forms_do_not_lead_past_the_policy() {
    let pki = TestPki::new();
    let (everybody, bob) = (Backend::echo(), Backend::echo());
    let gate = House::new(&pki)
        .route_with("any", &[&everybody.address().to_string()], "allow = [\"any\"]")
        .route_with("bob", &[&bob.address().to_string()], "allow = [\"bob-laptop\"]")
        .open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    for name in ["bob.home.example", "BOB.Home.EXAMPLE", "bob.home.example."] {
        assert_refused(&gate, &bob, Reason::IdentityNotAllowed, Alert::ACCESS_DENIED, || {
            Client::admitted(gate.address(), &config, name)
        });
    }
    for name in ["xbob.home.example", "bob.home.example.evil.example", "home.example", "any.bob.home.example"] {
        let watch = Watch::begin(&gate);
        let stream = connect(gate.address());
        let hello = Hello { version: 0x0303, suites: &[0xc02b], server_name: name }.record();
        let end = refused_plainly(&stream, &hello);
        assert_eq!(end, End::Alert(Alert::UNRECOGNIZED_NAME), "{name}");
        watch.rejected(Reason::ServerNameUnknown, &end);
    }
    assert_eq!((everybody.accepted(), bob.accepted()), (0, 0));
}

/// CVE-2026-27586: a trust bundle that is missing or empty must not mean the system's roots.
#[test]
fn fail_open_on_a_missing_ca_there_is_no_gate_without_trust() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let empty = pki.write("empty.pem", "");
    let no_certificate = pki.write("key.pem", pki.client("alice-phone").key_pem());
    let missing = pki.path("missing.pem");
    let cut = pki.write("cut.pem", &pki.clients.pem()[..200]);
    for mode in ["require_and_verify", "verify_if_given", "require", "request"] {
        for trust in [&empty, &no_certificate, &missing, &cut] {
            let allow = if matches!(mode, "request" | "require") { "unverified" } else { "any" };
            let keys = format!("allow = [{allow:?}]\n[route.client_auth]\nmode = {mode:?}\ntrust = [{trust:?}]");
            let config = House::new(&pki).route_with("nas", &[&backend.address().to_string()], &keys).config();
            let file = pki.write("doorward.toml", config);
            let finished =
                run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(["run", "--config"]).arg(file)).failure();
            assert_eq!(finished.status.code(), Some(3), "{mode}, {trust:?}: {finished}");
            assert!(finished.stdout.is_empty(), "it never listened: {finished}");
            assert!(finished.stderr.contains(&trust.display().to_string()), "{finished}");
        }
    }
}

/// Traefik CVE-2026-22045 and others: the deadline of the handshake is one moment, whatever comes meanwhile.
#[test]
fn slow_handshakes_every_byte_in_time_and_the_whole_too_late() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).timeouts("handshake = \"1500ms\"").route("nas", backend.address()).open();
    for version in VERSIONS {
        let config = Arc::new(pki.client_config(Some(&pki.client("alice-phone")), &[version]));
        let watch = Watch::begin(&gate);
        let client = Client::on(connect(gate.address()), &config, "nas.home.example");
        client.flush().unwrap();
        // The gate's flight, and with it what the client would answer.
        while !client.tls(|connection| connection.wants_write()) {
            client.receive_some().unwrap();
        }
        let mut flight = Vec::new();
        client.tls(|connection| connection.write_tls(&mut flight)).unwrap();
        let begun = Instant::now();
        let mut sent = 0;
        for byte in &flight {
            if client.tcp().write_all(&[*byte]).is_err() {
                break;
            }
            sent += 1;
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let took = begun.elapsed();
        assert!(sent < flight.len(), "the whole flight was taken, in {took:?}");
        assert!(took < std::time::Duration::from_secs(10), "{took:?}");
        let line = watch.rejected(Reason::HandshakeTimeout, &End::Reset);
        assert!((1.5..10.0).contains(&line["seconds"].as_f64().unwrap()), "{line}");
    }
    assert_eq!(backend.accepted(), 0);
}

/// Every series has labels from the configuration or from closed lists, whatever strangers send.
#[test]
fn label_cardinality_strangers_add_no_series() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).route("nas", backend.address()).open();
    let (_, before) = gate.get("/metrics");
    let series = |text: &str| -> Vec<String> {
        // Histograms have a bucket each from their first observation on; that is not the strangers' choice.
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty() && !line.contains("seconds"));
        let mut series: Vec<String> =
            lines.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned()).collect();
        series.sort();
        series
    };
    for number in 0..30 {
        let names = [
            format!("stranger-{number}.example"),
            format!("{}.example", "x".repeat(60)),
            format!("a\"{{b}}\\{number}"),
        ];
        for name in names {
            let stream = connect(gate.address());
            refused_plainly(&stream, &Hello { version: 0x0303, suites: &[0xc02b], server_name: &name }.record());
        }
        let mallory = pki.servers.issue(Certified::for_clients(&format!("mallory\"\n{number}")));
        let config = client(&pki, Some(&mallory));
        assert_eq!(
            Client::admitted(gate.address(), &config, "nas.home.example").map(|_| ()),
            Err(End::Alert(Alert::UNKNOWN_CA))
        );
    }
    gate.settled();
    let (_, after) = gate.get("/metrics");
    assert_eq!(series(&before), series(&after));
}

/// ALPACA: a client that means another protocol is not let through to speak this one.
#[test]
fn alpaca_a_client_of_another_protocol_is_refused() {
    let pki = TestPki::new();
    let (web, raw) = (Backend::echo(), Backend::echo());
    let gate = House::new(&pki)
        .route_with("web", &[&web.address().to_string()], "allow = [\"any\"]\napplication_protocols = [\"http/1.1\"]")
        .route("raw", raw.address())
        .open();
    for version in VERSIONS {
        let speaking = |protocols: &[&[u8]]| {
            let mut config = pki.client_config(Some(&pki.client("alice-phone")), &[version]);
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        for other in [&[&b"ftp"[..]][..], &[b"h2"], &[b"smtp", b"imap"]] {
            let config = speaking(other);
            assert_refused(&gate, &web, Reason::NoApplicationProtocol, Alert::NO_APPLICATION_PROTOCOL, || {
                Client::admitted(gate.address(), &config, "web.home.example")
            });
        }
        for right in [&[&b"h2"[..], b"http/1.1"][..], &[]] {
            let config = speaking(right);
            assert_admitted(&gate, || Client::admitted(gate.address(), &config, "web.home.example"));
        }
    }
}

/// A TLS 1.3 client may have begun to send before it is refused. It is told why all the same: no reset eats the alert.
#[test]
fn tls13_client_gets_its_alert_after_its_finished() {
    let pki = TestPki::new();
    let backend = Backend::sink();
    let gate = House::new(&pki).route("nas", backend.address()).open();
    let shown = Shown::certificate(&pki.client("alice-phone"));
    shown.nothing_more();
    let config = showing(&pki, shown as Arc<dyn ResolvesClientCert>, &VERSIONS);
    for upload in [0, 1, 1000, 16 * 1024, 200_000, 700_000] {
        for _ in 0..5 {
            let watch = Watch::begin(&gate);
            let client = Client::handshaken(gate.address(), &config, "nas.home.example").unwrap();
            // It is refused in the middle of this, and can finish all the same.
            client.send(&vec![7; upload]).unwrap();
            let end = client.end();
            assert_eq!(end, End::Alert(Alert::CERTIFICATE_REQUIRED), "{upload} bytes sent");
            // And behind the alert comes an orderly end: systems other than Linux throw away what they have not been
            // asked for yet when a reset comes.
            assert_eq!(client.tcp().read(&mut [0]).ok(), Some(0), "{upload} bytes sent");
            drop(client);
            watch.rejected(Reason::CertificateRequired, &end);
        }
    }
    assert_eq!((backend.accepted(), backend.received()), (0, 0));
}

/// A client that does not know a name is shown nothing: no certificate, no banner.
#[test]
fn nothing_is_shown_to_who_knows_no_name() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).route("nas", backend.address()).open();
    for name in ["", "home.example", "203.0.113.7"] {
        let stream = connect(gate.address());
        let hello = Hello { version: 0x0303, suites: &[0xc02b, 0x1301], server_name: name }.record();
        // At most an alert: `refused_plainly` takes nothing else.
        assert!(matches!(refused_plainly(&stream, &hello), End::Alert(_)), "{name:?}");
    }
    let stream = connect(gate.address());
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(plain_end(&stream), End::Truncated);
}

/// stunnel#21: no combination of options lets in a client that one of them refuses.
#[test]
fn option_interplay_no_mode_lets_a_denied_certificate_in() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let lost = pki.client("lost-phone");
    let digest = doorward::model::identity::Sha256::of(&lost.chain()[0]);
    let serial = doorward::model::identity::Identity::from_certificate(&lost.chain()[0], false).unwrap().serial;
    let modes = [
        ("request", "unverified"),
        ("require", "unverified"),
        ("verify_if_given", "unverified"),
        ("verify_if_given", "any"),
        ("require_and_verify", "any"),
    ];
    let mut house = House::new(&pki);
    let mut names = Vec::new();
    for (number, (mode, allow)) in modes.into_iter().enumerate() {
        for (kind, deny) in [("sha", format!("sha256:{digest}")), ("serial", format!("serial:{serial}"))] {
            let name = format!("{kind}-{number}");
            let extra = if mode == "verify_if_given" { "\"lost-phone\", \"any\", " } else { "" };
            let keys = format!("allow = [{extra}{allow:?}]\n[route.client_auth]\nmode = {mode:?}\ndeny = [{deny:?}]\n");
            house = house.route_with(&name, &[&backend.address().to_string()], &keys);
            names.push(name);
        }
    }
    let gate: Gate = house.open();
    for version in VERSIONS {
        let config = Arc::new(pki.client_config(Some(&lost), &[version]));
        for name in &names {
            assert_refused(&gate, &backend, Reason::Denied, Alert::ACCESS_DENIED, || {
                Client::admitted(gate.address(), &config, &format!("{name}.home.example"))
            });
        }
    }
    let other = client(&pki, Some(&pki.client("alice-phone")));
    let line = assert_admitted(&gate, || Client::admitted(gate.address(), &other, "sha-4.home.example"));
    assert_eq!(line["reason"], CloseReason::ClientClosed.label());
}
