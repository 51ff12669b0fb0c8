//! Lines of the log that strangers wrote.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use rustix::process::Signal;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use crate::client::{Client, End, Shown, TLS13, VERSIONS, client, connect, showing, signing_key};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki};
use crate::common::process::{Daemon, own_loopback, wait_until};
use crate::der;
use crate::hello::{self, Hello, SERVER_NAME};
use crate::home::{House, Watch};

const NAME: &str = "nas.home.example";

/// The longest line that a verdict may take.
const LINE_MAX: usize = 2048;

/// A certificate for 12,000 purposes made a line of 120 kB, and one whose signature algorithm had long parameters a line
/// as long as they were: with neither an authority's word nor a key of one's own, the disk could be filled.
#[test]
fn strangers_certificate_made_lines_of_any_length() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).route("nas", backend.address()).open();
    let key = KeyPair::generate().unwrap();
    for (what, certificate) in [("purposes", many_purposes(&key)), ("parameters", long_parameters(&pki, &key))] {
        assert!(certificate.len() > 20_000, "{what}: only {} bytes", certificate.len());
        let key = signing_key(PrivateKeyDer::try_from(key.serialize_der()).unwrap());
        for version in VERSIONS {
            let shown = Shown::new(vec![certificate.clone()], Arc::clone(&key));
            let config = showing(&pki, shown as Arc<dyn ResolvesClientCert>, &[version]);
            let watch = Watch::begin(&gate);
            let end = Client::admitted(gate.address(), &config, NAME).expect_err("it should have been refused");
            assert!(matches!(end, End::Alert(_)), "{what}: {end:?}");
            let line = watch.rejected_at("certificate").to_string();
            assert!(line.len() < LINE_MAX, "{what}: a line of {} bytes: {}…", line.len(), &line[..LINE_MAX]);
        }
    }
    assert_eq!(backend.accepted(), 0);
}

/// Self-signed, for thousands of purposes, and being a client is none of them.
fn many_purposes(key: &KeyPair) -> CertificateDer<'static> {
    let mut params: CertificateParams = Certified::for_clients("stranger");
    let purposes = (0..5000).map(|last| ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 4, 1, 99_999, last]));
    params.extended_key_usages = purposes.collect();
    params.self_signed(key).unwrap().der().clone()
}

/// In the name of the trusted authority, signed with an unknown algorithm: ecdsa-with-SHA256 with parameters
/// (RFC 5758 section 3.2 forbids them), long ones.
fn long_parameters(pki: &TestPki, key: &KeyPair) -> CertificateDer<'static> {
    let impostor = Authority::new("Clients of home.example");
    let params = Certified::for_clients("stranger");
    let key = KeyPair::try_from(key.serialize_der()).unwrap();
    let certificate = impostor.issue_for_key(params, key).chain().remove(0);
    let parts = der::parts(&certificate);
    let algorithm = {
        let parameters = der::value(der::OCTET_STRING, &[0xff; 30_000]);
        der::value(der::SEQUENCE, &[der::content(parts[1]), &parameters].concat())
    };
    let mut signed: Vec<&[u8]> = der::parts(parts[0]);
    // Version, serial number, signature algorithm, issuer.
    signed[2] = &algorithm;
    let ours = pki.client("any").chain().remove(0);
    assert_eq!(signed[3], der::parts(der::parts(&ours)[0])[3], "the same issuer");
    der::certificate(&der::value(der::SEQUENCE, &signed.concat()), &algorithm, &der::content(parts[2])[1..])
}

/// A common name, or a server name that no route answers to, could add fields of its own to a line of text.
#[test]
fn names_with_spaces_and_quotes_forged_fields_of_a_line() {
    const NAMES: [&str; 4] = [
        "x to_backend=1 to_client=2 0.001s: ok",
        "x\" route=admin certificate=\"root",
        "x\\\" alert=none \\",
        "x\n2026-01-01T00:00:00Z closed 192.0.2.1:1 route=nas client_closed certificate=\"root\"",
    ];
    let pki = TestPki::new();
    let backend = Backend::echo();
    let address = std::net::SocketAddrV4::new(own_loopback(), 24_443);
    let config = House::new(&pki).route("nas", backend.address()).config();
    let config = config
        .replace("address = \"127.0.0.1:0\"\n\n\n[metrics]", &format!("address = \"{address}\"\n\n[metrics]"))
        .replace("format = \"json\"", "format = \"text\"");
    assert!(config.contains(&address.to_string()) && config.contains("\"text\""), "{config}");
    let file = pki.write("doorward.toml", config);
    let gate = Daemon::start(Command::new(env!("CARGO_BIN_EXE_doorward")).args(["run", "--config"]).arg(file), address);
    let address = SocketAddr::from(address);
    let mut seen = 0;
    let mut next_line = || {
        let line = wait_until("the next verdict", || verdicts(&gate.output()).get(seen).cloned());
        seen += 1;
        line
    };
    for name in NAMES {
        let config = client(&pki, Some(&pki.client(name)));
        let client = Client::admitted(address, &config, NAME).unwrap();
        let local = client.tcp().local_addr().unwrap();
        client.close_notify();
        assert_eq!(client.end(), End::Orderly);
        let line = next_line();
        let [words, quoted] = fields(&line);
        let expected =
            format!("closed {local} route=nas client_closed certificate= path=copy to_backend=4 to_client=4");
        assert!(words.starts_with(&expected), "{line}");
        assert_eq!(quoted, name, "{line}");

        let stranger = Authority::new("Clients of another house").issue(Certified::for_clients(name));
        let config = Arc::new(pki.client_config(Some(&stranger), TLS13));
        let told = Client::admitted(address, &config, NAME).map(|_| ()).unwrap_err();
        assert!(matches!(told, End::Alert(_)), "{told:?}");
        let line = next_line();
        let [words, quoted] = fields(&line);
        assert!(
            words.contains(" route=nas certificate/unknown_ca certificate=(unverified) alert=unknown_ca "),
            "{line}"
        );
        assert_eq!(quoted, name, "{line}");
    }
    // What rustls takes for a name has no spaces; one that it does not take leaves no trace but its refusal.
    for name in ["a\" route=admin", "a b.home.example", "a\n.home.example", "_\\.home.example"] {
        let hello = Hello::tls13(NAME).with(SERVER_NAME, hello::server_names(&[(0, name.as_bytes())]));
        let stream = connect(address);
        let told = crate::client::refused_plainly(&stream, &hello.records());
        let line = next_line();
        assert!(!line.contains("admin") && !line.contains("a b") && !line.contains(name), "{told:?}: {line}");
        let [words, _] = fields(&line);
        let expected = format!("rejected {} ", stream.local_addr().unwrap());
        assert!(words.starts_with(&expected) && words.matches('=').count() <= 1, "{line}");
    }
    let hello = Hello::tls13("evil_name.home.example").records();
    let told = crate::client::refused_plainly(&connect(address), &hello);
    assert!(matches!(told, End::Alert(_)), "{told:?}");
    let line = next_line();
    let [words, quoted] = fields(&line);
    assert!(words.contains(" server_name= route/server_name_unknown alert=unrecognized_name "), "{line}");
    assert_eq!(quoted, "evil_name.home.example", "{line}");
}

