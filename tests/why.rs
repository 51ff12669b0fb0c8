//! `doorward why`, `doorward status` and `doorward sessions` at a running gate, and the control socket, which no client of
//! it can use to harm the gate.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "common/mod.rs"]
mod common;

#[expect(dead_code, reason = "shared with tests/journey")]
#[path = "journey/client.rs"]
mod client;

#[expect(dead_code, reason = "shared with tests/journey")]
#[path = "journey/home.rs"]
mod home;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use doorward::model::rejection::Reason;
use rcgen::{DnType, ExtendedKeyUsagePurpose};
use rustls::client::ResolvesClientCert;
use serde_json::Value;
use tokio::time::Instant;

use client::{Client, Hello, Shown, TLS13, client, connect, plain_end, refused_plainly, showing, signing_key};
use common::DEADLINE;
use common::backend::Backend;
use common::gate::Gate;
use common::pki::{Authority, Certified, TestPki, days_from_now};
use common::process::{Daemon, Finished, own_loopback, run, wait_until};
use home::{House, Watch};

const NAME: &str = "nas.home.example";

fn socket(gate: &Gate) -> PathBuf {
    gate.folder().join("control.sock")
}

fn doorward(arguments: &[&str]) -> Finished {
    run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(arguments))
}

#[track_caller]
fn json(gate: &Gate, arguments: &[&str]) -> Value {
    let said = gate.ask(&[arguments, &["--format", "json"]].concat()).success();
    serde_json::from_slice(&said.stdout).unwrap()
}

/// Asks in each way about the connection that was just refused for this reason, and compares the answer with the log line.
/// Returns the answer as text.
#[track_caller]
fn explained(gate: &Gate, reason: Reason, attempt: impl FnOnce() -> client::End) -> String {
    let watch = Watch::begin(gate);
    let end = attempt();
    let line = watch.rejected(reason, &end);

    let why = json(gate, &["why"]);
    let shown = &why["refusals"][0];
    for field in ["id", "listener", "source", "server_name", "route", "stage", "reason", "side", "detail", "alert"] {
        assert_eq!(shown[field], line[field], "{field}: {shown} {line}");
    }
    for field in ["name", "fingerprint", "serial", "issuer", "not_after", "verified"] {
        assert_eq!(shown["certificate"][field], line["certificate"][field], "{field}: {shown} {line}");
    }
    let (explanation, advice) = (shown["explanation"].as_str().unwrap(), shown["advice"].as_str().unwrap());

    let text = gate.ask(&["why"]).success().text();
    assert!(text.starts_with(&format!("{explanation}\n{advice}\n\n")), "{text}");
    assert!(text.contains(&format!("{reason}: ")), "{text}");
    for field in ["source", "server_name", "alert"] {
        assert!(line[field].as_str().is_none_or(|value| text.contains(value)), "{field}: {text}");
    }

    // By address, and by certificate.
    let id = &line["id"];
    let by = |wanted: &str| json(gate, &["why", wanted])["refusals"][0]["id"].clone();
    assert_eq!(&by("127.0.0.1"), id);
    if let Some(fingerprint) = line["certificate"]["fingerprint"].as_str() {
        assert_eq!(&by(&format!("sha256:{fingerprint}")), id);
        assert_eq!(&by(&format!("sha256:{}", &fingerprint[..8])), id);
        assert_eq!(&by(line["certificate"]["name"].as_str().unwrap()), id);
        assert!(text.contains(&format!("sha256:{fingerprint}")), "{text}");
    }
    text
}

#[track_caller]
fn refusal(outcome: Result<Client, client::End>) -> client::End {
    outcome.map(|_| ()).expect_err("it should have been refused")
}

