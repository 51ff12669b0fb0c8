//! TLS to a backend: attacks.md rows 21 and 22, revocations, and what the log says of it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use doorward::model::close::CloseReason;
use doorward::model::identity::Sha256;
use doorward::model::rejection::Reason;
use rcgen::ExtendedKeyUsagePurpose;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::backends::once;
use crate::client::{Client, End, VERSIONS, client, reset};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki, days_from_now};
use crate::common::process::{Finished, own_loopback, run};
use crate::common::tls_backend::{NAME as BACKEND, certificate, echo, serve, server};
use crate::home::{House, Watch};
use crate::reasons::{ANY, NAME, refusal};

const MIB: usize = 1024 * 1024;

/// The keys of a route whose backend is trusted by its authority.
fn keys(trust: &std::path::Path) -> String {
    format!("{ANY}\nbackend_tls = {{ trust = {trust:?}, server_name = {BACKEND:?} }}")
}

fn gate(pki: &TestPki, backend: &Backend, keys: &str) -> Gate {
    House::new(pki).route_with("nas", &[&backend.address().to_string()], keys).open()
}

/// Noise, another for each seed (xorshift64).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

#[test]
fn row_22_duplex_of_64_mib_arrives_byte_for_byte() {
    let pki = TestPki::new();
    let (certified, trust) = certificate(&pki, "nas.pem");
    let (up, down) = (Arc::new(noise(1, 64 * MIB)), Arc::new(noise(2, 64 * MIB)));
    for version in VERSIONS {
        // It reads and writes at once, and ends first: the client's half comes after.
        let (sent, wanted) = (Arc::clone(&down), Arc::clone(&up));
        let config = Arc::new(server(&certified));
        let backend = Backend::serve("127.0.0.1:0", move |stream, _| duplex(stream, &config, &sent, &wanted));
        let gate = gate(&pki, &backend, &keys(&trust));
        let config = Arc::new(pki.client_config(Some(&pki.client("alice-phone")), &[version]));
        let client = Client::handshaken(gate.address(), &config, NAME).unwrap();
        let (received, end) = thread::scope(|scope| {
            scope.spawn(|| {
                client.send(&up).unwrap();
                client.close_notify();
            });
            client.read_to_end()
        });
        assert_eq!((received == **down, end), (true, End::Orderly), "{} of {} bytes", received.len(), down.len());
        let line = gate.wait_closed("nas", 1).remove(0);
        assert_eq!(
            (&line["bytes_to_backend"], &line["bytes_to_client"]),
            (&(64 * MIB).into(), &(64 * MIB).into()),
            "{line}"
        );
        assert_eq!(line["path"], "copy", "{line}");
    }
}

/// Sends and receives at once, and ends in order when everything is sent.
fn duplex(stream: &std::net::TcpStream, config: &Arc<ServerConfig>, send: &[u8], wanted: &[u8]) {
    let stream = stream.try_clone().unwrap();
    stream.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let tls = TlsAcceptor::from(Arc::clone(config)).accept(stream).await.unwrap();
        let (mut from, mut to) = tokio::io::split(tls);
        let mut received = Vec::new();
        let sending = async {
            to.write_all(send).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let (end, ()) = tokio::join!(from.read_to_end(&mut received), sending);
        end.unwrap();
        assert!(received == wanted, "{} of {} bytes", received.len(), wanted.len());
    });
}

#[test]
fn row_21_dead_resetting_and_mute_backends_are_told_apart() {
    let pki = TestPki::new();
    let (certified, trust) = certificate(&pki, "nas.pem");
    let good = client(&pki, Some(&pki.client("alice-phone")));
    // It accepts, and says nothing in TLS.
    let mute = Backend::mute();
    // In the middle of the handshake.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let resetting = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read_exact(&mut [0; 5]);
            reset(stream);
        }
    });
    let dead = format!("{}:9", own_loopback());
    let plain = Backend::echo();
    for (backend, reason) in [
        (mute.address().to_string(), Reason::BackendTimeout),
        (resetting.to_string(), Reason::BackendTls),
        (dead, Reason::BackendRefused),
        (plain.address().to_string(), Reason::BackendTls),
    ] {
        let house = House::new(&pki).timeouts("dial = \"5s\"").route_with("nas", &[&backend], &keys(&trust));
        let gate = house.open();
        let watch = Watch::begin(&gate);
        let end = refusal(Client::admitted(gate.address(), &good, NAME));
        let line = watch.rejected(reason, &end);
        assert!(line["detail"].as_str().unwrap().starts_with(&backend), "{line}");
    }
    // The next one answers.
    let right = echo(server(&certified));
    let both = [resetting.to_string(), right.address().to_string()];
    let gate = House::new(&pki).route_with("nas", &[&both[0], &both[1]], &keys(&trust)).open();
    let client = Client::admitted(gate.address(), &good, NAME).unwrap();
    client.close_notify();
    assert_eq!(client.end(), End::Orderly);
}

