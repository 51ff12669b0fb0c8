//! A gate that takes its time to answer, or never does: a renewal ends, the certificate in use stays, and no session is held up.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Command;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doorward::bundle::Bundle;
use doorward::connector::homes::Homes;
use doorward::model::names::ServerName;
use doorward::pki::certs_only;
use rcgen::KeyPair;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::common::backend::Backend;
use crate::common::bundle::bundle;
use crate::common::pki::{Certified, TestPki, days_from_now};
use crate::common::process::{run, run_with_input};
use crate::common::tls_backend;
use crate::house::RENEW;

/// How a renewal is answered.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Never,
    /// One byte of the head in a second.
    SlowHead,
    /// One byte of the body in a second.
    SlowBody,
    /// With a certificate, at the end of the time that is left; and one byte in a second when that certificate is tried.
    Late,
}

/// The time that a renewal has, and what a test allows for on a machine with other work.
const LIMIT: Duration = Duration::from_secs(30 + 4);
const LATE: Duration = Duration::from_secs(20);

/// A device in the last third of its certificate's life, and what it takes for its gate: a service that echoes, and slow renewals.
struct Scene {
    _gate: Backend,
    user: TempDir,
    homes: Homes,
}

impl Scene {
    fn new(answer: Answer) -> Self {
        let pki = TestPki::new();
        let key = KeyPair::generate().unwrap();
        let certify = |from, until| {
            let mut params = Certified::for_clients("alice-laptop");
            (params.not_before, params.not_after) = (days_from_now(from), days_from_now(until));
            pki.clients.issue_for_key(params, KeyPair::from_pem(&key.serialize_pem()).unwrap())
        };
        let next = STANDARD.encode(certs_only::encode(&certify(0, 300).chain()));
        let certified = pki.servers.issue(Certified::for_servers(&[RENEW, "nas.home.example"]));
        let gate = tls_backend::serve(tls_backend::server(&certified), move |tls| {
            let mut part = [0; 4096];
            let Ok(length @ 1..) = tls.read(&mut part) else { return };
            let is_post = part.starts_with(b"POST ");
            if !is_post && !part.starts_with(b"GET ") {
                let mut echo = part[..length].to_vec();
                while tls.write_all(&echo).is_ok() {
                    let Ok(length @ 1..) = tls.read(&mut part) else { return };
                    echo = part[..length].to_vec();
                }
                return;
            }
            let head = |length| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let (at_once, slowly) = match answer {
                Answer::Never => {
                    while let Ok(1..) = tls.read(&mut part) {}
                    return;
                }
                Answer::SlowHead => (String::new(), head(0)),
                Answer::SlowBody => (head(next.len()), next.clone()),
                Answer::Late if is_post => {
                    thread::sleep(LATE);
                    (head(next.len()) + &next, String::new())
                }
                Answer::Late => (String::new(), head(0)),
            };
            let _ = tls.write_all(at_once.as_bytes());
            for byte in slowly.bytes() {
                if tls.write_all(&[byte]).and_then(|()| tls.flush()).is_err() {
                    return;
                }
                thread::sleep(Duration::from_secs(1));
            }
        });
        let user = tempfile::tempdir().unwrap();
        let homes = Homes::at(user.path().join("doorward/homes"));
        let renewal = Some(ServerName::parse(RENEW).unwrap());
        let bundle = Bundle { renewal, ..bundle(&pki, &certify(-80, 20), gate.address(), &["nas"]) };
        homes.keep("home.example", &bundle).unwrap();
        Self { _gate: gate, user, homes }
    }

    fn doorward(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.env("XDG_CONFIG_HOME", self.user.path()).env("HOME", self.user.path()).args(arguments);
        command
    }

    fn text(&self) -> String {
        fs::read_to_string(self.homes.file("home.example").unwrap()).unwrap()
    }
}

/// Does this with each kind of answer at the same time.
fn with_each(answers: &[Answer], attempt: impl Fn(&Scene, Answer) + Sync) {
    thread::scope(|scope| {
        for answer in answers {
            let attempt = &attempt;
            scope.spawn(move || {
                let scene = Scene::new(*answer);
                let before = scene.text();
                attempt(&scene, *answer);
                assert!(scene.text() == before, "{answer:?}: the certificate in use stays");
            });
        }
    });
}

#[test]
fn renewal_that_is_answered_slowly_ends_in_time() {
    with_each(&[Answer::Never, Answer::SlowHead, Answer::SlowBody, Answer::Late], |scene, answer| {
        let begin = Instant::now();
        let ended = run(&mut scene.doorward(&["renew"]));
        let took = begin.elapsed();
        assert_eq!(ended.status.code(), Some(8), "{answer:?}: {ended}");
        assert!(ended.stderr.contains("accepts connections and does not answer\n  try again"), "{answer:?}: {ended}");
        assert!(took < LIMIT, "{answer:?} took {took:?}");
    });
}

#[test]
fn slow_renewal_does_not_hold_up_the_end_of_a_session() {
    with_each(&[Answer::Never, Answer::SlowHead, Answer::SlowBody], |scene, answer| {
        let begin = Instant::now();
        let ended = run_with_input(&mut scene.doorward(&["connect", "nas"]), b"hello").success();
        let took = begin.elapsed();
        assert_eq!((ended.text().as_str(), ended.stderr.as_str()), ("hello", ""), "{answer:?}");
        // Five seconds, and what is allowed for.
        assert!(took < Duration::from_secs(5 + 4), "{answer:?} took {took:?}");
    });
}
