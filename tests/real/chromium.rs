//! A real browser, with mkcert's root and the .p12 imported into its store.

use std::process::Command;

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::process::{own_loopback, run};
use crate::walkthrough::{Walkthrough, nss_database, route};

const PAGE: &str = "<!DOCTYPE html><title>fnOS</title><h1 id=marker>The NAS says hello.</h1>";

struct Browser {
    files: Walkthrough,
    backend: Backend,
    gate: Gate,
}

impl Browser {
    fn new() -> Self {
        let files = Walkthrough::new();
        let backend = Backend::http_at((own_loopback(), 5666), PAGE);
        let route = route("nas", &["nas.example.local"], backend.address(), &["any"]);
        let gate = files.gate(&(route + "application_protocols = [\"http/1.1\"]\n"));
        Self { files, backend, gate }
    }

    fn import_p12(&self) {
        run(self
            .files
            .tool("pk12util", "libnss3-tools")
            .args(["-W", "changeit", "-K", "", "-i"])
            .arg(self.files.p12())
            .arg("-d")
            .arg(nss_database(&self.files.home(".pki/nssdb"))))
        .success();
    }

    /// Chromium on the NAS' page.
    ///
    /// A policy selects the certificate instead of the dialogue. Policies are read from /etc only, so this one is in a mount
    /// namespace, which ends with the process.
    fn chromium(&self, task: &str) -> Command {
        const WITH_POLICY: &str = "mount -t tmpfs none /etc/chromium && mkdir -p /etc/chromium/policies/managed && \
                                   cp policy.json /etc/chromium/policies/managed/ && exec \"$@\"";
        let url = format!("https://nas.example.local:{}", self.gate.address().port());
        let pattern = serde_json::json!({"pattern": url, "filter": {}}).to_string();
        let policy = serde_json::json!({"AutoSelectCertificateForUrls": [pattern]}).to_string();
        std::fs::write(self.files.home("policy.json"), policy).unwrap();
        let chromium = self.files.tool("chromium", "chromium").get_program().to_owned();
        let mut command = self.files.tool("unshare", "util-linux");
        command.args(["--mount", "sh", "-c", WITH_POLICY, "sh"]).arg(chromium).args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=800,600",
        ]);
        command.arg(format!("--user-data-dir={}", self.files.home("profile").display()));
        command.arg(format!("--host-resolver-rules=MAP nas.example.local {}", self.gate.address().ip()));
        command.arg(task).arg(url);
        command
    }

    /// Stage, reason and alert of every real rejection.
    ///
    /// Chromium does not answer the first CertificateRequest of a server: it closes the connection, selects the certificate
    /// and connects again. The gate sees a client that left during the handshake.
    fn refusals(&self) -> Vec<String> {
        self.gate.settled();
        let lines = self.gate.lines();
        let rejected = lines.iter().filter(|line| line["event"] == "rejected");
        let words = rejected.map(|line| ["stage", "reason", "alert"].map(|key| line[key].as_str().unwrap_or("none")));
        words.map(|words| words.join("/")).filter(|words| words != "handshake/closed_early/none").collect()
    }
}

#[test]
fn chromium_with_the_certificate_loads_the_page() {
    let browser = Browser::new();
    browser.import_p12();
    let chromium = run(&mut browser.chromium("--dump-dom")).success();
    assert!(chromium.text().contains("<h1 id=\"marker\">The NAS says hello.</h1>"), "{chromium}");
    let closed = browser.gate.wait_for_line("the page's connection", |line| {
        line["event"] == "closed" && line["bytes_to_client"].as_u64() > Some(PAGE.len() as u64)
    });
    assert!(closed["certificate"].to_string().contains("Anye-MacBook-Air"), "{closed}");
    assert_eq!(browser.refusals(), [] as [&str; 0]);

    // A screenshot for review: target/tmp/chromium.png.
    let picture = concat!(env!("CARGO_TARGET_TMPDIR"), "/chromium.png");
    let _ = std::fs::remove_file(picture);
    let chromium = run(&mut browser.chromium(&format!("--screenshot={picture}"))).success();
    let png = std::fs::read(picture).unwrap_or_else(|error| panic!("{error}: {chromium}"));
    assert!(png.starts_with(b"\x89PNG"));
}

#[test]
fn chromium_without_the_certificate_is_rejected() {
    let browser = Browser::new();
    let chromium = run(&mut browser.chromium("--dump-dom"));
    assert!(!chromium.text().contains("The NAS says hello."), "{chromium}");
    // The words for a gate that insists on a certificate. A reset that overtakes the alert would give others.
    assert!(chromium.stderr.contains("ERR_BAD_SSL_CLIENT_AUTH_CERT"), "{chromium}");
    assert_eq!(browser.refusals(), ["certificate/required/certificate_required"]);
    assert_eq!(browser.backend.accepted(), 0, "the NAS was reached");
}
