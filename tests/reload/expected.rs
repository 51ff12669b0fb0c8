//! `[[expect]]`: a configuration that breaks one is refused by `check`, at the start and by a reload, with the same words.

use doorward::model::rejection::{Alert, Reason};
use rcgen::SerialNumber;

use crate::client::{Client, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki};
use crate::home::{House, assert_admitted, assert_refused};
use crate::{NAS, controlled, doorward, reload};

/// `access_denied` (RFC 8446 section 6.2).
const ACCESS_DENIED: Alert = Alert(49);

const EXPECTED: &str = "\n[[expect]]\ndevice = \"carol-phone\"\nroute = \"nas\"\nallowed = false\n";

#[test]
fn configuration_that_breaks_an_expectation_is_refused() {
    let pki = TestPki::new();
    let nas = Backend::echo();
    let mut alice = Certified::for_clients("alice-phone");
    alice.serial_number = Some(SerialNumber::from(0x4e_u64));
    let alice = client(&pki, Some(&pki.clients.issue(alice)));
    let carol = client(&pki, Some(&pki.client("carol-phone")));
    let nas_at = nas.address().to_string();
    let allowing = |allow: &str, auth: &str| {
        let house = House::new(&pki).client_auth(auth).route_with("nas", &[&nas_at], &format!("allow = [{allow}]"));
        format!("{}{EXPECTED}", controlled(&house))
    };
    let gate = Gate::start(&allowing("\"alice-phone\"", ""));
    assert_admitted(&gate, || Client::admitted(gate.address(), &alice, NAS));

    // A mistake: "any" for a guest.
    let broken = allowing("\"any\"", "");
    let said = reload(&gate, &broken).failure();
    for needed in [
        "expect[1]\n",
        "the route \"nas\" must refuse carol-phone, and admits it: by \"any\" in its allow (line ",
        "name the devices that may use the route in place of \"any\"",
    ] {
        assert!(said.stderr.contains(needed), "{needed}: {said}");
    }
    assert_refused(&gate, &nas, Reason::IdentityNotAllowed, ACCESS_DENIED, || {
        Client::admitted(gate.address(), &carol, NAS)
    });
    assert_admitted(&gate, || Client::admitted(gate.address(), &alice, NAS));
    let checked = doorward(&gate, &["check"]).failure();
    assert_eq!(checked.status.code(), Some(3), "{checked}");
    let told = |text: &str| text.split_once("wrong: ").map(|(_, told)| told.lines().next().unwrap().to_owned());
    assert_eq!(told(&checked.stderr), told(&said.stderr));
    assert!(told(&said.stderr).is_some());
    let started = Gate::fails_to_start(&broken);
    assert_eq!((started.status.code(), told(&started.stderr)), (Some(3), told(&said.stderr)), "{started}");

    // What is taken away in a configuration that is refused counts all the same.
    let said = reload(&gate, &allowing("\"any\"", "deny = [\"serial:4e\"]")).failure();
    assert!(
        said.stderr.contains("took effect all the same") && said.stderr.contains("must refuse carol-phone"),
        "{said}"
    );
    assert_refused(&gate, &nas, Reason::Denied, ACCESS_DENIED, || Client::admitted(gate.address(), &alice, NAS));
}
