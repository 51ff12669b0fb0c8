//! A refusal is a sentence: made of what the gate said and of what the device knows.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::time::Duration;

use rcgen::CertificateParams;
use socket2::SockRef;

use crate::common::backend::{Backend, FullBacklog};
use crate::common::bundle::bundle_route;
use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::{Authority, Certified, days_from_now};
use crate::common::process::{Finished, run, run_with_input, run_with_open_input};
use crate::scene::{DEVICE, Running, Scene, doorward, route};

/// What `doorward connect` says to a user, without "error: ", and its exit code.
#[track_caller]
fn said(finished: &Finished, code: i32) -> String {
    assert_eq!(finished.status.code(), Some(code), "{finished}");
    assert!(finished.stdout.is_empty(), "{finished}");
    for word in ["ssl", "alert", "handshake", "routines", "InvalidCertificate", "AlertReceived", "os error"] {
        let found = finished.stderr.to_lowercase().contains(&word.to_lowercase());
        assert!(!found, "{word:?} is no word for users: {finished}");
    }
    finished.stderr.strip_prefix("error: ").unwrap_or_else(|| panic!("{finished}")).to_owned()
}

/// Asserts the first line and a part of the second.
#[track_caller]
fn assert_says(text: &str, first: &str, second: &str) {
    let (one, two) = text.split_once('\n').unwrap();
    assert_eq!(one, first);
    assert!(two.contains(second), "{two}");
}

fn connect(scene: &Scene, params: CertificateParams) -> Finished {
    let certified = scene.pki.clients.issue(params);
    let file = scene.file_of(&scene.bundle(&certified));
    // Input that is never taken: the reason must be read although writing fails.
    run_with_open_input(&mut doorward(&["connect", "echo"], &file), &[b'x'; 200_000])
}

fn echo() -> (Backend, Scene) {
    let backend = Backend::echo();
    let scene = Scene::with("echo", backend.address());
    (backend, scene)
}

