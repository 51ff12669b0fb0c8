//! A gate that answers anything: the device keeps what it has, and says what is wrong once.

use std::fs;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doorward::bundle::Bundle;
use doorward::connector::homes::Homes;
use doorward::connector::renew::Renewals;
use doorward::model::names::ServerName;
use doorward::pki::certs_only;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use crate::common::backend::Backend;
use crate::common::bundle::bundle;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::tls_backend;
use crate::house::RENEW;
use crate::last_third::aged;

/// What the service answers, and how often it was asked.
#[derive(Default)]
struct Script {
    reenroll: Vec<u8>,
    cacerts: Vec<u8>,
    asked: usize,
}

/// A device and a gate that is none.
struct Scene {
    _gate: Backend,
    pki: TestPki,
    script: Arc<Mutex<Script>>,
    folder: TempDir,
    key: String,
    homes: Homes,
}

const CACERTS: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

impl Scene {
    fn new() -> Self {
        let pki = TestPki::new();
        let script = Arc::new(Mutex::new(Script { cacerts: CACERTS.to_vec(), ..Script::default() }));
        let shared = Arc::clone(&script);
        let certified = pki.servers.issue(Certified::for_servers(&[RENEW]));
        let gate = tls_backend::serve(tls_backend::server(&certified), move |tls| {
            let mut request = Vec::new();
            let mut part = [0; 4096];
            while !is_whole(&request) {
                match tls.read(&mut part) {
                    Ok(length @ 1..) => request.extend_from_slice(&part[..length]),
                    _ => return,
                }
            }
            let mut script = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = if request.starts_with(b"POST") {
                script.asked += 1;
                &script.reenroll
            } else {
                &script.cacerts
            };
            let _ = tls.write_all(answer);
        });
        let (folder, key) = (tempfile::tempdir().unwrap(), KeyPair::generate().unwrap());
        let homes = Homes::at(folder.path().join("homes"));
        let certified = pki.clients.issue_for_key(params(-80, 20), copy(&key));
        let renewal = Some(ServerName::parse(RENEW).unwrap());
        let bundle = Bundle { renewal, ..bundle(&pki, &certified, gate.address(), &["nas"]) };
        homes.keep("home.example", &bundle).unwrap();
        Self { _gate: gate, pki, script, folder, key: key.serialize_pem(), homes }
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of the device.
    fn key(&self) -> KeyPair {
        KeyPair::from_pem(&self.key).unwrap()
    }

    fn text(&self) -> String {
        fs::read_to_string(self.homes.file("home.example").unwrap()).unwrap()
    }

    /// What two looks say, an hour apart.
    async fn looks(&self) -> Vec<String> {
        let said = Mutex::new(Vec::new());
        let mut renewals = Renewals::of(self.homes.clone());
        for _ in 0..2 {
            renewals.look(|told| said.lock().unwrap().push(told.text.clone())).await;
            aged(&self.folder.path().join("homes/home.example.asked"));
        }
        said.into_inner().unwrap()
    }

    /// Certificates as the gate would send them.
    fn certificates(&self, authority: &Authority, params: CertificateParams, key: KeyPair) -> Vec<u8> {
        answer("200 OK", &STANDARD.encode(certs_only::encode(&authority.issue_for_key(params, key).chain())))
    }
}

fn copy(key: &KeyPair) -> KeyPair {
    KeyPair::from_pem(&key.serialize_pem()).unwrap()
}

fn params(from: i64, until: i64) -> CertificateParams {
    let mut params = Certified::for_clients("alice-laptop");
    (params.not_before, params.not_after) = (days_from_now(from), days_from_now(until));
    params
}

/// Whether a request has its head and all of its body.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    body.len() >= length.unwrap_or(0)
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}

