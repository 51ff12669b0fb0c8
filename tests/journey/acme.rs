//! A gate with a pending order, and its validators: `tests/acme` has the rest of `[certificate.acme]`, with a real server.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use doorward::model::close::CloseReason;
use doorward::model::identity::Sha256;
use doorward::model::rejection::{Alert, Reason};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ServerConnection, Stream};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::reasons::NAME;
use crate::client::End;
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki};
use crate::common::process::{run_with_input, run_with_open_input, tool, wait_until};
use crate::common::tls_backend;
use crate::home::{House, Watch};

/// An ACME server that makes any account and takes any order, and never looks whether the challenges are answered: orders stay
/// pending.
pub(crate) struct Server {
    backend: Backend,
    trust: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

/// What the server has been told.
#[derive(Default)]
struct Seen {
    /// The thumbprint of the account's key (RFC 7638).
    thumbprint: String,
    names: Vec<String>,
    /// The names whose challenges are answered, says the gate.
    answered: Vec<String>,
}

impl Server {
    /// With a certificate for its address.
    pub(crate) fn start(pki: &TestPki) -> Self {
        let authority = Authority::new("ACME servers");
        let certified = authority.issue(Certified::for_servers(&["localhost"]));
        let trust = pki.write("acme-server.pem", authority.pem());
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::clone(&seen);
        let backend = tls_backend::serve(tls_backend::server(&certified), move |tls| serve(tls, &shared));
        Self { backend, trust, seen }
    }

    /// Puts `[certificate.acme]` in the place of `[certificate]`.
    pub(crate) fn certify(&self, pki: &TestPki, config: &str) -> String {
        let own = pki.config();
        let (files, client_auth) = own.split_once("[client_auth]").unwrap();
        assert!(config.contains(files));
        let Self { backend, trust, .. } = self;
        let acme = format!(
            "[certificate.acme]\ndirectory = \"https://localhost:{}/directory\"\ntrust = {trust:?}\n",
            backend.address().port()
        );
        config.replace(&own, &format!("{acme}\n[client_auth]{client_auth}"))
    }

    /// Waits until the gate answers the challenge of this name, and returns the digest that it has to show.
    pub(crate) fn wait_answered(&self, name: &str) -> Sha256 {
        wait_until("the order to be pending", || {
            let seen = self.seen.lock().unwrap();
            seen.answered.iter().any(|one| one == name).then(|| {
                let number = seen.names.iter().position(|one| one == name).unwrap();
                Sha256::of(format!("token-{number}.{}", seen.thumbprint).as_bytes())
            })
        })
    }
}

/// Answers one request (RFC 8555 section 7).
fn serve(tls: &mut Stream<'_, ServerConnection, &std::net::TcpStream>, seen: &Mutex<Seen>) {
    let Some((path, body, host)) = request(tls) else { return };
    let (status, body) = answer(&path, &body, &host, &mut seen.lock().unwrap());
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nReplay-Nonce: nonce\r\n\
         Location: https://{host}/placed{path}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = tls.write_all(head.as_bytes()).and_then(|()| tls.write_all(body.as_bytes()));
}

/// The path of a request, its body, and the server's own name in it.
fn request(tls: &mut impl Read) -> Option<(String, String, String)> {
    let mut reader = BufReader::new(tls);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut fields = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => fields.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let length = fields.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, String::from_utf8(body).ok()?, fields.remove("host")?))
}

