//! What kubelet does to a pod while it runs: it replaces the contents of mounted ConfigMaps and Secrets, and it ends the pod.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use doorward::model::close::CloseReason;
use rcgen::SerialNumber;
use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;

use crate::NAS;
use crate::client::{Client, End, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki};
use crate::common::process::{tool, wait_until};
use crate::pod::{Keys, Pod, clients, server};

fn device(pki: &TestPki, serial: u64) -> Arc<ClientConfig> {
    let mut params = Certified::for_clients(&format!("device-{serial}"));
    params.serial_number = Some(SerialNumber::from(serial));
    client(pki, Some(&pki.clients.issue(params)))
}

/// Waits until a new connection is shown this certificate.
fn wait_shown(gate: &Gate, device: &Arc<ClientConfig>, certificate: &[u8]) {
    wait_until("the new certificate is shown", || {
        let visitor = Client::admitted(gate.address(), device, NAS).unwrap();
        let shown = visitor.tls(|connection| connection.peer_certificates().unwrap()[0].to_vec());
        visitor.close_notify();
        visitor.end();
        (shown == certificate).then_some(())
    });
}

/// Waits for this many automatic reloads, with this outcome, in all.
#[track_caller]
fn wait_reloads(gate: &Gate, event: &str, count: usize) {
    let fits = |line: &serde_json::Value| line["cause"] == "watch" && line["event"] == event;
    gate.wait_for_lines("automatic reloads", count, fits);
}

/// Each volume several times, and all of them together.
#[test]
fn swapped_volumes_are_in_force_and_cut_revoked_devices_only() {
    const ROUNDS: u64 = 4;
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let mut pod = Pod::start(&pki, &backend, &Keys::new(), |_| ());
    let address = pod.gate.address();
    let devices: Vec<_> = (1..=ROUNDS + 2).map(|serial| device(&pki, serial)).collect();
    let mut sessions: Vec<Client> =
        devices.iter().map(|device| Client::admitted(address, device, NAS).unwrap()).collect();
    let alice = devices.last().unwrap();
    let mut revoked = Vec::new();
    // The session of the next device ends, and no other.
    let assert_cut = |sessions: &mut Vec<Client>| {
        assert_eq!(sessions.remove(0).end(), End::of(CloseReason::Revoked));
        sessions.iter().for_each(|session| session.ping().unwrap());
    };
    for round in 1..=ROUNDS {
        revoked.push(round);
        pod.clients.update(&clients(&pki, &revoked));
        assert_cut(&mut sessions);

        let (certificate, files) = server(&pki);
        pod.server.update(&files);
        wait_shown(&pod.gate, alice, &certificate);

        let name = format!("photos-{round}");
        let route = format!(
            "\n[[route]]\nname = \"{name}\"\nserver_names = [\"{name}.home.example\"]\nbackends = [\"{}\"]\n\
             allow = [\"any\"]\n",
            backend.address()
        );
        pod.config.update(&[("doorward.toml", format!("{}{route}", pod.text))]);
        wait_until("the new route leads to its backend", || {
            let visitor = Client::admitted(address, alice, &format!("{name}.home.example")).ok()?;
            visitor.close_notify();
            Some(visitor.end())
        });
        assert_eq!(sessions.len() as u64, ROUNDS + 2 - round);
        sessions.iter().for_each(|session| session.ping().unwrap());
    }

    assert!(pod.exec(&["sessions"]).success().text().contains(&format!("device-{}", ROUNDS + 1)));

    // As kubelet does when it looks at a pod: all volumes, one right after the other. One of them has a mistake.
    let failed = pod.gate.lines().iter().filter(|line| line["event"] == "reload_failed").count();
    revoked.push(ROUNDS + 1);
    let (certificate, files) = server(&pki);
    pod.config.update(&[("doorward.toml", pod.text.replace("allow = [\"any\"]", "alow = [\"any\"]"))]);
    pod.clients.update(&clients(&pki, &revoked));
    pod.server.update(&files);
    assert_cut(&mut sessions);
    wait_reloads(&pod.gate, "reload_failed", failed + 1);
    pod.config.update(&[("doorward.toml", pod.text.clone())]);
    wait_shown(&pod.gate, alice, &certificate);

    assert_eq!(sessions.len(), 1);
    sessions[0].ping().unwrap();
    sessions[0].close_notify();
    assert_eq!(sessions[0].end(), End::Orderly);
    let metrics = pod.gate.settled();
    assert_eq!(metrics.sum("doorward_sessions_cut_total", &[]), (ROUNDS + 1) as f64);
    assert_eq!(metrics.sum("doorward_sessions_cut_total", &[("reason", "revoked")]), (ROUNDS + 1) as f64);
}

