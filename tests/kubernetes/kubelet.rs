//! What kubelet does to a pod while it runs: it replaces the contents of mounted ConfigMaps and Secrets, and it ends the pod.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rcgen::SerialNumber;
use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;

use crate::client::{Client, End, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki};
use crate::common::process::{tool, wait_until};
use crate::{deploy, list};

const NAS: &str = "nas.home.example";

/// A mounted ConfigMap or Secret, as kubelet's AtomicWriter makes it: the name of a file is a link through the link `..data`
/// to a folder that is named after the time, and never changes.
pub(crate) struct Volume {
    folder: PathBuf,
    /// Of its files: `defaultMode`.
    mode: u32,
    versions: u32,
}

impl Volume {
    pub(crate) fn mount(folder: PathBuf, mode: u32, files: &[(&str, String)]) -> Self {
        fs::create_dir(&folder).unwrap();
        let mut volume = Self { folder, mode, versions: 0 };
        volume.update(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), volume.folder.join(name)).unwrap();
        }
        volume
    }

    /// Replaces all files at once: a new folder, a new link to it, renamed over the old one; the old folder is removed.
    pub(crate) fn update(&mut self, files: &[(&str, String)]) {
        self.versions += 1;
        let new = format!("..2026_11_28_10_40_{:02}.{:09}", self.versions % 60, self.versions);
        let folder = self.folder.join(&new);
        fs::create_dir(&folder).unwrap();
        for (name, contents) in files {
            let file = folder.join(name);
            fs::write(&file, contents).unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(self.mode)).unwrap();
        }
        let (data, temporary) = (self.folder.join("..data"), self.folder.join("..data_tmp"));
        let old = fs::read_link(&data).ok();
        symlink(&new, &temporary).unwrap();
        fs::rename(temporary, data).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(self.folder.join(old)).unwrap();
        }
    }
}

/// The configuration of the example for this machine, whose NAS is at `backend`.
pub(crate) fn configuration(backend: &Backend, folder: &Path) -> String {
    let example = fs::read_to_string(deploy().join("example/config/doorward.toml")).unwrap();
    let socket = format!("{:?}", folder.join("control.sock"));
    let mut text = format!("{example}\n[limits]\nconnection_rate_per_source = \"off\"\npenalties = \"off\"\n");
    for (from, to) in [
        ("\"[::]:8443\"", "\"127.0.0.1:0\""),
        ("\"[::]:9180\"", "\"127.0.0.1:0\""),
        ("\"/run/doorward/control.sock\"", socket.as_str()),
        ("192.168.1.10:5666", &backend.address().to_string()),
    ] {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    text
}

/// A pod of the example.
pub(crate) struct Pod {
    config: Volume,
    clients: Volume,
    server: Volume,
    pub(crate) text: String,
    pub(crate) gate: Gate,
    _folder: tempfile::TempDir,
}

impl Pod {
    /// `change`s its process.
    fn start(pki: &TestPki, backend: &Backend, change: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = configuration(backend, folder.path());
        let config = Volume::mount(at("config"), 0o644, &[("doorward.toml", text.clone())]);
        let clients = Volume::mount(at("clients"), 0o644, &clients(pki, &[]));
        let server = Volume::mount(at("server"), 0o440, &server(pki).1);
        let file = at("config").join("doorward.toml");
        let gate = Gate::start_with("", |command| {
            *command = Command::new(env!("CARGO_BIN_EXE_doorward"));
            command.args(["run", "--config"]).arg(file);
            change(command);
        });
        Self { config, clients, server, text, gate, _folder: folder }
    }
}

/// The files of the ConfigMap doorward-clients.
fn clients(pki: &TestPki, revoked: &[u64]) -> [(&'static str, String); 2] {
    [("clients.pem", pki.clients.pem().to_owned()), ("clients.crl", list(pki, revoked))]
}

/// A new certificate for the gate, and the files of the Secret doorward-server.
fn server(pki: &TestPki) -> (Vec<u8>, [(&'static str, String); 2]) {
    let issued = pki.servers.issue(Certified::for_servers(&["*.home.example"]));
    (issued.chain()[0].to_vec(), [("tls.crt", issued.chain_pem()), ("tls.key", issued.key_pem())])
}

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
    let mut pod = Pod::start(&pki, &backend, |_| ());
    let address = pod.gate.address();
    let devices: Vec<_> = (1..=ROUNDS + 2).map(|serial| device(&pki, serial)).collect();
    let mut sessions: Vec<Client> =
        devices.iter().map(|device| Client::admitted(address, device, NAS).unwrap()).collect();
    let alice = devices.last().unwrap();
    let mut revoked = Vec::new();
    // The session of the next device ends, and no other.
    let assert_cut = |sessions: &mut Vec<Client>| {
        assert_eq!(sessions.remove(0).end(), End::Orderly);
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
    let pod = Pod::start(pki, backend, |command| {
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
    assert_eq!(pod.gate.stderr(), "");
}

/// What does not end in time ends in an orderly way before kubelet would send SIGKILL.
#[test]
fn session_of_an_ended_pod_is_cut_within_the_grace_period() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let (mut pod, gate) = as_process_1(&pki, &backend);
    let session = Client::admitted(pod.gate.address(), &device(&pki, 1), NAS).unwrap();
    pod.config.update(&[("doorward.toml", pod.text.replace("drain = \"30s\"", "drain = \"1s\""))]);
    wait_reloads(&pod.gate, "reloaded", 1);
    kill_process(gate, Signal::TERM).unwrap();
    session.ping().unwrap();
    assert_eq!(session.end(), End::Orderly);
    assert_eq!(pod.gate.wait_for_end().code(), Some(5));
}
