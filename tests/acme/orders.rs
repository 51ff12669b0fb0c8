//! One order at a time: what a server may answer, and what a killed process may leave.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::direct::{Direct, NAMES, Offered};
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

#[tokio::test(flavor = "multi_thread")]
async fn order_leads_to_a_certificate_for_all_names() {
    let direct = Direct::with(&Settings { validates: false, chain: 2, ..Settings::default() });
    let offered = Offered::default();
    let issued = doorward::acme::order::obtain(&direct.wanted, &direct.store(), &direct.client(), &offered).await;
    let issued = issued.unwrap();
    let mut names = offered.names();
    assert_eq!(names.pop().as_deref(), Some("none"));
    names.sort();
    assert_eq!(names, NAMES);
    let chain = crate::direct::certificates(&issued);
    assert_eq!(chain.len(), 3);
    let anchors = [webpki::anchor_from_trusted_cert(&direct.pebble.root()).unwrap().to_owned()];
    let certificate = webpki::EndEntityCert::try_from(&chain[0]).unwrap();
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let (now, usage) = (rustls::pki_types::UnixTime::now(), webpki::KeyUsage::server_auth());
    certificate.verify_for_usage(algorithms, &anchors, &chain[1..], now, usage, None, None).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nine_of_ten_nonces_are_rejected() {
    let direct = Direct::with(&Settings { validates: false, rejected_nonces: 90, ..Settings::default() });
    direct.order().await;
    assert_eq!((direct.pebble.accounts(), direct.pebble.orders()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_authorizations_are_used_again() {
    let direct = Direct::with(&Settings { validates: false, reused_authorizations: 100, ..Settings::default() });
    direct.order().await;
    direct.relay.pass();
    direct.order().await;
    assert_eq!(direct.relay.count(CHALLENGE), 0);
}

/// A process that is killed stops at one of its requests: before the server has it, or before its answer is back.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_request_there_is_one_account_and_a_certificate_at_last() {
    for is_lost in [false, true] {
        let direct = Direct::new();
        for number in 0.. {
            // Each kill is of the whole attempt, at the request with this number.
            let (reached, mut stopped) = tokio::sync::oneshot::channel();
            let mut reached = Some(reached);
            let mut all = 0;
            direct.relay.rule(move |_, _| {
                all += 1;
                match reached.take_if(|_| all == number + 1) {
                    Some(reached) => {
                        if is_lost {
                            // The answer is held back until the process is no more.
                            return Fate::Change(Box::new(move |answer| {
                                let _ = reached.send(());
                                std::thread::sleep(Duration::from_millis(50));
                                answer
                            }));
                        }
                        let _ = reached.send(());
                        Fate::Close
                    }
                    None => Fate::Pass,
                }
            });
            let is_over = tokio::select! {
                biased;
                Ok(()) = &mut stopped => None,
                issued = direct.attempt() => Some(issued),
            };
            // It may have read of the end before it was stopped.
            let is_over = is_over.filter(|issued| issued.is_ok() || stopped.try_recv().is_err());
            if let Some(issued) = is_over {
                issued.unwrap_or_else(|failed| panic!("{number}: {failed}"));
                break;
            }
            assert!(number < 40, "there is no end of requests");
        }
        assert_eq!(direct.pebble.accounts(), 1, "lost: {is_lost}");
        // A process that is killed between the server's order and its own note of it leaves one behind.
        let bound = if is_lost { 2 } else { 1 };
        assert!(direct.pebble.orders() <= bound, "lost: {is_lost}: {} orders", direct.pebble.orders());
    }
}

/// The answers that come at every request once, and what they come to.
fn faults() -> Vec<(&'static str, fn() -> Fate)> {
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

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_at_each_request_costs_one_attempt_at_most() {
    let mut checks = tokio::task::JoinSet::new();
    for group in faults().chunks(2) {
        let group = group.to_vec();
        checks.spawn(async move {
            let direct = Direct::new();
            direct.order().await;
            for (fault, fate) in group {
                for kind in KINDS {
                    direct.relay.once(kind, 0, fate());
                    let first = direct.attempt().await;
                    assert!(direct.relay.count(kind) > 0, "{kind} is not asked");
                    if let Err(failed) = first {
                        assert!(!failed.error.is_empty() && !failed.rate_limited, "{fault} at {kind}: {failed}");
                        direct.relay.pass();
                        direct.order().await;
                    }
                    direct.store().forget_order().unwrap();
                }
            }
            assert_eq!(direct.pebble.accounts(), 1);
        });
    }
    while let Some(check) = checks.join_next().await {
        check.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_while_the_order_is_looked_at_costs_nothing() {
    let direct = Direct::new();
    direct.order().await;
    for kind in [ORDER, AUTHORIZATION, FINALIZE, CERTIFICATE] {
        for (fault, fate) in faults() {
            if fault == "redirect" {
                continue;
            }
            direct.relay.once(kind, 0, fate());
            direct.attempt().await.unwrap_or_else(|failed| panic!("{fault} at {kind}: {failed}"));
            direct.store().forget_order().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limit_is_told_with_what_the_server_asks_for() {
    let direct = Direct::new();
    let limited = || Answer::problem(429, "rateLimited", "too many certificates already issued");
    for kind in ["/dir", "/nonce-plz", "/sign-me-up", NEW_ORDER, AUTHORIZATION, CHALLENGE, ORDER, FINALIZE, CERTIFICATE]
    {
        let orders = direct.pebble.orders();
        direct.relay.once(kind, 0, Fate::Instead(limited().header("Retry-After", "7200")));
        let failed = direct.fails().await;
        assert!(failed.rate_limited, "{kind}: {failed}");
        assert_eq!(failed.retry_after, Some(Duration::from_secs(7200)), "{kind}");
        // An answer to HEAD has no body.
        assert!(kind == "/nonce-plz" || failed.error.contains("too many certificates"), "{kind}: {failed}");
        // The order is kept: going on with it is no new one.
        let kept = [AUTHORIZATION, CHALLENGE, ORDER, FINALIZE, CERTIFICATE].contains(&kind);
        assert_eq!(direct.has_order(), kept, "{kind}");
        direct.relay.pass();
        direct.order().await;
        let placed = direct.pebble.orders() - orders;
        assert_eq!(placed, 1, "{kind}");
        if kind == "/nonce-plz" {
            // So that the next kind is asked for.
            std::fs::remove_file(direct.path("account.json")).unwrap();
        }
    }
    // What an answer of an earlier attempt has asked for is over.
    direct.relay.once(NEW_ORDER, 0, Fate::Instead(Answer::problem(403, "rejectedIdentifier", "not that name")));
    let failed = direct.fails().await;
    assert!(!failed.rate_limited && failed.retry_after.is_none(), "{failed:?}");
    assert_eq!(failed.error, "not that name (rejectedIdentifier)");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_is_busy_is_asked_again_when_it_says() {
    let direct = Direct::new();
    direct.relay.once(ORDER, 0, Fate::Instead(Answer::new(503, "").header("Retry-After", "2")));
    let began = Instant::now();
    direct.order().await;
    assert!(began.elapsed() >= Duration::from_secs(2));
    // An hour is too long to wait within an attempt: the order is gone on with by a later one.
    direct.relay.once(ORDER, 0, Fate::Instead(Answer::new(503, "").header("Retry-After", "3600")));
    let failed = direct.fails().await;
    assert_eq!(failed.retry_after, Some(Duration::from_secs(3600)));
    assert!(direct.has_order());
}

/// Leaves an order of this status, which the server says by itself.
async fn leave(direct: &Direct, status: &'static str) {
    let until = match status {
        "pending" => CHALLENGE,
        "ready" => FINALIZE,
        "valid" => CERTIFICATE,
        other => panic!("{other} is not left"),
    };
    let limited = Answer::problem(429, "rateLimited", "stop here");
    direct.relay.once(until, 0, Fate::Instead(limited));
    direct.fails().await;
    assert!(direct.has_order());
    direct.relay.pass();
}

#[tokio::test(flavor = "multi_thread")]
async fn order_is_gone_on_with_from_any_status() {
    let direct = Direct::new();
    for (number, status) in ["pending", "ready", "valid"].into_iter().enumerate() {
        leave(&direct, status).await;
        direct.order().await;
        assert_eq!(direct.pebble.orders(), number + 1, "{status}");
    }
    // The finalization was done, and its answer was lost twice.
    let lost = |asked: &Asked, count| if asked.kind == FINALIZE && count < 2 { Fate::Lose } else { Fate::Pass };
    direct.relay.rule(lost);
    direct.order().await;
    // It takes its time to issue.
    direct.relay.rule(|asked, count| {
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
    direct.order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn order_that_is_of_no_use_any_more_is_placed_anew_at_once() {
    let direct = Direct::new();
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
        leave(&direct, "pending").await;
        // Of the order that was left only: all is well with the new one.
        let mut is_new = false;
        direct.relay.rule(move |asked, _| {
            is_new |= asked.kind == NEW_ORDER;
            if is_new { Fate::Pass } else { change(asked) }
        });
        direct.attempt().await.unwrap_or_else(|failed| panic!("{what}: {failed}"));
        direct.store().forget_order().unwrap();
        assert_eq!(direct.pebble.orders(), 2 * (number + 1), "{what}");
    }
    assert_eq!(direct.pebble.accounts(), 1);
}

fn status_of(asked: &Asked, kind: &str, status: &'static str) -> Fate {
    if asked.kind != kind {
        return Fate::Pass;
    }
    Fate::Change(Box::new(move |answer| answer.edit(|state| state["status"] = status.into())))
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_challenge_is_told_in_the_words_of_the_server() {
    // Nothing listens where pebble validates.
    let direct = Direct::with(&Settings::default());
    let failed = direct.fails().await;
    for name in NAMES {
        assert!(failed.error.contains(name), "{failed}");
    }
    assert!(failed.error.contains("Failed to connect to 127."), "{failed}");
    assert!(!failed.rate_limited && !direct.has_order(), "{failed}");
    // Of the order that was refused nothing is used again.
    direct.fails().await;
    assert_eq!(direct.pebble.orders(), 2);
    let caa = json!({ "type": "urn:ietf:params:acme:error:caa", "detail": "CAA forbids issuance" });
    direct.relay.rule(move |asked, _| {
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
    let failed = direct.fails().await;
    assert_eq!(failed.error, "CAA forbids issuance (caa)");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_hangs_or_drips_costs_half_a_minute() {
    let [hanging, dripping] = [Fate::Hang, Fate::Drip].map(|fate| async move {
        let direct = Direct::new();
        direct.relay.once(NEW_ORDER, 0, fate);
        let began = Instant::now();
        let failed = direct.fails().await;
        assert!(failed.error.contains("does not answer within 30 seconds"), "{failed}");
        assert!(began.elapsed() < Duration::from_secs(60));
        direct.order().await;
    });
    tokio::join!(hanging, dripping);
}
