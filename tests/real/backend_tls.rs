//! Services that speak HTTPS only, as nginx and HAProxy serve them, behind the gate.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use crate::common::gate::Gate;
use crate::common::process::{Daemon, Finished, own_loopback, run};
use crate::walkthrough::Walkthrough;

const PAGE: &str = "the NAS says hello";

/// What the owner of a NAS has: a certificate that it signed itself, for no name.
fn self_signed(files: &Walkthrough) -> String {
    run(files.tool("openssl", "openssl").args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "nas-key.pem",
        "-out",
        "nas.pem",
        "-days",
        "30",
        "-subj",
        "/CN=nas",
    ]))
    .success();
    let printed =
        run(files.tool("openssl", "openssl").args(["x509", "-in", "nas.pem", "-noout", "-fingerprint", "-sha256"]))
            .success();
    let digits = printed.text().trim().rsplit_once('=').unwrap().1.replace(':', "");
    format!("sha256:{}", digits.to_lowercase())
}

/// nginx with these lines in `server`. Its page tells what it was told of the client.
fn nginx(files: &Walkthrough, address: SocketAddrV4, listen: &str, more: &str) -> Daemon {
    let folder = files.home("nginx");
    std::fs::create_dir_all(&folder).unwrap();
    let folder = folder.display();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\n\
         client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; \
         uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
         access_log {folder}/access.log;\nserver {{\nlisten {address} {listen};\n{more}\nlocation / {{\n\
         default_type text/plain;\n\
         return 200 '{PAGE} $server_protocol $proxy_protocol_addr $ssl_client_verify $ssl_session_reused\\n';\n}}\n}}\n}}\n"
    );
    let file = files.home("nginx.conf");
    std::fs::write(&file, config).unwrap();
    Daemon::start(files.tool("nginx", "nginx").args(["-c"]).arg(&file).args(["-e", "stderr"]), address)
}

fn certificate(files: &Walkthrough) -> String {
    format!(
        "ssl_certificate {};\nssl_certificate_key {};\n",
        files.home("nas.pem").display(),
        files.home("nas-key.pem").display()
    )
}

fn address() -> SocketAddrV4 {
    SocketAddrV4::new(own_loopback(), 5667)
}

fn route(backend: SocketAddrV4, keys: &str) -> String {
    let mut route = String::new();
    write!(
        route,
        "[[route]]\nname = \"nas\"\nserver_names = [\"nas.example.local\"]\nbackends = [\"{backend}\"]\nallow = [\"any\"]\n\
         {keys}\n"
    )
    .unwrap();
    route
}

