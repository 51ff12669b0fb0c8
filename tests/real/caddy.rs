//! Caddy as oracle: the same certificates, the same backend, the same four modes must give the same verdicts.

use std::fmt::Write;
use std::net::{SocketAddr, SocketAddrV4};

use rcgen::ExtendedKeyUsagePurpose;

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, days_from_now};
use crate::common::process::{Daemon, Finished, own_loopback, run};
use crate::walkthrough::{Pem, Walkthrough};

const MODES: [&str; 4] = ["request", "require", "verify_if_given", "require_and_verify"];
const PAGE: &str = "The NAS says hello.";

/// The certificates of the matrix by name; `None` is no certificate.
fn certificates(files: &Walkthrough) -> Vec<(&'static str, Option<Pem>)> {
    let issuer = files.authority();
    let odd = |name: &'static str, change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = Certified::for_clients(name);
        change(&mut params);
        (name, Some(files.keep(name, &issuer.issue(params))))
    };
    vec![
        ("none", None),
        ("good", Some(files.me())),
        (
            "other CA",
            Some(
                files
                    .keep("other", &crate::common::pki::Authority::new("other").issue(Certified::for_clients("other"))),
            ),
        ),
        odd("expired", &|params| params.not_after = days_from_now(0) - time::Duration::hours(1)),
        odd("not yet valid", &|params| params.not_before = days_from_now(1)),
        odd("serverAuth only", &|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
    ]
}

/// The server name for a mode: Caddy and the gate both choose the mode by it.
fn server_name(mode: &str) -> String {
    format!("{}.example.local", mode.replace('_', "-"))
}

/// One route for each mode.
fn routes(files: &Walkthrough, backend: &Backend, modes: &[&str], allow: &[&str]) -> String {
    let mut routes = "[limits]\nconnection_rate_per_source = \"off\"\n".to_owned();
    for mode in modes {
        write!(
            routes,
            r#"
[[route]]
name = "{mode}"
server_names = ["{}"]
backends = ["{}"]
allow = {allow:?}
[route.client_auth]
mode = "{mode}"
trust = [{:?}]
"#,
            server_name(mode),
            backend.address(),
            files.root()
        )
        .unwrap();
    }
    routes
}

/// Debian's Caddy 2.6: `trusted_ca_cert_file`, which newer ones call `trust_pool file`.
fn caddy(files: &Walkthrough, backend: &Backend) -> (Daemon, SocketAddr) {
    let address = SocketAddrV4::new(own_loopback(), 4430);
    let mut config = "{\n\tadmin off\n\tauto_https off\n}\n".to_owned();
    for mode in MODES {
        write!(
            config,
            "https://{}:{} {{\n\tbind {}\n\ttls {:?} {:?} {{\n\t\tprotocols tls1.2 tls1.3\n\t\tclient_auth {{\n\
             \t\t\tmode {mode}\n\t\t\ttrusted_ca_cert_file {:?}\n\t\t}}\n\t}}\n\treverse_proxy {}\n}}\n",
            server_name(mode),
            address.port(),
            address.ip(),
            files.home("example.local+1.pem"),
            files.home("example.local+1-key.pem"),
            files.root(),
            backend.address(),
        )
        .unwrap();
    }
    std::fs::write(files.home("Caddyfile"), config).unwrap();
    let mut command = files.tool("caddy", "caddy");
    command.args(["run", "--adapter", "caddyfile", "--config", "Caddyfile"]);
    (Daemon::start(&mut command, address), address.into())
}

fn curl(files: &Walkthrough, at: SocketAddr, mode: &str, version: &str, pem: Option<&Pem>) -> Finished {
    let mut curl = files.tool("curl", "curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--http1.1", "--cacert"]).arg(files.root());
    curl.args([&format!("--tlsv{version}"), "--tls-max", version]);
    curl.arg("--resolve").arg(format!("{}:{}:{}", server_name(mode), at.port(), at.ip()));
    if let Some(Pem { certificate, key }) = pem {
        curl.arg("--cert").arg(certificate).arg("--key").arg(key);
    }
    run(curl.arg(format!("https://{}:{}/", server_name(mode), at.port())))
}

