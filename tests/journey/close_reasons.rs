//! One table over every way a connection that was admitted can end: each is brought about on a running gate by a real
//! connection, and metric, log line and what the client was told are checked together. A reason without an entry does not
//! compile.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use doorward::control::client::ask;
use doorward::control::{Answer, Request};
use doorward::model::close::{CloseReason, Ending};
use doorward::model::identity::Sha256;
use doorward::model::rejection::Alert;
use rustix::process::Signal;
use rustls::ClientConfig;
use time::OffsetDateTime;

use super::acme;
use super::reasons::NAME;
use crate::backends::once;
use crate::client::{Client, End, client, reset};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::tls_backend;
use crate::home::{House, Watch};

#[test]
fn every_way_to_end_is_brought_about() {
    let pki = TestPki::new();
    for &reason in CloseReason::ALL {
        eprintln!("{reason:?}");
        end(reason, &pki);
    }
}

/// Lets a connection end for this reason and checks everything that is told about it.
fn end(reason: CloseReason, pki: &TestPki) {
    let echo = Backend::echo();
    let good = client(pki, Some(&pki.client("alice-phone")));
    let house = || House::new(pki);
    let open = |house: House<'_>| house.route("nas", echo.address()).open();
    let ended = |gate: &Gate, expected: &End, finish: &dyn Fn(Client) -> End| {
        let watch = Watch::begin(gate);
        let seen = finish(Client::admitted(gate.address(), &good, NAME).unwrap());
        assert_eq!(seen, *expected, "{reason:?}");
        match reason.ending() {
            // Which one is up to the client.
            Ending::AlertOfTheError => assert!(matches!(seen, End::Alert(_))),
            _ if reason == CloseReason::ClientReset => {}
            _ => assert_eq!(seen, End::of(reason)),
        }
        let line = watch.closed(reason);
        assert_eq!((&line["route"], &line["path"]), (&"nas".into(), &"copy".into()), "{line}");
    };
    match reason {
        CloseReason::ClientClosed => ended(&open(house()), &End::Orderly, &|client| {
            client.close_notify();
            client.end()
        }),
        CloseReason::BackendClosed => {
            let backend = once(|mut stream| {
                let mut request = [0; 4];
                stream.read_exact(&mut request).unwrap();
                stream.write_all(&request).unwrap();
            });
            let gate = house().route("nas", backend).open();
            ended(&gate, &End::Orderly, &|client| client.end());
        }
        CloseReason::ClientReset => ended(&open(house()), &End::Reset, &|client| {
            client.reset();
            End::Reset
        }),
        CloseReason::BackendReset => {
            let (told, tell) = mpsc::channel();
            let backend = once(move |mut stream| {
                let mut request = [0; 4];
                stream.read_exact(&mut request).unwrap();
                stream.write_all(&request).unwrap();
                tell.recv().unwrap();
                reset(stream);
            });
            let gate = house().route("nas", backend).open();
            // Not in order: what has arrived must not look complete.
            ended(&gate, &End::Truncated, &|client| {
                told.send(()).unwrap();
                client.end()
            });
        }
        CloseReason::BackendTruncated => {
            let (certified, trust) = tls_backend::certificate(pki, "truncating.pem");
            // Not in order: TLS knows that there is more, and there is none.
            let backend = tls_backend::serve(tls_backend::server(&certified), |tls| {
                let mut request = [0; 4];
                if tls.read_exact(&mut request).and_then(|()| tls.write_all(&request)).is_ok() {
                    let _ = tls.flush();
                    let _ = tls.sock.shutdown(Shutdown::Write);
                }
            });
            let keys = format!("allow = [\"any\"]\nbackend_tls = {{ trust = {trust:?}, server_name = \"nas.local\" }}");
            let gate = house().route_with("nas", &[&backend.address().to_string()], &keys).open();
            ended(&gate, &End::Truncated, &|client| client.end());
        }
        CloseReason::AcmeChallenge => {
            let server = acme::Server::start(pki);
            let gate = Gate::start(&server.certify(pki, &house().route("nas", echo.address()).config()));
            let digest = server.wait_answered(NAME);
            let watch = Watch::begin(&gate);
            acme::validate(&gate, digest, "-tls1_3");
            let line = watch.closed(reason);
            assert_eq!([&line["route"], &line["path"], &line["server_name"]], ["nas", "copy", NAME], "{line}");
        }
        CloseReason::IdleTimeout => {
            ended(&open(house().timeouts("idle = \"2s\"")), &End::Truncated, &|client| client.end());
        }
        CloseReason::LifetimeLimit => {
            ended(&open(house().timeouts("lifetime = \"4s\"")), &End::Truncated, &|client| {
                loop {
                    if let Err(end) = client.ping() {
                        return end;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            });
        }
        CloseReason::HalfCloseTimeout => {
            let backend = Backend::serve("127.0.0.1:0", |mut stream, state| {
                // It answers, and never ends.
                state.each_read(stream, |bytes| stream.write_all(bytes).is_ok());
            });
            let gate = house().timeouts("half_close = \"2s\"").route("nas", backend.address()).open();
            ended(&gate, &End::Truncated, &|client| {
                client.close_notify();
                client.end()
            });
        }
        CloseReason::DrainDeadline => {
            let mut gate = open(house().timeouts("drain = \"400ms\""));
            let client = Client::admitted(gate.address(), &good, NAME).unwrap();
            gate.signal(Signal::TERM);
            assert_eq!(client.end(), End::Truncated);
            assert_eq!(gate.wait_for_end().code(), Some(5));
            // The metrics ended with the gate; the log stays.
            let line = crate::home::verdicts(&gate).pop().unwrap();
            assert_eq!((&line["event"], &line["reason"]), (&"closed".into(), &reason.label().into()), "{line}");
        }
        CloseReason::Revoked => {
            let mut params = Certified::for_clients("carol-phone");
            params.serial_number = Some(77_u64.into());
            let carol = client(pki, Some(&pki.clients.issue(params)));
            let list = pki.clients.revocation_list(&[77_u64.into()], days_from_now(-1), days_from_now(1));
            let list = pki.write("revoking.crl", list);
            let house = |keys: &str| house().client_auth(keys).route("nas", echo.address());
            cut(reason, &carol, &house(""), &house(&format!("revocation_lists = [{list:?}]")));
        }
        CloseReason::Denied => {
            let lost = pki.client("carol-phone");
            let fingerprint = Sha256::of(&lost.chain()[0]);
            let house = |keys: &str| house().client_auth(keys).route("nas", echo.address());
            let denied = house(&format!("deny = [\"sha256:{fingerprint}\"]"));
            cut(reason, &client(pki, Some(&lost)), &house(""), &denied);
        }
        CloseReason::Expired => {
            let gate = open(house());
            let watch = Watch::begin(&gate);
            let mut params = Certified::for_clients("carol-phone");
            // Enough for a handshake on a busy machine.
            params.not_after = OffsetDateTime::now_utc() + Duration::from_secs(8);
            let carol = client(pki, Some(&pki.clients.issue(params)));
            let client = Client::admitted(gate.address(), &carol, NAME).unwrap();
            // It is told so, and nothing was changed for it.
            assert_eq!(client.end(), End::of(reason));
            let line = watch.closed(reason);
            let detail = line["detail"].as_str().unwrap();
            assert!(detail.starts_with("the certificate, or one above it, expired at "), "{line}");
            gate.wait_metric("doorward_sessions_cut_total", &[("reason", "expired")], 1.0);
        }
        CloseReason::NotAllowed => {
            let house = |allow: &str| house().route_with("nas", &[&echo.address().to_string()], allow);
            cut(reason, &good, &house("allow = [\"any\"]"), &house("allow = [\"bob-laptop\"]"));
        }
        CloseReason::NotTrusted => {
            let others = pki.write("others.pem", Authority::new("Others").pem());
            let keys = format!("allow = [\"any\"]\n[route.client_auth]\ntrust = [{others:?}]");
            let with = |keys: &str| house().route_with("nas", &[&echo.address().to_string()], keys);
            cut(reason, &good, &with("allow = [\"any\"]"), &with(&keys));
        }
        CloseReason::RouteRemoved => {
            let other = house().route("ssh", echo.address());
            cut(reason, &good, &house().route("nas", echo.address()), &other);
        }
        CloseReason::CutByHand => {
            let config = house().route("nas", echo.address()).config();
            let gate = Gate::start(&format!("{config}\n[control]\nsocket = \"control.sock\"\n"));
            let watch = Watch::begin(&gate);
            let client = Client::admitted(gate.address(), &good, NAME).unwrap();
            let cut = Request::Cut { selector: "alice-phone".to_owned() };
            let answer = ask(&gate.folder().join("control.sock"), &cut).unwrap();
            assert!(matches!(&answer, Answer::Cut(cut) if cut.open == 1), "{answer:?}");
            assert_eq!(client.end(), End::of(reason));
            watch.closed(reason);
            gate.wait_metric("doorward_sessions_cut_total", &[("reason", reason.label())], 1.0);
        }
        CloseReason::TlsError => {
            let bad_record_mac = Alert(20);
            ended(&open(house()), &End::Alert(bad_record_mac), &|client| {
                // A record of the right form that is not sealed.
                client.tcp().write_all(&[&[23, 3, 3, 0, 32][..], &[7; 32]].concat()).unwrap();
                client.end()
            });
        }
        CloseReason::Internal => {
            // Only a kernel that refuses keys which it can use brings this about; the unit test of src/relay/kernel has one.
            assert!(
                include_str!("../../src/relay/kernel/tests.rs")
                    .contains("fn rejected_keys_send_nothing_to_the_backend()")
            );
        }
    }
}

/// A guest is in under `before`, and has no right to be in under `after`.
fn cut(reason: CloseReason, guest: &Arc<ClientConfig>, before: &House<'_>, after: &House<'_>) {
    // Only the signal reloads it: it is the reply to that which is looked at.
    let config = |house: &House<'_>| format!("watch = \"off\"\n{}", house.config());
    let gate = Gate::start(&config(before));
    let watch = Watch::begin(&gate);
    let client = Client::admitted(gate.address(), guest, NAME).unwrap();
    let told = gate.reload(&config(after));
    assert_eq!((&told["sessions_kept"], &told["sessions_cut"]), (&0.into(), &1.into()), "{told}");
    // The client is told, so far as TLS has a word for it.
    assert_eq!(client.end(), End::of(reason));
    let line = watch.closed(reason);
    assert!(line["detail"].is_string(), "{line}");
    gate.wait_metric("doorward_sessions_cut_total", &[("reason", reason.label())], 1.0);
    gate.wait_metric("doorward_revocation_lag_seconds_count", &[], 1.0);
}
