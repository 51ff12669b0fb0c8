//! Lists, exports and protects the files of the folder.

use std::os::unix::fs::MetadataExt;

use doorward::explain::words;
use doorward::model::rejection::Reason;

use crate::common::process::{run, tool};
use crate::home::{Home, mode, refused};

#[test]
fn export_writes_certificate_and_matching_key() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    let read = |file: &str| std::fs::read(home.path(file)).unwrap();
    let exported = home.ca(&["export", "alice-phone"]).success();
    assert_eq!(exported.stdout, read("devices/alice-phone.pem"));
    assert_eq!(home.ca(&["export", "--authority", "servers"]).success().stdout, read("pki/server-ca.pem"));
    home.ca(&["export", "alice-phone", "--output", "stick"]).success();
    for file in ["alice-phone.pem", "alice-phone-key.pem"] {
        assert_eq!(read(&format!("stick/{file}")), read(&format!("devices/{file}")), "{file}");
    }
    assert_eq!(mode(&home.path("stick/alice-phone-key.pem")), 0o600);
    refused(home.ca(&["export", "alice-phone", "--output", "stick"]), 7, &["stick/alice-phone.pem", "--force"]);
    // The key was moved to the device.
    std::fs::remove_dir_all(home.path("devices")).unwrap();
    let exported = home.ca(&["export", "alice-phone", "--output", "stick2"]).success();
    assert!(exported.stderr.contains("The private key is not here"), "{exported}");
    assert!(!home.path("stick2/alice-phone-key.pem").exists());
    // A key that does not match the certificate is not exported.
    home.ca(&["renew", "alice-phone", "--new-key", "--output", "elsewhere"]).success();
    std::fs::create_dir(home.path("devices")).unwrap();
    std::fs::copy(home.path("pki/server-key.pem"), home.path("devices/alice-phone-key.pem")).unwrap();
    let exported = home.ca(&["export", "alice-phone", "--output", "stick3"]).success();
    assert!(exported.stderr.contains("The private key is not here"), "{exported}");
    assert!(!home.path("stick3/alice-phone-key.pem").exists());

    refused(home.ca(&["export", "bob"]), 2, &["no device named \"bob\"", "doorward ca list"]);
    refused(home.ca(&["export", "--authority", "x"]), 2, &["there are: servers, devices"]);
}

#[test]
fn device_files_can_be_on_another_disk() {
    let home = Home::with_authorities();
    let disk = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = |path: &std::path::Path| std::fs::metadata(path).unwrap().dev();
    assert_ne!(device(disk.path()), device(&home.path("pki")), "the same disk");
    let output = disk.path().join("stick");
    home.ca(&["device", "alice-phone", "--output", output.to_str().unwrap()]).success();
    assert_eq!(mode(&output.join("alice-phone-key.pem")), 0o600);
    let certificate = output.join("alice-phone.pem");
    home.openssl(&["verify", "-CAfile", "pki/clients.pem", certificate.to_str().unwrap()]).success();
    assert_eq!(home.devices(), ["alice-phone valid"]);
    assert!(!home.path("pki/.changes").exists() && !home.path("devices").exists());
    // A failure there is detected before anything has changed.
    let before = home.files();
    let taken = disk.path().join("taken");
    std::fs::write(&taken, "").unwrap();
    let failed = home.ca(&["device", "bob-laptop", "--output", taken.join("below").to_str().unwrap()]).failure();
    assert!(failed.stderr.contains("taken"), "{failed}");
    assert_eq!(home.files(), before);
}

#[test]
fn folder_without_inventory_is_not_changed() {
    let home = Home::with_authorities();
    std::fs::remove_file(home.path("pki/inventory.toml")).unwrap();
    let before = home.files();
    refused(home.ca(&["device", "alice-phone"]), 2, &["no inventory.toml", "restore a copy"]);
    refused(home.ca(&["init", "--domain", "home.example"]), 7, &["pki/server-ca.pem"]);
    assert_eq!(home.files(), before);
}

#[test]
fn replaced_file_keeps_its_owner() {
    let home = Home::with_authorities();
    // As for a gate that runs as its own user, whose key root renews.
    const USER: u32 = 65534;
    std::os::unix::fs::chown(home.path("pki/server-key.pem"), Some(USER), Some(USER)).unwrap();
    home.ca(&["server", "--new-key"]).not_proved();
    let key = std::fs::metadata(home.path("pki/server-key.pem")).unwrap();
    assert_eq!((key.uid(), key.gid(), key.mode() & 0o7777), (USER, USER, 0o600));
}

#[test]
fn commands_in_advice_exist() {
    let home = Home::new();
    let mut advised = 0;
    for &reason in Reason::ALL {
        for rest in words(reason).advice.split("doorward ca ").skip(1) {
            let command = rest.split(|c: char| !c.is_ascii_lowercase()).next().unwrap();
            home.ca(&[command, "--help"]).success();
            advised += 1;
        }
    }
    assert!(advised > 3, "{advised}");
}

#[test]
fn list_prints_a_table() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    home.ca(&["revoke", "alice-phone"]).not_proved();
    let list = home.ca(&["list"]).success();
    let text = list.text();
    for words in ["name          for     status", "home.example  server  valid", "alice-phone   device  revoked 20"] {
        assert!(text.contains(words), "{words} is missing: {list}");
    }
    assert!(text.contains("authority devices: 3649 days left, 1 revoked (pki/clients.pem)"), "{list}");
}

