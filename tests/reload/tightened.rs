//! What takes rights away is not held up by a configuration that cannot be loaded: attacks.md row 34.

use std::fs;

use doorward::model::rejection::{Alert, Reason};
use rcgen::{CertificateRevocationListParams, SerialNumber};

use crate::client::{Client, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::home::{House, assert_admitted, assert_refused};
use crate::{NAS, SSH, controlled, doorward_at_socket, reload};

const REVOKED: Alert = Alert(44);
const ACCESS_DENIED: Alert = Alert(49);

fn numbered(pki: &TestPki, name: &str, serial: u64) -> Certified {
    let mut params = Certified::for_clients(name);
    params.serial_number = Some(SerialNumber::from(serial));
    pki.clients.issue(params)
}

/// A list of `authority` in the gate's file.
fn write_list(pki: &TestPki, authority: &Authority, revoked: &[u64], number: u64) {
    let revoked: Vec<SerialNumber> = revoked.iter().map(|serial| SerialNumber::from(*serial)).collect();
    let list = Authority::for_lists(&revoked, days_from_now(-1), days_from_now(5));
    let list = CertificateRevocationListParams { crl_number: SerialNumber::from(number), ..list };
    fs::rename(pki.write("clients.crl.new", authority.sign_list(list)), pki.path("clients.crl")).unwrap();
}

fn house(pki: &TestPki, backend: &Backend, keys: &str) -> String {
    let keys = format!("revocation_lists = [{:?}]\n{keys}", pki.path("clients.crl"));
    controlled(&House::new(pki).client_auth(&keys).route("nas", backend.address()))
}

#[test]
fn row_34_broken_key_or_configuration_device_is_revoked() {
    for broken in ["key.pem", "[limits", "nonsense = true\n"] {
        let (pki, backend) = (TestPki::new(), Backend::echo());
        write_list(&pki, &pki.clients, &[], 1);
        let good = house(&pki, &backend, "");
        let gate = Gate::start(&good);
        let lost = client(&pki, Some(&numbered(&pki, "lost-phone", 77)));
        let mine = client(&pki, Some(&numbered(&pki, "alice-phone", 78)));
        let [session, stays] = [&lost, &mine].map(|device| Client::admitted(gate.address(), device, NAS).unwrap());

        let key = fs::read(pki.path("server-key.pem")).unwrap();
        let config = if broken == "key.pem" {
            fs::remove_file(pki.path("server-key.pem")).unwrap();
            good.clone()
        } else {
            format!("{broken}{good}")
        };
        write_list(&pki, &pki.clients, &[77], 2);
        let output = reload(&gate, &config).failure();
        assert_eq!(output.status.code(), Some(3), "{output}");
        for words in ["took effect all the same", "revocation list number 2", "Connections cut: 1. Errors"] {
            assert!(output.stderr.contains(words), "{broken}: {words:?} is missing: {output}");
        }
        let line = gate.wait_for_line("the failed reload", |line| line["event"] == "reload_failed");
        assert_eq!((&line["sessions_cut"], line["in_force"].as_array().unwrap().len()), (&1.into(), 1), "{line}");
        session.end();
        gate.wait_for_line("it is cut", |line| line["event"] == "closed" && line["reason"] == "revoked");
        let out = || {
            assert_refused(&gate, &backend, Reason::Revoked, REVOKED, || Client::admitted(gate.address(), &lost, NAS))
        };
        out();
        stays.ping().unwrap();
        assert_admitted(&gate, || Client::admitted(gate.address(), &mine, NAS));
        // The same again is no news, and an older list in the file takes nothing back.
        write_list(&pki, &pki.clients, &[], 1);
        let again = reload(&gate, &config).failure();
        assert!(!again.stderr.contains("took effect all the same"), "{again}");
        out();

        write_list(&pki, &pki.clients, &[77], 2);
        pki.write("server-key.pem", &key);
        reload(&gate, &good).success();
        out();
        stays.ping().unwrap();
        drop(stays);
    }
}

#[test]
fn row_34_broken_configuration_deny_entry_applies() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    write_list(&pki, &pki.clients, &[], 1);
    let gate = Gate::start(&house(&pki, &backend, ""));
    let lost = client(&pki, Some(&numbered(&pki, "lost-phone", 77)));
    let mine = client(&pki, Some(&numbered(&pki, "alice-phone", 78)));
    let [session, stays] = [&lost, &mine].map(|device| Client::admitted(gate.address(), device, NAS).unwrap());
    // One of the entries is wrong, and so is something else.
    let broken =
        house(&pki, &backend, "deny = [\"serial:4d\", \"unreadable\"]").replace("[limits]", "[limits]\nlimit = 3");
    let output = reload(&gate, &broken).failure();
    assert!(output.stderr.contains("deny = \"serial:4d\"") && output.stderr.contains("Connections cut: 1"), "{output}");
    session.end();
    gate.wait_for_line("it is cut", |line| line["event"] == "closed" && line["reason"] == "denied");
    assert_refused(&gate, &backend, Reason::Denied, ACCESS_DENIED, || Client::admitted(gate.address(), &lost, NAS));
    stays.ping().unwrap();
    drop(stays);
}