/// Whether curl got the page.
#[track_caller]
fn admitted(curl: &Finished) -> bool {
    let admitted = curl.status.success();
    assert_eq!(curl.text(), if admitted { PAGE } else { "" }, "{curl}");
    admitted
}

#[test]
fn client_auth_modes_match_caddy() {
    let files = Walkthrough::new();
    let backend = Backend::http(PAGE);
    let (caddy, caddy_address) = caddy(&files, &backend);
    // As in Caddy: every client that the mode admits reaches the backend.
    let gate = files.gate(&routes(&files, &backend, &MODES, &["any", "unverified"]));
    let certificates = certificates(&files);

    let mut matrix = String::new();
    let mut differences = Vec::new();
    for version in ["1.2", "1.3"] {
        for mode in MODES {
            write!(matrix, "TLS {version} {mode:<18}").unwrap();
            for (name, pem) in &certificates {
                let ours = curl(&files, gate.address(), mode, version, pem.as_ref());
                let theirs = curl(&files, caddy_address, mode, version, pem.as_ref());
                let word = |admitted: bool| if admitted { "admitted" } else { "refused" };
                let (ours, theirs) = (word(admitted(&ours)), word(admitted(&theirs)));
                write!(matrix, "  {name}: {ours}").unwrap();
                if ours != theirs {
                    write!(matrix, " (Caddy: {theirs})").unwrap();
                    differences.push((version, mode, *name));
                }
            }
            matrix.push('\n');
        }
    }
    println!("{matrix}");
    assert!(differences.is_empty(), "the verdicts differ:\n{matrix}\nCaddy's log:\n{}", caddy.output());

    // The admissions that Caddy's documentation promises, so that a matrix of rejections alone cannot pass.
    let metrics = gate.settled();
    let rejected = |mode: &str| metrics.sum("doorward_connections_rejected_total", &[("route", mode)]);
    let closed = |mode: &str| metrics.sum("doorward_connections_closed_total", &[("route", mode)]);
    let counts = MODES.map(|mode| (rejected(mode), closed(mode)));
    assert_eq!(counts, [(0.0, 12.0), (2.0, 10.0), (8.0, 4.0), (10.0, 2.0)], "{matrix}");
    for (reason, count) in
        [("required", 4.0), ("unknown_ca", 4.0), ("expired", 4.0), ("not_yet_valid", 4.0), ("wrong_purpose", 4.0)]
    {
        let labels = [("stage", "certificate"), ("reason", reason)];
        assert_eq!(metrics.sum("doorward_connections_rejected_total", &labels), count, "{reason}");
    }
}

/// A deliberate difference from Caddy: a client without a verified certificate reaches a backend only if the route says
/// `"unverified"`. In Caddy, `verify_if_given` admits clients without a certificate; here a route without the word requires
/// one.
#[test]
fn allow_without_unverified_admits_only_verified() {
    let files = Walkthrough::new();
    let backend = Backend::http(PAGE);
    let gate = files.gate(&routes(&files, &backend, &["verify_if_given", "require_and_verify"], &["any"]));
    for mode in ["verify_if_given", "require_and_verify"] {
        for (name, pem) in certificates(&files) {
            for version in ["1.2", "1.3"] {
                let curl = curl(&files, gate.address(), mode, version, pem.as_ref());
                assert_eq!(admitted(&curl), name == "good", "{mode}, {name}, TLS {version}: {curl}");
                if name == "none" {
                    assert!(curl.stderr.contains("alert certificate required"), "{mode}, TLS {version}: {curl}");
                }
            }
        }
    }
    for rejected in gate.wait_rejected("certificate", "required", 4) {
        assert_eq!(rejected["alert"], "certificate_required", "{rejected}");
    }
    assert_eq!(backend.accepted(), 4);
}

/// Modes that verify no certificate, under which Caddy accepts every one, admit no client without the word: a route without
/// it is a configuration error.
#[test]
fn non_verifying_mode_without_unverified_is_an_error() {
    let files = Walkthrough::new();
    let backend = Backend::http(PAGE);
    for mode in ["request", "require"] {
        let refused = Gate::fails_to_start(&files.config(&routes(&files, &backend, &[mode], &["any"])));
        assert!(refused.stderr.contains(&format!("route[1] {mode:?}.allow")), "{refused}");
        assert!(refused.stderr.contains("allow = [\"unverified\"]"), "{refused}");
    }
}
