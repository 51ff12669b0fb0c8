//! Sessions that are no longer admitted are cut, and no others.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use doorward::model::close::CloseReason;
use doorward::model::identity::Sha256;
use doorward::model::rejection::Alert;
use rcgen::SerialNumber;
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio::time::Instant;

use crate::client::{Client, End, VERSIONS, client, connect};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::home::House;
use crate::{NAS, SSH, controlled, doorward, reload};

/// So long it may take from the command to the last byte.
pub(super) const AT_ONCE: Duration = Duration::from_secs(1);

/// A certificate with this serial number.
fn numbered(pki: &TestPki, name: &str, serial: u64) -> Certified {
    let mut params = Certified::for_clients(name);
    params.serial_number = Some(SerialNumber::from(serial));
    pki.clients.issue(params)
}

/// Waits for the verdict about the only connection that was closed for this reason.
#[track_caller]
pub(super) fn closed(gate: &Gate, reason: &str) -> Value {
    gate.wait_for_line(reason, |line| line["event"] == "closed" && line["reason"] == reason)
}

/// The reason with this label.
fn labelled(label: &str) -> CloseReason {
    *CloseReason::ALL.iter().find(|reason| reason.label() == label).unwrap()
}

/// A device is revoked while it is in, twice, once by a resumed session; the others are in the middle of something.
#[test]
fn revoked_device_is_cut_at_once_and_no_other() {
    for version in VERSIONS {
        let pki = TestPki::new();
        let backend = Backend::echo();
        let house = |keys: &str| {
            let house =
                House::new(&pki).client_auth(keys).route("nas", backend.address()).route("ssh", backend.address());
            controlled(&house.passthrough("mail", backend.address()))
        };
        let list = |revoked: &[SerialNumber]| {
            pki.write("clients.crl", pki.clients.revocation_list(revoked, days_from_now(-1), days_from_now(5)))
        };
        let keys = format!("revocation_lists = [{:?}]", list(&[]));
        let gate = Gate::start(&house(&keys));

        let device = |certified: &Certified| {
            let mut config = pki.client_config(Some(certified), &[version]);
            config.resumption = Resumption::in_memory_sessions(8);
            Arc::new(config)
        };
        let (lost, mine) = (device(&numbered(&pki, "lost-phone", 7)), device(&numbered(&pki, "alice-phone", 8)));
        let admitted = |config: &Arc<ClientConfig>, name| Client::admitted(gate.address(), config, name).unwrap();
        let first = admitted(&lost, NAS);
        let resumed = admitted(&lost, NAS);
        assert_eq!(resumed.tls(|connection| connection.handshake_kind()), Some(HandshakeKind::Resumed));
        let elsewhere = admitted(&lost, SSH);
        let stays = [admitted(&mine, NAS), admitted(&mine, SSH)];
        let mut mail = connect(gate.address());
        let hello =
            crate::client::Hello { version: 0x0303, suites: &[0x1301], server_name: "mail.home.example" }.record();
        mail.write_all(&hello).unwrap();
        mail.read_exact(&mut vec![0; hello.len()]).unwrap();

        list(&[SerialNumber::from(7)]);
        let asked = Instant::now();
        let output = reload(&gate, &house(&keys)).success();
        assert!(output.text().contains("kept: 3. Cut, because they are no longer admitted: 3."), "{output}");
        for client in [&first, &resumed, &elsewhere] {
            assert_eq!(client.end(), End::of(CloseReason::Revoked));
        }
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        for client in &stays {
            client.ping().unwrap();
        }
        mail.write_all(b"ping").unwrap();
        mail.read_exact(&mut [0; 4]).unwrap();

        gate.wait_metric("doorward_sessions_cut_total", &[("reason", "revoked")], 3.0);
        let metrics = gate.metrics();
        assert_eq!(metrics.sum("doorward_sessions_cut_total", &[]), 3.0);
        assert_eq!(metrics.sum("doorward_revocation_lag_seconds_count", &[]), 3.0);
        assert!(metrics.sum("doorward_revocation_lag_seconds_sum", &[]) < 3.0 * AT_ONCE.as_secs_f64());
        let line = closed(&gate, "revoked");
        assert_eq!(line["certificate"]["name"], "lost-phone", "{line}");
        drop((stays, mail));
    }
}

