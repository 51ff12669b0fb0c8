//! mkcert's files, curl, and an HTTP server on port 5666, where fnOS has its web page.

use std::process::Command;

use rcgen::CertificateParams;

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, days_from_now};
use crate::common::process::{Finished, own_loopback, run};
use crate::walkthrough::{Pem, Walkthrough, route};

/// The page: longer than a TLS record, with bytes that a careless conversion would change.
fn page() -> Vec<u8> {
    let mut page = b"<!DOCTYPE html><title>fnOS</title><p>The NAS says hello.</p><!--".to_vec();
    page.extend((0..40_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8));
    page.extend_from_slice(b"-->");
    page
}

struct Nas {
    files: Walkthrough,
    backend: Backend,
    gate: Gate,
}

impl Nas {
    fn new() -> Self {
        Self::allowing("any")
    }

    fn allowing(allow: &str) -> Self {
        let files = Walkthrough::new();
        let backend = Backend::http_at((own_loopback(), 5666), page());
        let names = ["example.local", "*.example.local"];
        let route = route("nas", &names, backend.address(), &[allow]) + "application_protocols = [\"http/1.1\"]\n";
        let gate = files.gate(&route);
        Self { files, backend, gate }
    }

    /// curl for the page of the NAS, with mkcert's root as trust anchor.
    fn curl(&self) -> Command {
        let gate = self.gate.address();
        let mut curl = self.files.tool("curl", "curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(self.files.root());
        curl.arg("--resolve").arg(format!("nas.example.local:{}:{}", gate.port(), gate.ip()));
        curl.arg(format!("https://nas.example.local:{}/", gate.port()));
        curl
    }

    /// As [`Nas::curl`], with a certificate.
    fn curl_with(&self, pem: &Pem) -> Command {
        let mut curl = self.curl();
        curl.arg("--cert").arg(&pem.certificate).arg("--key").arg(&pem.key);
        curl
    }

    /// Checks that curl got the page, byte for byte, and that the gate logged it.
    #[track_caller]
    fn assert_admitted(&self, curl: Finished) {
        let curl = curl.success();
        assert!(curl.stdout == page(), "{} bytes of the page", curl.stdout.len());
        let closed = self.gate.wait_closed("nas", 1).remove(0);
        assert!(closed["bytes_to_client"].as_u64() > Some(page().len() as u64), "{closed}");
        assert!(closed["certificate"].to_string().contains("Anye-MacBook-Air"), "{closed}");
        assert_eq!(self.backend.accepted(), 1);
    }

    /// Checks that curl got only the alert, that the gate counted and logged the reason, and that the NAS saw nothing.
    #[track_caller]
    fn assert_refused(&self, curl: Finished, stage_and_reason: [&str; 2], alert: &str) {
        let curl = curl.failure();
        assert!(curl.stdout.is_empty(), "{curl}");
        // OpenSSL writes the registered names of alerts with spaces.
        assert!(curl.stderr.contains(&format!("alert {}", alert.replace('_', " "))), "{curl}");
        let [stage, reason] = stage_and_reason;
        let rejected = self.gate.wait_rejected(stage, reason, 1).remove(0);
        assert_eq!(rejected["alert"], alert, "{rejected}");
        assert_eq!(rejected["route"], "nas", "{rejected}");
        assert_eq!(rejected["listener"], "public", "{rejected}");
        assert_eq!(rejected["server_name"], "nas.example.local", "{rejected}");
        assert!(rejected["source"].as_str().unwrap().starts_with("127.0.0.1:"), "{rejected}");
        assert_eq!(self.backend.accepted(), 0, "the NAS was reached");
    }

    /// A certificate of mkcert's own root that differs from a good one in one thing.
    fn odd(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pem {
        let mut params = Certified::for_clients("Anye-MacBook-Air");
        change(&mut params);
        self.files.keep(name, &self.files.authority().issue(params))
    }
}

#[test]
fn curl_with_the_certificate_gets_the_page() {
    let nas = Nas::new();
    // OpenSSL 3 converts mkcert's file to one that curl can read.
    nas.files.openssl_pkcs12(&["-legacy", "-passin", "pass:changeit", "-nodes", "-out", "all.pem"]);
    run(nas.files.tool("openssl", "openssl").args([
        "pkcs12",
        "-export",
        "-in",
        "all.pem",
        "-passout",
        "pass:changeit",
        "-out",
        "modern.p12",
    ]))
    .success();
    nas.assert_admitted(run(nas.curl().args(["--cert-type", "P12", "--cert", "modern.p12:changeit"])));
}

#[test]
fn curl_with_the_certificate_in_pem_gets_the_page() {
    let nas = Nas::new();
    nas.assert_admitted(run(&mut nas.curl_with(&nas.files.me())));
}

#[test]
fn mkcerts_own_p12_needs_openssls_legacy_provider() {
    let nas = Nas::new();
    let with_p12 = |nas: &Nas| {
        let mut curl = nas.curl();
        curl.args(["--cert-type", "P12", "--cert", "Anye-MacBook-Air-client.p12:changeit"]);
        curl
    };
    // RC2-40, which OpenSSL 3 has only in its legacy provider: curl connects, and closes without a message.
    let curl = run(&mut with_p12(&nas)).failure();
    assert!(curl.stderr.contains("could not parse PKCS12 file"), "{curl}");
    nas.gate.wait_rejected("client_hello", "closed_early", 1);
    // With the provider (config(5), "Provider Configuration") it is read as it is.
    let providers = "openssl_conf = conf\n[conf]\nproviders = providers\n\
                     [providers]\ndefault = on\nlegacy = on\n[on]\nactivate = 1\n";
    std::fs::write(nas.files.home("legacy.cnf"), providers).unwrap();
    nas.assert_admitted(run(with_p12(&nas).env("OPENSSL_CONF", nas.files.home("legacy.cnf"))));
}

#[test]
fn curl_without_a_certificate_is_rejected() {
    let nas = Nas::new();
    nas.assert_refused(run(&mut nas.curl()), ["certificate", "required"], "certificate_required");
}

#[test]
fn curl_with_a_certificate_of_another_mkcert_is_rejected() {
    let nas = Nas::new();
    let neighbour = Walkthrough::elsewhere("neighbour");
    let curl = run(&mut nas.curl_with(&neighbour.me()));
    nas.assert_refused(curl, ["certificate", "unknown_ca"], "unknown_ca");
}

/// mkcert's root was deleted and created again, with the same name and another key. The device's certificate was not issued
/// by the root that the gate trusts, and the log must say so.
#[test]
fn curl_with_a_certificate_of_a_former_root_is_rejected() {
    let nas = Nas::new();
    let former = Walkthrough::new();
    let curl = run(&mut nas.curl_with(&former.me()));
    nas.assert_refused(curl, ["certificate", "unknown_ca"], "unknown_ca");
}

#[test]
fn curl_with_an_expired_certificate_is_rejected() {
    let nas = Nas::new();
    let expired = nas.odd("expired", |params| {
        params.not_before = days_from_now(-100);
        params.not_after = days_from_now(-1);
    });
    let curl = run(&mut nas.curl_with(&expired));
    nas.assert_refused(curl, ["certificate", "expired"], "certificate_expired");
}

#[test]
fn curl_with_a_certificate_in_allow_gets_the_page() {
    let nas = Nas::allowing("Anye-MacBook-Air");
    nas.assert_admitted(run(&mut nas.curl_with(&nas.files.me())));
}

#[test]
fn curl_with_a_certificate_not_in_allow_is_rejected() {
    let nas = Nas::allowing("Bobs-Phone");
    let curl = run(&mut nas.curl_with(&nas.files.me()));
    nas.assert_refused(curl, ["policy", "identity_not_allowed"], "access_denied");
}
