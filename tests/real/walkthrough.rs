//! The certificates of mkcert-and-Caddy walkthroughs, made as the walkthroughs say.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::{Authority, Certified};
use crate::common::process::{Finished, run, tool};

/// A home directory with what these commands make:
///
/// ```text
/// mkcert -install
/// mkcert -ecdsa example.local "*.example.local"
/// mkcert -pkcs12 -ecdsa -client Anye-MacBook-Air
/// ```
///
/// and `openssl pkcs12 -legacy` for the programs that want PEM. The machine's own trust stores are left alone.
pub(crate) struct Walkthrough {
    home: TempDir,
    /// The machine's name, which mkcert writes into its root; `None` is this machine's.
    host: Option<&'static str>,
}

impl Walkthrough {
    pub(crate) fn new() -> Self {
        Self::on_host(None)
    }

    /// The same on a machine of another name.
    pub(crate) fn elsewhere(host: &'static str) -> Self {
        Self::on_host(Some(host))
    }

    fn on_host(host: Option<&'static str>) -> Self {
        let walkthrough = Self { home: tempfile::tempdir().unwrap(), host };
        let store = walkthrough.home(".pki/nssdb");
        std::fs::create_dir_all(&store).unwrap();
        run(walkthrough
            .tool("certutil", "libnss3-tools")
            .args(["-N", "--empty-password", "-d"])
            .arg(nss_database(&store)))
        .success();
        walkthrough.mkcert(&["-install"]);
        walkthrough.mkcert(&["-ecdsa", "example.local", "*.example.local"]);
        walkthrough.mkcert(&["-pkcs12", "-ecdsa", "-client", "Anye-MacBook-Air"]);
        for (what, file) in [("-nokeys", "me.pem"), ("-nocerts", "me-key.pem")] {
            walkthrough.openssl_pkcs12(&[
                "-legacy",
                "-passin",
                "pass:changeit",
                "-clcerts",
                "-nodes",
                what,
                "-out",
                file,
            ]);
        }
        walkthrough
    }

    /// A file in the home directory.
    pub(crate) fn home(&self, file: &str) -> PathBuf {
        self.home.path().join(file)
    }

    /// mkcert's root: what the gate trusts for clients, and clients for the gate.
    pub(crate) fn root(&self) -> PathBuf {
        self.home(".local/share/mkcert/rootCA.pem")
    }

    /// The client certificate as mkcert leaves it.
    pub(crate) fn p12(&self) -> PathBuf {
        self.home("Anye-MacBook-Air-client.p12")
    }

    /// The client certificate in PEM.
    pub(crate) fn me(&self) -> Pem {
        Pem { certificate: self.home("me.pem"), key: self.home("me-key.pem") }
    }

    /// mkcert's root, to issue certificates that mkcert does not.
    pub(crate) fn authority(&self) -> Authority {
        Authority::read(&self.root(), &self.home(".local/share/mkcert/rootCA-key.pem"))
    }

    /// Writes a certificate that mkcert did not make.
    pub(crate) fn keep(&self, name: &str, certified: &Certified) -> Pem {
        let pem = Pem { certificate: self.home(&format!("{name}.pem")), key: self.home(&format!("{name}-key.pem")) };
        std::fs::write(&pem.certificate, certified.chain_pem()).unwrap();
        std::fs::write(&pem.key, certified.key_pem()).unwrap();
        pem
    }

    /// A program with this home and current directory.
    pub(crate) fn tool(&self, program: &str, package: &str) -> Command {
        let mut command = tool(program, package);
        self.at_home(&mut command);
        command
    }

    fn at_home<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for variable in ["CAROOT", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(variable);
        }
        command.current_dir(self.home.path()).env("HOME", self.home.path())
    }

    /// `mkcert` with these arguments; only Chromium's store, the one in this home, is there for `-install`.
    fn mkcert(&self, arguments: &[&str]) {
        let mkcert = self.tool("mkcert", "mkcert").get_program().to_owned();
        let mut command = match self.host {
            None => Command::new("env"),
            Some(host) => {
                let mut command = self.tool("unshare", "util-linux");
                command.args(["--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", host]);
                command
            }
        };
        run(self.at_home(&mut command).env("TRUST_STORES", "nss").arg(mkcert).args(arguments)).success();
    }

    /// Another client certificate, with the options that are given before the name, as `NAME-client.pem` and
    /// `NAME-client-key.pem`.
    pub(crate) fn another(&self, name: &str) -> Pem {
        self.mkcert(&["-ecdsa", "-client", name]);
        Pem { certificate: self.home(&format!("{name}-client.pem")), key: self.home(&format!("{name}-client-key.pem")) }
    }

    /// `doorward` with this home directory.
    pub(crate) fn doorward(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        run(self.at_home(&mut command).args(arguments))
    }

    /// `openssl pkcs12` on mkcert's file.
    pub(crate) fn openssl_pkcs12(&self, arguments: &[&str]) {
        run(self.tool("openssl", "openssl").args(["pkcs12", "-in"]).arg(self.p12()).args(arguments)).success();
    }

    /// A gate on exactly these files, with these routes.
    pub(crate) fn gate(&self, routes: &str) -> Gate {
        Gate::start(&self.config(routes))
    }

    /// The configuration of [`Walkthrough::gate`].
    pub(crate) fn config(&self, routes: &str) -> String {
        format!(
            r#"{LOCAL}
[certificate]
chain = {:?}
key = {:?}

[client_auth]
mode = "require_and_verify"
trust = [{:?}]
{routes}"#,
            self.home("example.local+1.pem"),
            self.home("example.local+1-key.pem"),
            self.root(),
        )
    }
}

/// A certificate and its key, as two files.
pub(crate) struct Pem {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// How NSS tools name a database in a folder.
pub(crate) fn nss_database(folder: &Path) -> String {
    format!("sql:{}", folder.display())
}

/// One route to one backend.
pub(crate) fn route(name: &str, server_names: &[&str], backend: impl std::fmt::Display, allow: &[&str]) -> String {
    format!(
        r#"
[[route]]
name = "{name}"
server_names = {server_names:?}
backends = ["{backend}"]
allow = {allow:?}
"#
    )
}
