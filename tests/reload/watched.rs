//! Files that change are taken over by themselves, however they change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use doorward::rejection::{Alert, Reason};
use rcgen::SerialNumber;
use serde_json::Value;

use crate::NAS;
use crate::client::{Client, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki, days_from_now};
use crate::home::{House, assert_admitted, assert_refused};

/// What came of every reload so far that nobody asked for.
fn by_itself(gate: &Gate) -> Vec<Value> {
    gate.lines().into_iter().filter(|line| line["cause"] == "watch").collect()
}

/// Waits for the next one.
#[track_caller]
fn next(gate: &Gate, before: usize) -> String {
    let lines = gate.wait_for_lines("a reload by itself", before + 1, |line| line["cause"] == "watch");
    assert_eq!(lines.len(), before + 1, "one change, one reload: {lines:?}");
    lines[before]["event"].as_str().unwrap().to_owned()
}

/// Puts a file in the place of another, as editors and `ca revoke` do.
fn rename_over(file: &Path, contents: &str) {
    let new = file.with_extension("new");
    fs::write(&new, contents).unwrap();
    fs::rename(new, file).unwrap();
}

/// Turns a link elsewhere, as certbot and Kubernetes do.
fn turn(link: &Path, target: &str) {
    let new = link.parent().unwrap().join("turning");
    symlink(target, &new).unwrap();
    fs::rename(new, link).unwrap();
}

/// Which certificate the gate shows.
fn shown(gate: &Gate, device: &std::sync::Arc<rustls::ClientConfig>) -> Vec<u8> {
    let guest = Client::admitted(gate.address(), device, NAS).unwrap();
    let shown = guest.tls(|connection| connection.peer_certificates().unwrap()[0].to_vec());
    drop(guest);
    gate.settled();
    shown
}

#[test]
fn each_way_in_which_files_are_changed_is_noticed() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let mut params = Certified::for_clients("carol-phone");
    params.serial_number = Some(SerialNumber::from(77));
    let carol = client(&pki, Some(&pki.clients.issue(params)));
    let issue = || pki.servers.issue(Certified::for_servers(&["home.example", "*.home.example"]));

    // certbot: live/home/*.pem lead to archive/home/*N.pem.
    let renew = |number: usize| {
        let issued = issue();
        for (name, contents) in [("fullchain", issued.chain_pem()), ("privkey", issued.key_pem())] {
            pki.write(&format!("archive/home/{name}{number}.pem"), contents);
            turn(&pki.path(&format!("live/home/{name}.pem")), &format!("../../archive/home/{name}{number}.pem"));
        }
        issued.chain()[0].to_vec()
    };
    for folder in ["archive/home", "live/home", "lists/..1", "lists/..2"] {
        fs::create_dir_all(pki.path(folder)).unwrap();
    }
    let first = renew(1);
    // Kubernetes: lists/clients.crl leads through the link ..data to a folder.
    let list = |folder: &str, revoked: &[SerialNumber]| {
        let list = pki.clients.revocation_list(revoked, days_from_now(-1), days_from_now(5));
        pki.write(&format!("lists/{folder}/clients.crl"), list);
    };
    list("..1", &[]);
    list("..2", &[SerialNumber::from(77)]);
    symlink("..1", pki.path("lists/..data")).unwrap();
    symlink("..data/clients.crl", pki.path("lists/clients.crl")).unwrap();

    let lists = format!("revocation_lists = [{:?}]", pki.path("lists/clients.crl"));
    let house = || House::new(&pki).client_auth(&lists);
    let config = |house: House<'_>| {
        house
            .config()
            .replace("server.pem", "live/home/fullchain.pem")
            .replace("server-key.pem", "live/home/privkey.pem")
    };
    let gate = Gate::start(&config(house().route("nas", backend.address())));
    let file = gate.folder().join("doorward.toml");
    assert_eq!(shown(&gate, &alice), first);

    let second = renew(2);
    assert_eq!(next(&gate, 0), "reloaded");
    assert_eq!(shown(&gate, &alice), second);

    assert_admitted(&gate, || Client::admitted(gate.address(), &carol, NAS));
    turn(&pki.path("lists/..data"), "..2");
    assert_eq!(next(&gate, 1), "reloaded");
    assert_refused(&gate, &backend, Reason::Revoked, Alert(44), || Client::admitted(gate.address(), &carol, NAS));

    // In the folder that the link leads to by now, which nobody looked at in the beginning.
    list("..2", &[]);
    assert_eq!(next(&gate, 2), "reloaded");
    assert_admitted(&gate, || Client::admitted(gate.address(), &carol, NAS));

    // An editor, twice: the second file is another one than the gate has first looked at.
    for (number, allow) in [(3, "alice-phone"), (4, "carol-phone")] {
        let keys = format!("allow = [{allow:?}]");
        rename_over(&file, &config(house().route_with("nas", &[&backend.address().to_string()], &keys)));
        assert_eq!(next(&gate, number), "reloaded");
    }
    assert_admitted(&gate, || Client::admitted(gate.address(), &carol, NAS));
    assert_refused(&gate, &backend, Reason::IdentityNotAllowed, Alert(49), || {
        Client::admitted(gate.address(), &alice, NAS)
    });

    // Written in place.
    fs::write(&file, config(house().route("nas", backend.address()))).unwrap();
    assert_eq!(next(&gate, 5), "reloaded");
    assert_admitted(&gate, || Client::admitted(gate.address(), &alice, NAS));
}

#[test]
fn a_burst_is_one_reload_a_mistake_is_told_once_and_who_wants_none_has_none() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let house = House::new(&pki).route("nas", backend.address());
    let gate = Gate::start(&house.config());
    let deaf = Gate::start(&format!("watch = \"off\"\n{}", house.config()));
    let trust = pki.clients.pem();

    for number in 0..200 {
        pki.write("clients.pem", format!("{trust}# {number}\n"));
    }
    assert_eq!(next(&gate, 0), "reloaded");
    pki.write("clients.pem", "");
    assert_eq!(next(&gate, 1), "reload_failed");
    // Somebody else writes into the same folder.
    pki.write("something-else.pem", "");
    pki.write("clients.pem", trust);
    assert_eq!(next(&gate, 2), "reloaded");
    assert_eq!(gate.metrics().sum("doorward_config_last_reload_successful", &[]), 1.0);

    // All of that went past the one that looks only when it is told to.
    assert!(by_itself(&deaf).is_empty());
    // Until it is told to look by itself.
    deaf.reload(&house.config());
    pki.write("clients.pem", format!("{trust}\n"));
    assert_eq!(next(&deaf, 0), "reloaded");
    assert_eq!(next(&gate, 3), "reloaded");
}
