//! kill -9: the process is killed at every system call that changes the disk (strace(1), `-e inject`), and the next command
//! must find all of the change or nothing.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use crate::common::process::{run, tool};
use crate::home::Home;

/// System calls that change or sync the disk. The process is killed once before each of them.
const CALLS: [&str; 5] = ["renameat", "renameat2", "fsync", "unlinkat", "mkdirat"];

/// A home that is copied for each run.
struct Template(Home);

impl Template {
    fn copy(&self) -> Home {
        let copy = Home::new();
        run(tool("cp", "coreutils").arg("-a").arg(self.0.path(".")).arg(copy.path("."))).success();
        copy
    }
}

/// Runs `doorward ca` and kills it before its `count`th call of `call`. `false` if it ended before.
#[track_caller]
fn run_killed(home: &Home, call: &str, count: usize, arguments: &[&str]) -> bool {
    let doorward = home.doorward();
    let mut strace = tool("strace", "strace");
    strace.current_dir(doorward.get_current_dir().unwrap());
    strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"]);
    strace.arg(format!("inject={call}:signal=KILL:when={count}"));
    strace.arg(doorward.get_program()).arg("ca").args(arguments);
    let ended = run(&mut strace);
    // strace ends with the status of its command.
    match ended.status.signal().or_else(|| ended.status.code().filter(|code| *code == 128 + 9)) {
        Some(_) => true,
        None => {
            // Some commands report that there is no gate.
            if ended.status.code() != Some(10) {
                ended.success();
            }
            false
        }
    }
}

/// Kills the command at every step, and calls `check`, which returns whether the change is complete. Both answers must occur
/// for killed commands.
#[track_caller]
fn at_every_step(template: &Template, arguments: &[&str], check: impl Fn(&Home, &str) -> bool) {
    let (mut done, mut undone) = (0, 0);
    for call in CALLS {
        for count in 1.. {
            let home = template.copy();
            let killed = run_killed(&home, call, count, arguments);
            let is_done = check(&home, &format!("killed at {call} {count}: {arguments:?}"));
            if !killed {
                assert!(is_done);
                break;
            }
            *if is_done { &mut done } else { &mut undone } += 1;
        }
    }
    assert!(done > 4 && undone > 4, "{done} kills came too late and {undone} too early");
}

fn pem_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let files = entries.map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "pem")).collect()
}

/// Checks that nothing of an interrupted change is left.
#[track_caller]
fn tidy(home: &Home, when: &str) {
    for folder in ["pki", "devices"] {
        let Ok(entries) = std::fs::read_dir(home.path(folder)) else { continue };
        for entry in entries {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with('.') || name == ".lock", "{when}: {name} is left");
        }
    }
}

#[test]
fn killed_device_command_leaves_all_files_or_none() {
    let template = Template(Home::with_authorities());
    template.0.ca(&["device", "first"]).success();
    at_every_step(&template, &["device", "alice-phone"], |home, when| {
        // Before recovery: every issued certificate is in the inventory.
        let given_out =
            home.path("devices/alice-phone-key.pem").exists() || home.path("devices/alice-phone.pem").exists();
        let inventory = std::fs::read_to_string(home.path("pki/inventory.toml")).unwrap();
        assert!(!given_out || inventory.contains("alice-phone"), "{when}");
        let devices = home.devices();
        tidy(home, when);
        let files = pem_files(&home.path("devices"));
        let of_alice = |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("alice-phone");
        let done = devices.len() == 2;
        if !done {
            assert_eq!(devices, ["first valid"], "{when}");
            assert_eq!(files.iter().find(of_alice), None, "{when}");
            // The next command is not blocked.
            home.ca(&["device", "alice-phone"]).success();
        } else {
            assert_eq!(devices, ["first valid", "alice-phone valid"], "{when}");
        }
        let list = home.list();
        let serial = list.last().unwrap()["serial"].as_str().unwrap();
        let written = home.openssl(&["x509", "-in", "devices/alice-phone.pem", "-noout", "-serial"]).success();
        assert_eq!(written.text().trim().to_lowercase(), format!("serial={serial}"), "{when}");
        let public = |arguments: &[&str]| home.openssl(arguments).success().text();
        assert_eq!(
            public(&["pkey", "-in", "devices/alice-phone-key.pem", "-pubout"]),
            public(&["x509", "-in", "devices/alice-phone.pem", "-noout", "-pubkey"]),
            "{when}"
        );
        done
    });
}

#[test]
fn killed_revoke_command_revokes_and_lists_or_neither() {
    let template = Template(Home::with_authorities());
    template.0.ca(&["device", "alice-phone"]).success();
    at_every_step(&template, &["revoke", "alice-phone"], |home, when| {
        let devices = home.devices();
        tidy(home, when);
        let verify = ["verify", "-crl_check", "-CRLfile", "pki/clients.crl", "-CAfile", "pki/clients.pem"];
        let verified = home.openssl(&[&verify[..], &["devices/alice-phone.pem"]].concat());
        match devices[..].first().map(String::as_str) {
            Some("alice-phone valid") => drop(verified.success()),
            Some("alice-phone revoked") => drop(verified.failure()),
            _ => panic!("{when}: {devices:?}"),
        }
        devices == ["alice-phone revoked"]
    });
}

#[test]
fn killed_renew_command_renews_and_revokes_or_neither() {
    let template = Template(Home::with_authorities());
    template.0.ca(&["device", "alice-phone"]).success();
    at_every_step(&template, &["renew", "alice-phone", "--revoke-old"], |home, when| {
        let devices = home.devices();
        tidy(home, when);
        let done = devices == ["alice-phone revoked", "alice-phone valid"];
        assert!(done || devices == ["alice-phone valid"], "{when}: {devices:?}");
        // In both cases the certificate file is the valid one.
        let serial = home.list().last().unwrap()["serial"].as_str().unwrap().to_owned();
        let written = home.openssl(&["x509", "-in", "devices/alice-phone.pem", "-noout", "-serial"]).success();
        assert_eq!(written.text().trim().to_lowercase(), format!("serial={serial}"), "{when}");
        let verify = ["verify", "-crl_check", "-CRLfile", "pki/clients.crl", "-CAfile", "pki/clients.pem"];
        home.openssl(&[&verify[..], &["devices/alice-phone.pem"]].concat()).success();
        done
    });
}

#[test]
fn killed_init_command_creates_all_or_nothing() {
    let template = Template(Home::new());
    at_every_step(&template, &["init", "--domain", "home.example"], |home, when| {
        let listed = home.ca(&["list", "--folder", "pki"]);
        if !listed.status.success() {
            // Nothing that blocks another init.
            home.ca(&["init", "--domain", "home.example"]).success();
        }
        home.ca(&["device", "alice-phone"]).success();
        tidy(home, when);
        home.openssl(&["verify", "-CAfile", "pki/clients.pem", "devices/alice-phone.pem"]).success();
        home.openssl(&["verify", "-CAfile", "pki/server-ca.pem", "pki/server.pem"]).success();
        listed.status.success()
    });
}