#[test]
fn expired_certificate_is_told_with_its_date() {
    let (backend, scene) = echo();
    let mut params = Scene::device();
    params.not_before = days_from_now(-30);
    params.not_after = days_from_now(-3);
    let date = params.not_after.date();
    assert_says(
        &said(&connect(&scene, params), 6),
        &format!("the certificate of {DEVICE} expired on {date} (3 days ago)"),
        "doorward renew",
    );
    let mut params = Scene::device();
    params.not_before = days_from_now(2);
    let (date, today) = (params.not_before.date(), days_from_now(0).date());
    assert_says(
        &said(&connect(&scene, params), 6),
        &format!("the certificate of {DEVICE} is not valid before {date}, and it is {today} here"),
        "set the clock of this device",
    );
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn revoked_device_is_told_at_once() {
    let (backend, scene) = echo();
    let file = scene.file();
    let connect = || run_with_input(&mut doorward(&["connect", "echo"], &file), b"hello");
    assert_eq!(connect().success().text(), "hello");

    // A session that is open when the device is revoked ends.
    let mut running = Running::start(&mut doorward(&["connect", "echo"], &file));
    running.stdin.as_mut().unwrap().write_all(b"open").unwrap();
    running.child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
    scene.revoke();
    running.end();
    scene.gate.wait_closed("echo", 2);

    assert_says(
        &said(&connect(), 6),
        &format!("this device ({DEVICE}) was revoked at the gate of home.example"),
        "ask its owner",
    );
    scene.gate.wait_rejected("certificate", "revoked", 1);
    assert_eq!(backend.accepted(), 2);
}

#[test]
fn foreign_and_unfit_certificates_are_told_apart() {
    let (backend, scene) = echo();
    let other = Authority::new("Clients of another home").issue(Scene::device());
    let file = scene.file_of(&scene.bundle(&other));
    let refused = run(&mut doorward(&["connect", "echo"], &file));
    assert!(said(&refused, 6).starts_with("the gate of home.example does not trust the certificate of alice-laptop"));

    let mut params = Scene::device();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    assert!(said(&connect(&scene, params), 6).starts_with("the gate of home.example cannot use the certificate"));

    // Another device, for which the route is not.
    let refused = connect(&scene, Certified::for_clients("bob-laptop"));
    assert_says(
        &said(&refused, 6),
        &format!("the gate of home.example does not admit {DEVICE} to echo"),
        "its owner decides that",
    );
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn removed_route_and_dead_service_are_told_apart() {
    let (_backend, scene) = echo();
    let mut bundle = scene.bundle(&scene.certified());
    bundle.routes.push(bundle_route("photos"));
    let file = scene.file_of(&bundle);
    assert_says(
        &said(&run(&mut doorward(&["connect", "photos"], &file)), 6),
        "the gate of home.example has no route for photos.home.example",
        "renamed or removed",
    );

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let scene = Scene::with("echo", closed);
    let file = scene.file();
    assert_says(
        &said(&run(&mut doorward(&["connect", "echo"], &file)), 6),
        &format!("the gate of home.example admitted {DEVICE}, but its service echo does not answer"),
        "is the machine of echo on?",
    );
}

#[test]
fn route_that_the_file_does_not_have_is_answered_with_those_it_has() {
    let (_backend, scene) = echo();
    let file = scene.file();
    assert_says(
        &said(&run(&mut doorward(&["connect", "photos"], &file)), 2),
        "no route is called \"photos\", and none leads to that name",
        "echo",
    );
}

/// A gate with this certificate of its own.
fn gate_with(scene: &Scene, certified: &Certified) -> Gate {
    let chain = scene.pki.write("odd.pem", certified.chain_pem());
    let key = scene.pki.write("odd-key.pem", certified.key_pem());
    let clients = scene.pki.path("clients.pem");
    Gate::start(&format!(
        "{LOCAL}\n[certificate]\nchain = {chain:?}\nkey = {key:?}\n\n[client_auth]\nmode = \"require_and_verify\"\n\
         trust = [{clients:?}]\n{}",
        route("echo", "127.0.0.1:9".parse().unwrap())
    ))
}

#[test]
fn certificate_of_the_gate_is_judged_and_named() {
    let (_backend, scene) = echo();
    let mut bundle = scene.bundle(&scene.certified());
    let mut ask = |gate: &Gate| {
        bundle.port = gate.address().port();
        let file = scene.file_of(&bundle);
        said(&run(&mut doorward(&["connect", "echo"], &file)), 6)
    };
    let names = ["echo.home.example"];

    let mut params = Certified::for_servers(&names);
    params.not_before = days_from_now(-30);
    params.not_after = days_from_now(-2);
    let date = params.not_after.date();
    let gate = gate_with(&scene, &scene.pki.servers.issue(params));
    assert_says(
        &ask(&gate),
        &format!("the certificate of the gate of home.example expired on {date} (2 days ago)"),
        "doorward ca server",
    );

    let gate = gate_with(&scene, &scene.pki.servers.issue(Certified::for_servers(&["nas.other.example"])));
    assert_says(
        &ask(&gate),
        &format!("{} shows a certificate for nas.other.example, not for echo.home.example", gate.address()),
        "another gate than that of home.example",
    );

    let gate = gate_with(&scene, &Authority::new("Hotel").issue(Certified::for_servers(&names)));
    assert_says(
        &ask(&gate),
        &format!(
            "{} is not the gate of home.example: it shows a certificate for echo.home.example, issued by \"Hotel\", which the \
             authority of this home has not signed",
            gate.address()
        ),
        "an interception may be in between",
    );
}

#[test]
fn public_trust_is_that_of_the_system_alone() {
    let (_backend, scene) = echo();
    let mut bundle = scene.bundle(&scene.certified());
    bundle.trust = doorward::bundle::Trust::Public;
    let file = scene.file_of(&bundle);
    let connect = |authorities: &std::path::Path| {
        let mut command = doorward(&["connect", "echo"], &file);
        run_with_input(command.env("SSL_CERT_FILE", authorities).env_remove("SSL_CERT_DIR"), b"hello")
    };
    // The system's authorities on Linux: as OpenSSL finds them.
    assert_eq!(connect(&scene.pki.path("servers.pem")).success().text(), "hello");
    let refused = said(&connect(&scene.pki.path("clients.pem")), 6);
    assert!(refused.contains("which an authority that this system trusts has not signed"), "{refused}");
}

#[test]
fn what_does_not_answer_is_told_in_words() {
    let (_backend, scene) = echo();
    let mut bundle = scene.bundle(&scene.certified());
    let mut ask = |host: &str, port: u16| {
        bundle.address = Some(host.to_owned());
        bundle.port = port;
        let file = scene.file_of(&bundle);
        run(&mut doorward(&["connect", "echo"], &file))
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = said(&ask("127.0.0.1", closed.port()), 8);
    assert_says(&text, &format!("connection refused by {closed}"), "does not forward the port");

    let text = said(&ask("gate.invalid", 443), 8);
    assert!(text.starts_with("the address of gate.invalid:443 was not found"), "{text}");

    // Another service at the address.
    let ssh = Backend::serve("127.0.0.1:0", |mut stream, state| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        state.each_read(stream, |_| true);
    });
    let text = said(&ask("127.0.0.1", ssh.address().port()), 6);
    assert!(text.starts_with(&format!("{} does not speak TLS", ssh.address())), "{text}");

    let hangs_up = Backend::serve("127.0.0.1:0", |stream, _| {
        let _ = stream.shutdown(Shutdown::Both);
    });
    let text = said(&ask("127.0.0.1", hangs_up.address().port()), 8);
    assert!(text.contains("closed the connection to echo without a reason"), "{text}");
}

/// Such as an SSH server with too many connections, or one that does not serve the gate's address.
#[test]
fn service_that_resets_before_its_first_byte_is_told_from_the_gate() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let scene = Scene::with("echo", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // It has connected by then: before, it would count as one that refuses.
            stream.read_exact(&mut [0; 5]).unwrap();
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    });
    let refused = run_with_open_input(&mut doorward(&["connect", "echo"], &scene.file()), b"hello");
    assert_says(
        &said(&refused, 13),
        "the connection to echo was closed before anything came from it",
        "the service may have closed it",
    );
    assert!(!refused.stderr.contains("banned"), "{refused}");
    assert_eq!(scene.gate.wait_closed("echo", 1)[0]["reason"], "backend_reset");
}