fn curl(files: &Walkthrough, gate: &Gate, more: &[&str]) -> Finished {
    let address = gate.address();
    let me = files.me();
    let mut curl = files.tool("curl", "curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(files.root());
    curl.arg("--resolve").arg(format!("nas.example.local:{}:{}", address.port(), address.ip()));
    curl.arg("--cert").arg(me.certificate).arg("--key").arg(me.key).args(more);
    run(curl.arg(format!("https://nas.example.local:{}/", address.port())))
}

#[test]
fn nginx_with_https_only_serves_its_page() {
    let files = Walkthrough::new();
    let fingerprint = self_signed(&files);
    let nas = address();
    let _nginx = nginx(&files, nas, "ssl http2", &certificate(&files));
    let gate = files.gate(&route(
        nas,
        &format!("backend_tls = {{ trust = {fingerprint:?} }}\napplication_protocols = [\"h2\", \"http/1.1\"]"),
    ));
    // What the device has chosen is what the backend speaks.
    let http1 = curl(&files, &gate, &["--http1.1"]).success();
    assert!(http1.text().starts_with(&format!("{PAGE} HTTP/1.1")), "{http1}");
    let http2 = curl(&files, &gate, &["--http2"]).success();
    assert!(http2.text().starts_with(&format!("{PAGE} HTTP/2.0")), "{http2}");
    // The second connection resumes the session of the first.
    assert!(http2.text().trim_end().ends_with(" r"), "{http2}");
    let closed = gate.wait_closed("nas", 2);
    assert!(closed.iter().all(|line| line["path"] == "copy"), "{closed:?}");
}

#[test]
fn nginx_without_http2_is_not_spoken_to_in_http2() {
    let files = Walkthrough::new();
    let fingerprint = self_signed(&files);
    let nas = address();
    let _nginx = nginx(&files, nas, "ssl", &certificate(&files));
    let keys = format!("backend_tls = {{ trust = {fingerprint:?} }}\napplication_protocols = [\"h2\", \"http/1.1\"]");
    let gate = files.gate(&route(nas, &keys));
    curl(&files, &gate, &["--http2"]).failure();
    let line = gate.wait_rejected("backend", "tls", 1).remove(0);
    assert!(line["detail"].as_str().unwrap().contains("no_application_protocol"), "{line}");
    curl(&files, &gate, &["--http1.1"]).success();
}

#[test]
fn proxy_header_is_where_nginx_expects_it() {
    let files = Walkthrough::new();
    let fingerprint = self_signed(&files);
    let nas = address();
    let _nginx = nginx(&files, nas, "ssl proxy_protocol", &certificate(&files));
    // Debian's nginx 1.22 refuses headers of more than 107 bytes, and those of v2-tls are longer.
    for version in ["v1", "v2"] {
        let keys = format!("send_proxy_protocol = {version:?}\nbackend_tls = {{ trust = {fingerprint:?} }}");
        let gate = files.gate(&route(nas, &keys));
        let page = curl(&files, &gate, &[]).success();
        assert!(page.text().starts_with(&format!("{PAGE} HTTP/1.1 {}", Ipv4Addr::LOCALHOST)), "{version}: {page}");
    }
}

/// stunnel takes TLS off and passes on what is inside, which nginx reads as a header and a request.
#[test]
fn proxy_header_inside_tls_is_read_behind_stunnel() {
    let files = Walkthrough::new();
    let fingerprint = self_signed(&files);
    let (nas, front) = (address(), address());
    let _nginx = nginx(&files, nas, "proxy_protocol", "");
    let config = format!(
        "foreground = yes\npid =\n[nas]\naccept = {front}\nconnect = {nas}\ncert = {}\nkey = {}\n",
        files.home("nas.pem").display(),
        files.home("nas-key.pem").display()
    );
    std::fs::write(files.home("stunnel.conf"), config).unwrap();
    let _stunnel = Daemon::start(files.tool("stunnel4", "stunnel4").arg(files.home("stunnel.conf")), front);
    for version in ["v1", "v2"] {
        let keys = format!(
            "send_proxy_protocol = {version:?}\nbackend_tls = {{ trust = {fingerprint:?}, proxy_protocol = \"inside\" }}"
        );
        let gate = files.gate(&route(front, &keys));
        let page = curl(&files, &gate, &[]).success();
        assert!(page.text().starts_with(&format!("{PAGE} HTTP/1.1 {}", Ipv4Addr::LOCALHOST)), "{version}: {page}");
    }
}

#[test]
fn nginx_that_asks_for_a_certificate_gets_that_of_the_gate() {
    let files = Walkthrough::new();
    let fingerprint = self_signed(&files);
    let nas = address();
    let verifies =
        format!("{}ssl_verify_client on;\nssl_client_certificate {};\n", certificate(&files), files.root().display());
    let _nginx = nginx(&files, nas, "ssl", &verifies);
    let gate_own = files.another("the-gate");
    let keys = |chain: &Path, key: &Path| {
        format!("backend_tls = {{ trust = {fingerprint:?}, certificate = {chain:?}, key = {key:?} }}")
    };
    let gate = files.gate(&route(nas, &keys(&gate_own.certificate, &gate_own.key)));
    let page = curl(&files, &gate, &[]).success();
    assert!(page.text().contains("SUCCESS"), "{page}");
    // nginx asks inside HTTP.
    let gate = files.gate(&route(nas, &format!("backend_tls = {{ trust = {fingerprint:?} }}")));
    let page = curl(&files, &gate, &[]).success();
    assert!(page.text().contains("No required SSL certificate was sent"), "{page}");
}