/// The lines of verdicts, without their time.
fn verdicts(output: &str) -> Vec<String> {
    // A line that has not come whole is for the next look.
    let whole = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().filter_map(|line| line.split_once(' '));
    lines
        .map(|(_, rest)| rest.to_owned())
        .filter(|rest| rest.starts_with("closed ") || rest.starts_with("rejected "))
        .collect()
}

/// A line without its quoted text and without its detail, and the quoted text. There is one at most.
#[track_caller]
fn fields(line: &str) -> [String; 2] {
    let mut inside = false;
    let mut escaped = false;
    let (mut words, mut quoted) = (String::new(), String::new());
    for c in line.chars() {
        match c {
            '"' if !escaped => inside = !inside,
            _ if inside => quoted.push(c),
            _ => words.push(c),
        }
        escaped = c == '\\' && !escaped && inside;
        if words.ends_with("s: ") {
            break;
        }
    }
    assert!(!inside, "quotes that are not closed: {line}");
    // The escapes are those of JSON, as far as these names need any.
    let quoted = serde_json::from_str::<Value>(&format!("\"{quoted}\"")).unwrap();
    [words, quoted.as_str().unwrap().to_owned()]
}

/// The reader of the log stopped (a pager, a collector that hangs), and the gate did not end when it was told to: it
/// waited for its last lines to be written, for as long as that took, and heard no further signal.
#[test]
fn reader_that_stands_still_kept_the_gate_from_ending() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let address = std::net::SocketAddrV4::new(own_loopback(), 24_444);
    let config = House::new(&pki).route("nas", backend.address()).config();
    let config = config.replacen("address = \"127.0.0.1:0\"", &format!("address = \"{address}\""), 1);
    let file = pki.write("doorward.toml", config);
    let (_reader, mut full) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&full, true).unwrap();
    while full.write(&[b'\n'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    let mut gate = Command::new(env!("CARGO_BIN_EXE_doorward"))
        .args(["run", "--config"])
        .arg(file)
        .stdout(full)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let admitted = wait_until("the gate listens", || TcpStream::connect(address).ok());
        drop(admitted);
        // No connection waits for the log while it runs.
        Client::admitted(address.into(), &client(&pki, Some(&pki.client("alice-phone"))), NAME).unwrap().close_notify();
        rustix::process::kill_process(rustix::process::Pid::from_child(&gate), Signal::TERM).unwrap();
        wait_until("the gate ends", || gate.try_wait().unwrap())
    }));
    let _ = gate.kill();
    gate.wait().unwrap();
    assert!(end.unwrap().success());
}

/// A client of a passthrough route had a line for each connection: 50 a second from one
/// address were some gigabytes a day.
#[test]
fn each_passthrough_connection_of_a_stranger_had_a_line() {
    const COUNT: usize = 150;
    let pki = TestPki::new();
    let backend = Backend::echo();
    let house = House::new(&pki).limits("connection_rate_per_source = \"off\"").passthrough("mail", backend.address());
    let mut gate = Gate::start(&house.config().replace("sampling = \"off\"", "sampling = \"on\""));
    let hello = Hello::tls13("mail.home.example").records();
    for _ in 0..COUNT {
        let mut stream = connect(gate.address());
        stream.write_all(&hello).unwrap();
        stream.read_exact(&mut vec![0; hello.len()]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    gate.wait_metric("doorward_connections_closed_total", &[("reason", "client_closed")], COUNT as f64);
    gate.settled();
    gate.signal(Signal::TERM);
    assert!(gate.wait_for_end().success());
    let lines = gate.lines();
    let written = lines.iter().filter(|line| line["event"] == "closed").count();
    // One more for every ten seconds that it took.
    assert!((30..40).contains(&written), "{written} lines");
    let left_out: Vec<_> = lines.iter().filter(|line| line["event"] == "left_out").collect();
    let told: u64 = left_out.iter().map(|line| line["lines"].as_u64().unwrap()).sum();
    assert_eq!(told, (COUNT - written) as u64, "{left_out:?}");
    for line in left_out {
        assert_eq!([&line["stage"], &line["reason"]], ["relay", "client_closed"], "{line}");
    }
}
