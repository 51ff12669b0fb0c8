//! Other TLS libraries: GnuTLS, and OpenSSL in Python and Node.js. Each is admitted with the certificate and rejected
//! without, and then *shows its user* the alert, in both versions of TLS.

use std::process::Command;

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::process::{Finished, run_with_input, run_with_open_input};
use crate::walkthrough::{Pem, Walkthrough, route};

const PAGE: &str = "The NAS says hello.";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: nas.example.local\r\n\r\n";

/// Sends its input to argv[1:3] and prints the answer.
const PYTHON: &str = r#"
import socket, ssl, sys
host, port, version, root, *mine = sys.argv[1:]
context = ssl.create_default_context(cafile=root)
context.minimum_version = context.maximum_version = ssl.TLSVersion["TLSv" + version.replace(".", "_")]
if mine:
    context.load_cert_chain(*mine)
with socket.create_connection((host, port)) as plain:
    with context.wrap_socket(plain, server_hostname="nas.example.local") as secure:
        secure.sendall(sys.stdin.buffer.read())
        while chunk := secure.recv(65536):
            sys.stdout.buffer.write(chunk)
"#;

/// The same.
const NODE: &str = r#"
const [host, port, version, root, certificate, key] = process.argv.slice(1);
const fs = require("fs");
const read = file => file && fs.readFileSync(file);
const socket = require("tls").connect({
    host, port, servername: "nas.example.local", ca: read(root), cert: read(certificate), key: read(key),
    minVersion: "TLSv" + version, maxVersion: "TLSv" + version,
}, () => socket.write(fs.readFileSync(0)));
socket.on("data", chunk => process.stdout.write(chunk));
socket.on("error", error => { console.error(error.message); process.exit(1); });
"#;

/// How a client is run: some close the connection at the end of their input, others wait.
type Run = fn(&mut Command, &[u8]) -> Finished;

/// Runs a client in both versions, with the certificate and without. `client` makes its command line; `words` is what it
/// shows for the alert certificate_required.
#[track_caller]
fn assert_admitted_and_refused(
    words: &str,
    run: Run,
    client: impl Fn(&Walkthrough, &Gate, &str, Option<Pem>) -> Command,
) {
    let files = Walkthrough::new();
    let backend = Backend::http(PAGE);
    let gate = files.gate(&route("nas", &["nas.example.local"], backend.address(), &["any"]));
    for (count, version) in ["1.2", "1.3"].into_iter().enumerate() {
        let admitted = run(&mut client(&files, &gate, version, Some(files.me())), REQUEST).success();
        assert!(admitted.text().contains(&format!("\r\n\r\n{PAGE}")), "{admitted}");
        let closed = gate.wait_closed("nas", count + 1);
        assert!(closed[count]["certificate"].to_string().contains("Anye-MacBook-Air"), "{closed:?}");
        let labels = [("route", "nas"), ("version", &format!("TLSv{version}"))];
        assert_eq!(gate.metrics().sum("doorward_handshakes_total", &labels), 1.0, "{version}");

        let refused = run(&mut client(&files, &gate, version, None), REQUEST).failure();
        assert!(!refused.text().contains(PAGE), "{refused}");
        let shown = format!("{}{}", refused.text(), refused.stderr);
        assert!(shown.contains(words), "TLS {version}: {refused}");
        for rejected in gate.wait_rejected("certificate", "required", count + 1) {
            assert_eq!(rejected["alert"], "certificate_required", "{rejected}");
        }
        assert_eq!(backend.accepted(), count as u64 + 1, "the NAS was reached");
    }
}

/// The arguments of the two scripts above.
fn arguments(command: &mut Command, files: &Walkthrough, gate: &Gate, version: &str, pem: Option<Pem>) {
    command.args([gate.address().ip().to_string(), gate.address().port().to_string()]).arg(version).arg(files.root());
    if let Some(Pem { certificate, key }) = pem {
        command.arg(certificate).arg(key);
    }
}

#[test]
fn gnutls_cli_gets_the_page() {
    assert_admitted_and_refused(
        "Received alert [116]: Certificate is required",
        run_with_open_input,
        |files, gate, version, pem| {
            let mut command = files.tool("gnutls-cli", "gnutls-bin");
            command.arg("--x509cafile").arg(files.root());
            command.args(["--sni-hostname=nas.example.local", "--verify-hostname=nas.example.local"]);
            command.arg(format!("--priority=NORMAL:-VERS-ALL:+VERS-TLS{version}"));
            if let Some(Pem { certificate, key }) = pem {
                command.arg("--x509certfile").arg(certificate).arg("--x509keyfile").arg(key);
            }
            command.args(["--port", &gate.address().port().to_string(), &gate.address().ip().to_string()]);
            command
        },
    );
}

#[test]
fn python_ssl_gets_the_page() {
    assert_admitted_and_refused("TLSV13_ALERT_CERTIFICATE_REQUIRED", run_with_input, |files, gate, version, pem| {
        let mut command = files.tool("python3", "python3");
        command.args(["-c", PYTHON]);
        arguments(&mut command, files, gate, version, pem);
        command
    });
}

#[test]
fn node_tls_gets_the_page() {
    assert_admitted_and_refused("alert certificate required", run_with_input, |files, gate, version, pem| {
        let mut command = files.tool("node", "nodejs");
        command.args(["-e", NODE]);
        arguments(&mut command, files, gate, version, pem);
        command
    });
}

/// attacks.md, "Measured on others": a mkcert root contains user@host, and rustls sends its name to every client.
#[test]
fn trust_anchor_names_are_sent_unless_turned_off() {
    let files = Walkthrough::new();
    let backend = Backend::http(PAGE);
    let told = |names: &str, client_auth: &str| {
        let route = route(names, &[&format!("{names}.example.local")], backend.address(), &["any"]);
        let gate = files.gate(&format!("{route}\n{client_auth}"));
        let address = gate.address().to_string();
        let mut command = files.tool("openssl", "openssl");
        command.args(["s_client", "-connect", &address, "-servername", &format!("{names}.example.local")]);
        let shown = run_with_input(&mut command, b"").text();
        gate.settled();
        shown
    };
    let shown = told("told", "");
    assert!(shown.contains("Acceptable client certificate CA names") && shown.contains("mkcert"), "{shown}");
    let shown = told("silent", "[route.client_auth]\nannounce_trust = \"off\"\n");
    assert!(shown.contains("No client certificate CA names sent"), "{shown}");
}
