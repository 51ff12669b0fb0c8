//! A home whose gate has a public certificate: devices trust no authority of the owner's.

use std::io::Write;
use std::net::Shutdown;
use std::path::Path;
use std::process::Command;

use rcgen::CustomExtension;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::backend::Backend;
use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::{Authority, Certified};
use crate::common::process::{Finished, own_loopback, run, run_with_input, tool};
use crate::home::{LOOPBACK, PAGE};
use crate::shared::Shared;

/// A name that is in the public DNS.
pub(crate) const NAME: &str = "nas.alice.duckdns.org";

/// A folder with `doorward` in it, as `init --acme` wrote it for `alice-phone`, and with a certificate that looks like one of a public
/// authority, in `public.pem` and `public-key.pem`; that authority is in `root.pem`.
pub(crate) struct PublicHome {
    folder: TempDir,
    pub(crate) written: Value,
}

impl PublicHome {
    pub(crate) fn new(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut init = doorward(folder.path());
        init.args(["init", "--format", "json", "--domain", "alice.duckdns.org", "--device", "alice-phone"]);
        init.args(["--route", "nas=127.0.0.1:5666", "--route", "ssh=127.0.0.1:22"]).args(more);
        let written = serde_json::from_str(&run(&mut init).success().text()).unwrap();
        let home = Self { folder, written };
        home.make_public();
        home
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn doorward(&self, arguments: &[&str]) -> Finished {
        run(doorward(self.folder.path()).args(arguments))
    }

    fn file(&self, field: &str) -> std::path::PathBuf {
        self.path(self.written["devices"][0][field].as_str().unwrap())
    }

    fn make_public(&self) {
        let root = Authority::new("A public root");
        std::fs::write(self.path("root.pem"), root.pem()).unwrap();
        let mut params = Certified::for_servers(&[NAME, "ssh.alice.duckdns.org"]);
        // certificatePolicies: domain-validated (2.23.140.1.2.1).
        let policy = vec![0x30, 0x0a, 0x30, 0x08, 0x06, 0x06, 0x67, 0x81, 0x0c, 0x01, 0x02, 0x01];
        params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 32], policy));
        let public = root.issue(params);
        std::fs::write(self.path("public.pem"), public.chain_pem()).unwrap();
        std::fs::write(self.path("public-key.pem"), public.key_pem()).unwrap();
    }

    /// The configuration of a gate with this certificate, whose names lead to the backends.
    pub(crate) fn config(&self, listener: &str, nas: &Backend, ssh: &Backend) -> String {
        let path = |name: &str| self.path(name).display().to_string();
        format!(
            "{listener}
# What the gate shows.
[certificate]
chain = {:?}   # a comment
key = {:?}

[client_auth]
trust = [{:?}]

[[route]]
name = \"nas\"
server_names = [\"{NAME}\"]
backends = [\"{}\"]
allow = [\"alice-phone\"]

[[route]]
name = \"ssh\"
server_names = [\"ssh.alice.duckdns.org\"]
backends = [\"{}\"]
allow = [\"alice-phone\"]
",
            path("public.pem"),
            path("public-key.pem"),
            path("doorward/pki/clients.pem"),
            nas.address(),
            ssh.address()
        )
    }
}

fn doorward(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.current_dir(folder);
    command
}

/// Whether a file of the folder of devices speaks of trust in an authority.
#[track_caller]
fn assert_without_trust(file: &Path) {
    let bytes = std::fs::read(file).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    for word in ["server-ca", "com.apple.security.root", "CAfile", "cacert", "ingerprint"] {
        assert!(!text.contains(word), "{word} is in {}", file.display());
    }
}

#[test]
fn files_of_devices_have_no_authority() {
    let home = PublicHome::new(&["--acme"]);
    let devices = home.path("doorward/devices");
    home.doorward(&["ca", "device", "bob-laptop"]).success();
    home.doorward(&["ca", "renew", "alice-phone"]).success();
    let written: Vec<_> = std::fs::read_dir(&devices).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(written.len() >= 2 * 7, "{written:?}");
    written.iter().for_each(|file| assert_without_trust(file));
    let renewed = home.doorward(&["ca", "renew", "alice-phone", "--format", "json"]).success();
    let renewed: Value = serde_json::from_str(&renewed.text()).unwrap();
    for field in ["archive", "archive_compat"] {
        let mut openssl = tool("openssl", "openssl");
        openssl.args(["pkcs12", "-info", "-nodes", "-in"]).arg(home.path(renewed["device"][field].as_str().unwrap()));
        openssl.args(["-passin", &format!("pass:{}", renewed["device"]["password"].as_str().unwrap())]);
        let opened = run(&mut openssl).success();
        assert_eq!(opened.text().matches("BEGIN CERTIFICATE").count(), 1, "{field}");
        assert_eq!(opened.text().matches("BEGIN PRIVATE KEY").count(), 1, "{field}");
    }
}

#[test]
fn link_has_no_authority() {
    let home = PublicHome::new(&["--acme"]);
    let mut share = doorward(&home.path(""));
    let shared = Shared::start_command(share.args(["share", "alice-phone"]));
    let ready = shared.lines().remove(0);
    assert!(ready.get("authority").is_none() && ready.get("authority_sha256").is_none(), "{ready}");
    for language in ["en", "de", "zh"] {
        let page = shared.try_ask("GET", shared.path(), &format!("Accept-Language: {language}\r\n")).unwrap();
        let text = page.text();
        assert!(page.status == 200 && text.contains("alice-phone.mobileconfig"), "{text}");
        assert!(!text.contains("server-ca"), "{text}");
    }
    let root = shared.ask("GET", &format!("{}/server-ca.crt", shared.path()));
    assert_eq!(root.status, 404, "{root:?}");
    // What the terminal says.
    let mut share = doorward(&home.path(""));
    let shown = run(share.args(["share", "alice-phone", "--address", "127.0.0.1", "--expires", "1s"])).failure();
    assert!(shown.stderr.contains("which is shown here only.\n\nWaiting."), "{shown}");
}

#[test]
fn public_files_of_another_program_count_as_public() {
    let home = PublicHome::new(&[]);
    let own = home.path("doorward/devices/server-ca.crt");
    assert!(own.exists(), "the authority of an own certificate");
    let config = home.path("doorward/doorward.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let public = text.replace("pki/server.pem\"", "../public.pem\"").replace("pki/server-key.pem", "../public-key.pem");
    std::fs::write(&config, public).unwrap();
    let issued = home.doorward(&["ca", "device", "bob-laptop", "--format", "json"]).success();
    let issued: Value = serde_json::from_str(&issued.text()).unwrap();
    assert_without_trust(&home.path(issued["steps"].as_str().unwrap()));
    let shown = home.doorward(&["certificate", "--format", "json"]).success();
    let shown: Value = serde_json::from_str(&shown.text()).unwrap();
    assert_eq!((&shown["running"], &shown["certificates"][0]["kind"]), (&false.into(), &"files".into()), "{shown}");
}

#[test]
fn commands_on_the_page_work_with_what_the_system_trusts() {
    let home = PublicHome::new(&["--acme"]);
    let nas = Backend::http(PAGE);
    let ssh = Backend::serve((LOOPBACK, 0), |mut stream, _| {
        let _ = stream.write_all(b"SSH-2.0-test\r\n");
        let _ = stream.shutdown(Shutdown::Write);
    });
    let address = std::net::SocketAddr::from((own_loopback(), 443));
    let gate = Gate::start(&home.config(
        &LOCAL.replace("127.0.0.1:0\"\n\n[metrics]", &format!("{address}\"\n\n[metrics]")),
        &nas,
        &ssh,
    ));
    let page = std::fs::read_to_string(home.file("steps")).unwrap();
    let command = page.split("<pre>").find(|part| part.starts_with("curl")).unwrap().split_once("</pre>").unwrap().0;
    assert!(command.ends_with(&format!(" https://{NAME}/")), "{command}");
    let devices = home.path("doorward/devices");
    // The machine trusts this root, or does not.
    let curl = |trusted: &str| {
        let mut bash = tool("bash", "bash");
        bash.current_dir(&devices).env("CURL_CA_BUNDLE", home.path(trusted));
        let resolved = format!("{command} --silent --show-error --max-time 20 --resolve {NAME}:443:{}", address.ip());
        run(bash.args(["-euc", &resolved]))
    };
    assert_eq!(curl("root.pem").success().text(), PAGE);
    assert!(curl("doorward/pki/clients.pem").failure().stderr.contains("certificate"));

    let section = std::fs::read_to_string(home.file("ssh_config")).unwrap();
    let proxy = section.lines().find_map(|line| line.trim().strip_prefix("ProxyCommand ")).unwrap();
    let proxy =
        proxy.replace("-connect %h", &format!("-connect {}", address.ip())).replace("%h", "ssh.alice.duckdns.org");
    let proxy = proxy.replace("~/doorward", &devices.display().to_string());
    let openssl = |trusted: &str| {
        let mut bash = tool("bash", "bash");
        bash.env("SSL_CERT_FILE", home.path(trusted));
        run_with_input(bash.args(["-euc", &proxy]), b"")
    };
    assert_eq!(openssl("root.pem").success().text(), "SSH-2.0-test\r\n");
    openssl("doorward/pki/clients.pem").failure();
    gate.settled();
}
