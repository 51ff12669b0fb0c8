//! The authority that renews devices without the owner: its certificate and its key are placed for the service.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use crate::common::backend::Backend;
use crate::image::{Image, OWNER, steps};
use crate::machine::{Machine, UNPACKED};

const ISSUER: &str = "var/lib/doorward-issuer";
const KEY: &str = "renewals-key.pem";

/// What the owner adds to the configuration, as "doorward ca renewal" says it.
fn section(folder: &str) -> String {
    format!(
        "\n[renewal]\nserver_name = \"renew.home.example\"\n\
         issuer = {{ certificate = \"pki/renewals.pem\", key = \"{folder}/{KEY}\" }}\n"
    )
}

/// An image whose owner has made the authority, with the key in this folder.
fn image(folder: &str) -> Image {
    let image = Image::new();
    image.doorward(&["ca", "renewal", "--folder", "doorward/pki"]).success();
    let file = image.path("home/doorward/doorward.toml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, config + &section(folder)).unwrap();
    image.give(&image.path("home/doorward"));
    image
}

#[test]
fn key_of_the_issuer_is_placed_for_the_gate_alone() {
    let image = image(&format!("/{ISSUER}"));
    let dry = image.install(&["--dry-run"]).success();
    let real = image.install(&[]).success();
    assert_eq!(steps(&dry), steps(&real));
    let (user, group) = image.gate();
    // From the folder of the configuration, as the tests of that have it.
    let placed = format!("../../{ISSUER}");
    assert_eq!(image.attributes(&placed), (user, group, 0o700));
    assert_eq!(image.attributes(&format!("{placed}/{KEY}")), (user, group, 0o400));
    assert_eq!(image.attributes("pki/renewals.pem"), (OWNER, OWNER, 0o644));
    // Not where the gate reads.
    assert!(!image.installed("pki").join(KEY).exists());
    let own = image.path("home/doorward/pki").join(KEY);
    let key = image.path("root").join(ISSUER).join(KEY);
    assert_eq!(fs::read(&key).unwrap(), fs::read(&own).unwrap());
    assert!(real.stderr.contains(&format!("rm {}", own.canonicalize().unwrap().display())), "{real}");

    // The owner does so. What is there is right, and put right.
    fs::remove_file(&own).unwrap();
    let again = image.install(&[]).success();
    assert_eq!(steps(&again), [""; 0], "{again}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    chown(key.parent().unwrap(), Some(0), Some(0)).unwrap();
    assert_eq!(steps(&image.install(&[]).success()).len(), 2);
    assert_eq!(image.attributes(&placed), (user, group, 0o700));
    assert_eq!(image.attributes(&format!("{placed}/{KEY}")), (user, group, 0o400));
    // Another authority in the place of the former.
    image.doorward(&["ca", "renewal", "--replace", "--folder", "doorward/pki"]).success();
    image.install(&[]).success();
    assert_eq!(fs::read(&key).unwrap(), fs::read(&own).unwrap());

    image.install(&["--uninstall"]).success();
    assert!(key.exists());
    image.install(&["--uninstall", "--purge"]).success();
    assert!(!key.parent().unwrap().exists());
}

/// The configuration is the owner's, who is no more than a user: it names no folder that root gives to the gate.
#[test]
fn key_of_the_issuer_elsewhere_stays_as_it_is() {
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let image = image(&outside.path().display().to_string());
    let installed = image.install(&[]).success();
    assert_eq!(fs::metadata(outside.path()).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(!image.path("root").join(ISSUER).exists());
    let note = format!("{} is the key of the renewal authority", outside.path().join(KEY).display());
    assert!(installed.stderr.contains(&note), "{installed}");
}

#[test]
fn key_of_the_issuer_does_not_come_with_the_authority() {
    let image = image(&format!("/{ISSUER}"));
    image.install(&["--with-authority"]).success();
    assert!(image.installed("pki/clients-key.pem").exists());
    assert!(!image.installed("pki").join(KEY).exists());
    assert!(image.path("root").join(ISSUER).join(KEY).exists());
}

/// As root and as the user of the service, where both have the files.
#[test]
fn check_agrees_with_what_was_placed() {
    let (machine, backend) = (Machine::new(), Backend::http("the page"));
    machine.init_with(&[("nas", &backend)]);
    // Not the folder of the machine that the tests run on.
    machine.run("root", "/", &["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/var/lib"]).success();
    machine.run("alice", "/home/alice", &[UNPACKED, "ca", "renewal", "--folder", "doorward/pki"]).success();
    let append = ["bash", "-c", "printf %s \"$0\" >> doorward/doorward.toml", &section(&format!("/{ISSUER}"))];
    machine.run("alice", "/home/alice", &append).success();
    machine.run("root", "/home/alice", &[UNPACKED, "install"]).success();
    for user in ["doorward", "root"] {
        let checked = machine.run(user, "/", &["/usr/local/bin/doorward", "check"]).success();
        assert!(!checked.stderr.contains("not renewed"), "{user}: {checked}");
        assert!(checked.text().contains("without you"), "{user}: {checked}");
    }
    machine.run("alice", "/", &["cat", &format!("/{ISSUER}/{KEY}")]).failure();
    machine.run("doorward", "/", &["cat", &format!("/{ISSUER}/{KEY}")]).success();
}
