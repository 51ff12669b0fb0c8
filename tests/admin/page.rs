//! The status page: as it is sent, and as a browser shows it.

use std::process::Command;

use rcgen::ExtendedKeyUsagePurpose;
use serde_json::Value;

use crate::client::{Client, client, connect};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki, days_from_now};
use crate::common::process::{Finished, run, tool};
use crate::hello::Hello;
use crate::home::House;
use crate::http::{get, read_to_end};

const NAS: &str = "nas.home.example";
const MARKUP: &str = "<script>alert('pwned')</script><img src=x onerror=alert(1)>\"'";

/// A gate with refusals and sessions to show.
struct Scene {
    gate: Gate,
    pki: TestPki,
    /// Held to the end: the gate dials it.
    _backend: Backend,
}

impl Scene {
    fn new() -> Self {
        let pki = TestPki::new();
        let backend = Backend::echo();
        pki.write("clients.crl", pki.clients.revocation_list(&[], days_from_now(-1), days_from_now(5)));
        let gate = House::new(&pki)
            .client_auth(&format!("revocation_lists = [{:?}]\n", pki.path("clients.crl")))
            .route("nas", backend.address())
            .route_with("ssh", &[&backend.address().to_string()], "allow = [\"bob-laptop\"]")
            .passthrough("mail", backend.address())
            .open();
        Self { gate, pki, _backend: backend }
    }

    /// A client with this certificate that is admitted.
    fn admit(&self, certified: &Certified) -> Client {
        Client::admitted(self.gate.address(), &client(&self.pki, Some(certified)), NAS).unwrap()
    }

    /// A client with this certificate, or none, is refused.
    fn refuse(&self, certified: Option<&Certified>, server_name: &str) {
        let config = client(&self.pki, certified);
        Client::admitted(self.gate.address(), &config, server_name).map(drop).expect_err("refused");
    }

    /// Causes refusals of many kinds, and returns sessions that stay open.
    fn traffic(&self) -> Vec<Client> {
        for _ in 0..3 {
            self.refuse(None, NAS);
        }
        // A client knows of its refusal a moment before the gate reports it.
        self.gate.wait_rejected("certificate", "required", 3);
        self.refuse(None, "guessed.home.example");
        self.refuse(Some(&self.pki.client("carol-tablet")), "ssh.home.example");
        let mut expired = Certified::for_clients("old-phone");
        expired.not_before = days_from_now(-400);
        expired.not_after = days_from_now(-3);
        self.refuse(Some(&self.pki.clients.issue(expired)), NAS);
        // An attacker who can obtain a certificate chooses the text in it.
        let mut server = Certified::for_clients(MARKUP);
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.refuse(Some(&self.pki.clients.issue(server)), NAS);
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"SSH-2.0-x\r\n"] {
            std::io::Write::write_all(&mut connect(self.gate.address()), bytes).unwrap();
        }
        self.gate.wait_rejected("client_hello", "not_tls", 2);
        for name in [MARKUP, "a<b>.home.example"] {
            let mut stream = connect(self.gate.address());
            std::io::Write::write_all(&mut stream, &Hello::tls13(name).records()).unwrap();
            read_to_end(&stream);
        }
        self.gate.wait_for_lines("all rejections", 11, |line| line["event"] == "rejected");
        let (alice, nasty) = (self.pki.client("alice-phone"), self.pki.client(MARKUP));
        vec![self.admit(&alice), self.admit(&alice), self.admit(&nasty)]
    }
}

#[test]
fn page_describes_refusals_sessions_and_expiries() {
    let scene = Scene::new();
    let empty = get(&scene.gate, "/").body;
    assert!(
        empty.contains("No unknown client was turned away yet.") && empty.contains("Ready for your first device"),
        "{empty}"
    );
    let inside = scene.traffic();
    let page = get(&scene.gate, "/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    for words in [
        "Showed no certificate<br><code class=\"quiet\">certificate/required</code></th><td class=\"num\">3<",
        "127.0.0.1 asked for nas.home.example and showed no certificate.",
        "old-phone: certificate has expired",
        "carol-tablet: may not use the route ssh",
        "127.0.0.1 asked for guessed.home.example, and no route has that name.",
        "127.0.0.1 sent something that is not TLS, but ",
        "<bdi class=\"said\">alice-phone</bdi></th><td><span class=\"route\">nas</span> <span class=\"quiet small\">2 connections<",
        "Gate’s certificate",
        "clients.crl",
        "<b>mail</b> <span class=\"mark\">unused",
        "<b>nas</b> <span class=\"mark\">up",
    ] {
        assert!(page.body.contains(words), "{words} in {}", page.body);
    }
    // A passthrough session has no name, but an address.
    let mut mail = connect(scene.gate.address());
    let hello = Hello::tls13("mail.home.example").records();
    std::io::Write::write_all(&mut mail, &hello).unwrap();
    std::io::Read::read_exact(&mut mail, &mut vec![0; hello.len()]).unwrap();
    let page = get(&scene.gate, "/").body;
    let row = "<span class=\"quiet\">no certificate</span></th><td><span class=\"route\">mail</span></td><td><code>127.0.0.1<";
    assert!(page.contains(row), "{page}");
    drop(inside);
}

