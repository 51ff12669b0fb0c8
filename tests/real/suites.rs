//! The cipher suite that curl, OpenSSL, GnuTLS and Python get: with their own order, and with ChaCha20 first, as programs on
//! phones without instructions for AES have it.

use std::process::Command;

use doorward::sys::cpu;

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::process::{run, run_with_open_input};
use crate::walkthrough::{Pem, Walkthrough, route};

const PAGE: &str = "The NAS says hello.";
const NAME: &str = "nas.example.local";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: nas.example.local\r\n\r\n";

/// ChaCha20 first, in OpenSSL's words.
const CHACHA20_FIRST: &str =
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256";
const CHACHA20_FIRST_13: &str = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256";

/// There is no way to change its order for TLS 1.3.
const PYTHON: &str = r#"
import socket, ssl, sys
host, port, version, root, certificate, key = sys.argv[1:]
context = ssl.create_default_context(cafile=root)
context.minimum_version = context.maximum_version = ssl.TLSVersion["TLSv" + version.replace(".", "_")]
context.load_cert_chain(certificate, key)
with socket.create_connection((host, port)) as plain:
    with context.wrap_socket(plain, server_hostname="nas.example.local") as secure:
        secure.sendall(b"GET / HTTP/1.1\r\nHost: nas.example.local\r\n\r\n")
        while chunk := secure.recv(65536):
            sys.stdout.buffer.write(chunk)
"#;

struct Scene {
    files: Walkthrough,
    gate: Gate,
}

impl Scene {
    fn curl(&self, version: &str, chacha20_first: bool) -> Command {
        let (Pem { certificate, key }, at) = (self.files.me(), self.gate.address());
        let mut curl = self.files.tool("curl", "curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(self.files.root());
        curl.args([&format!("--tlsv{version}"), "--tls-max", version]);
        if chacha20_first {
            curl.args(["--ciphers", CHACHA20_FIRST, "--tls13-ciphers", CHACHA20_FIRST_13]);
        }
        curl.arg("--resolve").arg(format!("{NAME}:{}:{}", at.port(), at.ip()));
        curl.arg("--cert").arg(certificate).arg("--key").arg(key);
        curl.arg(format!("https://{NAME}:{}/", at.port()));
        curl
    }

    fn openssl(&self, version: &str, chacha20_first: bool) -> Command {
        let (Pem { certificate, key }, at) = (self.files.me(), self.gate.address());
        let mut openssl = self.files.tool("openssl", "openssl");
        openssl.args(["s_client", "-quiet", "-verify_return_error", "-servername", NAME, "-connect", &at.to_string()]);
        openssl.arg(format!("-tls{}", version.replace('.', "_"))).arg("-CAfile").arg(self.files.root());
        if chacha20_first {
            openssl.args(["-cipher", CHACHA20_FIRST, "-ciphersuites", CHACHA20_FIRST_13]);
        }
        openssl.arg("-cert").arg(certificate).arg("-key").arg(key);
        openssl
    }

    fn gnutls(&self, version: &str, chacha20_first: bool) -> Command {
        let (Pem { certificate, key }, at) = (self.files.me(), self.gate.address());
        let order = if chacha20_first { ":-CIPHER-ALL:+CHACHA20-POLY1305:+AES-256-GCM:+AES-128-GCM" } else { "" };
        let mut gnutls = self.files.tool("gnutls-cli", "gnutls-bin");
        gnutls.arg("--x509cafile").arg(self.files.root());
        gnutls.args([&format!("--sni-hostname={NAME}"), &format!("--verify-hostname={NAME}")]);
        gnutls.arg(format!("--priority=NORMAL:-VERS-ALL:+VERS-TLS{version}{order}"));
        gnutls.arg("--x509certfile").arg(certificate).arg("--x509keyfile").arg(key);
        gnutls.args(["--port", &at.port().to_string(), &at.ip().to_string()]);
        gnutls
    }

    fn python(&self, version: &str) -> Command {
        let (Pem { certificate, key }, at) = (self.files.me(), self.gate.address());
        let mut python = self.files.tool("python3", "python3");
        python.args(["-c", PYTHON, &at.ip().to_string(), &at.port().to_string(), version]);
        python.arg(self.files.root()).arg(certificate).arg(key);
        python
    }
}

#[test]
fn clients_get_the_suite_of_the_gate_or_chacha20_first() {
    let (files, backend) = (Walkthrough::new(), Backend::http(PAGE));
    let gate = files.gate(&route("nas", &[NAME], backend.address(), &["any"]));
    let scene = Scene { files, gate };
    let mut visits = 0;
    for (version, chacha20_first) in [("1.2", false), ("1.2", true), ("1.3", false), ("1.3", true)] {
        let cipher = if cpu::has_aes() && !chacha20_first { "AES_128_GCM" } else { "CHACHA20_POLY1305" };
        let kind = if version == "1.3" { "TLS" } else { "TLS_ECDHE_ECDSA_WITH" };
        let wanted = format!("{kind}_{cipher}_SHA256");
        let mut clients = vec![
            ("curl", scene.curl(version, chacha20_first)),
            ("openssl", scene.openssl(version, chacha20_first)),
            ("gnutls", scene.gnutls(version, chacha20_first)),
        ];
        if !chacha20_first {
            clients.push(("python", scene.python(version)));
        }
        for (name, mut command) in clients {
            let done = match name {
                "openssl" | "gnutls" => run_with_open_input(&mut command, REQUEST),
                _ => run(&mut command),
            };
            assert!(done.text().contains(PAGE), "{done}");
            let closed = scene.gate.wait_closed("nas", visits + 1).swap_remove(visits);
            assert_eq!(closed["tls"]["cipher_suite"], wanted, "{name}, TLS {version}, {chacha20_first}: {closed}");
            visits += 1;
        }
    }
    assert_eq!(visits, 14);
}
