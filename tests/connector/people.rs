//! The owner of a gate, and the user of a device.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use doorward::bundle::{Bundle, BundleKey, BundleRoute, PlainKey, Trust};
use doorward::model::device_name::DeviceName;
use doorward::model::names::{Name, ServerName, ServerNamePattern};
use doorward::model::service::ServiceKind;
use serde_json::Value;
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::common::pki::{Authority, Certified, days_from_now};
use crate::common::process::{Finished, run, run_with_input};

/// The folder that `doorward init` wrote for `alice-laptop`.
pub(crate) struct Owner {
    home: TempDir,
    written: Value,
}

impl Owner {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(more: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut init = doorward();
        init.args(["init", "--format", "json", "--domain", "home.example", "--device", "alice-laptop"]);
        init.args(["--route", "nas=127.0.0.1:5666", "--route", "ssh=127.0.0.1:22", "--route", "smb=127.0.0.1:445"]);
        init.args(more).arg("--folder").arg(home.path().join("doorward"));
        let written = run(&mut init).success();
        Self { written: serde_json::from_str(&written.text()).unwrap(), home }
    }

    /// A file of the folder that `init` wrote.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join("doorward").join(name)
    }

    /// The fields of the device in `init --format json`.
    pub(crate) fn device(&self) -> &Value {
        &self.written["devices"][0]
    }

    /// The device's file, and its password.
    pub(crate) fn file(&self) -> (PathBuf, String) {
        file_of(self.device())
    }

    /// What `doorward ca` prints as JSON.
    #[track_caller]
    pub(crate) fn ca(&self, arguments: &[&str]) -> Value {
        let mut ca = doorward();
        ca.arg("ca").args(arguments).args(["--format", "json", "--folder"]).arg(self.path("pki"));
        serde_json::from_str(&run(&mut ca).success().text()).unwrap()
    }

    /// Replaces a part of the configuration.
    #[track_caller]
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let file = self.path("doorward.toml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from:?} is not in\n{text}");
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
    }
}

/// The file for a computer, and its password.
pub(crate) fn file_of(device: &Value) -> (PathBuf, String) {
    (device["bundle"].as_str().unwrap().into(), device["password"].as_str().unwrap().to_owned())
}

/// This program.
pub(crate) fn doorward() -> Command {
    Command::new(env!("CARGO_BIN_EXE_doorward"))
}

/// A user of another machine.
pub(crate) struct User {
    home: TempDir,
}

impl User {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The file of a joined home.
    pub(crate) fn home_file(&self, name: &str) -> PathBuf {
        self.path(".config/doorward/homes").join(format!("{name}.doorward"))
    }

    /// `doorward join`, as this user runs it.
    pub(crate) fn join(&self, arguments: &[&str]) -> Command {
        let mut join = doorward();
        join.arg("join").args(arguments).env("HOME", self.home.path()).env_remove("XDG_CONFIG_HOME");
        join
    }

    /// Joins with this password.
    #[track_caller]
    pub(crate) fn joins(&self, file: &Path, password: &str, more: &[&str]) -> Finished {
        run_with_input(self.join(&[file.to_str().unwrap()]).args(more), format!("{password}\n").as_bytes())
    }

    /// Writes a file with this bundle.
    pub(crate) fn given(&self, name: &str, bundle: &Bundle) -> PathBuf {
        let file = self.path(name);
        fs::write(&file, bundle.to_text().as_bytes()).unwrap();
        file
    }
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

pub(crate) fn route(name: &str, kind: ServiceKind, server_name: &str) -> BundleRoute {
    BundleRoute { name: Name::parse(name).unwrap(), kind, server_name: ServerNamePattern::parse(server_name).unwrap() }
}

/// Who issues certificates for a home.
pub(crate) struct Issuer {
    servers: Authority,
    devices: Authority,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        Self { servers: Authority::new("servers"), devices: Authority::new("devices") }
    }

    /// A bundle of home.example with one ssh route, valid between these days from now. The key is not encrypted.
    pub(crate) fn bundle(&self, device: &str, from: i64, to: i64) -> Bundle {
        let mut params = Certified::for_clients(device);
        (params.not_before, params.not_after) = (days_from_now(from), days_from_now(to));
        let issued = self.devices.issue(params);
        Bundle {
            home: ServerName::parse("home.example").unwrap(),
            device: DeviceName::parse(device).unwrap(),
            address: None,
            port: 443,
            routes: vec![route("ssh", ServiceKind::Ssh, "ssh.home.example")],
            trust: Trust::Authorities(self.servers_chain()),
            chain: issued.chain(),
            key: BundleKey::Plain(PlainKey::new(issued.key().secret_der())),
            renewal: None,
        }
    }

    fn servers_chain(&self) -> Vec<rustls::pki_types::CertificateDer<'static>> {
        use rustls::pki_types::pem::PemObject as _;
        vec![rustls::pki_types::CertificateDer::from_pem_slice(self.servers.pem().as_bytes()).unwrap()]
    }
}

/// A day as messages have it.
pub(crate) fn day(days: i64) -> String {
    let day: OffsetDateTime = days_from_now(days);
    day.date().to_string()
}