/// attacks.md row 25: a session stays open if the route of the same name would admit it now, and not otherwise.
#[test]
fn session_stays_exactly_if_it_would_be_admitted_now() {
    let pki = TestPki::new();
    let (backend, elsewhere) = (Backend::echo(), Backend::echo());
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let others = Authority::new("Others");
    let both = pki.write("both.pem", [others.pem(), pki.clients.pem()].concat());
    let only_others = pki.write("others.pem", others.pem());
    let nas = |backend: &Backend, keys: &str| {
        controlled(&House::new(&pki).route_with("nas", &[&backend.address().to_string()], keys))
    };
    let trust = |file| format!("allow = [\"any\"]\n[route.client_auth]\ntrust = [{file:?}]");
    let changes: Vec<(&str, String, Option<&str>)> = vec![
        ("other backends", nas(&elsewhere, "allow = [\"any\"]"), None),
        ("a smaller allow that has the device", nas(&backend, "allow = [\"alice-phone\"]"), None),
        ("another authority beside", nas(&backend, &trust(&both)), None),
        ("the backend does TLS now", nas(&backend, "mode = \"passthrough\""), None),
        ("other server names", nas(&backend, "allow = [\"any\"]").replace(NAS, "files.home.example"), None),
        ("an allow without the device", nas(&backend, "allow = [\"bob-laptop\"]"), Some("not_allowed")),
        ("the authority is gone", nas(&backend, &trust(&only_others)), Some("not_trusted")),
        (
            "the route has another name",
            nas(&backend, "allow = [\"any\"]").replace("name = \"nas\"", "name = \"files\""),
            Some("route_removed"),
        ),
    ];
    for (what, after, cut) in changes {
        // The sandbox would refuse the port of the other backend, which was not named at the start.
        let gate = Gate::start(&format!("{}\n[sandbox]\nmode = \"off\"\n", nas(&backend, "allow = [\"any\"]")));
        let guest = Client::admitted(gate.address(), &alice, NAS).unwrap();
        reload(&gate, &after).success();
        match cut {
            None => guest.ping().unwrap_or_else(|end| panic!("{what}: {end:?}")),
            Some(reason) => {
                assert_eq!(guest.end(), End::of(labelled(reason)), "{what}");
                closed(&gate, reason);
            }
        }
        drop(guest);
    }
}

