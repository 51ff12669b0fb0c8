//! `doorward connect` and `doorward forward` in the last third of a certificate's life, with a key in a token.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use doorward::bundle::{Bundle, BundleKey};

use crate::common::backend::echoed;
use crate::common::pki::days_from_now;
use crate::common::process::wait_until;
use crate::last_third::{Forward, aged, with_certificate_in};
use crate::token::Tokened;

/// A device that has to renew, with so many days left.
fn due(days: i64) -> Tokened {
    let tokened = Tokened::joined("EC:prime256v1");
    with_certificate_in(&tokened.house, &tokened.file(), -80, days);
    tokened
}

impl Tokened {
    fn forward(&self) -> Forward {
        Forward::of(self.doorward(&["forward", "nas=0"]))
    }

    /// When the last attempt began.
    fn note(&self) -> PathBuf {
        self.folder().join("nas.home.example.asked")
    }

    /// As if the last attempt were two hours ago.
    fn hours_later(&self) {
        aged(&self.note());
    }

    /// An attempt begins: two hours later, at the next use. Attempts follow each other.
    fn looks(&self, forward: &Forward) {
        self.hours_later();
        drop(forward.dial());
        wait_until("an attempt begins", || {
            let since = fs::metadata(self.note()).unwrap().modified().unwrap().elapsed().unwrap_or_default();
            (since < Duration::from_secs(3600)).then_some(())
        });
    }
}

/// Sends a line, and reads it back.
fn echo(stream: &mut TcpStream, line: &[u8]) {
    stream.write_all(line).unwrap();
    let mut back = vec![0; line.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, line);
}

#[test]
fn connect_and_forward_renew_with_the_key_of_the_token() {
    let tokened = due(20);
    let before = tokened.text();
    tokened.connects();
    tokened.house.gate.wait_metric("doorward_renewal_requests_total", &[("outcome", "stored")], 1.0);
    // It was signed by the key of the certificate, so no word of the owner is needed on that.
    tokened.house.ca(&["approve", "--all"]).success();
    tokened.hours_later();
    tokened.connects();
    let after = tokened.text();
    assert_ne!(after, before);
    let same =
        |text: &str| matches!(Bundle::parse(text).unwrap().key, BundleKey::Token(uri) if uri == tokened.token.uri());
    assert!(same(&after), "{after}");
    tokened.connects();

    with_certificate_in(&tokened.house, &tokened.file(), -80, 19);
    tokened.hours_later();
    let forward = tokened.forward();
    forward.wait_for("the owner of nas.home.example has to approve it: doorward ca approve alice-laptop");
    tokened.house.ca(&["approve", "--all"]).success();
    tokened.hours_later();
    echoed(&forward.dial(), b"looks");
    forward.wait_for("the certificate for nas.home.example is renewed, valid until 2");
    assert!(same(&tokened.text()), "{}", tokened.text());
    echoed(&forward.dial(), b"with the new one");
}

#[test]
fn token_that_is_away_gives_one_reminder_and_cuts_nothing() {
    let tokened = due(20);
    // The first attempt succeeds: there is a token.
    let forward = tokened.forward();
    forward.wait_for("has to approve it");
    let mut open = forward.dial();
    echo(&mut open, b"before");
    tokened.token.set("gone", true);
    for _ in 0..2 {
        tokened.looks(&forward);
        forward.wait_for("the token \"alice\" was removed");
        forward.wait_for(&format!("expires on {}, and is not renewed: the token", days_from_now(20).date()));
        echo(&mut open, b"still");
    }
    tokened.token.set("gone", false);
    tokened.house.ca(&["approve", "--all"]).success();
    tokened.hours_later();
    echoed(&forward.dial(), b"again");
    forward.wait_for("is renewed, valid until 2");
    assert_eq!(forward.said().matches("and is not renewed").count(), 1, "{}", forward.said());
    echo(&mut open, b"with the old one");
}

#[test]
fn token_that_is_locked_gives_one_reminder_and_is_not_tried() {
    let tokened = due(20);
    let forward = tokened.forward();
    forward.wait_for("has to approve it");
    let mut open = forward.dial();
    echo(&mut open, b"before");
    let logins = tokened.token.count("logins");
    // Plugged in again after other programs have locked it.
    tokened.token.set("gone", true);
    tokened.looks(&forward);
    forward.wait_for("and is not renewed: the token \"alice\" was removed");
    tokened.token.set("locked", true);
    tokened.token.set("gone", false);
    for _ in 0..2 {
        tokened.looks(&forward);
        forward.wait_for("and is not renewed: the PIN of the token \"alice\" is locked");
        echo(&mut open, b"still");
    }
    tokened.token.set("locked", false);
    tokened.house.ca(&["approve", "--all"]).success();
    assert_eq!(tokened.token.count("logins"), logins, "a locked token is not tried");
    tokened.hours_later();
    echoed(&forward.dial(), b"again");
    forward.wait_for("is renewed, valid until 2");
    assert_eq!(forward.said().matches("not renewed: the PIN").count(), 1, "{}", forward.said());
    echo(&mut open, b"with the old one");
}

/// Whose PIN is in no file, and was not entered: the user is not asked for it in the middle of something else.
#[test]
fn token_without_its_pin_gives_a_reminder_in_the_last_two_weeks() {
    for (days, reminds) in [(20, false), (5, true)] {
        let tokened = due(days);
        let bundle = Bundle::parse(&tokened.text()).unwrap();
        let bundle = Bundle { key: BundleKey::Token(tokened.token.uri_without_pin()), ..bundle };
        fs::write(tokened.file(), bundle.to_text()).unwrap();
        let looked = looked(&tokened);
        let reminder = "its key is in a token: doorward renew nas.home.example";
        assert_eq!(looked.len(), usize::from(reminds), "{looked:?}");
        assert!(looked.iter().all(|text| text.contains(reminder)), "{looked:?}");
        assert!(!tokened.folder().join("nas.home.example.asked").exists(), "the gate is not asked");
    }
}

/// What two looks of a program say, whose user has entered no PIN.
fn looked(tokened: &Tokened) -> Vec<String> {
    let said = std::sync::Mutex::new(Vec::new());
    let mut renewals =
        doorward::connector::renew::Renewals::of(doorward::connector::homes::Homes::at(tokened.folder()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..2 {
        runtime.block_on(renewals.look(|told| said.lock().unwrap().push(told.text.clone())));
    }
    said.into_inner().unwrap()
}