#[test]
fn why_finds_and_explains_a_refusal_for_each_reason() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let lost = pki.client("carol-phone");
    let revoked = pki.clients.issue(numbered("dave-phone", 0x4a01));
    let list = pki.clients.revocation_list(&[0x4a01_u64.into()], days_from_now(-2), days_from_now(7));
    let list = pki.write("clients.crl", list);
    let digest = doorward::model::identity::Sha256::of(&lost.chain()[0]);
    let house = House::new(&pki)
        .client_auth(&format!("revocation_lists = [{list:?}]\ndeny = [\"sha256:{digest}\"]"))
        .timeouts("client_hello = \"1s\"")
        .route("nas", echo.address())
        .route_with("ssh", &[&echo.address().to_string()], "allow = [\"bob-laptop\"]")
        .route("dead", "unix:/nowhere/service.sock");
    let gate = Gate::start_with_control(&house.config());
    let here = gate.address();
    let none = gate.ask(&["why"]).success().text();
    assert_eq!(none, "No connection has been refused since the gate was started.\n");

    let good = client(&pki, Some(&pki.client("alice-phone")));
    let shown = |certified: &Certified| client(&pki, Some(certified));
    let attempt = |config, name| move || refusal(Client::admitted(here, &config, name));
    let hello = |suites| Hello { version: 0x0303, suites, server_name: NAME }.record();

    let text = explained(&gate, Reason::ClientHelloTimeout, || plain_end(&connect(here)));
    assert!(text.starts_with("127.0.0.1 connected and did not begin a TLS connection in time."), "{text}");
    explained(&gate, Reason::ClientHelloClosedEarly, || {
        let stream = connect(here);
        stream.shutdown(Shutdown::Write).unwrap();
        plain_end(&stream)
    });
    let text = explained(&gate, Reason::NotTls, || refused_plainly(&connect(here), b"GET / HTTP/1.1\r\n\r\n"));
    assert!(text.contains("not TLS, but http."), "{text}");
    explained(&gate, Reason::TooLarge, || refused_plainly(&connect(here), &[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]));
    let mut nameless = pki.client_config(None, TLS13);
    nameless.enable_sni = false;
    explained(&gate, Reason::ServerNameMissing, attempt(Arc::new(nameless), NAME));
    let text = explained(&gate, Reason::ServerNameUnknown, attempt(Arc::clone(&good), "tv.home.example"));
    assert!(text.contains("add \"tv.home.example\" to server_names"), "{text}");
    explained(&gate, Reason::ProtocolVersion, || {
        let old = Hello { version: 0x0302, suites: &[0xc013], server_name: NAME }.record();
        refused_plainly(&connect(here), &old)
    });
    explained(&gate, Reason::NoSharedParameters, || refused_plainly(&connect(here), &hello(&[0x002f, 0x0002])));
    let text = explained(&gate, Reason::CertificateRequired, attempt(client(&pki, None), NAME));
    assert!(text.starts_with("127.0.0.1 asked for nas.home.example and showed no certificate."), "{text}");
    let stranger = Authority::new("Another house").issue(Certified::for_clients("alice-phone"));
    let text = explained(&gate, Reason::UnknownCa, attempt(shown(&stranger), NAME));
    assert!(text.contains("calls itself alice-phone") && text.contains("Another house"), "{text}");
    let mut expired = Certified::for_clients("alice-phone");
    expired.not_after = days_from_now(-3) - time::Duration::MINUTE;
    let text = explained(&gate, Reason::Expired, attempt(shown(&pki.clients.issue(expired)), NAME));
    assert!(text.starts_with("alice-phone's certificate expired 3 days ago.\nIssue alice-phone a new"), "{text}");
    let mut early = Certified::for_clients("alice-phone");
    early.not_before = days_from_now(2) + time::Duration::MINUTE;
    let text = explained(&gate, Reason::NotYetValid, attempt(shown(&pki.clients.issue(early)), NAME));
    assert!(text.contains("2 days from now"), "{text}");
    let mut for_servers = Certified::for_clients("alice-phone");
    for_servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    explained(&gate, Reason::WrongPurpose, attempt(shown(&pki.clients.issue(for_servers)), NAME));
    explained(&gate, Reason::Revoked, attempt(shown(&revoked), NAME));
    let text = explained(&gate, Reason::Denied, attempt(shown(&lost), NAME));
    assert!(text.contains("If carol-phone should get in again"), "{text}");
    let stolen = Shown::new(pki.client("alice-phone").chain(), signing_key(pki.client("mallory").key()));
    let stolen = showing(&pki, stolen as Arc<dyn ResolvesClientCert>, TLS13);
    explained(&gate, Reason::BadSignature, attempt(stolen, NAME));
    let text = explained(&gate, Reason::IdentityNotAllowed, attempt(Arc::clone(&good), "ssh.home.example"));
    assert!(text.contains("add \"alice-phone\" to allow of the route ssh"), "{text}");
    let text = explained(&gate, Reason::BackendUnreachable, attempt(Arc::clone(&good), "dead.home.example"));
    assert!(text.starts_with("alice-phone was let in, but"), "{text}");

    // All of them at once, the newest first.
    let count = 18;
    let all = json(&gate, &["why", "127.0.0.1", "--count", "100"]);
    assert_eq!((&all["known"], &all["rejected"]), (&count.into(), &count.into()), "{all}");
    let ids: Vec<u64> = all["refusals"].as_array().unwrap().iter().map(|one| one["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), count);
    assert!(ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");
    let two = gate.ask(&["why", "127.0.0.1", "--count", "2"]).success().text();
    assert!(two.ends_with("\nThe gate remembers 16 earlier ones: --count shows more.\n"), "{two}");
    let none = gate.ask(&["why", "192.0.2.7"]).success().text();
    assert!(
        none.starts_with("The gate remembers no such refusal. Refused since it was started: 18 connections."),
        "{none}"
    );

    let status = json(&gate, &["status"]);
    assert_eq!((&status["accepted"], &status["rejected"]), (&18.into(), &18.into()), "{status}");
}

fn numbered(name: &str, serial: u64) -> rcgen::CertificateParams {
    let mut params = Certified::for_clients(name);
    params.serial_number = Some(serial.into());
    params
}

#[test]
fn names_in_foreign_certificates_are_escaped() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = Gate::start_with_control(&House::new(&pki).route("nas", echo.address()).config());
    let nasty = "<script>alert(1)</script>\u{1b}[31m\nrejected\u{202e}";
    let mut params = Certified::for_clients("x");
    params.distinguished_name.push(DnType::CommonName, nasty);
    let stranger = Authority::new(nasty).issue(params);
    let text = explained(&gate, Reason::UnknownCa, || {
        refusal(Client::admitted(gate.address(), &client(&pki, Some(&stranger)), NAME))
    });
    let escaped = r"<script>alert(1)</script>\u{1b}[31m\nrejected\u{202e}";
    assert!(text.contains(&format!("calls itself {escaped}, and")), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{202e}']) && !text.contains("\nrejected"), "{text}");
    let why = gate.ask(&["why", "--format", "json"]).success().text();
    assert!(!why.contains(['\u{1b}', '\u{202e}']), "{why}");
    let why: Value = serde_json::from_str(&why).unwrap();
    assert_eq!(why["refusals"][0]["certificate"]["name"], escaped);

    // rustls refuses a server name with quotes, control characters or spaces.
    let odd = Hello { version: 0x0303, suites: &[0x1301], server_name: "<b>\u{1b}[31m\n.example" }.record();
    refused_plainly(&connect(gate.address()), &odd);
    wait_until("it is remembered", || (json(&gate, &["status"])["rejected"] == 2).then_some(()));
    let text = gate.ask(&["why"]).success().text();
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn sessions_lists_an_open_session_with_its_bytes() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = Gate::start_with_control(
        &House::new(&pki).route("nas", echo.address()).passthrough("mail", echo.address()).config(),
    );
    assert_eq!(gate.ask(&["sessions"]).success().text(), "No connection is open.\n");
    let alice = pki.client("alice-phone");
    let session = Client::admitted(gate.address(), &client(&pki, Some(&alice)), NAME).unwrap();

    let bytes = |count: u64| {
        wait_until("the bytes are counted", || {
            let sessions = json(&gate, &["sessions"]);
            let one = &sessions["sessions"][0];
            (one["bytes_to_backend"] == count && one["bytes_to_client"] == count).then_some(sessions)
        })
    };
    let sessions = bytes(4);
    let one = &sessions["sessions"][0];
    let digest = doorward::model::identity::Sha256::of(&alice.chain()[0]).to_string();
    assert_eq!((&sessions["open"], &one["route"], &one["listener"]), (&1.into(), &"nas".into(), &"public".into()));
    assert_eq!(one["source"], session.tcp().local_addr().unwrap().to_string());
    assert_eq!(one["backend"], echo.address().to_string());
    assert_eq!((&one["certificate"]["name"], &one["certificate"]["verified"]), (&"alice-phone".into(), &true.into()));
    assert_eq!(one["certificate"]["fingerprint"], digest);
    let table = gate.ask(&["sessions"]).success().text();
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..2], ["alice-phone", "nas"], "{table}");
    for _ in 0..10 {
        session.ping().unwrap();
    }
    bytes(44);

    // A passthrough session has no certificate.
    let mut mail = connect(gate.address());
    let hello = Hello { version: 0x0303, suites: &[0x1301], server_name: "mail.home.example" }.record();
    mail.write_all(&hello).unwrap();
    let mut echoed = vec![0; hello.len()];
    mail.read_exact(&mut echoed).unwrap();
    let sessions = json(&gate, &["sessions"]);
    assert_eq!((&sessions["open"], &sessions["sessions"][0]["path"]), (&2.into(), &"raw".into()));
    assert!(sessions["sessions"][0].get("certificate").is_none(), "{sessions}");
    let status = json(&gate, &["status"]);
    let routes: Vec<_> =
        status["routes"].as_array().unwrap().iter().map(|one| (&one["name"], &one["sessions"])).collect();
    assert_eq!(routes, [(&"nas".into(), &1.into()), (&"mail".into(), &1.into())]);
    assert_eq!(status["listeners"][0]["address"], gate.address().to_string());
    assert_eq!(status["pid"], gate.pid());
    assert_eq!(status["config"], gate.folder().join("doorward.toml").to_str().unwrap());
    let text = gate.ask(&["status"]).success().text();
    assert!(text.contains("2 accepted, 0 refused, 2 open"), "{text}");
    for (name, asked) in [("nas", NAME), ("mail", "mail.home.example")] {
        let route = format!("  route          {name}: {asked} leads to {}; 1 open\n", echo.address());
        assert!(text.contains(&route), "{text}");
    }

    // An orderly end, and a reset.
    session.close_notify();
    session.end();
    client::reset(mail);
    wait_until("no session is open", || (json(&gate, &["sessions"])["open"] == 0).then_some(()));
}

