//! Keys for session tickets that replicas share. What a route derives from them is shown by the tests of
//! `src/handshake/tests`, and by those of attacks.md row 41 in `tests/journey` and `tests/reload`.

use std::sync::Arc;

use doorward::model::rejection::Alert;
use doorward::model::ticket::TicketOutcome;
use rcgen::SerialNumber;
use rustls::ClientConfig;
use rustls::client::Resumption;

use crate::NAS;
use crate::client::{Client, VERSIONS};
use crate::common::backend::Backend;
use crate::common::pki::{Certified, TestPki};
use crate::common::process::wait_until;
use crate::pod::{Keys, Pod, clients};
use crate::settings::{device, visit};

/// Two replicas.
struct Replicas {
    pki: TestPki,
    keys: Keys,
    one: Pod,
    other: Pod,
    _backend: Backend,
}

impl Replicas {
    fn start() -> Self {
        let (pki, keys, backend) = (TestPki::new(), Keys::new(), Backend::echo());
        let [one, other] = [(); 2].map(|()| Pod::start(&pki, &backend, &keys, |_| ()));
        Self { pki, keys, one, other, _backend: backend }
    }

    /// A device of each version, with this number.
    fn devices(&self, number: u64) -> [Arc<ClientConfig>; 2] {
        let mut params = Certified::for_clients(&format!("device-{number}"));
        params.serial_number = Some(SerialNumber::from(number));
        let issued = self.pki.clients.issue(params);
        VERSIONS.map(|version| device(&self.pki, &issued, version, Resumption::in_memory_sessions(8)))
    }
}

impl Pod {
    /// Whether the session of this device is resumed here.
    #[track_caller]
    fn resumes(&self, device: &Arc<ClientConfig>) -> bool {
        let (told, resumed) = visit(&self.gate, device, NAS);
        assert_eq!(told, None);
        resumed
    }

    /// How many tickets had this outcome.
    fn tickets(&self, outcome: TicketOutcome) -> f64 {
        self.gate.settled().sum("doorward_tickets_total", &[("outcome", outcome.label())])
    }

    /// Waits for the next automatic reload, which `change` causes.
    fn reload(&mut self, event: &str, change: impl FnOnce(&mut Self)) {
        let fits = |line: &serde_json::Value| line["cause"] == "watch" && line["event"] == event;
        let before = self.gate.lines().into_iter().filter(fits).count();
        change(self);
        self.gate.wait_for_lines("an automatic reload", before + 1, fits);
    }
}

#[test]
fn replicas_resume_sessions_of_each_other_and_refuse_revoked_devices() {
    let mut replicas = Replicas::start();
    let (alice, lost) = (replicas.devices(1), replicas.devices(7));
    let Replicas { pki, one, other, .. } = &mut replicas;
    for device in alice.iter().chain(&lost) {
        assert!(!one.resumes(device));
        assert!(other.resumes(device) && one.resumes(device));
    }
    assert_eq!(other.tickets(TicketOutcome::Resumed), 4.0);

    // The list has come to one replica, which has sealed none of these tickets.
    lost.iter().for_each(|device| assert!(one.resumes(device)));
    other.reload("reloaded", |pod| pod.clients.update(&clients(pki, &[7])));
    for device in &lost {
        assert_eq!(visit(&other.gate, device, NAS), (Some(Alert::CERTIFICATE_REVOKED), false));
        visit(&one.gate, device, NAS);
    }
    assert_eq!(other.tickets(TicketOutcome::Refused), 2.0);
    alice.iter().for_each(|device| assert!(other.resumes(device)));
    one.reload("reloaded", |pod| pod.clients.update(&clients(pki, &[7])));
    for device in &lost {
        assert_eq!(visit(&one.gate, device, NAS), (Some(Alert::CERTIFICATE_REVOKED), false));
    }

    // A change of settings has come to one replica.
    let text = other.text.replace("allow = [\"any\"]", "allow = [\"device-1\"]");
    other.reload("reloaded", |pod| pod.config.update(&[("doorward.toml", text)]));
    for device in &alice {
        assert!(one.resumes(device));
        assert!(!other.resumes(device), "other settings");
        assert!(!one.resumes(device), "its ticket is of the other replica");
    }
    let unknown = [other.tickets(TicketOutcome::Unknown), one.tickets(TicketOutcome::Unknown)];
    assert_eq!(unknown, [2.0, 2.0]);
}

/// As the manual says: no device makes a full handshake because of it, unless it stayed away for two rotations.
#[test]
fn sessions_are_resumed_while_keys_are_replaced_and_not_afterwards() {
    let mut replicas = Replicas::start();
    let (often, late) = (replicas.devices(1), replicas.devices(2));
    let Replicas { keys, one, other, .. } = &mut replicas;
    late.iter().chain(&often).for_each(|device| assert!(!one.resumes(device)));
    for _ in 0..2 {
        keys.rotate();
        one.reload("reloaded", |pod| pod.tickets.update(&keys.files()));
        for device in &often {
            // The one that has the new keys seals with what is the next key of the other one.
            assert!(one.resumes(device) && other.resumes(device) && one.resumes(device));
        }
        other.reload("reloaded", |pod| pod.tickets.update(&keys.files()));
        for device in &often {
            assert!(other.resumes(device) && one.resumes(device));
        }
    }
    for device in &late {
        assert!(!other.resumes(device) && other.resumes(device));
    }
    assert_eq!(other.tickets(TicketOutcome::Unknown), 2.0);
}

/// Whatever else is wrong, a key that is in no file any more opens nothing; and no session ends.
#[test]
fn key_of_a_faulty_file_is_withdrawn() {
    let mut replicas = Replicas::start();
    let devices = replicas.devices(1);
    let Replicas { keys, one, other, .. } = &mut replicas;
    let session = Client::admitted(one.gate.address(), &devices[0], NAS).unwrap();
    let zeros = || keys.files().map(|(name, _)| (name, vec![0; 80]));
    let refused = one.text.replace("drain = \"30s\"", "drain = \"soon\"");
    let changes: [&dyn Fn(&mut Pod); 3] = [
        &|pod| pod.tickets.update(&zeros()),
        // The mistake is elsewhere, and the keys are others.
        &|pod| {
            pod.config.update(&[("doorward.toml", &refused)]);
            pod.tickets.update(&Keys::new().files());
        },
        // The configuration names one key less, which is the one in question, and has a mistake.
        &|pod| {
            let text = refused.replace("\"../tickets/current.key\", ", "");
            pod.config.update(&[("doorward.toml", text)]);
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        for device in &devices {
            visit(&other.gate, device, NAS);
        }
        devices.iter().for_each(|device| assert!(one.resumes(device) && other.resumes(device), "change {number}"));
        one.reload("reload_failed", change);
        for device in &devices {
            wait_until("the session is not resumed any more", || (!one.resumes(device)).then_some(()));
        }
        session.ping().unwrap();
        one.gate.wait_for_lines("what is in force all the same", number + 1, |line| {
            line["event"] == "reload_failed" && line["in_force"].to_string().contains("session tickets")
        });
        let text = one.text.clone();
        one.config.update(&[("doorward.toml", text)]);
        one.tickets.update(&keys.files());
        wait_until("the right configuration is in force", || {
            (one.gate.metrics().sum("doorward_config_last_reload_successful", &[]) == 1.0).then_some(())
        });
    }
    session.close_notify();
    session.end();
}
