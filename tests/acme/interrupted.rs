//! What happens while an order is under way: challenges that others ask for, processes that are killed or replaced, and a second
//! gate with the same folder.

use std::net::SocketAddr;
use std::sync::mpsc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::agent::Home;
use crate::common::gate::Gate;
use crate::common::process::{own_loopback, run, run_with_input, tool};
use crate::relay::Fate;
use crate::scene::{NAS, PHOTOS, Scene, agents, kill, visit, wait_for_agent};

const NEW_ACCOUNT: &str = "/sign-me-up";
const NEW_ORDER: &str = "/order-plz";
const CHALLENGE: &str = "/chalZ";
const FINALIZE: &str = "/finalize-order";
const CERTIFICATE: &str = "/certZ";

/// id-pe-acmeIdentifier (RFC 8737 section 6.1).
const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";

/// What OpenSSL is shown.
#[derive(Debug, PartialEq)]
enum Shown {
    /// The certificate of a challenge.
    Challenge,
    /// Another certificate.
    Other,
    /// None, and this alert.
    Alert(String),
}

/// `openssl s_client` with this server name and these protocols.
fn s_client(address: SocketAddr, name: &str, alpn: Option<&str>) -> Shown {
    let mut openssl = tool("openssl", "openssl");
    openssl.args(["s_client", "-showcerts", "-connect", &address.to_string(), "-servername", name]);
    if let Some(alpn) = alpn {
        openssl.args(["-alpn", alpn]);
    }
    let finished = run_with_input(&mut openssl, b"");
    let Ok(certificate) = CertificateDer::from_pem_slice(finished.text().as_bytes()) else {
        let alert =
            finished.stderr.lines().find_map(|line| line.split_once("tlsv1").map(|(_, words)| words.to_owned()));
        return Shown::Alert(alert.unwrap_or_else(|| panic!("neither a certificate nor an alert: {finished}")));
    };
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
    let is_challenge = parsed.extensions().iter().any(|extension| extension.oid.to_id_string() == ACME_IDENTIFIER);
    if is_challenge { Shown::Challenge } else { Shown::Other }
}

#[test]
fn certificate_of_a_challenge_is_shown_to_nothing_but_a_validator_of_a_pending_order() {
    let scene = Scene::new();
    let (release, held) = mpsc::channel::<()>();
    let (reached, wait) = mpsc::channel();
    scene.relay.rule(move |asked, count| {
        if asked.kind == CHALLENGE && count == 0 {
            reached.send(()).unwrap();
            let _ = held.recv();
        }
        Fate::Pass
    });
    let gate = scene.open();
    wait.recv_timeout(crate::common::DEADLINE).unwrap();
    let address = scene.address();
    let validator = Some("acme-tls/1");
    for name in [NAS, PHOTOS] {
        assert_eq!(s_client(address, name, validator), Shown::Challenge);
        for other in [None, Some("h2"), Some("acme-tls/1,h2"), Some("h2,acme-tls/1"), Some("acme-tls/2")] {
            let shown = s_client(address, name, other);
            assert_ne!(shown, Shown::Challenge, "{name} {other:?}");
        }
    }
    for name in ["other.home.example", "home.example"] {
        let shown = s_client(address, name, validator);
        assert!(matches!(&shown, Shown::Alert(alert) if alert.contains("unrecognized name")), "{name}: {shown:?}");
    }
    // No device takes what it is shown meanwhile.
    visit(address, &scene.device(), NAS).expect_err("there is no certificate yet");
    release.send(()).unwrap();
    scene.wait_issued(&scene.device());
    for name in [NAS, PHOTOS] {
        assert_ne!(s_client(address, name, validator), Shown::Challenge, "the order is over");
    }
    gate.settled();
}

/// A rule that calls `act` once, at the first request of this kind: before the server has it, or before its answer is back.
fn once_at(
    scene: &Scene,
    kind: &'static str,
    number: usize,
    after_the_server: bool,
    act: impl FnOnce() + Send + 'static,
) {
    let mut act = Some(act);
    scene.relay.rule(move |asked, count| {
        let Some(act) = act.take_if(|_| asked.kind == kind && count == number) else { return Fate::Pass };
        if !after_the_server {
            act();
            return Fate::Close;
        }
        Fate::Change(Box::new(move |answer| {
            act();
            answer
        }))
    });
}

#[test]
fn killed_agent_is_started_again_and_goes_on() {
    let scene = Scene::new();
    // Held until the test knows the process.
    let (told, pid) = mpsc::channel();
    once_at(&scene, NEW_ORDER, 0, true, move || kill(pid.recv().unwrap()));
    let gate = scene.open();
    told.send(wait_for_agent(&gate)).unwrap();
    scene.wait_for("the order was placed again", || (scene.relay.count(NEW_ORDER) == 2).then_some(()));
    scene.wait_issued(&scene.device());
    let agent = wait_for_agent(&gate);
    assert_eq!((scene.pebble.accounts(), scene.pebble.orders()), (1, 2));
    // A second time, once the first certificate is there: devices do not notice.
    kill(agent);
    scene.wait_for("another agent runs", || agents(&gate).first().filter(|&&pid| pid != agent).copied());
    visit(scene.address(), &scene.device(), NAS).unwrap();
    gate.settled();
}

