//! Whole orders: a gate, its agent, pebble as the ACME server, which asks the DNS server that the agent changes.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::{Authority, Certified};
use crate::common::process::{Daemon, tool, wait_until};
use crate::network::{FIRST, alone};
use crate::server::{BOTH, Kind, PORT, Server};
use crate::{NAME, WILDCARD, update_keys};

const PEBBLE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 14000);

/// An ACME server that asks the DNS server at [`FIRST`].
pub(crate) struct Pebble {
    folder: TempDir,
    _server: Daemon,
}

impl Pebble {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let authority = Authority::new("HTTPS of the ACME server");
        let mut params = Certified::for_servers(&["acme.home.example"]);
        params.subject_alt_names.push(rcgen::SanType::IpAddress((*PEBBLE.ip()).into()));
        let https = authority.issue(params);
        std::fs::write(path("ca.pem"), authority.pem()).unwrap();
        std::fs::write(path("https.pem"), https.chain_pem()).unwrap();
        std::fs::write(path("https-key.pem"), https.key_pem()).unwrap();
        let config = serde_json::json!({ "pebble": {
            "listenAddress": PEBBLE.to_string(),
            "managementListenAddress": "127.0.0.1:15000",
            "certificate": path("https.pem"),
            "privateKey": path("https-key.pem"),
            "httpPort": 5002,
            "tlsPort": 5001,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        } });
        std::fs::write(path("pebble.json"), config.to_string()).unwrap();
        let mut pebble = tool("pebble", "pebble");
        pebble.arg("-config").arg(path("pebble.json")).args(["-strict", "-dnsserver", &format!("{FIRST}:{PORT}")]);
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0");
        // The kernel's table, which Daemon::start reads, is that of another network.
        let server = Daemon::start_until(&mut pebble, "it listens", || TcpStream::connect(PEBBLE).is_ok());
        Self { folder, _server: server }
    }

    /// A gate that orders for the name and its wildcard.
    fn gate(&self, dns: &str) -> Gate {
        self.gate_with(dns, |_| ())
    }

    /// The same with something else about its process.
    pub(crate) fn gate_with(&self, dns: &str, change: impl FnOnce(&mut Command)) -> Gate {
        let clients = self.folder.path().join("clients.pem");
        std::fs::write(&clients, Authority::new("Clients").pem()).unwrap();
        let config = format!(
            "{LOCAL}\n[certificate.acme]\nchallenge = \"dns-01\"\ndirectory = \"https://{PEBBLE}/dir\"\ntrust = {:?}\nstate = \"acme\"\n\
             dns = {{ {dns} }}\n[client_auth]\ntrust = [{clients:?}]\n\
             [[route]]\nname = \"nas\"\nserver_names = [\"{NAME}\", \"{WILDCARD}\"]\nbackends = [\"127.0.0.1:1\"]\nallow = [\"any\"]\n",
            self.folder.path().join("ca.pem"),
        );
        Gate::start_with(&format!("{config}\n[control]\nsocket = \"control.sock\"\n"), change)
    }
}

/// The names of the certificate that was issued.
#[track_caller]
pub(crate) fn issued(gate: &Gate) -> Vec<String> {
    let file = gate.folder().join("acme/live/certificate.pem");
    let pem = wait_until("there is a certificate", || std::fs::read(&file).ok());
    let der = CertificateDer::pem_slice_iter(&pem).next().unwrap().unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
    names.iter().map(|name| name.to_string().trim_start_matches("DNSName(").trim_end_matches(')').to_owned()).collect()
}

/// Whether the kernel filters the system calls of the gate's agent (proc(5), `Seccomp`).
#[track_caller]
pub(crate) fn is_in_a_sandbox(gate: &Gate) -> bool {
    std::fs::read_to_string(agent(gate).join("status")).unwrap().lines().any(|line| line == "Seccomp:\t2")
}

/// The folder of the gate's agent below `/proc`.
#[track_caller]
pub(crate) fn agent(gate: &Gate) -> PathBuf {
    let folder = gate.folder().to_str().unwrap().to_owned();
    let is_agent = |process: &Path| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(" acme-agent ") && line.contains(&folder)
    };
    let mut processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    processes.find(|process| is_agent(process)).expect("the agent runs")
}

/// What `doorward status` says, once an order has failed.
pub(crate) fn failed(gate: &Gate) -> String {
    wait_until("an order has failed", || {
        let status = gate.ask(&["status", "--format", "json"]).text();
        status.contains("was not published").then_some(status)
    })
}

#[test]
fn name_and_wildcard_are_ordered_by_a_real_dns_server() {
    alone(|| {
        for kind in BOTH {
            let server = Server::primary(kind, FIRST);
            let pebble = Pebble::start();
            let gate = pebble.gate(&update_keys(&server, &server.key_file));
            assert_eq!(issued(&gate), [WILDCARD, NAME], "{kind:?}");
            assert!(is_in_a_sandbox(&gate));
            wait_until("the records are removed", || server.texts(NAME).is_empty().then_some(()));
        }
    });
}

/// A program as an owner would write it, with the tool of BIND.
fn program(server: &Server, key: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dns");
    let lines = format!(
        "#!/bin/bash\nset -eu\n[ \"$1\" = add ] && change=\"add $2. 60\" || change=\"delete $2.\"\n\
         echo \"$*\" >> {folder}/calls\n\
         printf 'server {} {PORT}\\nzone home.example\\nupdate %s TXT \"%s\"\\nsend\\n' \"$change\" \"$3\" | nsupdate -k {key}\n",
        server.address.ip(),
        folder = folder.path().display(),
    );
    std::fs::write(&path, lines).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
    (folder, path)
}

#[test]
fn name_and_wildcard_are_ordered_by_a_program() {
    alone(|| {
        let server = Server::primary(Kind::Bind, FIRST);
        let pebble = Pebble::start();
        let (folder, path) = program(&server, &server.key_file.display().to_string());
        let gate = pebble.gate(&format!("command = [{path:?}]"));
        assert_eq!(issued(&gate), [WILDCARD, NAME]);
        // The program would inherit it.
        assert!(!is_in_a_sandbox(&gate));
        wait_until("the records are removed", || server.texts(NAME).is_empty().then_some(()));
        let calls = std::fs::read_to_string(folder.path().join("calls")).unwrap();
        let verbs: Vec<&str> = calls.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(verbs, ["add", "add", "remove", "remove"], "{calls}");
    });
}

#[test]
fn owner_is_told_why_a_record_is_not_published_and_no_secret() {
    alone(|| {
        let server = Server::primary(Kind::Bind, FIRST);
        let pebble = Pebble::start();
        let key = server.other_key();
        let gate = pebble.gate(&update_keys(&server, &key));
        let status = failed(&gate);
        assert!(status.contains("knows the key \\\"doorward\\\" with another secret (BADSIG)"), "{status}");
        let text = std::fs::read_to_string(key).unwrap();
        let secret = text.split_once("secret \"").unwrap().1.split('"').next().unwrap();
        let logged = format!("{status}{:?}{}", gate.lines(), gate.stderr());
        assert!(!logged.contains(secret), "{logged}");
        assert!(!gate.folder().join("acme/live/certificate.pem").exists());
    });
}
