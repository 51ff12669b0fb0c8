//! One order at a time: what a server may answer, and what a killed process may leave.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::agent::{Home, NAMES, Outcome};
use crate::pebble::Settings;
use crate::relay::{Answer, Asked, Fate};

const NEW_ORDER: &str = "/order-plz";
const ORDER: &str = "/my-order";
const AUTHORIZATION: &str = "/authZ";
const CHALLENGE: &str = "/chalZ";
const FINALIZE: &str = "/finalize-order";
const CERTIFICATE: &str = "/certZ";

/// Every kind of request of an order whose account is known, in the order in which it is sent first.
const KINDS: [&str; 8] = ["/dir", "/nonce-plz", NEW_ORDER, AUTHORIZATION, CHALLENGE, ORDER, FINALIZE, CERTIFICATE];

#[test]
fn order_leads_to_a_certificate_for_all_names() {
    let home = Home::with(&Settings { validates: false, chain: 2, ..Settings::default() });
    let chain = home.order();
    let mut names = home.offered();
    assert_eq!(names.pop().as_deref(), Some("none"));
    names.sort();
    assert_eq!(names, NAMES);
    assert_eq!(chain.len(), 3);
    let anchors = [webpki::anchor_from_trusted_cert(&home.pebble.root()).unwrap().to_owned()];
    let certificate = webpki::EndEntityCert::try_from(&chain[0]).unwrap();
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let (now, usage) = (rustls::pki_types::UnixTime::now(), webpki::KeyUsage::server_auth());
    certificate.verify_for_usage(algorithms, &anchors, &chain[1..], now, usage, None, None).unwrap();
}

#[test]
fn nine_of_ten_nonces_are_rejected() {
    let home = Home::with(&Settings { validates: false, rejected_nonces: 90, ..Settings::default() });
    home.order();
    assert_eq!((home.pebble.accounts(), home.pebble.orders()), (1, 1));
}

#[test]
fn account_is_found_after_as_many_rejected_nonces_as_an_order() {
    let home = Home::new();
    let rejected = || Answer::problem(400, "badNonce", "another server answers");
    home.relay.rule(move |asked, number| match asked.kind.as_str() {
        "/sign-me-up" if number < 90 => Fate::Instead(rejected()),
        _ => Fate::Pass,
    });
    home.order();
    assert_eq!(home.pebble.accounts(), 1);
}

/// RFC 8555 section 6.5: the answer has a nonce that the server takes.
#[test]
fn nonce_of_the_answer_is_used_next() {
    let home = Home::new();
    home.relay.rule(|asked, number| match asked.kind.as_str() {
        "/sign-me-up" if number < 2 => Fate::Change(Box::new(|answer| Answer {
            headers: answer.headers,
            ..Answer::problem(400, "badNonce", "another server answers")
        })),
        NEW_ORDER => Fate::Instead(Answer::problem(503, "serverInternal", "maintenance")),
        _ => Fate::Pass,
    });
    home.fails();
    // One to find the account, one to make it, and none for what was asked again.
    let asked = home.relay.asked();
    let kinds: Vec<&str> = asked.iter().map(|asked| asked.kind.as_str()).collect();
    let account = ["/dir", "/nonce-plz", "/sign-me-up", "/sign-me-up", "/sign-me-up", "/nonce-plz", "/sign-me-up"];
    assert_eq!(kinds[..account.len()], account);
}

#[test]
fn valid_authorizations_are_used_again() {
    let home = Home::with(&Settings { validates: false, reused_authorizations: 100, ..Settings::default() });
    home.order();
    home.relay.pass();
    home.order();
    assert_eq!(home.relay.count(CHALLENGE), 0);
}

/// What goes wrong, and how.
type Fault = (&'static str, fn() -> Fate);

/// The answers that come at every request once, and what they come to.
fn faults() -> Vec<Fault> {
    vec![
        ("closed", || Fate::Close),
        ("lost", || Fate::Lose),
        ("cut", || Fate::Cut),
        ("endless", || Fate::Endless),
        ("garbage", || Fate::Change(Box::new(|answer| Answer { body: b"\xff<html>".to_vec(), ..answer }))),
        ("empty", || Fate::Change(Box::new(|answer| Answer { body: Vec::new(), ..answer }))),
        ("bare 503", || Fate::Instead(Answer::new(503, "<html>maintenance</html>"))),
        ("failure", || Fate::Instead(Answer::problem(500, "serverInternal", "try again"))),
        ("redirect", || Fate::Instead(Answer::new(302, "").header("Location", "https://localhost:1/"))),
        ("no nonce", || {
            Fate::Change(Box::new(|mut answer| {
                answer.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("replay-nonce"));
                answer
            }))
        }),
    ]
}