/// A session without a certificate is judged as such, in each mode.
#[test]
fn session_without_certificate_stays_if_none_is_needed() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let address = backend.address().to_string();
    let house = |keys: &str| controlled(&House::new(&pki).route_with("mail", &[&address], keys));
    let with = |mode: &str, allow: &str| house(&format!("allow = {allow}\n[route.client_auth]\nmode = {mode:?}"));
    let (raw, open) = (house("mode = \"passthrough\""), with("verify_if_given", r#"["any", "unverified"]"#));
    let changes = [
        (&raw, &open, None),
        (&raw, &with("verify_if_given", r#"["any"]"#), Some("not_allowed")),
        (&raw, &with("require_and_verify", r#"["any", "unverified"]"#), Some("not_allowed")),
        (&open, &raw, None),
        (&open, &with("request", r#"["unverified"]"#), None),
        (&open, &with("require", r#"["unverified"]"#), Some("not_allowed")),
        (&open, &with("verify_if_given", r#"["any"]"#), Some("not_allowed")),
    ];
    for (before, after, cut) in changes {
        let gate = Gate::start(before);
        let name = "mail.home.example";
        if *before == raw {
            let mut guest = connect(gate.address());
            let hello = crate::client::Hello { version: 0x0303, suites: &[0x1301], server_name: name }.record();
            guest.write_all(&hello).unwrap();
            guest.read_exact(&mut vec![0; hello.len()]).unwrap();
            reload(&gate, after).success();
            match cut {
                None => {
                    guest.write_all(b"ping").unwrap();
                    guest.read_exact(&mut [0; 4]).unwrap();
                }
                Some(reason) => {
                    // The gate has no keys for an alert.
                    let end = guest.read(&mut [0; 1]).map_err(|error| error.kind());
                    assert_eq!(end, Err(ErrorKind::ConnectionReset), "{after}");
                    closed(&gate, reason);
                }
            }
        } else {
            let guest = Client::admitted(gate.address(), &client(&pki, None), name).unwrap();
            reload(&gate, after).success();
            match cut {
                None => guest.ping().unwrap(),
                Some(reason) => {
                    assert_eq!(guest.end(), End::of(labelled(reason)), "{after}");
                    closed(&gate, reason);
                }
            }
        }
    }
}

/// The reload falls between the client's hello and the end of its handshake: the old configuration lets it in, and no
/// backend ever hears of it.
#[test]
fn handshake_begun_before_the_reload_does_not_evade_it() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let lost = pki.client("lost-phone");
    let fingerprint = Sha256::of(&lost.chain()[0]);
    let house = |keys: &str| controlled(&House::new(&pki).client_auth(keys).route("nas", backend.address()));
    let gate = Gate::start(&house(""));
    let guest = Client::on(connect(gate.address()), &client(&pki, Some(&lost)), NAS);
    guest.flush().unwrap();
    // The server's answer: the gate is in the middle of it.
    guest.receive_some().unwrap();
    reload(&gate, &house(&format!("deny = [\"sha256:{fingerprint}\"]"))).success();
    guest.handshake().unwrap();
    assert_eq!(guest.ping(), Err(End::Alert(Alert(49))));
    gate.wait_rejected("certificate", "denied", 1);
    assert_eq!((backend.accepted(), backend.received()), (0, 0));
}

/// It falls between the end of the handshake and the answer of the backend: the dial ends, and a backend that answers later
/// hears nothing.
#[test]
fn slow_backend_does_not_evade_a_reload() {
    let pki = TestPki::new();
    // Its queue holds one connection, which is taken: the next one is not answered.
    let backend = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    backend.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    backend.listen(0).unwrap();
    let backend = TcpListener::from(backend);
    let address = backend.local_addr().unwrap();
    let mut waiting = vec![TcpStream::connect(address).unwrap()];
    while let Ok(one) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(one);
    }
    let lost = pki.client("lost-phone");
    let fingerprint = Sha256::of(&lost.chain()[0]);
    let house = |keys: &str| {
        let house = House::new(&pki).timeouts("dial = \"20s\"").client_auth(keys);
        let keys = "allow = [\"any\"]\nsend_proxy_protocol = \"off\"";
        controlled(&house.route_with("nas", &[&address.to_string()], keys))
    };
    let gate = Gate::start(&house(""));
    let guest = Client::handshaken(gate.address(), &client(&pki, Some(&lost)), NAS).unwrap();
    guest.send(b"ping").unwrap();
    gate.wait_metric("doorward_handshakes_total", &[], 1.0);
    reload(&gate, &house(&format!("deny = [\"sha256:{fingerprint}\"]"))).success();
    assert_eq!(guest.end(), End::Alert(Alert::ACCESS_DENIED));
    gate.wait_rejected("certificate", "denied", 1);
    for _ in &waiting {
        drop(backend.accept().unwrap());
    }
    backend.set_nonblocking(true).unwrap();
    if let Ok((mut reached, _)) = backend.accept() {
        assert!(!matches!(reached.read(&mut [0; 1]), Ok(1..)), "the backend has heard something");
    }
    gate.wait_metric("doorward_sessions_cut_total", &[("reason", "denied")], 1.0);
}

/// Whatever a relay is doing at that moment: nothing, moving bytes, or waiting for a peer that does not read.
#[test]
fn busy_relay_is_cut_as_fast_as_an_idle_one() {
    let pki = TestPki::new();
    let chatter = Backend::serve("127.0.0.1:0", |mut stream, _| {
        // Until the gate hangs up.
        while stream.write_all(&[7; 64 * 1024]).is_ok() {}
    });
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let house = House::new(&pki).route("nas", chatter.address()).passthrough("mail", chatter.address());
    let empty = controlled(&House::new(&pki).route("ssh", chatter.address()));
    let gate = Gate::start(&controlled(&house));
    let open = || {
        let mail = connect(gate.address());
        let hello = crate::client::Hello { version: 0x0303, suites: &[0x1301], server_name: "mail.home.example" };
        (&mail).write_all(&hello.record()).unwrap();
        (&mail).read_exact(&mut [0; 1]).unwrap();
        let nas = Client::handshaken(gate.address(), &alice, NAS).unwrap();
        nas.read(&mut [0; 1]).unwrap();
        (mail, nas)
    };
    let (deaf, busy) = (open(), open());
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let (mut mail, nas) = (&busy.0, &busy.1);
            let raw = scope.spawn(move || while mail.read(&mut [0; 65_536]).is_ok_and(|count| count > 0) {});
            while nas.read(&mut [0; 65_536]).is_ok() {}
            raw.join().unwrap();
        });
        let asked = Instant::now();
        reload(&gate, &empty).success();
        reading.join().unwrap();
        let lines = gate.wait_for_lines("all four", 4, |line| line["reason"] == "route_removed");
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        let mut paths: Vec<&str> = lines.iter().map(|line| line["path"].as_str().unwrap()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["copy", "copy", "raw", "raw"]);
    });
    drop(deaf);
}

#[test]
fn cut_ends_the_selected_sessions_and_no_others() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let house = House::new(&pki).route("nas", backend.address()).route("ssh", backend.address());
    let gate = Gate::start(&controlled(&house));
    let (alice, bob) = (pki.client("alice-phone"), pki.client("bob-laptop"));
    let print_of_bob = format!("sha256:{}", Sha256::of(&bob.chain()[0]));
    let (alice, bob) = (client(&pki, Some(&alice)), client(&pki, Some(&bob)));
    // The open sessions, the newest last.
    let guests = [("alice-phone", "nas"), ("alice-phone", "ssh"), ("bob-laptop", "nas"), ("bob-laptop", "ssh")];
    let open_all = || {
        [(&alice, NAS), (&alice, SSH), (&bob, NAS), (&bob, SSH)]
            .map(|(config, name)| Client::admitted(gate.address(), config, name).unwrap())
    };
    let mut cut_so_far = 0.0;
    let cases: [(&str, &[usize]); 11] = [
        ("unknown-device", &[]),
        ("alice", &[]),
        ("alice-phone2", &[]),
        ("sha256:0000", &[]),
        ("route:ss", &[]),
        ("the id of the newest", &[3]),
        ("where the second came from", &[1]),
        ("alice-phone", &[0, 1]),
        (&print_of_bob[..20], &[2, 3]),
        ("route:ssh", &[1, 3]),
        ("127.0.0.1", &[0, 1, 2, 3]),
    ];
    for (selector, selected) in cases.into_iter().chain([("--all", &[0, 1, 2, 3][..])]) {
        let clients = open_all();
        let newest = doorward(&gate, &["sessions", "--format", "json"]).success();
        let newest = serde_json::from_str::<Value>(&newest.text()).unwrap()["sessions"][0]["id"].to_string();
        let second = clients[1].tcp().local_addr().unwrap().to_string();
        let argument = match selector {
            "the id of the newest" => newest.as_str(),
            "where the second came from" => second.as_str(),
            selector => selector,
        };
        let said = doorward(&gate, &["cut", "--format", "json", argument]).success();
        let said: Value = serde_json::from_str(&said.text()).unwrap();
        let sessions = said["sessions"].as_array().unwrap().iter().rev();
        let cut: Vec<(&str, &str)> = sessions
            .map(|one| (one["certificate"]["name"].as_str().unwrap(), one["route"].as_str().unwrap()))
            .collect();
        let expected: Vec<(&str, &str)> = selected.iter().map(|&one| guests[one]).collect();
        assert_eq!((cut, &said["open"]), (expected, &selected.len().into()), "{selector}");
        for (index, client) in clients.iter().enumerate() {
            if selected.contains(&index) {
                assert_eq!(client.end(), End::of(CloseReason::CutByHand), "{selector}");
            } else {
                client.ping().unwrap();
            }
        }
        cut_so_far += selected.len() as f64;
        gate.wait_metric("doorward_sessions_cut_total", &[("reason", "cut_by_hand")], cut_so_far);
        drop(clients);
        gate.settled();
    }
    // An empty selector selects no session, and never all.
    for wrong in [vec!["cut"], vec!["cut", ""], vec!["cut", "sha256:12"], vec!["cut", "alice-phone", "--all"]] {
        assert_eq!(doorward(&gate, &wrong).failure().status.code(), Some(2), "{wrong:?}");
    }
    assert!(doorward(&gate, &["cut", "alice-phone"]).success().text().starts_with("No open connection matches"));
}
