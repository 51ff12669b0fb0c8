//! A right that is lost while the backends of a connection are dialled: the dial ends, and no backend hears of the device.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use doorward::control::client::ask;
use doorward::control::{Answer, Request};
use doorward::model::close::CloseReason;
use doorward::model::identity::Sha256;
use doorward::model::rejection::{Alert, Reason};
use rcgen::SerialNumber;
use rustix::process::Signal;
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};
use serde_json::Value;

use crate::client::{Client, End, Hello, TLS13, VERSIONS, client, connect, plain_end};
use crate::common::backend::{Backend, FullBacklog};
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::process::wait_until;
use crate::home::House;
use crate::{NAS, controlled, reload};

const MAIL: &str = "mail.home.example";

/// The first of its backends never answers, the second would be dialled after half a minute.
struct Scene {
    pki: TestPki,
    swallowing: FullBacklog,
    second: Backend,
}

impl Scene {
    fn new() -> Self {
        Self { pki: TestPki::new(), swallowing: FullBacklog::new(), second: Backend::sink() }
    }

    fn backends(&self) -> [String; 2] {
        [self.swallowing.address, self.second.address()].map(|address: SocketAddr| address.to_string())
    }

    /// The route `name`, with these keys.
    fn house(&self, client_auth: &str, name: &str, keys: &str) -> String {
        let backends = self.backends();
        let house = House::new(&self.pki).timeouts("dial = \"60s\"").client_auth(client_auth);
        controlled(&house.route_with(name, &backends.each_ref().map(String::as_str), keys))
    }

    /// Rights that are no longer as they were must not have let anything through.
    #[track_caller]
    fn assert_untouched(&self, what: &str) {
        assert_eq!((self.second.accepted(), self.second.received()), (0, 0), "{what}");
    }
}

const OPEN: &str = "allow = [\"any\"]\nsend_proxy_protocol = \"v2-tls\"";

fn ask_gate(gate: &Gate, request: &Request) -> Answer {
    ask(&gate.folder().join("control.sock"), request).unwrap()
}

/// Waits until a backend is dialled for a connection, which is a session by then, and gives that.
#[track_caller]
fn wait_dialling(gate: &Gate) -> doorward::control::Session {
    wait_until("a backend is dialled", || match ask_gate(gate, &Request::Sessions { count: 9 }) {
        Answer::Sessions(sessions) => sessions.sessions.into_iter().next(),
        other => panic!("{other:?}"),
    })
}

/// A client whose handshake is over and for which a backend is dialled.
#[track_caller]
fn dialling(gate: &Gate, config: &Arc<ClientConfig>) -> Client {
    let guest = Client::handshaken(gate.address(), config, NAS).unwrap();
    guest.send(b"hello").unwrap();
    let session = wait_dialling(gate);
    assert_eq!((session.route.as_str(), &session.backend), ("nas", &None));
    guest
}

/// The only verdict: refused for this reason.
#[track_caller]
fn rejected(gate: &Gate, reason: Reason) -> Value {
    let line = gate.wait_rejected(reason.stage().label(), reason.label(), 1).remove(0);
    let metrics = gate.settled();
    assert_eq!(metrics.sum("doorward_connections_rejected_total", &[]), 1.0);
    assert_eq!(metrics.sum("doorward_connections_closed_total", &[]), 0.0);
    assert_eq!(metrics.sum("doorward_relays_total", &[]), 0.0);
    line
}

#[test]
fn row_39_revoked_while_dialling_gets_no_header() {
    for version in VERSIONS {
        let scene = Scene::new();
        let pki = &scene.pki;
        let list = |revoked: &[SerialNumber]| {
            pki.write("clients.crl", pki.clients.revocation_list(revoked, days_from_now(-1), days_from_now(5)))
        };
        let keys = format!("revocation_lists = [{:?}]", list(&[]));
        let config = scene.house(&keys, "nas", OPEN);
        let gate = Gate::start(&config);
        let mut params = Certified::for_clients("lost-phone");
        params.serial_number = Some(SerialNumber::from(7));
        let lost = Arc::new(pki.client_config(Some(&pki.clients.issue(params)), &[version]));
        let guest = dialling(&gate, &lost);
        list(&[SerialNumber::from(7)]);
        let output = reload(&gate, &config).success();
        assert!(output.text().contains("Cut, because they are no longer admitted: 1."), "{output}");
        assert_eq!(guest.end(), End::Alert(Alert::CERTIFICATE_REVOKED));
        let line = rejected(&gate, Reason::Revoked);
        assert_eq!(
            (&line["certificate"]["name"], &line["alert"]),
            (&"lost-phone".into(), &"certificate_revoked".into()),
            "{line}"
        );
        gate.wait_metric("doorward_sessions_cut_total", &[("reason", "revoked")], 1.0);
        scene.assert_untouched("revoked");
    }
}