#[test]
fn gate_that_is_killed_at_any_step_has_its_certificate_after_the_next_start() {
    std::thread::scope(|scope| {
        let steps = [
            (NEW_ACCOUNT, 1, true),
            (NEW_ORDER, 0, true),
            (CHALLENGE, 1, false),
            (FINALIZE, 0, true),
            (CERTIFICATE, 0, false),
        ];
        for (kind, number, after_the_server) in steps {
            scope.spawn(move || {
                let scene = Scene::new();
                let (reached, wait) = mpsc::channel();
                let (killed, go_on) = mpsc::channel::<()>();
                once_at(&scene, kind, number, after_the_server, move || {
                    reached.send(()).unwrap();
                    let _ = go_on.recv();
                });
                let mut gate = scene.open();
                wait.recv_timeout(crate::common::DEADLINE).unwrap();
                // The gate, its launcher and its agent at once.
                let own = gate.folder().to_owned();
                kill_all(&gate);
                killed.send(()).unwrap();
                gate.wait_for_end();
                scene.wait_for("nothing of it runs", || processes(&own).is_empty().then_some(()));
                scene.relay.pass();
                let gate = scene.open();
                scene.wait_issued(&scene.device());
                assert_eq!(scene.pebble.accounts(), 1, "{kind}");
                assert!(scene.pebble.orders() <= 2, "{kind}: {}", scene.pebble.orders());
                gate.settled();
            });
        }
    });
}

/// The processes in this configuration's folder.
fn processes(folder: &std::path::Path) -> Vec<rustix::process::Pid> {
    let own = folder.as_os_str().as_encoded_bytes();
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let is_own = |pid: &i32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|&byte| byte == 0).any(|word| word.starts_with(own))
    };
    all.filter_map(|name| name.parse().ok()).filter(is_own).filter_map(rustix::process::Pid::from_raw).collect()
}

fn kill_all(gate: &Gate) {
    processes(gate.folder()).into_iter().for_each(kill);
}

#[test]
fn upgrade_in_the_middle_of_an_order_loses_nothing() {
    let scene = Scene::new();
    let (release, held) = mpsc::channel::<()>();
    let (reached, wait) = mpsc::channel();
    scene.relay.rule(move |asked, count| {
        if asked.kind == FINALIZE && count == 0 {
            reached.send(()).unwrap();
            let _ = held.recv();
        }
        Fate::Pass
    });
    let gate = scene.open();
    wait.recv_timeout(crate::common::DEADLINE).unwrap();
    gate.ask(&["upgrade"]).success();
    release.send(()).unwrap();
    let shown = scene.wait_issued(&scene.device());
    assert_eq!(visit(scene.address(), &scene.without_sessions(), PHOTOS).unwrap(), shown);
    assert_eq!(scene.pebble.accounts(), 1);
    assert!(scene.pebble.orders() <= 2, "{}", scene.pebble.orders());
    gate.end_after_upgrades();
}

#[test]
fn second_gate_with_the_same_folder_orders_nothing_and_has_the_certificate() {
    let scene = Scene::new();
    let gate = scene.open();
    scene.wait_issued(&scene.device());
    scene.relay.pass();
    let other = SocketAddr::from((own_loopback(), 5443));
    let second = Gate::start(&scene.config_at(other));
    let shown = visit(other, &scene.without_sessions(), NAS).expect("it has the certificate from the start");
    assert_eq!(shown, visit(scene.address(), &scene.without_sessions(), NAS).unwrap());
    wait_for_agent(&second);
    // The first one may ask when to renew.
    assert_eq!((scene.relay.count(NEW_ACCOUNT), scene.relay.count(NEW_ORDER)), (0, 0));
    second.settled();
    gate.settled();
}

#[test]
fn second_agent_waits_for_the_first_and_ends_with_its_gate() {
    let home = Home::new();
    home.order();
    home.relay.pass();
    let second = home.another();
    second.wait_started();
    // It ends although it waits, and wants to order.
    second.stop();
    assert_eq!(home.relay.asked().len(), 0);
    let third = home.another();
    third.wait_started();
    home.stop();
    third.wait_renewed();
    third.stop();
    assert_eq!((home.pebble.accounts(), home.pebble.orders()), (1, 2));
}

#[test]
fn curl_gets_in_with_its_archive_and_the_root_alone() {
    let scene = Scene::new();
    let gate = scene.open();
    scene.wait_issued(&scene.device());
    let root = scene.pki.write("root.pem", scene.pebble.root_pem());
    let device = scene.pki.client("alice-phone");
    let (certificate, key) =
        (scene.pki.write("d.pem", device.chain_pem()), scene.pki.write("d-key.pem", device.key_pem()));
    let archive = scene.pki.path("alice-phone.p12");
    let mut openssl = tool("openssl", "openssl");
    openssl.args(["pkcs12", "-export", "-passout", "pass:word", "-in"]).arg(certificate);
    run(openssl.arg("-inkey").arg(key).arg("-out").arg(&archive)).success();
    let curl = |has_archive: bool, root: &std::path::Path| {
        let mut curl = tool("curl", "curl");
        let there = format!("{NAS}:443:{}", scene.address().ip());
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--http0.9", "--max-time", "10"]);
        curl.args(["--connect-to", &format!("::{}", scene.address()), "--resolve", &there, "--cacert"]).arg(root);
        if has_archive {
            curl.args(["--cert-type", "P12", "--cert"]).arg(format!("{}:word", archive.display()));
        }
        // The backend says back what it is told.
        run(curl.arg(format!("https://{NAS}/")))
    };
    let page = curl(true, &root);
    assert!(page.text().starts_with("GET / HTTP/"), "{page}");
    let refused = curl(false, &root).failure();
    assert!(refused.stderr.contains("certificate required") || refused.stderr.contains("alert"), "{refused}");
    let untrusted = curl(true, &scene.pki.path("servers.pem")).failure();
    assert!(untrusted.stderr.contains("certificate"), "{untrusted}");
    gate.settled();
}