/// Sends bytes to the control socket and reads the answer to its end.
#[track_caller]
fn raw(socket: &Path, bytes: &[u8]) -> Value {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    // The gate need not read all of it.
    let _ = stream.write_all(bytes);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with('\n') && answer.lines().count() == 1, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn abuse_of_the_control_socket_does_not_affect_the_gate() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = Gate::start_with_control(&House::new(&pki).route("nas", echo.address()).config());
    let socket = socket(&gate);
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let established = Client::admitted(gate.address(), &alice, NAME).unwrap();
    let open_before = descriptors(&gate);
    let memory_before = memory(&gate);

    // A hundred idle connections: the newest request is answered, and the gate works.
    let idle: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let begun = Instant::now();
    assert_eq!(json(&gate, &["sessions"])["open"], 1);
    established.ping().unwrap();
    Client::admitted(gate.address(), &alice, NAME).unwrap().close_notify();
    assert!(begun.elapsed() < DEADLINE / 2, "{:?}", begun.elapsed());

    // A line of a megabyte.
    let answer = raw(&socket, &vec![b'x'; 1024 * 1024]);
    assert_eq!(answer["error"], "cannot read the request: longer than 4096 bytes");
    for nonsense in
        ["", "\n", "null\n", "{}\n", "{\"command\":\"cut\"}\n", "{\"command\":\"why\"}\n", "GET / HTTP/1.1\r\n"]
    {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(nonsense.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "{\"error\":\"this is no question that the gate understands\"}\n", "{nonsense:?}");
    }
    let answer = raw(&socket, b"{\"command\":\"why\",\"wanted\":\"\",\"count\":1}\n");
    assert_eq!(answer["error"], "write an address, a fingerprint, the name of a device, or the word last");
    // A count above what is remembered, and above the limit.
    let all = raw(&socket, b"{\"command\":\"why\",\"wanted\":\"last\",\"count\":18446744073709551615}\n");
    assert_eq!(all["why"]["known"], 0);
    // An incomplete request times out.
    let slow = raw(&socket, b"{\"command\":");
    assert_eq!(slow["error"], "the request did not arrive in time");

    drop(idle);
    established.ping().unwrap();
    // No resources are leaked.
    wait_until("its descriptors are closed", || (descriptors(&gate) <= open_before).then_some(()));
    let grown = memory(&gate).saturating_sub(memory_before);
    assert!(grown < 8 * 1024, "{grown} KiB");
}