#[test]
fn row_39_a_resumed_session_gets_no_header_either() {
    let scene = Scene::new();
    let pki = &scene.pki;
    let echo = Backend::echo();
    let lost = pki.client("lost-phone");
    let denied = format!("deny = [\"sha256:{}\"]", Sha256::of(&lost.chain()[0]));
    let address = echo.address();
    let open = |client_auth: &str| {
        let house = House::new(pki).timeouts("dial = \"60s\"").client_auth(client_auth);
        house.route_with("nas", &[&address.to_string(), &scene.second.address().to_string()], "allow = [\"any\"]")
    };
    let gate = Gate::start(&controlled(&open("")));
    let mut config = pki.client_config(Some(&lost), TLS13);
    config.resumption = Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    let first = Client::admitted(gate.address(), &config, NAS).unwrap();
    first.close_notify();
    first.end();
    gate.wait_closed("nas", 1);
    // From now on the backend takes nothing more: its queue is full.
    drop(echo);
    let full = FullBacklog::at(address);
    let guest = Client::handshaken(gate.address(), &config, NAS).unwrap();
    assert_eq!(guest.tls(|connection| connection.handshake_kind()), Some(HandshakeKind::Resumed));
    guest.send(b"hello").unwrap();
    wait_dialling(&gate);
    reload(&gate, &controlled(&open(&denied))).success();
    assert_eq!(guest.end(), End::Alert(Alert::ACCESS_DENIED));
    gate.wait_rejected("certificate", "denied", 1);
    scene.assert_untouched("resumed");
    drop(full);
}

/// The right and the way are judged by the configuration of now, whatever the change is about.
#[test]
fn row_39_a_changed_route_ends_the_dial_and_is_logged() {
    let scene = Scene::new();
    let pki = &scene.pki;
    let alice = pki.client("alice-phone");
    let fingerprint = Sha256::of(&alice.chain()[0]);
    let alice = client(pki, Some(&alice));
    let others = pki.write("others.pem", Authority::new("Others").pem());
    let [first, second] = scene.backends();
    let turned = |backends: &[&str], keys: &str| {
        controlled(&House::new(pki).timeouts("dial = \"60s\"").route_with("nas", backends, keys))
    };
    let renamed = scene.house("", "nas", OPEN).replace("name = \"nas\"", "name = \"files\"");
    let elsewhere = scene.house("", "nas", OPEN).replace("[\"nas.home.example\"]", "[\"files.home.example\"]");
    let changes: Vec<(&str, String, Reason)> = vec![
        ("denied", scene.house(&format!("deny = [\"sha256:{fingerprint}\"]"), "nas", OPEN), Reason::Denied),
        ("not allowed", scene.house("", "nas", "allow = [\"bob\"]"), Reason::IdentityNotAllowed),
        (
            "authority gone",
            scene.house("", "nas", &format!("{OPEN}\n[route.client_auth]\ntrust = [{others:?}]")),
            Reason::UnknownCa,
        ),
        ("route removed", scene.house("", "ssh", OPEN), Reason::ServerNameUnknown),
        ("route renamed", renamed, Reason::ServerNameUnknown),
        ("server name moved", elsewhere, Reason::ServerNameUnknown),
        ("other backends", turned(&[&second], OPEN), Reason::BackendUnreachable),
        ("backends turned", turned(&[&second, &first], OPEN), Reason::BackendUnreachable),
        ("another header", scene.house("", "nas", "allow = [\"any\"]"), Reason::BackendUnreachable),
        ("passthrough", scene.house("", "nas", "mode = \"passthrough\""), Reason::BackendUnreachable),
    ];
    for (what, after, reason) in changes {
        eprintln!("{what}");
        let gate = Gate::start(&scene.house("", "nas", OPEN));
        let guest = dialling(&gate, &alice);
        reload(&gate, &after).success();
        assert_eq!(guest.end(), End::Alert(reason.alert().unwrap()), "{what}");
        let line = rejected(&gate, reason);
        assert_eq!(line["certificate"]["name"], "alice-phone", "{what}: {line}");
        scene.assert_untouched(what);
    }
}