#[test]
fn row_34_broken_configuration_forged_list_is_ignored() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    write_list(&pki, &pki.clients, &[], 1);
    let good = house(&pki, &backend, "");
    let gate = Gate::start(&good);
    let mine = client(&pki, Some(&numbered(&pki, "alice-phone", 78)));
    let stays = Client::admitted(gate.address(), &mine, NAS).unwrap();
    // The name of the authority, and another key.
    write_list(&pki, &Authority::new("Clients of home.example"), &[78], 2);
    for config in [good.clone(), format!("[limits{good}")] {
        let output = reload(&gate, &config).failure();
        assert!(!output.stderr.contains("took effect all the same"), "{output}");
        stays.ping().unwrap();
        assert_admitted(&gate, || Client::admitted(gate.address(), &mine, NAS));
    }
    drop(stays);
}

#[test]
fn row_34_half_written_file_its_complete_lists_apply() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let others = Authority::new("Others");
    pki.write("clients.pem", format!("{}{}", pki.clients.pem(), others.pem()));
    let list = |authority: &Authority, revoked: &[SerialNumber], number: u64| {
        let list = Authority::for_lists(revoked, days_from_now(-1), days_from_now(5));
        authority.sign_list(CertificateRevocationListParams { crl_number: SerialNumber::from(number), ..list })
    };
    let write = |first: &str, second: &str| drop(pki.write("clients.crl", format!("{first}{second}")));
    write(&list(&others, &[], 1), &list(&pki.clients, &[], 1));
    let good = house(&pki, &backend, "");
    let gate = Gate::start(&good);
    let lost = client(&pki, Some(&numbered(&pki, "lost-phone", 77)));
    let mine = client(&pki, Some(&numbered(&pki, "alice-phone", 78)));
    let [session, stays] = [&lost, &mine].map(|device| Client::admitted(gate.address(), device, NAS).unwrap());
    let (whole, torn) = (list(&pki.clients, &[SerialNumber::from(77_u64)], 2), list(&others, &[], 2));
    write(&whole, &torn[..torn.len() / 2]);
    let output = reload(&gate, &good).failure();
    assert!(output.stderr.contains("clients.crl is damaged"), "{output}");
    assert!(
        output.stderr.contains("revocation list number 2") && output.stderr.contains("Connections cut: 1"),
        "{output}"
    );
    session.end();
    gate.wait_closed("nas", 1);
    assert_refused(&gate, &backend, Reason::Revoked, REVOKED, || Client::admitted(gate.address(), &lost, NAS));
    stays.ping().unwrap();
    drop(stays);
}

