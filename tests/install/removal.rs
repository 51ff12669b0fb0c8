//! `--uninstall` and `--purge`, of a system in a folder: what is left behind.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::image::{Image, steps};

#[test]
fn uninstall_keeps_the_configuration_and_purge_leaves_nothing() {
    let image = Image::new();
    let before = image.contents();
    image.install(&[]).success();
    let config = |image: &Image| {
        image.contents().into_iter().filter(|(path, _)| path.starts_with(image.installed(""))).collect::<Vec<_>>()
    };
    let configured = config(&image);
    image.install(&["--uninstall"]).success();
    assert_eq!(config(&image), configured);
    assert!(!image.path("root/usr/local/bin/doorward").exists());
    assert!(!image.path("root/etc/systemd/system/doorward.service").exists());
    image.gate();
    image.install(&["--uninstall", "--purge"]).success();
    assert_eq!(leftovers(&image, &before), <[PathBuf; 0]>::default());
    let nothing = image.install(&["--uninstall", "--purge"]).success();
    assert!(nothing.stderr.contains("Nothing is installed."), "{nothing}");
    let report = |arguments| image.install(arguments).failure().stderr;
    assert!(report(&["--purge"]).contains("--uninstall"));
}

/// What is there and was not before, but for the system's own folders, and the copies that shadow-utils keeps of its files.
fn leftovers(image: &Image, before: &BTreeMap<PathBuf, (u32, u32, Vec<u8>)>) -> Vec<PathBuf> {
    let own = ["etc/systemd/system", "etc/modules-load.d", "usr/local/bin", "usr/local/share/man"];
    let own = own.map(|folder| image.path("root").join(folder));
    let of_the_system = |path: &PathBuf| own.iter().any(|folder| folder.starts_with(path));
    let changed = image.contents().into_iter().filter(|(path, there)| before.get(path) != Some(there));
    changed
        .map(|(path, _)| path)
        .filter(|path| !of_the_system(path) && !path.to_string_lossy().ends_with('-'))
        .collect()
}

/// A low port, kernel TLS, keys that systemd hands over, session tickets with keys in files: what only some installations have.
#[test]
fn purge_leaves_nothing_of_drop_ins_modules_and_credentials() {
    let image = Image::new();
    let folder = image.path("home/doorward");
    image.doorward(&["generate", "ticket-key", folder.join("tickets/current.key").to_str().unwrap()]).success();
    let config = fs::read_to_string(folder.join("doorward.toml")).unwrap().replace(":8443\"", ":443\"");
    let config = format!("kernel_tls = \"auto\"\n{config}\n[tickets]\nkeys = [\"tickets/current.key\"]\n");
    fs::write(folder.join("doorward.toml"), config).unwrap();
    image.give(&folder);
    let before = image.contents();
    image.install(&["--load-credential"]).success();
    // As a boot of the image would leave it.
    let wants = image.path("root/etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    symlink("/etc/systemd/system/doorward.service", wants.join("doorward.service")).unwrap();
    for there in [
        "systemd/system/doorward.service.d/install.conf",
        "modules-load.d/doorward.conf",
        "doorward/tickets/current.key",
    ] {
        assert!(image.path("root/etc").join(there).exists(), "{there}");
    }
    assert_eq!(image.attributes("credentials/server-key.pem"), (0, 0, 0o600));
    let dry = image.install(&["--uninstall", "--purge", "--dry-run"]).success();
    let real = image.install(&["--uninstall", "--purge"]).success();
    assert_eq!(steps(&dry), steps(&real));
    fs::remove_dir(&wants).unwrap();
    assert_eq!(leftovers(&image, &before), <[PathBuf; 0]>::default());
    assert!(folder.join("tickets/current.key").exists() && folder.join("pki/clients-key.pem").exists());
}

#[test]
fn purge_deletes_no_key_of_an_authority() {
    let image = Image::new();
    image.install(&["--with-authority"]).success();
    let installed = image.contents();
    let refused = image.install(&["--uninstall", "--purge"]).failure();
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    assert!(
        refused.stderr.contains("/etc/doorward/pki holds keys of authorities, which --purge would delete"),
        "{refused}"
    );
    assert_eq!(image.contents(), installed);
    // Also if nothing says whose they are.
    fs::remove_file(image.installed("authority")).unwrap();
    image.install(&["--uninstall", "--purge"]).failure();
    image.install(&["--uninstall"]).success();
    assert!(image.installed("pki/clients-key.pem").exists());
    for key in ["clients-key.pem", "server-ca-key.pem"] {
        fs::remove_file(image.installed("pki").join(key)).unwrap();
    }
    image.install(&["--uninstall", "--purge"]).success();
    assert!(!image.installed("").exists());
}