#[tokio::test]
async fn answers_that_are_no_certificate_for_the_device_change_nothing() {
    let scene = Scene::new();
    let before = scene.text();
    let clients = &scene.pki.clients;
    let of_another = {
        let mut params = Certified::for_clients("bob-laptop");
        params.not_after = days_from_now(300);
        params
    };
    let other = KeyPair::generate().unwrap();
    let chain = Bundle::parse(&before).unwrap().chain;
    let in_use = answer("200 OK", &STANDARD.encode(certs_only::encode(&chain)));
    let no_certificate = "has answered something that is no certificate for this device: ";
    let cases: [(Vec<u8>, &str); 14] = [
        (answer("200 OK", "no base64!"), "no certificate for the key of the request"),
        (answer("200 OK", &STANDARD.encode([0x30; 700])), "no certificate for the key of the request"),
        (answer("200 OK", &STANDARD.encode(certs_only::encode(&[]))), "no certificate for the key of the request"),
        (scene.certificates(clients, params(0, 300), other), "no certificate for the key of the request"),
        (scene.certificates(clients, of_another, scene.key()), "it is for another name"),
        (scene.certificates(clients, params(0, 10), scene.key()), "it expires before the one in use"),
        (in_use, "it is the one in use"),
        (answer("500 Internal Server Error", "out of order\u{1b}[2J\n"), "has refused the request: out of order"),
        (answer("302 Found", ""), "has refused the request: status 302"),
        (answer("200 OK", &"A".repeat(200_000)), "length limit exceeded"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "invalid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nMII".to_vec(), no_certificate),
        (b"HTTP/1.1 200 OK\r\nX-Slow: ".to_vec(), "closed the connection to renewal without a reason"),
        (Vec::new(), "closed the connection to renewal without a reason"),
    ];
    let count = cases.len();
    for (reenroll, words) in cases {
        scene.script().reenroll = reenroll;
        let said = scene.looks().await;
        assert_eq!(said.len(), 1, "{words:?} is said once: {said:?}");
        let start =
            format!("the certificate for home.example expires on {}, and is not renewed: ", days_from_now(20).date());
        assert!(said[0].starts_with(&start) && said[0].contains(words), "{words:?}: {said:?}");
        assert!(!said[0].contains('\u{1b}'), "{said:?}");
        assert!(scene.text() == before, "{words}");
    }
    assert_eq!(scene.script().asked, 2 * count);
    // A right one, after all that.
    scene.script().reenroll = scene.certificates(clients, params(0, 300), scene.key());
    let said = scene.looks().await;
    assert!(said.len() == 1 && said[0].contains("is renewed, valid until"), "{said:?}");
    assert!(scene.text() != before);
    assert_eq!(fs::read_dir(scene.homes.folder()).unwrap().count(), 2, "the home, and when the gate was asked");
}

#[tokio::test]
async fn certificate_that_the_gate_does_not_admit_changes_nothing() {
    let scene = Scene::new();
    let before = scene.text();
    scene.script().reenroll = scene.certificates(&scene.pki.clients, params(0, 300), scene.key());
    for (cacerts, words) in [
        (answer("403 Forbidden", "not this one"), "the gate does not admit the new certificate: not this one"),
        (Vec::new(), "closed the connection"),
    ] {
        scene.script().cacerts = cacerts;
        let said = scene.looks().await;
        assert!(said.len() == 1 && said[0].contains(words), "{said:?}");
        assert!(scene.text() == before);
    }
}

#[tokio::test]
async fn gate_that_is_away_changes_nothing() {
    let Scene { _gate: gate, folder, homes, .. } = Scene::new();
    let file = homes.file("home.example").unwrap();
    let before = fs::read_to_string(&file).unwrap();
    drop(gate);
    let said = Mutex::new(Vec::new());
    let mut renewals = Renewals::of(homes);
    for _ in 0..2 {
        renewals.look(|told| said.lock().unwrap().push(told.clone())).await;
        aged(&folder.path().join("homes/home.example.asked"));
    }
    let said = said.into_inner().unwrap();
    assert!(said.len() == 1 && said[0].text.contains("connection refused by 127.0.0.1:"), "{said:?}");
    assert!(!said[0].is_pressing, "there are twenty days");
    assert!(fs::read_to_string(&file).unwrap() == before);
}
