//! Session tickets are void after a reload (attacks.md row 18): a returning client is verified again.

use std::path::Path;
use std::sync::Arc;

use doorward::model::rejection::{Alert, Reason};
use rcgen::SerialNumber;
use rustls::HandshakeKind;
use rustls::client::Resumption;

use crate::client::{Client, End, VERSIONS};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::process::{Finished, run_with_input, tool};
use crate::home::{House, assert_refused};
use crate::settings::{Setting, device, settings, visit};
use crate::{NAS, controlled, reload};

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

#[test]
fn mtls_bypass_rustls_no_ticket_outlives_a_reload() {
    for version in VERSIONS {
        let pki = TestPki::new();
        let backend = Backend::echo();
        let lists = list(&pki, &[]);
        let config = controlled(&House::new(&pki).client_auth(&lists).route("nas", backend.address()));
        let gate = Gate::start(&config);
        let mut device = pki.client_config(Some(&lost(&pki)), &[version]);
        device.resumption = Resumption::in_memory_sessions(8);
        let device = Arc::new(device);
        let visit = || {
            let client = Client::admitted(gate.address(), &device, NAS)?;
            let kind = client.tls(|connection| connection.handshake_kind());
            client.close_notify();
            assert_eq!(client.end(), End::Orderly);
            gate.settled();
            Ok::<_, End>(kind == Some(HandshakeKind::Resumed))
        };
        assert_eq!([visit(), visit()], [Ok(false), Ok(true)]);
        // Nothing is different, and still it is another snapshot.
        reload(&gate, &config).success();
        assert_eq!([visit(), visit()], [Ok(false), Ok(true)]);
        list(&pki, &[SerialNumber::from(7)]);
        reload(&gate, &config).success();
        for _ in 0..2 {
            assert_refused(&gate, &backend, Reason::Revoked, Alert(44), || {
                Client::admitted(gate.address(), &device, NAS)
            });
        }
        // It is forgiven, and another authority rules.
        list(&pki, &[]);
        reload(&gate, &config).success();
        assert_eq!([visit(), visit()], [Ok(false), Ok(true)]);
        pki.write("clients.pem", Authority::new("Another house").pem());
        reload(&gate, &controlled(&House::new(&pki).route("nas", backend.address()))).success();
        assert_refused(&gate, &backend, Reason::UnknownCa, Alert(48), || {
            Client::admitted(gate.address(), &device, NAS)
        });
    }
}

#[test]
fn mtls_bypass_openssl_ticket_of_a_revoked_device() {
    let pki = TestPki::new();
    let backend = Backend::http(PAGE);
    let lists = list(&pki, &[]);
    let config = controlled(&House::new(&pki).client_auth(&lists).route("nas", backend.address()));
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

/// A ticket of a lax route, tried after a reload has made the route strict, and one of a route that has only changed in
/// another way: it is looked at anew.
#[test]
fn row_41_no_ticket_outlives_a_reload_of_a_setting() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let (devices, settings) = settings(&pki);
    let address = backend.address().to_string();
    let house = || House::new(&pki).limits("connection_rate_per_source = \"off\"");
    let config = |setting: &Setting| controlled(&house().route_with("nas", &[&address], &setting.keys));
    let gate = Gate::start(&config(&settings[0]));
    let resumed = || gate.metrics().sum("doorward_handshakes_total", &[("resumed", "true")]);
    for from in settings.iter().filter(|from| from.own.is_none()) {
        for to in &settings {
            reload(&gate, &config(from)).success();
            let device = VERSIONS.map(|version| {
                let device = device(&pki, &devices.own, version, Resumption::in_memory_sessions(8));
                assert_eq!(visit(&gate, &device, NAS), (None, false));
                device
            });
            gate.settled();
            let before = resumed();
            reload(&gate, &config(to)).success();
            for device in device {
                assert_eq!(visit(&gate, &device, NAS), (to.own, false), "from {} to {}", from.name, to.name);
            }
            gate.settled();
            assert_eq!(resumed(), before, "from {} to {}", from.name, to.name);
        }
    }
}
