//! Changed files are reloaded, however they change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use doorward::model::close::CloseReason;
use doorward::model::rejection::{Alert, Reason};
use rcgen::SerialNumber;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::NAS;
use crate::client::{Client, End, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::process::run;
use crate::home::{House, assert_admitted, assert_refused};

/// The log lines of every automatic reload so far.
fn automatic(gate: &Gate) -> Vec<Value> {
    gate.lines().into_iter().filter(|line| line["cause"] == "watch").collect()
}

/// Waits for the next automatic reload.
#[track_caller]
fn next(gate: &Gate, before: usize) -> String {
    let lines = gate.wait_for_lines("an automatic reload", before + 1, |line| line["cause"] == "watch");
    assert_eq!(lines.len(), before + 1, "one change, one reload: {lines:?}");
    lines[before]["event"].as_str().unwrap().to_owned()
}

/// Renames a new file over another, as editors and `ca revoke` do.
fn rename_over(file: &Path, contents: &str) {
    let new = file.with_extension("new");
    fs::write(&new, contents).unwrap();
    fs::rename(new, file).unwrap();
}

/// Gives a link another target, as certbot and Kubernetes do.
fn relink(link: &Path, target: &str) {
    let new = link.parent().unwrap().join("turning");
    symlink(target, &new).unwrap();
    fs::rename(new, link).unwrap();
}

/// The certificate that the gate sends.
fn shown(gate: &Gate, device: &Arc<ClientConfig>) -> Vec<u8> {
    let guest = Client::admitted(gate.address(), device, NAS).unwrap();
    let shown = guest.tls(|connection| connection.peer_certificates().unwrap()[0].to_vec());
    drop(guest);
    gate.settled();
    shown
}

#[test]
fn each_kind_of_file_change_is_detected() {
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
            relink(&pki.path(&format!("live/home/{name}.pem")), &format!("../../archive/home/{name}{number}.pem"));
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
    relink(&pki.path("lists/..data"), "..2");
    assert_eq!(next(&gate, 1), "reloaded");
    assert_refused(&gate, &backend, Reason::Revoked, Alert(44), || Client::admitted(gate.address(), &carol, NAS));

    // In the folder that the link leads to now, which was not watched at the start.
    list("..2", &[]);
    assert_eq!(next(&gate, 2), "reloaded");
    assert_admitted(&gate, || Client::admitted(gate.address(), &carol, NAS));

    // An editor, twice: the second time, the file is another one than at the start.
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
fn burst_is_one_reload_and_an_error_is_logged_once() {
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
    // Another file in the same folder changes.
    pki.write("something-else.pem", "");
    pki.write("clients.pem", trust);
    assert_eq!(next(&gate, 2), "reloaded");
    assert_eq!(gate.metrics().sum("doorward_config_last_reload_successful", &[]), 1.0);

    // The gate with `watch = "off"` has ignored all of this.
    assert!(automatic(&deaf).is_empty());
    // Until watch is turned on.
    deaf.reload(&house.config());
    pki.write("clients.pem", format!("{trust}\n"));
    assert_eq!(next(&deaf, 0), "reloaded");
    assert_eq!(next(&gate, 3), "reloaded");
}

/// Every file that was read is watched, also for a reload that failed, and if its contents are known from another file.
#[test]
fn every_file_that_was_read_is_watched() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let house = |trust: &str| {
        let config = House::new(&pki).route("nas", backend.address()).config();
        config.replace("clients.pem\"]", &format!("clients.pem\", {trust:?}]"))
    };
    let others = Authority::new("Others");
    let (twin, late) = (pki.write("twin.pem", pki.clients.pem()), pki.path("late.pem"));
    let gate = Gate::start(&house(twin.to_str().unwrap()));
    let dave = client(&pki, Some(&others.issue(Certified::for_clients("dave"))));
    // Everything in it was known from the previous file.
    rename_over(&twin, others.pem());
    assert_eq!(next(&gate, 0), "reloaded");
    assert_admitted(&gate, || Client::admitted(gate.address(), &dave, NAS));

    // An error that is fixed in a file which no configuration in force has ever named.
    rename_over(&gate.folder().join("doorward.toml"), &house(late.to_str().unwrap()));
    assert_eq!(next(&gate, 1), "reload_failed");
    fs::write(&late, others.pem().replace("END", "EMD")).unwrap();
    assert_eq!(next(&gate, 2), "reload_failed");
    fs::write(&late, others.pem()).unwrap();
    assert_eq!(next(&gate, 3), "reloaded");
    assert_admitted(&gate, || Client::admitted(gate.address(), &dave, NAS));

    // The new configuration cannot be parsed; the files of the one in force are watched.
    let file = gate.folder().join("doorward.toml");
    rename_over(&file, "[[listener]");
    assert_eq!(next(&gate, 4), "reload_failed");
    rename_over(&late, &format!("{}\n", others.pem()));
    assert_eq!(next(&gate, 5), "reload_failed");
    rename_over(&file, &house(late.to_str().unwrap()));
    assert_eq!(next(&gate, 6), "reloaded");
}

/// Files beside the list change all the time while the list is renewed.
#[test]
fn constant_file_changes_do_not_delay_a_revocation() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let list = |revoked: &[SerialNumber]| {
        pki.write("clients.crl", pki.clients.revocation_list(revoked, days_from_now(-1), days_from_now(5)))
    };
    let lists = format!("revocation_lists = [{:?}]", list(&[]));
    let gate = Gate::start(&House::new(&pki).client_auth(&lists).route("nas", backend.address()).config());
    let mut params = Certified::for_clients("carol-phone");
    params.serial_number = Some(SerialNumber::from(77));
    let carol = client(&pki, Some(&pki.clients.issue(params)));
    let guest = Client::admitted(gate.address(), &carol, NAS).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                pki.write("restless", "");
                thread::sleep(Duration::from_millis(50));
            }
        });
        list(&[SerialNumber::from(77)]);
        let end = guest.end();
        over.store(true, Ordering::SeqCst);
        assert_eq!(end, End::of(CloseReason::Revoked));
    });
    assert_eq!(next(&gate, 0), "reloaded");
}