fn descriptors(gate: &Gate) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gate.pid())).unwrap().count()
}

/// Resident memory in KiB (proc(5), `/proc/PID/status`).
fn memory(gate: &Gate) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn memory_for_refusals_is_bounded() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = Gate::start_with_control(&House::new(&pki).route("nas", echo.address()).config());
    let flood = |count: usize| {
        let before = gate.metrics().sum("doorward_connections_rejected_total", &[]);
        for number in 0..count {
            let server_name = format!("{number}.{}.example", ["x".repeat(60).as_str(); 3].join("."));
            let hello = Hello { version: 0x0303, suites: &[0x1301], server_name: &server_name }.record();
            refused_plainly(&connect(gate.address()), &hello);
        }
        gate.wait_metric("doorward_connections_rejected_total", &[], before + count as f64);
        memory(&gate)
    };
    // By now all 512 entries are used, and the buffers of the process have their final size.
    let full = flood(1000);
    let later = flood(2000);
    assert!(later.saturating_sub(full) < 2 * 1024, "{full} KiB, then {later} KiB");
    let why = json(&gate, &["why", "127.0.0.1"]);
    assert_eq!((&why["known"], &why["rejected"]), (&512.into(), &3000.into()));
}

#[test]
fn commands_without_a_running_gate_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("control.sock");
    for command in ["why", "status", "sessions"] {
        let said = doorward(&[command, "--socket", missing.to_str().unwrap()]).failure();
        assert_eq!(said.status.code(), Some(8), "{said}");
        assert!(said.stdout.is_empty() && said.stderr.starts_with("error: no gate is running: there is no socket"));
        assert!(said.stderr.contains("start it with \"doorward run\""), "{said}");
    }
    // A socket that a gate has left.
    drop(std::os::unix::net::UnixListener::bind(&missing).unwrap());
    let said = doorward(&["status", "--socket", missing.to_str().unwrap()]).failure();
    assert_eq!(said.status.code(), Some(8));
    assert!(said.stderr.starts_with("error: no gate is running: nothing listens on"), "{said}");

    // Errors elsewhere in the configuration do not matter.
    let config = folder.path().join("doorward.toml");
    let by_config = || doorward(&["status", "--config", config.to_str().unwrap()]).failure();
    std::fs::write(&config, "[[listener]]\nname = 7\n").unwrap();
    let said = by_config();
    assert_eq!(said.status.code(), Some(8));
    assert!(
        said.stderr.contains("add these lines to it, and restart the gate:\n    [control]\n    socket = "),
        "{said}"
    );
    std::fs::write(&config, "[certificate]\nchain = \"nowhere.pem\"\n[control]\nsocket = \"control.sock\"\n").unwrap();
    assert!(by_config().stderr.contains(missing.to_str().unwrap()));
    std::fs::write(&config, "[control]\nsockt = \"control.sock\"\n").unwrap();
    let said = by_config();
    assert_eq!(said.status.code(), Some(3));
    assert!(said.stderr.contains("\"sockt\" is not a key that is known here"), "{said}");

    for wrong in [&["why", "sha256:nonsense"][..], &["why", ""], &["why", "--count", "0"], &["why", "-n", "101"]] {
        assert_eq!(doorward(wrong).failure().status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn control_socket_is_private_and_replaces_only_a_stale_one() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let house = House::new(&pki).route("nas", echo.address());
    let gate = Gate::start_with_control(&house.config());
    let path = socket(&gate);
    assert_eq!(std::fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let line = gate.wait_for_line("the socket to be named", |line| line["event"] == "control");
    assert_eq!(line["socket"], path.to_str().unwrap());

    // A second gate does not replace it, nor a file at its path.
    let at = |socket: &Path| format!("{}\n[control]\nsocket = {socket:?}\n", house.config());
    let said = Gate::fails_to_start(&at(&path));
    assert_eq!(said.status.code(), Some(4));
    assert!(said.stderr.contains("another gate is listening on it"), "{said}");
    let precious = gate.folder().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    let said = Gate::fails_to_start(&at(&precious));
    assert_eq!((said.status.code(), std::fs::read_to_string(&precious).unwrap().as_str()), (Some(4), "precious"));
    assert!(said.stderr.contains("a file of this name exists that is not a socket of this user"), "{said}");
    let said = Gate::fails_to_start(&at(Path::new("/nowhere/control.sock")));
    assert!(said.stderr.contains("its folder does not exist"), "{said}");

    // A killed gate leaves its socket, and the next one replaces it. A stopped gate removes it.
    let left = tempfile::tempdir().unwrap();
    let left = left.path().join("control.sock");
    let mut first = Gate::start(&at(&left));
    first.signal(rustix::process::Signal::KILL);
    first.wait_for_end();
    assert!(left.exists());
    let mut second = Gate::start(&at(&left));
    doorward(&["status", "--socket", left.to_str().unwrap()]).success();
    second.signal(rustix::process::Signal::TERM);
    assert!(second.wait_for_end().success());
    assert!(!left.exists());
}

#[test]
fn without_a_control_section_there_is_no_socket() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = House::new(&pki).route("nas", echo.address()).open();
    let files: BTreeSet<_> = std::fs::read_dir(gate.folder()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, BTreeSet::from(["doorward.toml".into()]));
    assert_eq!(gate.ask(&["status"]).failure().status.code(), Some(8));
}

/// A folder in which `doorward init` was run, and a gate that runs in its folder `doorward`.
struct OutOfTheBox {
    home: tempfile::TempDir,
    address: SocketAddrV4,
}

impl OutOfTheBox {
    fn new() -> Self {
        let (home, address) = (tempfile::tempdir().unwrap(), SocketAddrV4::new(own_loopback(), 8443));
        let made = Self { home, address };
        let listen = address.to_string();
        let init = ["init", "--domain", "home.example", "--route", "nas=127.0.0.1:9", "--device", "alice-phone"];
        made.doorward("", &[&init[..], &["--listen", &listen]].concat()).success();
        // The default metrics port is the same for all gates on this machine.
        let config = made.path("doorward/doorward.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("127.0.0.1:9180", "127.0.0.1:0")).unwrap();
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn doorward(&self, folder: &str, arguments: &[&str]) -> Finished {
        run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(arguments).current_dir(self.path(folder)))
    }

    /// `doorward run`, as systemd starts it with these runtime folders.
    fn run(&self, runtime_folders: Option<&str>) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.arg("run").current_dir(self.path("doorward")).env_remove("RUNTIME_DIRECTORY");
        if let Some(folders) = runtime_folders {
            command.env("RUNTIME_DIRECTORY", folders);
        }
        let gate = Daemon::start(&mut command, self.address);
        wait_until("it is ready", || gate.output().contains(" ready\n").then_some(()));
        gate
    }
}

#[test]
fn control_socket_works_with_the_configuration_of_init() {
    let made = OutOfTheBox::new();
    let _gate = made.run(None);
    let mode = std::fs::symlink_metadata(made.path("doorward/control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let why = || made.doorward("doorward", &["why"]).success().text();
    assert_eq!(why(), "No connection has been refused since the gate was started.\n");
    refused_plainly(&connect(made.address.into()), b"GET / HTTP/1.1\r\n\r\n");
    wait_until("why tells of it", || why().contains("sent something that is not TLS, but http.").then_some(()));

    // The same in the folder where init was run; elsewhere, the error says where was looked.
    assert!(made.doorward("", &["why"]).success().text().contains("not TLS, but http."));
    std::fs::create_dir(made.path("elsewhere")).unwrap();
    let said = made.doorward("elsewhere", &["why"]).failure();
    assert_eq!(said.status.code(), Some(8), "{said}");
    assert!(
        said.stderr.contains("neither doorward.toml nor doorward/doorward.toml in this folder, nor /etc"),
        "{said}"
    );
    made.doorward("", &["status", "--config", "doorward/doorward.toml"]).success();
}

#[test]
fn service_has_its_socket_in_the_runtime_directory() {
    let made = OutOfTheBox::new();
    let runtime = made.path("runtime");
    std::fs::create_dir(&runtime).unwrap();
    let _gate = made.run(Some(&format!("{}:/nowhere", runtime.display())));
    assert!(!made.path("doorward/control.sock").exists());
    doorward(&["status", "--socket", runtime.join("control.sock").to_str().unwrap()]).success();
}

#[test]
fn gate_without_a_possible_auto_socket_warns_and_runs() {
    let made = OutOfTheBox::new();
    let gate = made.run(Some("/nowhere"));
    let said = gate.output();
    assert!(said.contains("warning: cannot create the control socket /nowhere/control.sock: its folder"), "{said}");
    assert!(said.contains("the gate runs, but commands such as"), "{said}");
    refused_plainly(&connect(made.address.into()), b"GET / HTTP/1.1\r\n\r\n");
}

/// `doorward status | head -0`, or a service whose stderr is closed.
#[test]
fn closed_output_pipes_crash_no_command() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = Gate::start_with_control(&House::new(&pki).route("nas", backend.address()).config());
    let config = gate.folder().join("doorward.toml");
    let broken = gate.folder().join("broken.toml");
    std::fs::write(&broken, "control = 1\n").unwrap();
    let certificate = pki.write("alice.pem", pki.client("alice-phone").chain_pem());
    let (config, broken) = (config.to_str().unwrap(), broken.to_str().unwrap());
    let explain = ["explain", "--config", config, "--server-name", NAME, "--cert", certificate.to_str().unwrap()];
    for (arguments, code) in [
        (&["status", "--config", config][..], 0),
        (&["sessions", "--config", config], 0),
        (&["why", "--config", config], 0),
        (&["reload", "--config", config], 0),
        (&["check", "--config", config], 0),
        (&["check", "--config", broken], 3),
        (&["run", "--config", broken], 3),
        (&["status", "--config", broken], 3),
        (&explain, 0),
        (&["status", "--socket", "/nowhere"], 8),
    ] {
        let pipe = || {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            writer
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        let status = command.args(arguments).stdout(pipe()).stderr(pipe()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}
