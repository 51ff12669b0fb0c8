//! Session tickets after a reload (attacks.md rows 18 and 41): they are resumed on routes whose settings are the same, by
//! devices that are still admitted.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use doorward::model::rejection::{Alert, Reason};
use doorward::model::ticket::TicketOutcome;
use rcgen::SerialNumber;
use rustls::ClientConfig;
use rustls::client::Resumption;

use crate::client::{Client, VERSIONS};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::metrics::Metrics;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::process::{Finished, run_with_input, tool};
use crate::home::{House, assert_refused};
use crate::settings::{Setting, device, settings, shared_key, visit};
use crate::{NAS, SSH, controlled, reload};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: nas\r\n\r\n";
const PAGE: &str = "the page of the NAS";

/// The device that is going to be lost.
fn lost(pki: &TestPki) -> Certified {
    let mut params = Certified::for_clients("lost-phone");
    params.serial_number = Some(SerialNumber::from(7));
    pki.clients.issue(params)
}

fn list(pki: &TestPki, revoked: &[SerialNumber]) -> String {
    let list = pki.clients.revocation_list(revoked, days_from_now(-1), days_from_now(5));
    format!("revocation_lists = [{:?}]", pki.write("clients.crl", list))
}

/// `[tickets]` with a key that gates share, or nothing: keys of the gate's own.
fn keys(pki: &TestPki, shared: bool) -> String {
    if shared { format!("[tickets]\nkeys = [{:?}]\n", shared_key(pki)) } else { String::new() }
}

/// A visit at the NAS: whether a session was resumed.
#[track_caller]
fn resumes(gate: &Gate, device: &Arc<ClientConfig>) -> bool {
    let (told, resumed) = visit(gate, device, NAS);
    assert_eq!(told, None);
    resumed
}

fn tickets(gate: &Gate) -> [f64; 5] {
    let metrics = gate.settled();
    TicketOutcome::ALL.map(|outcome| metrics.sum("doorward_tickets_total", &[("outcome", outcome.label())]))
}

#[test]
fn ticket_is_resumed_after_a_reload_that_leaves_its_route() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let address = backend.address().to_string();
    let house = |backends: &[&str], keys: &str| House::new(&pki).route_with("nas", backends, keys);
    let any = "allow = [\"any\"]";
    let plain = controlled(&house(&[&address], any));
    let gate = Gate::start(&plain);
    let alice = pki.client("alice-phone");
    let devices = VERSIONS.map(|version| device(&pki, &alice, version, Resumption::in_memory_sessions(8)));
    let all = |expected: bool| {
        for device in &devices {
            assert_eq!(resumes(&gate, device), expected);
        }
    };
    all(false);
    // Nothing listens there. The sandbox allows the port, which was named at the start.
    let elsewhere = format!("127.0.0.2:{}", backend.address().port());
    let kept = [
        plain.clone(),
        controlled(&house(&[&address], any).route("ssh", &address)),
        controlled(&House::new(&pki).route("ssh", &address).route_with("nas", &[&address], any)),
        controlled(&house(&[&elsewhere, &address], any)),
        controlled(&house(&[&address], any).timeouts("idle = \"1h\"").listener("deny_sources = [\"192.0.2.1\"]")),
        plain.replace("[\"nas.home.example\"]", "[\"files.home.example\", \"nas.home.example\"]"),
        // In its own words.
        plain.replace(any, &format!("{any}\n[route.client_auth]\nmode = \"require_and_verify\"")),
    ];
    for config in &kept {
        reload(&gate, config).success();
        all(true);
    }
    assert_eq!(tickets(&gate), [2.0 * kept.len() as f64, 0.0, 0.0, 0.0, 0.0]);
    // One that is refused changes nothing.
    reload(&gate, &plain.replace("clients.pem", "gone.pem")).failure();
    all(true);
    let lost = [
        // A route of another name is another route.
        plain.replace("name = \"nas\"", "name = \"files\""),
        // The first one again: its key is gone.
        plain.clone(),
        controlled(&House::new(&pki).passthrough("nas", &address)),
    ];
    for config in &lost[..2] {
        reload(&gate, config).success();
        all(false);
        all(true);
    }
    reload(&gate, &lost[2]).success();
    reload(&gate, &plain).success();
    all(false);
    assert_eq!(tickets(&gate)[4], 6.0, "as many unknown tickets");
}