/// For example, the process is out of descriptors while a list is renewed. No file changes when that is over.
#[test]
fn reload_after_a_transient_error_is_retried() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let list = |revoked: &[SerialNumber]| {
        rename_over(
            &pki.path("clients.crl"),
            &pki.clients.revocation_list(revoked, days_from_now(-1), days_from_now(5)),
        );
    };
    list(&[]);
    let lists = format!("revocation_lists = [{:?}]", pki.path("clients.crl"));
    let gate = Gate::start(&House::new(&pki).client_auth(&lists).route("nas", backend.address()).config());
    let mut params = Certified::for_clients("carol-phone");
    params.serial_number = Some(SerialNumber::from(77));
    let carol = client(&pki, Some(&pki.clients.issue(params)));
    let guest = Client::admitted(gate.address(), &carol, NAS).unwrap();
    let process = Pid::from_raw(gate.pid().try_into().unwrap());
    let maximum = getrlimit(Resource::Nofile).maximum;
    let usual = prlimit(process, Resource::Nofile, Rlimit { current: Some(3), maximum }).unwrap();
    list(&[SerialNumber::from(77)]);
    assert_eq!(next(&gate, 0), "reload_failed");
    guest.ping().unwrap();
    prlimit(process, Resource::Nofile, usual).unwrap();
    assert_eq!(next(&gate, 1), "reloaded");
    assert_eq!(guest.end(), End::of(CloseReason::Revoked));
}

/// From `init` to the revoked phone, as its owner does it: no restart, and no command but `ca revoke`.
#[test]
fn ca_revoke_cuts_a_device_at_the_running_gate() {
    let backend = Backend::echo();
    let home = tempfile::tempdir().unwrap();
    let doorward = |arguments: &[&str]| {
        run(Command::new(env!("CARGO_BIN_EXE_doorward")).current_dir(&home).args(arguments)).success()
    };
    let route = format!("nas={}", backend.address());
    let devices = ["--device", "alice-phone", "--device", "lost-phone"];
    doorward(&[&["init", "--domain", "home.example", "--route", &route][..], &devices].concat());
    let folder = home.path().join("doorward");
    // Beside the files it names, with other addresses.
    let config = fs::read_to_string(folder.join("doorward.toml")).unwrap();
    let config = config.replace("\"pki/", &format!("\"{}/pki/", folder.display()));
    let config = config.replace("127.0.0.1:9180", "127.0.0.1:0").replace("[::]:8443", "127.0.0.1:0");
    let gate = Gate::start(&format!("{config}\n[log]\nformat = \"json\"\n"));

    let enter = |device: &str| {
        let pem = |name: String| folder.join("devices").join(name);
        let chain = CertificateDer::pem_file_iter(pem(format!("{device}.pem"))).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(pem(format!("{device}-key.pem"))).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.join("pki/server-ca.pem")).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        Client::admitted(gate.address(), &Arc::new(config), NAS)
    };
    let shown = || {
        let metrics = gate.metrics();
        let names = metrics.label_values("doorward_certificate_expiry_timestamp_seconds", "name");
        ["alice-phone", "lost-phone"].map(|device| names.contains(&device))
    };
    let (stays, lost) = (enter("alice-phone").unwrap(), enter("lost-phone").unwrap());
    assert_eq!(shown(), [true, true]);
    doorward(&["ca", "revoke", "lost-phone", "--folder", folder.join("pki").to_str().unwrap()]);
    assert_eq!(lost.end(), End::of(CloseReason::Revoked));
    assert_eq!(next(&gate, 0), "reloaded");
    assert_eq!(shown(), [true, false]);
    let line = gate.wait_for_line("it is out", |line| line["event"] == "closed");
    assert_eq!((&line["reason"], &line["certificate"]["name"]), (&"revoked".into(), &"lost-phone".into()), "{line}");
    assert_eq!(enter("lost-phone").map(|_| ()), Err(End::Alert(Alert(44))));
    stays.ping().unwrap();
    drop(stays);
}