/// The text ends before the load comes to the files that it names.
#[test]
fn row_34_unreadable_configuration_tells_of_unreadable_lists() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    write_list(&pki, &pki.clients, &[], 1);
    let good = house(&pki, &backend, "deny = [\"serial:4d\"]");
    let gate = Gate::start(&good);
    fs::write(pki.path("clients.crl"), "-----BEGIN X509 CRL-----\nAAAA\n").unwrap();
    // Where the load has come to them, they are told of once as well.
    for broken in ["[limits\n", "nonsense = true\n"] {
        let told = reload(&gate, &format!("{broken}{good}")).failure();
        assert_eq!(told.stderr.matches("clients.crl is damaged").count(), 1, "{told}");
        let shown = doorward_at_socket(&gate, &["status"]).success();
        assert_eq!(shown.text().matches("clients.crl is damaged").count(), 1, "{shown}");
    }
    fs::remove_file(pki.path("clients.crl")).unwrap();
    let told = reload(&gate, &format!("[limits\n{good}")).failure();
    assert_eq!(told.stderr.matches("there is no file").count(), 1, "{told}");
    write_list(&pki, &pki.clients, &[], 1);
    let told = reload(&gate, &format!("[limits\n{good}")).failure();
    assert!(!told.stderr.contains("clients.crl"), "{told}");
}

/// The list of an authority whose certificate only clients send counts on the routes that name its file.
#[test]
fn row_34_copies_of_an_intermediates_list_all_apply() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let below = pki.clients.intermediate(Authority::for_authorities("Phones"));
    let list = |authority: &Authority, revoked: &[SerialNumber], number: u64| {
        let list = Authority::for_lists(revoked, days_from_now(-1), days_from_now(5));
        authority.sign_list(CertificateRevocationListParams { crl_number: SerialNumber::from(number), ..list })
    };
    let clients = pki.write("clients.crl", list(&pki.clients, &[], 1));
    let [nas, ssh] = ["nas.crl", "ssh.crl"].map(|name| pki.write(name, list(&below, &[], 1)));
    let address = backend.address().to_string();
    let own = |file| format!("allow = [\"any\"]\n[route.client_auth]\nrevocation_lists = [{clients:?}, {file:?}]");
    let house = House::new(&pki).route_with("nas", &[&address], &own(nas)).route_with("ssh", &[&address], &own(ssh));
    let good = controlled(&house);
    let gate = Gate::start(&good);
    let mut params = Certified::for_clients("lost-phone");
    params.serial_number = Some(SerialNumber::from(77_u64));
    let lost = client(&pki, Some(&below.issue(params)));
    for name in [NAS, SSH] {
        assert_admitted(&gate, || Client::admitted(gate.address(), &lost, name));
    }
    let broken = format!("nonsense = true\n{good}");
    let new = list(&below, &[SerialNumber::from(77_u64)], 2);
    for file in ["nas.crl", "ssh.crl"] {
        pki.write(file, &new);
        reload(&gate, &broken).failure();
    }
    for name in [NAS, SSH] {
        assert_refused(&gate, &backend, Reason::Revoked, REVOKED, || Client::admitted(gate.address(), &lost, name));
    }
}

#[test]
fn row_34_unreadable_inventory_is_a_warning() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    write_list(&pki, &pki.clients, &[], 1);
    let good = house(&pki, &backend, "").replace("[metrics]", "[metrics]\ninventory = \"inventory.toml\"");
    let gate = Gate::start(&good);
    let lost = client(&pki, Some(&numbered(&pki, "lost-phone", 77)));
    let session = Client::admitted(gate.address(), &lost, NAS).unwrap();
    write_list(&pki, &pki.clients, &[77], 2);
    let output = doorward_at_socket(&gate, &["reload"]).success();
    assert!(output.stderr.contains("metrics.inventory: no devices are shown"), "{output}");
    session.end();
    gate.wait_for_line("it is cut", |line| line["event"] == "closed" && line["reason"] == "revoked");
}