#[test]
fn row_21_half_close_is_kept_both_ways_and_a_reset_is_no_end() {
    let pki = TestPki::new();
    let (certified, trust) = certificate(&pki, "nas.pem");
    let good = client(&pki, Some(&pki.client("alice-phone")));
    // It answers when it was told everything.
    let answering = serve(server(&certified), |tls| {
        let mut request = Vec::new();
        if tls.read_to_end(&mut request).is_ok() {
            let _ = tls.write_all(format!("{} bytes", request.len()).as_bytes());
        }
    });
    let answered = gate(&pki, &answering, &keys(&trust));
    let client = Client::handshaken(answered.address(), &good, NAME).unwrap();
    client.send(b"all of it").unwrap();
    client.close_notify();
    assert_eq!(client.read_to_end(), (b"9 bytes".to_vec(), End::Orderly));

    let config = Arc::new(server(&certified));
    let resetting = once(move |mut stream| {
        let mut tls = rustls::ServerConnection::new(config).unwrap();
        let mut inside = rustls::Stream::new(&mut tls, &mut stream);
        let mut request = [0; 4];
        inside.read_exact(&mut request).unwrap();
        inside.write_all(&request).unwrap();
        inside.flush().unwrap();
        // Until the client has it.
        inside.read_exact(&mut request).unwrap();
        reset(stream);
    });
    let gate = House::new(&pki).route_with("nas", &[&resetting.to_string()], &keys(&trust)).open();
    let watch = Watch::begin(&gate);
    let client = Client::admitted(gate.address(), &good, NAME).unwrap();
    client.send(b"more").unwrap();
    assert_eq!(client.end(), End::Truncated);
    drop(client);
    watch.closed(CloseReason::BackendReset);
}

#[test]
fn revoked_client_is_cut_while_bytes_flow() {
    let pki = TestPki::new();
    let (certified, trust) = certificate(&pki, "nas.pem");
    // It sends for as long as it can.
    let backend = serve(server(&certified), |tls| while tls.write_all(&[7; 1 << 16]).is_ok() {});
    let alice = pki.client("alice-phone");
    let keys = keys(&trust);
    let house = |deny: &str| {
        House::new(&pki).client_auth(deny).route_with("nas", &[&backend.address().to_string()], &keys).config()
    };
    let gate = Gate::start(&house(""));
    let watch = Watch::begin(&gate);
    let client = Client::handshaken(gate.address(), &client(&pki, Some(&alice)), NAME).unwrap();
    client.read_exact(&mut vec![0; MIB]).unwrap();
    gate.reload(&house(&format!("deny = [\"sha256:{}\"]", Sha256::of(&alice.chain()[0]))));
    let (rest, end) = client.read_to_end();
    let told = End::of(CloseReason::Denied);
    assert!(matches!(end, End::Reset | End::Truncated) || end == told, "{end:?} after {} bytes", rest.len());
    watch.closed(CloseReason::Denied);
}

/// A backend that asks for a certificate, and trusts the authority of the gate's clients.
fn asking(pki: &TestPki, certified: &Certified) -> ServerConfig {
    let mut roots = rustls::RootCertStore::empty();
    let path = pki.path("clients.pem");
    let pem = std::fs::read(path).unwrap();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(certified.chain(), certified.key())
        .unwrap()
}

#[test]
fn certificate_of_the_gate_is_shown_where_it_is_asked_for() {
    let pki = TestPki::new();
    let (certified, trust) = certificate(&pki, "nas.pem");
    let own = pki.client("the-gate");
    let (chain, key) = (pki.write("gate.pem", own.chain_pem()), pki.write("gate-key.pem", own.key_pem()));
    let backend = echo(asking(&pki, &certified));
    let good = client(&pki, Some(&pki.client("alice-phone")));
    let with = format!(
        "{ANY}\nbackend_tls = {{ trust = {trust:?}, server_name = {BACKEND:?}, certificate = {chain:?}, key = {key:?} }}"
    );
    let showing = gate(&pki, &backend, &with);
    Client::admitted(showing.address(), &good, NAME).unwrap().close_notify();
    showing.wait_closed("nas", 1);
    // TLS 1.3 tells a client that its certificate is missing only after the handshake.
    let without = gate(&pki, &backend, &keys(&trust));
    let watch = Watch::begin(&without);
    Client::admitted(without.address(), &good, NAME).expect_err("the backend takes no one without a certificate");
    let line = watch.closed(CloseReason::BackendReset);
    assert!(line["detail"].as_str().unwrap().contains("CertificateRequired"), "{line}");
}