#[test]
fn page_policy_allows_its_own_script_and_style_only() {
    let scene = Scene::new();
    let page = get(&scene.gate, "/");
    let policy = page.header("content-security-policy").unwrap();
    for part in
        ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"]
    {
        assert!(policy.split("; ").any(|given| given == part), "{part} in {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
    assert_eq!(page.header("cache-control"), Some("no-store"));
}

/// Chromium with a page. It can resolve no name outside of this machine.
fn chromium(scratch: &tempfile::TempDir, options: &[&str], url: &str) -> Finished {
    let mut command: Command = tool("chromium", "chromium");
    command.env("HOME", scratch.path()).args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--virtual-time-budget=4000",
    ]);
    command.arg(format!("--user-data-dir={}", scratch.path().join("profile").display()));
    command.arg(format!("--log-net-log={}", scratch.path().join("net.json").display()));
    run(command.args(options).arg(url)).success()
}

/// The URLs that pages requested, from Chromium's log. Requests of Chromium itself have no page as their initiator.
fn requested(scratch: &tempfile::TempDir) -> Vec<String> {
    let text = std::fs::read_to_string(scratch.path().join("net.json")).unwrap();
    let log: Value = serde_json::from_str(&text).unwrap();
    let events = log["events"].as_array().unwrap();
    let by_a_page = events.iter().filter(|event| {
        let initiator = event["params"]["initiator"].as_str();
        initiator.is_some_and(|initiator| initiator.starts_with("http"))
    });
    by_a_page.filter_map(|event| event["params"]["url"].as_str()).map(str::to_owned).collect()
}

const VIOLATION: &str = "Content Security Policy";

#[test]
fn chromium_without_scripts_shows_the_same_tables() {
    let scene = Scene::new();
    let inside = scene.traffic();
    let url = format!("http://{}/", scene.gate.metrics_address());
    let scratch = without_scripts();
    let shown = chromium(&scratch, &["--dump-dom"], &url);
    let page = shown.text();
    for words in ["Showed no certificate", "alice-phone", "old-phone: certificate has expired"] {
        assert!(page.contains(words), "{words} in {shown}");
    }
    // Nothing that only a script can do, and no reload that destroys a selection.
    assert!(page.contains("id=\"pause\" type=\"button\" hidden") && !page.contains("http-equiv"), "{shown}");
    assert!(!shown.stderr.contains(VIOLATION), "{shown}");
    let requested = requested(&scratch);
    assert!(requested.iter().all(|requested| *requested == url), "{requested:?}");
    drop(inside);
}

/// A new profile with JavaScript switched off.
fn without_scripts() -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("profile/Default");
    std::fs::create_dir_all(&folder).unwrap();
    let preferences = r#"{"profile": {"default_content_setting_values": {"javascript": 2}}}"#;
    std::fs::write(folder.join("Preferences"), preferences).unwrap();
    scratch
}

/// The tests above would notice a violation or a request elsewhere.
#[test]
fn chromium_reports_violations_and_foreign_requests() {
    let page = "<!DOCTYPE html><meta http-equiv=\"Content-Security-Policy\" content=\"script-src 'none'\">\
                <script>alert(1)</script><img src=\"http://127.0.0.1:9/elsewhere.png\">";
    let backend = Backend::http(page);
    let scratch = tempfile::tempdir().unwrap();
    let shown = chromium(&scratch, &["--dump-dom"], &format!("http://{}/", backend.address()));
    assert!(shown.stderr.contains(VIOLATION), "{shown}");
    assert!(requested(&scratch).contains(&"http://127.0.0.1:9/elsewhere.png".to_owned()), "{:?}", requested(&scratch));
}