#[test]
fn each_fault_at_each_request_costs_one_attempt_at_most() {
    let faults = faults();
    let check = |group: &[Fault]| {
        let home = Home::new();
        home.order();
        for (fault, fate) in group {
            for kind in KINDS {
                home.relay.once(kind, 0, fate());
                let outcome = home.attempt();
                assert!(home.relay.count(kind) > 0, "{kind} is not asked");
                if let Outcome::Failed(failed) = outcome {
                    assert!(!failed.error.is_empty() && failed.wait < 3600, "{fault} at {kind}: {failed:?}");
                    home.relay.pass();
                    home.order();
                }
            }
        }
        assert_eq!(home.pebble.accounts(), 1);
        home.stop();
        assert_eq!(home.leftovers(), Vec::<PathBuf>::new());
    };
    std::thread::scope(|scope| {
        for group in faults.chunks(2) {
            scope.spawn(move || check(group));
        }
    });
}

#[test]
fn one_fault_while_the_order_is_looked_at_costs_nothing() {
    let check = |kind: &'static str| {
        let home = Home::new();
        home.order();
        for (fault, fate) in faults() {
            // The owner has moved the server, or it is another one.
            if fault == "redirect" {
                continue;
            }
            home.relay.once(kind, 0, fate());
            match home.attempt() {
                Outcome::Issued => {}
                other => panic!("{fault} at {kind}: {other:?}"),
            }
        }
    };
    std::thread::scope(|scope| {
        for kind in [ORDER, AUTHORIZATION, FINALIZE, CERTIFICATE] {
            scope.spawn(move || check(kind));
        }
    });
}

#[test]
fn rate_limit_is_told_with_what_the_server_asks_for() {
    let home = Home::new();
    let limited = || Answer::problem(429, "rateLimited", "too many certificates already issued");
    for kind in ["/dir", "/nonce-plz", "/sign-me-up", NEW_ORDER, AUTHORIZATION, CHALLENGE, ORDER, FINALIZE, CERTIFICATE]
    {
        let orders = home.pebble.orders();
        home.relay.once(kind, 0, Fate::Instead(limited().header("Retry-After", "7200")));
        let failed = home.fails();
        assert_eq!(failed.wait, 7200, "{kind}: {failed}");
        // An answer to HEAD has no body.
        assert!(kind == "/nonce-plz" || failed.error.contains("too many certificates"), "{kind}: {failed}");
        // The order is kept: going on with it is no new one.
        let kept = [AUTHORIZATION, CHALLENGE, ORDER, FINALIZE, CERTIFICATE].contains(&kind);
        assert_eq!(home.has_order(), kept, "{kind}");
        home.relay.pass();
        home.order();
        let placed = home.pebble.orders() - orders;
        assert_eq!(placed, 1, "{kind}");
        if kind == "/nonce-plz" {
            // So that the next kind is asked for.
            std::fs::write(home.path("account/accounts.json"), "{}").unwrap();
        }
    }
    // What an answer of an earlier attempt has asked for is over.
    home.relay.once(NEW_ORDER, 0, Fate::Instead(Answer::problem(403, "rejectedIdentifier", "not that name")));
    let failed = home.fails();
    assert!((300..=375).contains(&failed.wait), "{failed:?}");
    assert_eq!(failed.error, "not that name (rejectedIdentifier)");
}

#[test]
fn server_that_is_busy_is_asked_again_when_it_says() {
    let home = Home::new();
    home.relay.once(ORDER, 0, Fate::Instead(Answer::new(503, "").header("Retry-After", "2")));
    let began = Instant::now();
    home.order();
    assert!(began.elapsed() >= Duration::from_secs(2));
    // An hour is too long to wait within an attempt: the order is gone on with by a later one.
    home.relay.once(ORDER, 0, Fate::Instead(Answer::new(503, "").header("Retry-After", "3600")));
    let failed = home.fails();
    assert_eq!(failed.wait, 3600);
    assert!(home.has_order());
}

/// Leaves an order of this status, which the server says by itself.
fn leave(home: &Home, status: &'static str) {
    let until = match status {
        "pending" => CHALLENGE,
        "ready" => FINALIZE,
        "valid" => CERTIFICATE,
        other => panic!("{other} is not left"),
    };
    let limited = Answer::problem(429, "rateLimited", "stop here");
    home.relay.once(until, 0, Fate::Instead(limited));
    home.fails();
    assert!(home.has_order());
    home.relay.pass();
}

