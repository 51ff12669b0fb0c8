//! A pod of the example: volumes that kubelet mounts and updates, and the gate.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki};
use crate::common::process::{Finished, run};
use crate::{deploy, list};

/// A mounted ConfigMap or Secret, as kubelet's AtomicWriter makes it: the name of a file is a link through the link `..data`
/// to a folder that is named after the time, and never changes.
pub(crate) struct Volume {
    folder: PathBuf,
    /// Of its files: `defaultMode`.
    mode: u32,
    versions: u32,
}

impl Volume {
    pub(crate) fn mount(folder: PathBuf, mode: u32, files: &[(&str, impl AsRef<[u8]>)]) -> Self {
        fs::create_dir(&folder).unwrap();
        let mut volume = Self { folder, mode, versions: 0 };
        volume.update(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), volume.folder.join(name)).unwrap();
        }
        volume
    }

    /// Replaces all files at once: a new folder, a new link to it, renamed over the old one; the old folder is removed.
    pub(crate) fn update(&mut self, files: &[(&str, impl AsRef<[u8]>)]) {
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

/// `defaultMode` of Secrets. Their files belong to root and the group of the gate; here they belong to who runs the tests.
fn secret_mode() -> u32 {
    if geteuid().is_root() { 0o440 } else { 0o400 }
}

/// The owner's folder of keys for session tickets.
pub(crate) struct Keys(tempfile::TempDir);

impl Keys {
    /// As in [`Keys::rotate`].
    const NAMES: [&str; 3] = ["next.key", "current.key", "previous.key"];

    pub(crate) fn new() -> Self {
        let keys = Self(tempfile::tempdir().unwrap());
        keys.generate(&[]);
        keys
    }

    /// As the manual says.
    pub(crate) fn rotate(&self) {
        self.generate(&["--rotate"]);
    }

    fn generate(&self, option: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.args(["generate", "ticket-key"]).args(option).args(Self::NAMES).current_dir(&self.0);
        run(&mut command).success();
    }

    /// The files of the Secret doorward-tickets.
    pub(crate) fn files(&self) -> [(&'static str, Vec<u8>); 3] {
        Self::NAMES.map(|name| (name, fs::read(self.0.path().join(name)).unwrap()))
    }
}

/// The configuration of the example for this machine, whose NAS is at `backend`.
fn configuration(backend: &Backend, folder: &Path) -> String {
    let example = fs::read_to_string(deploy().join("example/config/doorward.toml")).unwrap();
    let socket = format!("{:?}", folder.join("run/control.sock"));
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
    pub(crate) config: Volume,
    pub(crate) clients: Volume,
    pub(crate) server: Volume,
    pub(crate) tickets: Volume,
    pub(crate) text: String,
    pub(crate) gate: Gate,
    folder: tempfile::TempDir,
}

impl Pod {
    /// With these keys for session tickets. `change`s its process.
    pub(crate) fn start(pki: &TestPki, backend: &Backend, keys: &Keys, change: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = configuration(backend, folder.path());
        let config = Volume::mount(at("config"), 0o644, &[("doorward.toml", text.clone())]);
        let clients = Volume::mount(at("clients"), 0o644, &clients(pki, &[]));
        // The same for all replicas.
        let server = [("tls.crt", "server.pem"), ("tls.key", "server-key.pem")];
        let server = server.map(|(name, file)| (name, fs::read(pki.path(file)).unwrap()));
        let server = Volume::mount(at("server"), secret_mode(), &server);
        let tickets = Volume::mount(at("tickets"), secret_mode(), &keys.files());
        // An emptyDir, as kubelet makes it for a pod with an fsGroup.
        fs::create_dir(at("run")).unwrap();
        fs::set_permissions(at("run"), fs::Permissions::from_mode(0o2777)).unwrap();
        let file = at("config").join("doorward.toml");
        let gate = Gate::start_with("", |command| {
            *command = Command::new(env!("CARGO_BIN_EXE_doorward"));
            command.args(["run", "--config"]).arg(file).env("RUNTIME_DIRECTORY", at("run"));
            change(command);
        });
        Self { config, clients, server, tickets, text, gate, folder }
    }

    /// `kubectl exec POD -- doorward ARGUMENTS --socket …`
    pub(crate) fn exec(&self, arguments: &[&str]) -> Finished {
        let socket = self.folder.path().join("run/control.sock");
        run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(arguments).arg("--socket").arg(socket))
    }
}

/// The files of the ConfigMap doorward-clients.
pub(crate) fn clients(pki: &TestPki, revoked: &[u64]) -> [(&'static str, String); 2] {
    [("clients.pem", pki.clients.pem().to_owned()), ("clients.crl", list(pki, revoked))]
}

/// A new certificate for the gate, and the files of the Secret doorward-server.
pub(crate) fn server(pki: &TestPki) -> (Vec<u8>, [(&'static str, String); 2]) {
    let issued = pki.servers.issue(Certified::for_servers(&["*.home.example"]));
    (issued.chain()[0].to_vec(), [("tls.crt", issued.chain_pem()), ("tls.key", issued.key_pem())])
}
