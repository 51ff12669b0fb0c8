//! The process that renews is killed, or its files are not what they should be.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::{Renewer, file_of, gets_in, home, house, is_renewer, issuer, look, ready, take};
use crate::common::gate::Gate;
use crate::common::process::{tool, wait_until};
use crate::house::{House, config};

/// The processes that renew for a gate.
fn renewers(gate: &Gate) -> Vec<String> {
    let children = |pid: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let launchers = children(&gate.pid().to_string());
    launchers.iter().flat_map(|launcher| children(launcher)).filter(|pid| is_renewer(pid)).collect()
}

#[test]
fn process_that_was_killed_is_started_again() {
    let house = house(&["alice-laptop"]);
    let before = renewers(&house.gate);
    let [one] = before.as_slice() else { panic!("{before:?}") };
    kill_process(Pid::from_raw(one.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    // Until then, requests are stored; a device that asks again finds the new process.
    let request = house.request("devices/alice-laptop-key.pem");
    let sent = wait_until("a certificate", || {
        let sent = house.send("alice-laptop", &request);
        assert!(sent.status == 202 || sent.status == 200, "{}", sent.body);
        (sent.status == 200).then_some(sent)
    });
    take(&house, &sent, "alice-laptop", "first");
    assert!(gets_in(&house, "first"));
    assert_ne!(renewers(&house.gate), before);
}

/// Wherever it is killed, there is no answer or a whole one, and the next process goes on.
#[test]
fn process_that_is_killed_at_any_step_leaves_no_half_answer() {
    let house = house(&["alice-laptop"]);
    let text = {
        assert_eq!(house.send("alice-laptop", &house.request("devices/alice-laptop-key.pem")).status, 200);
        fs::read_to_string(file_of(&house, "alice-laptop", "request")).unwrap()
    };
    // Debian's strace.
    let strace = tool("strace", "strace").get_program().to_owned();
    let mut killed = 0;
    for call in ["openat", "flock", "write", "fdatasync", "rename"] {
        for number in 1..=if call == "openat" { 4 } else { 2 } {
            let _ = fs::remove_file(file_of(&house, "alice-laptop", "answer"));
            fs::write(file_of(&house, "alice-laptop", "request"), &text).unwrap();
            let renewer = Renewer::try_start(&house, |command| {
                let mut traced = Command::new(&strace);
                traced.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")]);
                // From the first look on: what comes before is what it reads to start.
                traced.arg("-P").arg(house.folder()).arg("-P").arg(file_of(&house, "alice-laptop", "answer.tmp"));
                traced.arg("-P").arg(house.folder().join("lock"));
                traced.args(["-e", &format!("inject={call}:signal=KILL:when={number}")]);
                traced.arg(command.get_program()).args(command.get_args());
                traced
            });
            let said = renewer.map(|renewer| renewer.look("alice-laptop"));
            killed += u32::from(said == Some(None));
            let answer = fs::read_to_string(file_of(&house, "alice-laptop", "answer"));
            assert!(answer.is_err() || answer.is_ok_and(|text| text.contains("END CERTIFICATE")), "{call} {number}");
            // The next one is not kept from it by what is left.
            assert!(look(&house, "alice-laptop", &text).is_ok(), "{call} {number}");
        }
    }
    assert!(killed >= 4, "{killed}");
}

#[test]
fn two_gates_may_share_the_folder() {
    let house = house(&["alice-laptop", "bob-laptop"]);
    let other = Gate::start(&config(&house.home, &house.nas, &issuer(&house.home, ", days = 30")));
    ready(&other);
    let first = look_many(&house);
    assert_eq!(first, 1, "one of them has answered");
    drop(other);
}

/// Has two processes look at the same request at the same time, and counts those that have issued a certificate.
fn look_many(house: &House) -> usize {
    assert_eq!(house.send("alice-laptop", &house.request("devices/alice-laptop-key.pem")).status, 200);
    fs::remove_file(file_of(house, "alice-laptop", "answer")).unwrap();
    let both = [0; 2].map(|_| Renewer::start(house));
    let said: Vec<Result<_, String>> = std::thread::scope(|scope| {
        let looks: Vec<_> =
            both.iter().map(|renewer| scope.spawn(|| renewer.look("alice-laptop").expect("an answer"))).collect();
        looks.into_iter().map(|look| look.join().unwrap()).collect()
    });
    for said in &said {
        assert!(said.as_ref().err().is_none_or(|why| why.contains("answered meanwhile")), "{said:?}");
    }
    said.iter().filter(|said| said.is_ok()).count()
}

#[test]
fn key_that_others_may_read_or_that_the_gate_reads_is_refused_in_words() {
    let home = home(&["alice-laptop"], 10);
    let nas = crate::common::backend::Backend::echo();
    let file = home.path("issuer/renewals-key.pem");
    for mode in [0o640, 0o604, 0o660] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let said = Gate::fails_to_start(&config(&home, &nas, &issuer(&home, "")));
        assert!(said.stderr.contains("other users may read") && said.stderr.contains("chmod 600"), "{said}");
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    // Where the gate reads as well.
    fs::copy(&file, home.path("pki/renewals-key.pem")).unwrap();
    let beside = issuer(&home, "").replace("issuer/renewals-key.pem", "pki/renewals-key.pem");
    let said = Gate::fails_to_start(&config(&home, &nas, &beside));
    assert!(said.stderr.contains("so it could read this key") && said.stderr.contains("a folder of its own"), "{said}");
    // As an authority of devices.
    let trusted = config(&home, &nas, &issuer(&home, ""));
    let trust = format!("trust = [{:?}", home.path("pki/clients.pem").display().to_string());
    let both = format!("{trust}, {:?}", home.path("pki/renewals.pem").display().to_string());
    let said = Gate::fails_to_start(&trusted.replace(&trust, &both));
    assert!(said.stderr.contains("it could make devices of its own"), "{said}");
    // Without a list.
    let list = format!("revocation_lists = [{:?}]\n", home.path("pki/clients.crl").display().to_string());
    let said = Gate::fails_to_start(&trusted.replace(&list, ""));
    assert!(said.stderr.contains("without a revocation list nothing would end that"), "{said}");
}

/// What it is left: no sockets, and no files but those of the configuration and the folder of requests.
#[test]
fn process_has_a_sandbox_of_its_own_and_no_network() {
    let house = house(&["alice-laptop"]);
    let renewer = Renewer::start(&house);
    let status = fs::read_to_string(format!("/proc/{}/status", renewer.pid())).unwrap();
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim).unwrap_or_default();
    assert_eq!((value("NoNewPrivs:"), value("Seccomp:"), value("Seccomp_filters:")), ("1", "2", "2"), "{status}");
    assert_eq!(value("CapEff:").trim_start_matches('0'), "", "{status}");
}

#[test]
fn what_cannot_be_read_is_not_renewed() {
    let house = house(&["alice-laptop"]);
    assert_eq!(house.send("alice-laptop", &house.request("devices/alice-laptop-key.pem")).status, 200);
    let text = fs::read_to_string(file_of(&house, "alice-laptop", "request")).unwrap();
    let renewer = Renewer::start(&house);
    for file in ["pki/clients.crl", "pki/inventory.toml", "pki/clients.pem", "pki/renewals.pem"] {
        fs::remove_file(file_of(&house, "alice-laptop", "answer")).unwrap();
        let (file, aside) = (house.home.path(file), house.home.path("pki/aside"));
        fs::rename(&file, &aside).unwrap();
        let said = renewer.look("alice-laptop").expect("an answer").expect_err("nothing is issued");
        assert!(said.contains("cannot be read"), "{}: {said}", file.display());
        fs::write(&file, "damaged").unwrap();
        renewer.look("alice-laptop").expect("an answer").expect_err("nothing is issued");
        fs::rename(&aside, &file).unwrap();
        // It is read again for each request.
        assert!(look(&house, "alice-laptop", &text).is_ok());
    }
}
