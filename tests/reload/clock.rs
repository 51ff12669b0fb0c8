//! The clock jumps: a router without a battery starts in 1970, or the clock is set by hand.
//!
//! That sessions end when the clock goes past their certificate's date is shown by unit tests of `telemetry/sessions.rs`,
//! since the gate looks at its clock once a minute.

use std::fs;
use std::path::Path;

use doorward::model::rejection::Reason;

use crate::client::{Client, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{TestPki, days_from_now};
use crate::home::House;
use crate::{NAS, controlled, doorward};

/// Debian's package `faketime`: a library that shifts the time of a program by what a file says.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

#[test]
fn clock_jumps_cause_refusals_with_their_reason_only() {
    assert!(Path::new(LIBRARY).exists(), "{LIBRARY} is missing: apt-get install faketime");
    let pki = TestPki::new();
    let backend = Backend::echo();
    let clock = pki.write("clock", "+0");
    let list = pki.write("clients.crl", pki.clients.revocation_list(&[], days_from_now(-1), days_from_now(5)));
    let keys = format!("revocation_lists = [{list:?}]");
    let house = House::new(&pki).client_auth(&keys).route("nas", backend.address());
    let gate = Gate::start_with(&controlled(&house), |command| {
        command
            .env("TZ", "UTC")
            .env("LD_PRELOAD", LIBRARY)
            .env("FAKETIME_TIMESTAMP_FILE", &clock)
            .env("FAKETIME_NO_CACHE", "1");
        // Timers use the monotonic clock, which cannot be set.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    });
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let held = Client::admitted(gate.address(), &alice, NAS).unwrap();
    let refusals = [
        ("-1y", Reason::NotYetValid, "not valid"),
        ("+1y", Reason::Expired, "expired"),
        // The first hour: Linux takes no time before 1970 (clock_settime(2), EINVAL).
        ("@1970-01-01 00:30:00", Reason::NotYetValid, "not valid"),
        // The certificate is good for 30 days, the list for five.
        ("+10d", Reason::RevocationListExpired, "list"),
    ];
    for (time, reason, words) in refusals {
        fs::write(&clock, time).unwrap();
        let refused = Client::admitted(gate.address(), &alice, NAS);
        assert!(refused.is_err(), "{time}: admitted");
        let line = gate.wait_for_line(time, |line| line["event"] == "rejected" && line["reason"] == reason.label());
        assert_eq!(line["certificate"]["name"], "alice-phone", "{line}");
        // It says why, and can be asked everything.
        let why = doorward(&gate, &["why", "last"]).success().text();
        assert!(why.to_lowercase().contains(words), "{time}: {why}");
        doorward(&gate, &["status"]).success();
        held.ping().unwrap();
        fs::write(&clock, "+0").unwrap();
        Client::admitted(gate.address(), &alice, NAS).unwrap().ping().unwrap();
    }
}