/// A new list takes the tickets of the devices that it names, and of no other.
#[test]
fn mtls_bypass_ticket_of_a_revoked_device_after_a_reload() {
    for (version, shared) in VERSIONS.into_iter().flat_map(|version| [(version, false), (version, true)]) {
        let pki = TestPki::new();
        let backend = Backend::echo();
        let lists = list(&pki, &[]);
        let keys = keys(&pki, shared);
        let config = controlled(&House::new(&pki).client_auth(&lists).route("nas", backend.address())) + &keys;
        let gate = Gate::start(&config);
        let [lost, alice] = [lost(&pki), pki.client("alice-phone")]
            .map(|certified| device(&pki, &certified, version, Resumption::in_memory_sessions(8)));
        for device in [&lost, &alice] {
            assert_eq!([resumes(&gate, device), resumes(&gate, device)], [false, true]);
        }
        list(&pki, &[SerialNumber::from(7)]);
        reload(&gate, &config).success();
        for _ in 0..2 {
            assert_refused(&gate, &backend, Reason::Revoked, Alert(44), || {
                Client::admitted(gate.address(), &lost, NAS)
            });
        }
        assert!(resumes(&gate, &alice));
        let [resumed, unused, expired, refused, unknown] = tickets(&gate);
        assert_eq!((resumed, unused, expired, unknown), (3.0, 0.0, 0.0, 0.0));
        // TLS 1.3 clients use a ticket once.
        assert!(refused >= 1.0, "{refused}");
        // It is forgiven, and another authority rules.
        list(&pki, &[]);
        reload(&gate, &config).success();
        assert!([resumes(&gate, &lost), resumes(&gate, &lost)][1]);
        pki.write("clients.pem", Authority::new("Another house").pem());
        reload(&gate, &(controlled(&House::new(&pki).route("nas", backend.address())) + &keys)).success();
        let before = tickets(&gate);
        for device in [&lost, &alice] {
            assert_refused(&gate, &backend, Reason::UnknownCa, Alert(48), || {
                Client::admitted(gate.address(), device, NAS)
            });
        }
        assert_eq!(tickets(&gate)[4] - before[4], 2.0);
    }
}

/// A reload that changes one of two routes, and 1,000 devices that have tickets.
#[test]
fn thousand_devices_resume_but_on_the_changed_route() {
    const DEVICES: usize = 1_000;
    const ON_SSH: usize = 100;
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let address = backend.address().to_string();
    let config = |keys: &str| {
        let house = House::new(&pki).client_auth(&list(&pki, &[])).route("nas", &address);
        controlled(&house.route_with("ssh", &[&address], keys))
    };
    let gate = Gate::start(&config("allow = [\"any\"]"));
    let devices: Vec<_> = (0..DEVICES)
        .map(|number| {
            let certified = pki.client(&format!("device-{number}"));
            let version = VERSIONS[number % 2];
            let name = if number < ON_SSH { SSH } else { NAS };
            (device(&pki, &certified, version, Resumption::in_memory_sessions(4)), name)
        })
        .collect();
    // Each of them once: how many full handshakes and how many resumed ones that were, on ssh and on nas.
    let round = || {
        let counts = |metrics: &Metrics| {
            ["ssh", "nas"].map(|route| {
                ["false", "true"].map(|resumed| {
                    metrics.sum("doorward_handshakes_total", &[("route", route), ("resumed", resumed)]) as usize
                })
            })
        };
        let before = counts(&gate.settled());
        thread::scope(|scope| {
            for some in devices.chunks(DEVICES / 4) {
                scope.spawn(|| some.iter().for_each(|(device, name)| assert_eq!(visit(&gate, device, name).0, None)));
            }
        });
        let after = counts(&gate.settled());
        [0, 1].map(|route| [0, 1].map(|resumed| after[route][resumed] - before[route][resumed]))
    };
    let (ssh, nas) = (ON_SSH, DEVICES - ON_SSH);
    assert_eq!(round(), [[ssh, 0], [nas, 0]]);
    reload(&gate, &config("allow = [\"any\"]")).success();
    assert_eq!(round(), [[0, ssh], [0, nas]], "nothing has changed");
    reload(&gate, &config("allow = [\"any\"]\n[route.client_auth]\nrevocation_check = \"leaf\"")).success();
    assert_eq!(round(), [[ssh, 0], [0, nas]]);
    assert_eq!(tickets(&gate), [(DEVICES + nas) as f64, 0.0, 0.0, 0.0, ssh as f64]);
    assert_eq!(gate.settled().sum("doorward_connections_rejected_total", &[]), 0.0);
}

#[test]
fn mtls_bypass_openssl_ticket_of_a_revoked_device() {
    [false, true].into_iter().for_each(assert_openssl_ticket_of_a_revoked_device_is_refused);
}

