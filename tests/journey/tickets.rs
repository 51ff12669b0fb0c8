//! A session of a route is none for any other that differs in a setting (attacks.md row 41).

use std::path::Path;
use std::sync::Arc;

use rustls::client::{ClientSessionMemoryCache, Resumption};

use crate::client::VERSIONS;
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::{Finished, run_with_input, tool};
use crate::home::House;
use crate::resumption::Everywhere;
use crate::settings::{Setting, device, settings, shared_key, visit};

/// A gate with a route for each setting.
fn open(pki: &TestPki, backend: &Backend, settings: &[Setting], tickets: &str) -> Gate {
    let address = backend.address().to_string();
    let house = House::new(pki).limits("connection_rate_per_source = \"off\"");
    let house = settings.iter().fold(house, |house, one| house.route_with(one.name, &[&address], &one.keys));
    Gate::start(&(house.config() + tickets))
}

fn server_name(setting: &Setting) -> String {
    format!("{}.home.example", setting.name)
}

#[test]
fn row_41_no_session_of_a_route_is_resumed_on_another() {
    assert_resumed_on_its_own_route_only(&TestPki::new(), "");
}

/// Keys that gates share are the same for all routes, and what each route derives from them is not.
#[test]
fn row_41_no_session_under_a_shared_key_is_resumed_on_another_route() {
    let pki = TestPki::new();
    let key = shared_key(&pki);
    assert_resumed_on_its_own_route_only(&pki, &format!("[tickets]\nkeys = [{key:?}]\n"));
}

#[track_caller]
fn assert_resumed_on_its_own_route_only(pki: &TestPki, tickets: &str) {
    let backend = Backend::echo();
    let (devices, settings) = settings(pki);
    let gate = open(pki, &backend, &settings, tickets);
    let resumed = || gate.metrics().sum("doorward_handshakes_total", &[("resumed", "true")]);
    let mut pairs = 0;
    for version in VERSIONS {
        for (certified, is_own) in [(&devices.own, true), (&devices.strange, false)] {
            let told = |setting: &Setting| if is_own { setting.own } else { setting.strange };
            for from in settings.iter().filter(|from| told(from).is_none()) {
                let before = resumed();
                let sessions = Resumption::store(Arc::new(Everywhere(ClientSessionMemoryCache::new(8))));
                let device = device(pki, certified, version, sessions);
                assert_eq!(visit(&gate, &device, &server_name(from)), (None, false), "{}", from.name);
                assert_eq!(visit(&gate, &device, &server_name(from)), (None, true), "{}", from.name);
                for to in settings.iter().filter(|to| to.name != from.name) {
                    // By now its session may be of the one before: that is a pair as well.
                    let again = visit(&gate, &device, &server_name(from));
                    assert_eq!(again.0, None, "{}", from.name);
                    let seen = visit(&gate, &device, &server_name(to));
                    assert_eq!(seen, (told(to), false), "from {} to {}, {:?}", from.name, to.name, version.version);
                    pairs += 1;
                }
                gate.settled();
                // Whatever the client says, the gate has resumed sessions of this route only.
                let labels = [("resumed", "true"), ("route", from.name)];
                let here = gate.metrics().sum("doorward_handshakes_total", &labels);
                assert!(resumed() - before <= here, "from {}", from.name);
            }
        }
    }
    assert_eq!(pairs, 2 * (15 + 4) * (settings.len() - 1));
}

/// OpenSSL sends a session to another name than it is from.
#[test]
fn row_41_openssl_sess_in_from_a_lax_route_opens_no_strict_one() {
    const PAGE: &str = "the page of the NAS";
    let (pki, backend) = (TestPki::new(), Backend::http(PAGE));
    let (devices, settings) = settings(&pki);
    let gate = open(&pki, &backend, &settings, "");
    let (chain, key) = (devices.own.chain_pem(), devices.own.key_pem());
    let (certificate, key) = (pki.write("own.pem", chain), pki.write("own-key.pem", key));
    let connect = |version: &str, setting: &Setting, session: (&str, &Path)| -> Finished {
        let mut command = tool("openssl", "openssl");
        command.args(["s_client", "-connect", &gate.address().to_string(), "-ign_eof", version, "-alpn", "imap"]);
        command.args(["-servername", &server_name(setting)]).arg(session.0).arg(session.1);
        command.arg("-CAfile").arg(pki.path("servers.pem"));
        command.arg("-cert").arg(&certificate).arg("-key").arg(&key);
        run_with_input(&mut command, b"GET / HTTP/1.1\r\nHost: nas\r\n\r\n")
    };
    let reused = |finished: &Finished| finished.text().contains("Reused, TLSv1.");
    for version in ["-tls1_2", "-tls1_3"] {
        for from in settings.iter().filter(|from| ["request", "plain"].contains(&from.name)) {
            let session = pki.path(&format!("session{version}-{}.pem", from.name));
            let first = connect(version, from, ("-sess_out", &session));
            assert!(first.text().contains(PAGE) && !reused(&first), "{first}");
            let second = connect(version, from, ("-sess_in", &session));
            assert!(second.text().contains(PAGE) && reused(&second), "{second}");
            for to in settings.iter().filter(|to| to.name != from.name) {
                let seen = connect(version, to, ("-sess_in", &session));
                assert!(!reused(&seen), "from {} to {}: {seen}", from.name, to.name);
                assert_eq!(seen.text().contains(PAGE), to.own.is_none(), "from {} to {}: {seen}", from.name, to.name);
            }
        }
    }
}
