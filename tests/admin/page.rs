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
    assert!(empty.contains("No client has been turned away yet."), "{empty}");
    let inside = scene.traffic();
    let page = get(&scene.gate, "/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    for words in [
        "showed no certificate",
        "127.0.0.1 asked for nas.home.example and showed no certificate.",
        "old-phone's certificate expired 3 days ago.",
        "carol-tablet",
        "policy/identity_not_allowed",
        "asked for nas.home.example and showed no certificate. <strong>3 times</strong>",
        "asked for guessed.home.example, and no route has that name.",
        "sent something that is not TLS, but http.",
        "<th scope=\"row\">nas</th><td class=\"number\">3<",
        "<th scope=\"row\">mail</th><td class=\"number\">0<",
        "alice-phone ×2",
        "the gate's own certificate",
        " <strong>soon</strong>",
        "clients.crl",
        "Most refused sources",
    ] {
        assert!(page.body.contains(words), "{words} in {}", page.body);
    }
    // A passthrough session has no name, but an address.
    let mut mail = connect(scene.gate.address());
    let hello = Hello::tls13("mail.home.example").records();
    std::io::Write::write_all(&mut mail, &hello).unwrap();
    std::io::Read::read_exact(&mut mail, &mut vec![0; hello.len()]).unwrap();
    let page = get(&scene.gate, "/").body;
    let (_, row) = page.split_once("<th scope=\"row\">mail</th><td class=\"number\">1<").expect(&page);
    let (row, _) = row.split_once("</table>").unwrap();
    assert!(row.contains("<td class=\"who\">127.0.0.1"), "{row}");
    drop(inside);
}

#[test]
fn text_of_clients_is_escaped() {
    let scene = Scene::new();
    let inside = scene.traffic();
    let page = get(&scene.gate, "/").body;
    assert!(page.contains("&lt;script&gt;alert('pwned')&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;"), "{page}");
    assert_eq!(page.matches("<script").count(), 1, "{page}");
    assert!(!page.contains("<img") && !page.contains("a<b>"), "{page}");
    // The numbers contain no text of clients.
    let json = get(&scene.gate, "/status.json").body;
    assert!(!json.contains("pwned") && !json.contains("phone"), "{json}");
    drop(inside);
}

#[test]
fn chart_and_metrics_have_the_same_numbers() {
    let scene = Scene::new();
    let inside = scene.traffic();
    let answer = get(&scene.gate, "/status.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let status: Value = serde_json::from_str(&answer.body).unwrap();
    let rows = status["rows"].as_array().unwrap();
    let metrics = scene.gate.metrics();
    let mut rejected = 0.0;
    for row in rows {
        let (key, total) = (row["key"].as_str().unwrap(), row["total"].as_f64().unwrap());
        let steps: f64 = row["steps"].as_array().unwrap().iter().map(|step| step.as_f64().unwrap()).sum();
        assert_eq!(steps, total, "{row}");
        match key.split_once('/') {
            None => assert_eq!((key, total), ("admitted", metrics.sum("doorward_relays_total", &[])), "{row}"),
            Some((stage, reason)) => {
                let labels = [("stage", stage), ("reason", reason)];
                assert_eq!(total, metrics.sum("doorward_connections_rejected_total", &labels), "{row}");
                rejected += total;
            }
        }
    }
    assert_eq!(rejected, metrics.sum("doorward_connections_rejected_total", &[]));
    assert_eq!(rejected, 11.0);
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
fn chromium_draws_the_chart_and_requests_nothing_elsewhere() {
    let scene = Scene::new();
    let inside = scene.traffic();
    let url = format!("http://{}/", scene.gate.metrics_address());
    let scratch = tempfile::tempdir().unwrap();
    let shown = chromium(&scratch, &["--dump-dom"], &url);
    let page = shown.text();
    assert!(page.contains("<html lang=\"en\" class=\"drawn\">"), "{shown}");
    assert!(page.matches("<rect").count() >= 2 * 7, "a line and a bar for each row: {shown}");
    assert!(page.contains("&lt;script&gt;alert('pwned')&lt;/script&gt;"), "{shown}");
    assert!(!shown.stderr.contains(VIOLATION) && !shown.stderr.contains("CONSOLE"), "{shown}");
    let requested = requested(&scratch);
    assert!(requested.contains(&format!("{url}status.json")), "{requested:?}");
    assert!(requested.iter().all(|requested| requested.starts_with(&url)), "{requested:?}");
    drop(inside);
}

#[test]
fn chromium_without_scripts_shows_the_same_tables() {
    let scene = Scene::new();
    let inside = scene.traffic();
    let url = format!("http://{}/", scene.gate.metrics_address());
    let scratch = without_scripts();
    let shown = chromium(&scratch, &["--dump-dom"], &url);
    let page = shown.text();
    for words in ["showed no certificate", "alice-phone ×2", "old-phone's certificate expired 3 days ago."] {
        assert!(page.contains(words), "{words} in {shown}");
    }
    assert!(!page.contains("<rect") && !page.contains("class=\"drawn\""), "{shown}");
    // The elements in noscript apply.
    assert!(page.contains("<meta http-equiv=\"refresh\""), "{shown}");
    assert!(!shown.stderr.contains(VIOLATION), "{shown}");
    let requested = requested(&scratch);
    assert!(requested.iter().all(|requested| *requested == url), "{requested:?}");
    let picture = Picture::new("no-script");
    chromium(&without_scripts(), &["--window-size=1200,1900", &picture.option()], &url);
    picture.take();
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

/// A picture for people to look at: `target/tmp/page-NAME.png`.
struct Picture(String);

impl Picture {
    fn new(name: &str) -> Self {
        let path = format!("{}/page-{name}.png", env!("CARGO_TARGET_TMPDIR"));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn option(&self) -> String {
        format!("--screenshot={}", self.0)
    }

    #[track_caller]
    fn take(&self) -> Vec<u8> {
        let png = std::fs::read(&self.0).unwrap();
        assert!(png.starts_with(b"\x89PNG"));
        png
    }
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

#[test]
fn chromium_renders_light_dark_and_phone_layouts() {
    let scene = Scene::new();
    let inside = scene.traffic();
    let url = format!("http://{}/", scene.gate.metrics_address());
    let pictures = [
        ("light", "--window-size=1200,1900", "--blink-settings=preferredColorScheme=1"),
        ("dark", "--window-size=1200,1900", "--blink-settings=preferredColorScheme=0"),
        ("phone", "--window-size=400,2600", "--blink-settings=preferredColorScheme=1"),
    ]
    .map(|(name, size, look)| {
        let picture = Picture::new(name);
        chromium(&tempfile::tempdir().unwrap(), &[size, look, &picture.option()], &url);
        picture.take()
    });
    assert_ne!(pictures[0], pictures[1], "dark is not light");
    drop(inside);
}