#[test]
fn closed_stdout_does_not_panic() {
    let home = Home::with_authorities();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended =
        home.doorward().args(["ca", "list"]).stdout(writer).stderr(std::process::Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("error: Broken pipe") && !said.contains("panicked"), "{said}");
}

#[test]
fn links_in_the_folder_are_not_followed() {
    let home = Home::with_authorities();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(home.path(to), home.path(name)).unwrap();
    std::fs::remove_file(home.path("pki/.lock")).unwrap();
    link("victim", "pki/.lock");
    let failed = home.ca(&["device", "alice-phone"]).failure();
    assert!(failed.stderr.contains("pki/.lock"), "{failed}");
    assert!(!home.path("victim").exists(), "made through the link");
    std::fs::remove_file(home.path("pki/.lock")).unwrap();

    // A committed change behind a link.
    std::fs::create_dir(home.path("elsewhere")).unwrap();
    std::fs::write(home.path("elsewhere/0"), "evil").unwrap();
    std::fs::write(home.path("elsewhere/list.json"), r#"[{"from":"0","to":"clients.pem"}]"#).unwrap();
    link("elsewhere", "pki/.changes");
    let before = home.files();
    let failed = home.ca(&["device", "alice-phone"]).failure();
    assert!(failed.stderr.contains("pki/.changes"), "{failed}");
    assert_eq!(home.files(), before);
    std::fs::remove_file(home.path("pki/.changes")).unwrap();

    // A change is not prepared through a link either.
    link("elsewhere", "pki/.changes.new");
    home.ca(&["device", "alice-phone"]).success();
    assert!(home.path("elsewhere/list.json").exists() && !home.path("pki/.changes.new").exists());
}

#[test]
fn change_of_another_user_is_not_completed() {
    let home = Home::with_authorities();
    // A change committed by another user could make root write anywhere.
    std::fs::create_dir(home.path("pki/.changes")).unwrap();
    std::fs::write(home.path("pki/.changes/0"), "evil").unwrap();
    let list = format!(r#"[{{"from":"0","to":{:?}}}]"#, home.path("victim").display().to_string());
    std::fs::write(home.path("pki/.changes/list.json"), list).unwrap();
    std::os::unix::fs::chown(home.path("pki/.changes"), Some(65534), Some(65534)).unwrap();
    let failed = home.ca(&["list"]).failure();
    for words in ["pki/.changes", "another user"] {
        assert!(failed.stderr.contains(words), "{words} is missing: {failed}");
    }
    assert!(!home.path("victim").exists());
}

#[test]
fn new_files_are_never_readable_by_others() {
    let home = Home::new();
    // The modes of the system calls, not of the final files; and with umask 0.
    let traced = |arguments: &[&str]| {
        let mut shell = std::process::Command::new("/bin/sh");
        shell.current_dir(home.path("")).args(["-c", "umask 0 && exec \"$@\"", "sh"]);
        shell.arg(tool("strace", "strace").get_program()).args([
            "-f",
            "-o",
            "trace",
            "-e",
            "trace=open,openat,mkdir,mkdirat",
        ]);
        run(shell.arg(env!("CARGO_BIN_EXE_doorward")).arg("ca").args(arguments)).success();
        let trace = std::fs::read_to_string(home.path("trace")).unwrap();
        let made = trace.lines().filter(|line| line.contains("O_CREAT") || line.contains("mkdir"));
        let made: Vec<String> = made.map(str::to_owned).collect();
        for line in &made {
            let mode = if line.contains("mkdir") { ", 0700)" } else { ", 0600)" };
            assert!(line.contains(mode), "{line}");
        }
        made.len()
    };
    assert!(traced(&["init", "--domain", "home.example"]) > 10);
    assert!(traced(&["device", "alice-phone"]) > 10);
    assert!(traced(&["renew", "alice-phone", "--new-key"]) > 10);
    assert!(traced(&["export", "alice-phone", "--output", "stick"]) > 2);
    std::fs::write(home.path("passphrase"), "correct horse").unwrap();
    assert!(traced(&["passphrase", "--new-passphrase-file", "passphrase"]) > 3);
}

#[test]
fn key_of_another_device_is_not_exported() {
    let home = Home::with_authorities();
    for name in ["alice-phone", "bob-laptop"] {
        home.ca(&["device", name]).success();
    }
    let [alice, bob] = ["alice-phone", "bob-laptop"].map(|name| home.path(&format!("devices/{name}-key.pem")));
    std::fs::copy(&bob, &alice).unwrap();
    let exported = home.ca(&["export", "alice-phone", "--output", "stick"]).success();
    assert!(exported.stderr.contains("The private key is not here"), "{exported}");
    assert!(!home.path("stick/alice-phone-key.pem").exists());
    let archive = std::fs::read(home.path("devices/alice-phone.p12")).unwrap();
    let renewed = home.ca(&["renew", "alice-phone"]).success();
    assert!(renewed.stderr.contains("The key is not here"), "{renewed}");
    assert_eq!(std::fs::read(home.path("devices/alice-phone.p12")).unwrap(), archive);
    // An authority does not sign with the key of another one.
    std::fs::copy(home.path("pki/server-ca-key.pem"), home.path("pki/clients-key.pem")).unwrap();
    let before = home.files();
    for arguments in [&["device", "carol"][..], &["revoke", "alice-phone"]] {
        refused(home.ca(arguments), 1, &["pki/clients-key.pem", "does not match the certificate"]);
    }
    assert_eq!(home.files(), before);
}