#[test]
fn wrong_name_and_expiry_are_told_with_what_to_write() {
    let pki = TestPki::new();
    let (certified, trust) = certificate(&pki, "nas.pem");
    let good = client(&pki, Some(&pki.client("alice-phone")));
    let backend = echo(server(&certified));
    let seen = format!("sha256:{}", Sha256::of(&certified.chain()[0]));
    // By its address, which the certificate lacks.
    let by_address = format!("{ANY}\nbackend_tls = {{ trust = {trust:?} }}");
    let unnamed = gate(&pki, &backend, &by_address);
    let watch = Watch::begin(&unnamed);
    let end = refusal(Client::admitted(unnamed.address(), &good, NAME));
    let detail = watch.rejected(Reason::BackendTls, &end)["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("not for 127.0.0.1, but for nas.local") && detail.contains(&seen), "{detail}");

    let authority = crate::common::pki::Authority::new("Services at home");
    let mut params = Certified::for_servers(&[BACKEND]);
    params.not_before = days_from_now(-9);
    params.not_after = days_from_now(-2);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let old = authority.issue(params);
    let trust = pki.write("old.pem", authority.pem());
    let backend = echo(server(&old));
    let expired = gate(&pki, &backend, &keys(&trust));
    let watch = Watch::begin(&expired);
    let end = refusal(Client::admitted(expired.address(), &good, NAME));
    let detail = watch.rejected(Reason::BackendTls, &end)["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("expired at"), "{detail}");
    // The fingerprint in the detail, as it is: the pin counts more than the date.
    let pinned = format!("{ANY}\nbackend_tls = {{ trust = \"sha256:{}\" }}", Sha256::of(&old.chain()[0]));
    let pinned = gate(&pki, &backend, &pinned);
    Client::admitted(pinned.address(), &good, NAME).unwrap();
}

/// It completes what it can of the handshake, and counts what comes inside.
#[test]
fn untrusted_backend_gets_nothing_of_a_client() {
    let pki = TestPki::new();
    let (certified, trust) = certificate(&pki, "nas.pem");
    let (other, _) = certificate(&pki, "other.pem");
    let good = client(&pki, Some(&pki.client("alice-phone")));
    // The certificate of the service, which is no secret, and another key.
    let key = crate::client::signing_key(other.key());
    let stolen = rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(certified.chain(), key));
    let stolen = ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(stolen));
    for config in [server(&other), stolen] {
        let received = Arc::new(AtomicUsize::new(0));
        let inside = Arc::clone(&received);
        let backend = serve(config, move |tls| {
            let mut bytes = Vec::new();
            let _ = tls.read_to_end(&mut bytes);
            inside.fetch_add(bytes.len(), Ordering::Relaxed);
        });
        let gate = gate(&pki, &backend, &keys(&trust));
        let watch = Watch::begin(&gate);
        let client = Client::handshaken(gate.address(), &good, NAME).unwrap();
        let _ = client.send(b"GET /secret HTTP/1.1\r\n\r\n");
        let (_, end) = client.read_to_end();
        watch.rejected(Reason::BackendTls, &end);
        assert_eq!((backend.accepted(), received.load(Ordering::Relaxed)), (1, 0));
    }
}

#[test]
fn changed_trust_file_is_loaded_and_the_old_one_forgotten() {
    let pki = TestPki::new();
    let (certified, trust) = certificate(&pki, "nas.pem");
    let good = client(&pki, Some(&pki.client("alice-phone")));
    let backend = echo(server(&certified));
    let gate = gate(&pki, &backend, &keys(&trust));
    Client::admitted(gate.address(), &good, NAME).unwrap();
    // Of another authority: what was accepted, and could be resumed, no longer is.
    certificate(&pki, "nas.pem");
    gate.wait_for_line("the new file counts", |line| line["event"] == "reloaded");
    Client::admitted(gate.address(), &good, NAME).map(|_| ()).unwrap_err();
    gate.wait_for_line("the refusal", |line| line["reason"] == "tls" && line["stage"] == "backend");
}

