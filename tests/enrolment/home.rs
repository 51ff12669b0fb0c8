//! The folder that `doorward init` writes for one device, and a gate that uses it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::process::{own_loopback, run, tool};

/// The page of the NAS.
pub(crate) const PAGE: &str = "<!DOCTYPE html><title>NAS</title><h1 id=marker>The NAS says hello.</h1>";

/// The fields of `init --format json` with the two archives.
pub(crate) const ARCHIVES: [&str; 2] = ["archive", "archive_compat"];

/// A home directory, with the folder `doorward` in it as `init` wrote it for `alice-phone`.
pub(crate) struct Home {
    home: TempDir,
    written: Value,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self::with(&["--route", "nas=127.0.0.1:5666", "--route", "ssh=127.0.0.1:22"])
    }

    /// With other routes, and more options.
    pub(crate) fn with(more: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut init = Command::new(env!("CARGO_BIN_EXE_doorward"));
        init.args(["init", "--format", "json", "--domain", "home.example", "--device", "alice-phone"]).args(more);
        let written = run(init.arg("--folder").arg(home.path().join("doorward"))).success();
        Self { written: serde_json::from_str(&written.text()).unwrap(), home }
    }

    /// A file in the home directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The folder that `init` wrote.
    pub(crate) fn folder(&self) -> PathBuf {
        self.path("doorward")
    }

    /// A file of the device, by its field of `init --format json`.
    pub(crate) fn file(&self, field: &str) -> PathBuf {
        PathBuf::from(self.written["devices"][0][field].as_str().unwrap())
    }

    /// The password of the archives.
    pub(crate) fn password(&self) -> &str {
        self.written["devices"][0]["password"].as_str().unwrap()
    }

    /// The common name of the authority that vouches for the gate.
    pub(crate) fn authority_name(&self) -> String {
        let mut openssl = tool("openssl", "openssl");
        openssl.args(["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in"]);
        let subject = run(openssl.arg(self.folder().join("pki/server-ca.pem"))).success().text();
        subject.trim().strip_prefix("subject=CN=").unwrap().to_owned()
    }

    /// A program with this home directory, which is also its working directory.
    pub(crate) fn tool(&self, program: &str, package: &str) -> Command {
        let mut command = tool(program, package);
        for variable in ["XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(variable);
        }
        command.current_dir(self.home.path()).env("HOME", self.home.path());
        command
    }

    /// An empty NSS store as Chromium makes it, without a password.
    pub(crate) fn nss_store(&self) -> String {
        let store = self.path(".pki/nssdb");
        std::fs::create_dir_all(&store).unwrap();
        let database = format!("sql:{}", store.display());
        run(self.tool("certutil", "libnss3-tools").args(["-N", "--empty-password", "-d", &database])).success();
        database
    }

    /// A gate with these files, on port 443, with two backends.
    pub(crate) fn gate(&self, nas: &Backend, ssh: &Backend) -> Gate {
        let address = SocketAddr::from((own_loopback(), 443));
        let file = |name: &str| self.folder().join(name);
        Gate::start(&format!(
            r#"
[[listener]]
name = "public"
address = "{address}"

[metrics]
address = "127.0.0.1:0"

[log]
format = "json"
sampling = "off"

[certificate]
chain = {:?}
key = {:?}

[client_auth]
trust = [{:?}]

[[route]]
name = "nas"
server_names = ["nas.home.example"]
backends = ["{}"]
allow = ["alice-phone"]
application_protocols = ["http/1.1"]

[[route]]
name = "ssh"
server_names = ["ssh.home.example"]
backends = ["{}"]
allow = ["alice-phone"]
"#,
            file("pki/server.pem"),
            file("pki/server-key.pem"),
            file("pki/clients.pem"),
            nas.address(),
            ssh.address(),
        ))
    }

    /// `script` in bash, in the home directory. The names of the home resolve to `gate`, and a policy makes Chromium show its
    /// certificate without asking. Both hold in a mount namespace that ends with the process.
    pub(crate) fn bash(&self, gate: &Gate, script: &str) -> Command {
        self.bash_at(gate.address().ip(), script)
    }

    /// The same for a gate at this address.
    pub(crate) fn bash_at(&self, address: IpAddr, script: &str) -> Command {
        const AROUND: &str = "mount --bind hosts /etc/hosts && mkdir -p /etc/chromium && mount -t tmpfs none /etc/chromium && \
                              mkdir -p /etc/chromium/policies/managed && \
                              cp policy.json /etc/chromium/policies/managed/ && exec bash -euc \"$1\"";
        std::fs::write(self.path("hosts"), format!("{address} nas.home.example ssh.home.example\n")).unwrap();
        let pattern = serde_json::json!({"pattern": "https://nas.home.example", "filter": {}}).to_string();
        let policy = serde_json::json!({"AutoSelectCertificateForUrls": [pattern]}).to_string();
        std::fs::write(self.path("policy.json"), policy).unwrap();
        let mut command = self.tool("unshare", "util-linux");
        command.args(["--mount", "bash", "-euc", AROUND, "bash", script]);
        command
    }

    /// Chromium's command line, without the page.
    pub(crate) fn chromium(&self) -> String {
        format!(
            "chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
             --disable-component-update --disable-sync --window-size=900,1200 --user-data-dir={}",
            self.path("profile").display()
        )
    }
}

/// The DER of the certificate in a PEM file.
#[track_caller]
pub(crate) fn der(file: &Path) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_file(file).unwrap().to_vec()
}

/// Where tests connect to what listens on loopback.
pub(crate) const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