/// The gate in a namespace of its own, where the kernel delivers to it what it has asked for and nothing else.
fn as_process_1(pki: &TestPki, backend: &Backend) -> (Pod, Pid) {
    let pod = Pod::start(pki, backend, &Keys::new(), |command| {
        let mut unshare = tool("unshare", "util-linux");
        unshare.args(["--pid", "--fork", "--kill-child"]).arg(command.get_program()).args(command.get_args());
        *command = unshare;
    });
    let unshare = pod.gate.pid();
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    let gate = Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", gate.as_raw_nonzero())).unwrap();
    assert!(status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")), "{status}");
    (pod, gate)
}

/// The end of a pod as the manifests have it: for preStop's seconds it goes on as before, then SIGTERM. How one gate drains
/// is shown by tests/journey/endings.rs; here it is process 1, and is asked as kubelet asks it.
#[test]
fn pod_that_ends_is_not_ready_before_its_sessions_finish() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let (mut pod, gate) = as_process_1(&pki, &backend);
    let address = pod.gate.address();
    let device = device(&pki, 1);
    let mut sessions: Vec<Client> = (0..8).map(|_| Client::admitted(address, &device, NAS).unwrap()).collect();
    // preStop: what load balancers still send is admitted.
    assert_eq!(pod.gate.get("/readyz"), (200, "ready\n".to_owned()));
    sessions.push(Client::admitted(address, &device, NAS).unwrap());

    kill_process(gate, Signal::TERM).unwrap();
    wait_until("the pod is not ready", || (pod.gate.get("/readyz") == (503, "draining\n".to_owned())).then_some(()));
    wait_until("the listener is closed", || {
        TcpStream::connect(address).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused).then_some(())
    });
    // Prometheus sees the pod drain, and kubelet has no reason to kill it.
    for left in (0..sessions.len()).rev() {
        assert_eq!(pod.gate.get("/healthz").0, 200);
        sessions.iter().for_each(|session| session.ping().unwrap());
        let session = sessions.pop().unwrap();
        session.close_notify();
        assert_eq!(session.end(), End::Orderly);
        if left > 0 {
            pod.gate.wait_metric("doorward_connections_active", &[("route", "nas")], left as f64);
        }
    }
    let status = pod.gate.wait_for_end();
    assert_eq!(status.code(), Some(0), "{status}");
    let said = pod.gate.stderr();
    assert!(said.starts_with("stopping: ") && said.lines().count() == 1, "{said}");
}

/// What does not end in time is cut before kubelet would send SIGKILL.
#[test]
fn session_of_an_ended_pod_is_cut_within_the_grace_period() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let (mut pod, gate) = as_process_1(&pki, &backend);
    let session = Client::admitted(pod.gate.address(), &device(&pki, 1), NAS).unwrap();
    pod.config.update(&[("doorward.toml", pod.text.replace("drain = \"30s\"", "drain = \"1s\""))]);
    wait_reloads(&pod.gate, "reloaded", 1);
    kill_process(gate, Signal::TERM).unwrap();
    session.ping().unwrap();
    assert_eq!(session.end(), End::of(CloseReason::DrainDeadline));
    assert_eq!(pod.gate.wait_for_end().code(), Some(5));
}