fn answer(path: &str, body: &str, host: &str, seen: &mut Seen) -> (&'static str, Value) {
    let url = |path: &str| format!("https://{host}{path}");
    let part = |key: &str| -> Value {
        let body: Value = serde_json::from_str(body).unwrap();
        serde_json::from_slice(&BASE64.decode(body[key].as_str().unwrap()).unwrap()).unwrap_or_default()
    };
    let number = path.rsplit('/').next().and_then(|number| number.parse::<usize>().ok());
    let challenge = |status: &str| {
        let number = number.unwrap();
        let (url, token) = (url(&format!("/challenge/{number}")), format!("token-{number}"));
        json!({ "type": "tls-alpn-01", "url": url, "token": token, "status": status })
    };
    match path {
        "/directory" => {
            let new = |what: &str| url(&format!("/new/{what}"));
            ("200 OK", json!({ "newNonce": new("nonce"), "newAccount": new("account"), "newOrder": new("order") }))
        }
        "/new/nonce" => ("200 OK", json!({})),
        "/new/account" => {
            let key = part("protected")["jwk"].take();
            let member = |name: &str| key[name].as_str().unwrap().to_owned();
            // RFC 7638 section 3.
            let key = format!(
                "{{\"crv\":\"{}\",\"kty\":\"{}\",\"x\":\"{}\",\"y\":\"{}\"}}",
                member("crv"),
                member("kty"),
                member("x"),
                member("y")
            );
            seen.thumbprint = BASE64.encode(Sha256::of(key.as_bytes()).0);
            ("201 Created", json!({ "status": "valid" }))
        }
        "/new/order" => {
            let names = part("payload")["identifiers"].take();
            let names = names.as_array().unwrap().iter();
            seen.names = names.map(|name| name["value"].as_str().unwrap().to_owned()).collect();
            ("201 Created", order(seen, host))
        }
        "/placed/new/order" => ("200 OK", order(seen, host)),
        _ if path.starts_with("/authorization/") => {
            let name = &seen.names[number.unwrap()];
            let identifier = json!({ "type": "dns", "value": name });
            let body = json!({ "identifier": identifier, "status": "pending", "challenges": [challenge("pending")] });
            ("200 OK", body)
        }
        _ if path.starts_with("/challenge/") => {
            let name = seen.names[number.unwrap()].clone();
            seen.answered.push(name);
            ("200 OK", challenge("processing"))
        }
        _ => ("404 Not Found", json!({ "type": "urn:ietf:params:acme:error:malformed", "detail": path })),
    }
}

fn order(seen: &Seen, host: &str) -> Value {
    let authorizations: Vec<String> =
        (0..seen.names.len()).map(|number| format!("https://{host}/authorization/{number}")).collect();
    let identifiers: Vec<Value> = seen.names.iter().map(|name| json!({ "type": "dns", "value": name })).collect();
    json!({
        "status": "pending",
        "identifiers": identifiers,
        "authorizations": authorizations,
        "finalize": format!("https://{host}/finalize"),
    })
}

/// `openssl s_client` for [`NAME`] with these options.
fn s_client(gate: SocketAddr, options: &[&str]) -> Command {
    let mut command = tool("openssl", "openssl");
    command.args(["s_client", "-servername", NAME, "-connect", &gate.to_string()]).args(options);
    command
}

/// Makes the handshake of a validator. It must be shown a certificate for [`NAME`] with this digest, and nothing else.
pub(crate) fn validate(gate: &Gate, digest: Sha256, version: &str) {
    let output =
        run_with_input(&mut s_client(gate.address(), &[version, "-alpn", "acme-tls/1"]), b"GET / HTTP/1.1\r\n\r\n");
    let text = output.text();
    assert!(text.contains("ALPN protocol: acme-tls/1"), "{output}");
    assert!(text.contains("No client certificate CA names sent") && !text.contains("HTTP/1.1 "), "{output}");
    let certificate = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
    let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
    let found: Vec<_> =
        parsed.extensions().iter().filter(|one| one.oid.to_id_string() == "1.3.6.1.5.5.7.1.31").collect();
    assert_eq!(
        (found.len(), found[0].critical, found[0].value),
        (1, true, [&[4, 32], &digest.0[..]].concat().as_slice())
    );
    // The end is in order: OpenSSL would complain.
    output.success();
}

#[test]
fn validator_is_shown_its_challenge_and_no_other_client_is() {
    let pki = TestPki::new();
    let (echo, server) = (Backend::echo(), Server::start(&pki));
    let house = House::new(&pki).route("nas", echo.address());
    let gate = Gate::start(&server.certify(&pki, &house.config()));
    let digest = server.wait_answered(NAME);
    for version in ["-tls1_3", "-tls1_2"] {
        let watch = Watch::begin(&gate);
        validate(&gate, digest, version);
        watch.closed(CloseReason::AcmeChallenge);

        for options in [&[][..], &["-alpn", "h2"], &["-alpn", "acme-tls/1,h2"]] {
            let watch = Watch::begin(&gate);
            let mut stranger = s_client(gate.address(), &[&[version], options].concat());
            let output = run_with_open_input(&mut stranger, b"hello\n");
            assert!(!output.text().contains("ALPN protocol"), "{output}");
            watch.rejected(Reason::CertificateRequired, &End::Alert(Alert(116)));
        }
    }
    assert_eq!(echo.accepted(), 0);
}