#[test]
fn order_is_gone_on_with_from_any_status() {
    let home = Home::new();
    for (number, status) in ["pending", "ready", "valid"].into_iter().enumerate() {
        leave(&home, status);
        home.order();
        assert_eq!(home.pebble.orders(), number + 1, "{status}");
    }
    // The finalization was done, and its answer was lost twice.
    let lost = |asked: &Asked, count| if asked.kind == FINALIZE && count < 2 { Fate::Lose } else { Fate::Pass };
    home.relay.rule(lost);
    home.order();
    // It takes its time to issue.
    home.relay.rule(|asked, count| {
        let is_slow = asked.kind == ORDER && count < 6;
        let slow = |answer: Answer| {
            let valid = answer.clone();
            if !String::from_utf8_lossy(&valid.body).contains("\"valid\"") {
                return answer;
            }
            answer.edit(|order| order["status"] = "processing".into()).header("Retry-After", "1")
        };
        if is_slow { Fate::Change(Box::new(slow)) } else { Fate::Pass }
    });
    home.order();
}

#[test]
fn order_that_is_of_no_use_any_more_is_placed_anew_at_once() {
    let home = Home::new();
    type Change = fn(&Asked) -> Fate;
    let useless: [(&str, Change); 7] = [
        ("unknown", |asked| if asked.kind == ORDER { Fate::Instead(Answer::new(404, "")) } else { Fate::Pass }),
        ("of another account", |asked| match asked.kind.as_str() {
            ORDER => Fate::Instead(Answer::problem(403, "unauthorized", "not your order")),
            _ => Fate::Pass,
        }),
        ("invalid", |asked| status_of(asked, ORDER, "invalid")),
        // No status of RFC 8555, and pebble's for an order with a deactivated authorization.
        ("deactivated", |asked| status_of(asked, ORDER, "deactivated")),
        ("authorization deactivated", |asked| status_of(asked, AUTHORIZATION, "deactivated")),
        ("authorization expired", |asked| status_of(asked, AUTHORIZATION, "expired")),
        ("authorization revoked", |asked| status_of(asked, AUTHORIZATION, "revoked")),
    ];
    for (number, (what, change)) in useless.into_iter().enumerate() {
        leave(&home, "pending");
        // Of the order that was left only: all is well with the new one.
        let mut is_new = false;
        home.relay.rule(move |asked, _| {
            is_new |= asked.kind == NEW_ORDER;
            if is_new { Fate::Pass } else { change(asked) }
        });
        match home.attempt() {
            Outcome::Issued => {}
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(home.pebble.orders(), 2 * (number + 1), "{what}");
    }
    assert_eq!(home.pebble.accounts(), 1);
}

fn status_of(asked: &Asked, kind: &str, status: &'static str) -> Fate {
    if asked.kind != kind {
        return Fate::Pass;
    }
    Fate::Change(Box::new(move |answer| answer.edit(|state| state["status"] = status.into())))
}

#[test]
fn refused_challenge_is_told_in_the_words_of_the_server() {
    // Nothing listens where pebble validates.
    let home = Home::with(&Settings::default());
    let failed = home.fails();
    for name in NAMES {
        assert!(failed.error.contains(name), "{failed}");
    }
    assert!(failed.error.contains("Failed to connect to 127."), "{failed}");
    assert!(failed.wait < 3600 && !home.has_order(), "{failed:?}");
    // Of the order that was refused nothing is used again.
    home.fails();
    assert_eq!(home.pebble.orders(), 2);
    let caa = json!({ "type": "urn:ietf:params:acme:error:caa", "detail": "CAA forbids issuance" });
    home.relay.rule(move |asked, _| {
        let error = caa.clone();
        match asked.kind.as_str() {
            ORDER => Fate::Change(Box::new(|answer| {
                answer.edit(|order| {
                    order["status"] = "invalid".into();
                    order["error"] = error;
                })
            })),
            AUTHORIZATION => Fate::Change(Box::new(|answer| {
                answer.edit(|authorization| authorization["challenges"][0]["error"] = serde_json::Value::Null)
            })),
            CHALLENGE => {
                Fate::Instead(Answer::new(200, r#"{"type": "tls-alpn-01", "url": "", "status": "processing"}"#))
            }
            _ => Fate::Pass,
        }
    });
    let failed = home.fails();
    assert_eq!(failed.error, "CAA forbids issuance (caa)");
}

#[test]
fn server_that_hangs_or_drips_costs_half_a_minute() {
    let check = |fate: Fate| {
        let home = Home::new();
        home.relay.once(NEW_ORDER, 0, fate);
        let began = Instant::now();
        let failed = home.fails();
        assert!(failed.error.contains("does not answer within 30 seconds"), "{failed}");
        assert!(began.elapsed() < Duration::from_secs(60));
        home.order();
    };
    std::thread::scope(|scope| {
        for fate in [Fate::Hang, Fate::Drip] {
            scope.spawn(move || check(fate));
        }
    });
}