#[test]
fn row_39_a_reload_that_changes_nothing_ends_no_dial() {
    let scene = Scene::new();
    let alice = client(&scene.pki, Some(&scene.pki.client("alice-phone")));
    let config = scene.house("", "nas", OPEN);
    let gate = Gate::start(&config);
    let guest = dialling(&gate, &alice);
    let id = wait_dialling(&gate).id;
    reload(&gate, &config).success();
    reload(&gate, &config.replace("allow = [\"any\"]", "allow = [\"alice-phone\"]")).success();
    assert_eq!(wait_dialling(&gate).id, id);
    drop(guest);
    ask_gate(&gate, &Request::CutAll);
    gate.wait_closed("nas", 1);
}

#[test]
fn row_39_passthrough_that_becomes_terminating_ends_the_dial() {
    let scene = Scene::new();
    let raw = scene.house("", "mail", "mode = \"passthrough\"\nsend_proxy_protocol = \"v2\"");
    let changes = [
        (scene.house("", "mail", OPEN), Reason::CertificateRequired),
        (
            scene.house("", "mail", "allow = [\"unverified\"]\n[route.client_auth]\nmode = \"request\""),
            Reason::BackendUnreachable,
        ),
        (scene.house("", "ssh", OPEN), Reason::ServerNameUnknown),
    ];
    for (after, expected) in changes {
        let gate = Gate::start(&raw);
        let mut guest = connect(gate.address());
        guest.write_all(&Hello { version: 0x0303, suites: &[0x1301], server_name: MAIL }.record()).unwrap();
        wait_dialling(&gate);
        reload(&gate, &after).success();
        assert!(matches!(plain_end(&guest), End::Truncated | End::Reset), "{expected}");
        rejected(&gate, expected);
        scene.assert_untouched(expected.label());
    }
}

#[test]
fn row_39_cut_while_dialling_is_closed_by_hand() {
    let scene = Scene::new();
    let alice = client(&scene.pki, Some(&scene.pki.client("alice-phone")));
    let gate = Gate::start(&scene.house("", "nas", OPEN));
    let guest = dialling(&gate, &alice);
    let cut = ask_gate(&gate, &Request::Cut { selector: "alice-phone".to_owned() });
    assert!(matches!(&cut, Answer::Cut(cut) if cut.open == 1), "{cut:?}");
    assert_eq!(guest.end(), End::of(CloseReason::CutByHand));
    let line = gate.wait_closed("nas", 1).remove(0);
    assert_eq!((&line["reason"], &line["backend"]), (&"cut_by_hand".into(), &Value::Null), "{line}");
    assert_eq!((&line["bytes_to_backend"], &line["bytes_to_client"]), (&0.into(), &0.into()), "{line}");
    gate.wait_metric("doorward_sessions_cut_total", &[("reason", "cut_by_hand")], 1.0);
    gate.settled();
    scene.assert_untouched("cut");
}

#[test]
fn row_39_expired_while_dialling_gets_no_header() {
    let scene = Scene::new();
    let gate = Gate::start(&scene.house("", "nas", OPEN));
    let mut params = Certified::for_clients("carol-phone");
    // Enough for a handshake on a busy machine.
    params.not_after = time::OffsetDateTime::now_utc() + std::time::Duration::from_secs(8);
    let carol = client(&scene.pki, Some(&scene.pki.clients.issue(params)));
    let guest = dialling(&gate, &carol);
    assert_eq!(guest.end(), End::Alert(Alert::CERTIFICATE_EXPIRED));
    rejected(&gate, Reason::Expired);
    scene.assert_untouched("expired");
}

#[test]
fn row_39_draining_ends_the_dial() {
    let scene = Scene::new();
    let alice = client(&scene.pki, Some(&scene.pki.client("alice-phone")));
    let mut gate = Gate::start(&scene.house("", "nas", OPEN));
    let guest = dialling(&gate, &alice);
    gate.signal(Signal::TERM);
    assert_eq!(guest.end(), End::Alert(Alert::INTERNAL_ERROR));
    assert!(gate.wait_for_end().success());
    let lines = crate::home::verdicts(&gate);
    let verdict: Vec<_> = lines.iter().map(|line| (&line["event"], &line["reason"], &line["alert"])).collect();
    assert_eq!(verdict, [(&"rejected".into(), &"draining".into(), &"internal_error".into())]);
    scene.assert_untouched("draining");
}