#[track_caller]
fn assert_openssl_ticket_of_a_revoked_device_is_refused(shared: bool) {
    let pki = TestPki::new();
    let backend = Backend::http(PAGE);
    let lists = list(&pki, &[]);
    let config = controlled(&House::new(&pki).client_auth(&lists).route("nas", backend.address()));
    let config = config + &keys(&pki, shared);
    let gate = Gate::start(&config);
    let lost = lost(&pki);
    let (certificate, key) = (pki.write("lost.pem", lost.chain_pem()), pki.write("lost-key.pem", lost.key_pem()));
    let connect = |version: &str, session: (&str, &Path)| -> Finished {
        let mut command = tool("openssl", "openssl");
        command.args(["s_client", "-connect", &gate.address().to_string(), "-servername", NAS, "-ign_eof", version]);
        command.arg("-CAfile").arg(pki.path("servers.pem")).arg(session.0).arg(session.1);
        command.arg("-cert").arg(&certificate).arg("-key").arg(&key);
        let finished = run_with_input(&mut command, REQUEST);
        gate.settled();
        finished
    };
    let versions = [("-tls1_2", pki.path("session12.pem")), ("-tls1_3", pki.path("session13.pem"))];
    let reused = |finished: &Finished| finished.text().contains("Reused, TLSv1.");
    for (version, session) in &versions {
        let first = connect(version, ("-sess_out", session));
        assert!(first.text().contains(PAGE) && !reused(&first), "{first}");
        let second = connect(version, ("-sess_in", session));
        assert!(second.text().contains(PAGE) && reused(&second), "{second}");
    }
    list(&pki, &[SerialNumber::from(7)]);
    reload(&gate, &config).success();
    let before = backend.accepted();
    for (count, (version, session)) in versions.iter().enumerate() {
        let refused = connect(version, ("-sess_in", session));
        assert!(!refused.text().contains(PAGE), "{refused}");
        assert!(refused.stderr.contains("alert certificate revoked"), "{refused}");
        assert!(!reused(&refused), "{refused}");
        let line = gate.wait_rejected("certificate", "revoked", count + 1).swap_remove(count);
        assert_eq!(line["alert"], "certificate_revoked", "{line}");
    }
    assert_eq!(backend.accepted(), before, "no connection has reached the NAS");
}

/// Every route goes from each setting to each other one, and back to its own: a ticket is resumed where the settings are the
/// same, and nowhere else. Where the device is refused, it is told so in a full handshake.
#[test]
fn row_41_ticket_is_resumed_only_with_the_same_settings() {
    assert_resumed_only_with_the_same_settings(&TestPki::new(), "");
}

/// A shared key is the same under all settings, and what each route derives from it is not.
#[test]
fn row_41_ticket_under_a_shared_key_is_resumed_only_with_the_same_settings() {
    let pki = TestPki::new();
    assert_resumed_only_with_the_same_settings(&pki, &keys(&pki, true));
}

#[track_caller]
fn assert_resumed_only_with_the_same_settings(pki: &TestPki, tickets: &str) {
    let backend = Backend::echo();
    let (devices, settings) = settings(pki);
    let address = backend.address().to_string();
    // Route i has setting i + shift.
    let setting = |route: usize, shift: usize| &settings[(route + shift) % settings.len()];
    let name = |route: usize| format!("route-{route}.home.example");
    let config = |shift| {
        let routes = 0..settings.len();
        let house = routes.fold(House::new(pki), |house, route| {
            house.route_with(&format!("route-{route}"), &[&address], &setting(route, shift).keys)
        });
        controlled(&house) + tickets
    };
    let gate = Gate::start(&config(0));
    let resumed = || gate.settled().sum("doorward_handshakes_total", &[("resumed", "true")]);
    let mut pairs = 0;
    for shift in 0..settings.len() {
        reload(&gate, &config(0)).success();
        let mut tried = Vec::new();
        for (route, from) in settings.iter().enumerate() {
            for (certified, is_own) in [(&devices.own, true), (&devices.strange, false)] {
                let told = |setting: &Setting| if is_own { setting.own } else { setting.strange };
                if told(from).is_some() {
                    continue;
                }
                for version in VERSIONS {
                    let device = device(pki, certified, version, Resumption::in_memory_sessions(8));
                    assert_eq!(visit(&gate, &device, &name(route)), (None, false), "{}", from.name);
                    tried.push((route, device, told(setting(route, shift)), version));
                }
            }
        }
        let before = resumed();
        reload(&gate, &config(shift)).success();
        for (route, device, told, version) in &tried {
            let (from, to) = (setting(*route, 0).name, setting(*route, shift).name);
            let seen = visit(&gate, device, &name(*route));
            // "listed" and "revoked" differ in what the list contains: the device is on the second one.
            assert_eq!(seen, (*told, shift == 0), "from {from} to {to}, {:?}", version.version);
            pairs += usize::from(shift > 0);
        }
        assert_eq!(resumed() - before, if shift == 0 { tried.len() as f64 } else { 0.0 });
    }
    assert_eq!(pairs, 2 * (15 + 4) * (settings.len() - 1));
}