#[test]
fn header_goes_before_tls_or_inside() {
    let pki = TestPki::new();
    let (certified, trust) = certificate(&pki, "nas.pem");
    let good = client(&pki, Some(&pki.client("alice-phone")));
    for inside in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = if inside { ", proxy_protocol = \"inside\"" } else { "" };
        let keys = format!(
            "{ANY}\nsend_proxy_protocol = \"v1\"\nbackend_tls = {{ trust = {trust:?}, server_name = {BACKEND:?}{place} }}"
        );
        let address = listener.local_addr().unwrap().to_string();
        let gate = House::new(&pki).route_with("nas", &[&address], &keys).open();
        let config = Arc::new(server(&certified));
        let backend = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let header = |read: &mut dyn FnMut(&mut [u8])| {
                let mut line = Vec::new();
                while !line.ends_with(b"\r\n") {
                    let mut byte = [0; 1];
                    read(&mut byte);
                    line.push(byte[0]);
                }
                String::from_utf8(line).unwrap()
            };
            let before = (!inside).then(|| header(&mut |byte| stream.read_exact(byte).unwrap()));
            let mut tls = rustls::ServerConnection::new(config).unwrap();
            let mut within = rustls::Stream::new(&mut tls, &mut stream);
            let line = before.unwrap_or_else(|| header(&mut |byte| within.read_exact(byte).unwrap()));
            let mut ping = [0; 4];
            within.read_exact(&mut ping).unwrap();
            within.write_all(&ping).unwrap();
            within.flush().unwrap();
            line
        });
        let client = Client::admitted(gate.address(), &good, NAME).unwrap();
        let line = backend.join().unwrap();
        assert!(line.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "), "{line}");
        drop(client);
    }
}

/// `doorward check --connect` on a configuration: what it prints.
fn checked(pki: &TestPki, config: &str) -> Finished {
    let file = pki.write("doorward.toml", config);
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    run(command.args(["check", "--connect", "--config"]).arg(file))
}

#[test]
fn check_shows_the_line_that_the_gate_accepts() {
    let pki = TestPki::new();
    let (certified, _) = certificate(&pki, "nas.pem");
    let good = client(&pki, Some(&pki.client("alice-phone")));
    let backend = echo(server(&certified));
    let house = |keys: &str| House::new(&pki).route_with("nas", &[&backend.address().to_string()], keys);
    let without = checked(&pki, &house(ANY).config()).success();
    let fingerprint = format!("sha256:{}", Sha256::of(&certified.chain()[0]));
    assert!(
        without.text().contains(&format!("answers: TLS, certificate {fingerprint} for nas.local, valid until ")),
        "{without}"
    );
    let line =
        without.stderr.lines().find_map(|line| line.split_once("add to the route: ")?.1.split_once(", if ")).unwrap();
    assert_eq!(line.0, format!("backend_tls = {{ trust = \"{fingerprint}\" }}"), "{without}");

    let house_with = house(&format!("{ANY}\n{}", line.0));
    let with = checked(&pki, &house_with.config()).success();
    assert!(with.text().contains(&fingerprint) && !with.stderr.contains("route \"nas\""), "{with}");
    Client::admitted(house_with.open().address(), &good, NAME).unwrap();

    let wrong = house(&format!("{ANY}\nbackend_tls = {{ trust = \"sha256:{}\" }}", "00".repeat(32)));
    let wrong = checked(&pki, &wrong.config()).success();
    assert!(wrong.text().contains("not as backend_tls asks") && wrong.stderr.contains(&fingerprint), "{wrong}");
}

#[test]
fn system_trust_is_the_list_of_the_machine() {
    let pki = TestPki::new();
    let (certified, trust) = certificate(&pki, "nas.pem");
    let good = client(&pki, Some(&pki.client("alice-phone")));
    let backend = echo(server(&certified));
    let keys = format!("{ANY}\nbackend_tls = {{ trust = \"system\", server_name = {BACKEND:?} }}");
    let house = House::new(&pki).route_with("nas", &[&backend.address().to_string()], &keys);
    let on_machine = |list: &std::path::Path| {
        Gate::start_with(&house.config(), |gate| {
            gate.env("SSL_CERT_FILE", list);
        })
    };
    let gate = on_machine(&trust);
    Client::admitted(gate.address(), &good, NAME).unwrap();
    let gate = on_machine(&pki.path("servers.pem"));
    let watch = Watch::begin(&gate);
    let end = refusal(Client::admitted(gate.address(), &good, NAME));
    watch.rejected(Reason::BackendTls, &end);
}