/// A clock that is some hours behind, as after a change between summer and winter: both dates may be the same.
#[test]
fn dates_of_the_same_day_have_a_time() {
    let (_backend, scene) = echo();
    let hours = |count: i64| days_from_now(0) + time::Duration::hours(count);
    let mut params = Scene::device();
    (params.not_before, params.not_after) = (hours(2), days_from_now(1));
    let text = said(&connect(&scene, params), 6);
    assert_eq!(text.matches(" UTC").count(), 2, "{text}");

    let mut params = Certified::for_servers(&["echo.home.example"]);
    (params.not_before, params.not_after) = (hours(2), days_from_now(1));
    let gate = gate_with(&scene, &scene.pki.servers.issue(params));
    let mut bundle = scene.bundle(&scene.certified());
    bundle.port = gate.address().port();
    let text = said(&run(&mut doorward(&["connect", "echo"], &scene.file_of(&bundle))), 6);
    assert!(text.starts_with("the certificate of the gate of home.example is not valid before "), "{text}");
    assert_eq!(text.matches(" UTC").count(), 2, "{text}");
}

#[test]
fn silence_ends_after_a_while() {
    let (_backend, scene) = echo();
    let mut bundle = scene.bundle(&scene.certified());
    let mute = Backend::mute();
    let dropped = FullBacklog::new();
    let mut ask = |port: u16| {
        bundle.port = port;
        let file = scene.file_of(&bundle);
        said(&run(&mut doorward(&["connect", "echo"], &file)), 8)
    };
    assert!(ask(mute.address().port()).contains("accepts connections and does not answer"));
    assert!(ask(dropped.address.port()).starts_with("no answer from 127.0.0.1"));
}

#[test]
fn key_in_a_token_is_told() {
    let (_backend, scene) = echo();
    let mut bundle = scene.bundle(&scene.certified());
    bundle.key = doorward::bundle::BundleKey::Token("pkcs11:token=alice".to_owned());
    let file = scene.file_of(&bundle);
    let refused = run(&mut doorward(&["connect", "echo"], &file));
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    assert!(refused.stderr.contains("PKCS#11 token"), "{refused}");
}
