//! To a system in a folder (`--root`): what is written, what is kept, and what a hostile folder can do.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::process::{Finished, run, tool};

/// The owner of the folder that `doorward init` wrote: a user without a name.
pub(super) const OWNER: u32 = 23_456;

/// An image with users and systemd, and a folder of its owner.
pub(super) struct Image {
    folder: tempfile::TempDir,
}

impl Image {
    pub(super) fn new() -> Self {
        let image = Self { folder: tempfile::tempdir().unwrap() };
        // The owner has to reach the own folder.
        fs::set_permissions(image.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for folder in ["root/etc", "root/usr/lib/systemd", "home"] {
            fs::create_dir_all(image.path(folder)).unwrap();
        }
        for (file, text) in [("root/etc/passwd", "root:x:0:0::/root:/bin/sh\n"), ("root/etc/group", "root:x:0:\n")] {
            fs::write(image.path(file), text).unwrap();
        }
        fs::write(image.path("root/usr/lib/systemd/systemd"), "").unwrap();
        chown(image.path("home"), Some(OWNER), Some(OWNER)).unwrap();
        let init = ["init", "--domain", "home.example", "--route", "nas=127.0.0.1:9", "--device", "alice-phone"];
        image.doorward(&init).success();
        image.give(&image.path("home/doorward"));
        image
    }

    /// Gives a folder and all that is in it to the owner.
    pub(super) fn give(&self, path: &Path) {
        run(tool("chown", "coreutils").arg("-hR").arg(format!("{OWNER}:{OWNER}")).arg(path)).success();
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(super) fn installed(&self, path: &str) -> PathBuf {
        self.path("root/etc/doorward").join(path)
    }

    /// In the folder of the owner, as root.
    pub(super) fn doorward(&self, arguments: &[&str]) -> Finished {
        run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(arguments).current_dir(self.path("home")))
    }

    pub(super) fn install(&self, arguments: &[&str]) -> Finished {
        let root = self.path("root");
        self.doorward(&[&["install", "--root", root.to_str().unwrap()], arguments].concat())
    }

    /// Every file and folder of the image: owner, mode, and contents.
    pub(super) fn contents(&self) -> BTreeMap<PathBuf, (u32, u32, Vec<u8>)> {
        fn below(folder: &Path, found: &mut BTreeMap<PathBuf, (u32, u32, Vec<u8>)>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let there = fs::symlink_metadata(&path).unwrap();
                let contents = if there.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                found.insert(path.clone(), (there.uid(), there.mode(), contents));
                if there.is_dir() {
                    below(&path, found);
                }
            }
        }
        let mut found = BTreeMap::new();
        below(&self.path("root"), &mut found);
        found
    }

    /// Owner, group and mode of an installed file.
    pub(super) fn attributes(&self, path: &str) -> (u32, u32, u32) {
        let there = fs::symlink_metadata(self.installed(path)).unwrap();
        (there.uid(), there.gid(), there.mode() & 0o7777)
    }

    /// Numbers of the gate's user and group.
    pub(super) fn gate(&self) -> (u32, u32) {
        let passwd = fs::read_to_string(self.path("root/etc/passwd")).unwrap();
        let line = passwd.lines().find(|line| line.starts_with("doorward:")).unwrap();
        let fields: Vec<&str> = line.split(':').collect();
        (fields[2].parse().unwrap(), fields[3].parse().unwrap())
    }
}

/// The steps of an output: what was written to stderr, without notes, sum and advice.
pub(super) fn steps(finished: &Finished) -> Vec<&str> {
    let verbs = ["run ", "create ", "write ", "replace ", "set ", "remove "];
    finished.stderr.lines().filter(|line| verbs.iter().any(|verb| line.starts_with(verb))).collect()
}

#[test]
fn files_have_owner_and_mode_and_authority_keys_stay_out() {
    let image = Image::new();
    image.install(&[]).success();
    let gate = image.gate();
    for (path, wanted) in [
        ("", (0, 0, 0o755)),
        ("doorward.toml", (0, 0, 0o644)),
        ("authority", (0, 0, 0o644)),
        ("pki", (OWNER, OWNER, 0o755)),
        ("pki/server.pem", (OWNER, OWNER, 0o644)),
        ("pki/clients.pem", (OWNER, OWNER, 0o644)),
        ("pki/clients.crl", (OWNER, OWNER, 0o644)),
        ("pki/inventory.toml", (OWNER, gate.1, 0o640)),
        ("pki/server-key.pem", (gate.0, gate.1, 0o400)),
    ] {
        assert_eq!(image.attributes(path), wanted, "{path}");
    }
    let mut names: Vec<_> =
        fs::read_dir(image.installed("pki")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["clients.crl", "clients.pem", "inventory.toml", "server-key.pem", "server.pem"]);
    for file in ["pki/server-key.pem", "pki/clients.crl", "doorward.toml"] {
        assert_eq!(fs::read(image.installed(file)).unwrap(), fs::read(image.path("home/doorward").join(file)).unwrap());
    }
    let authority = fs::read_to_string(image.installed("authority")).unwrap();
    assert_eq!(Path::new(authority.trim_end()), image.path("home/doorward/pki").canonicalize().unwrap());

    let program = fs::read(image.path("root/usr/local/bin/doorward")).unwrap();
    assert!(program == fs::read(env!("CARGO_BIN_EXE_doorward")).unwrap());
    let unit = fs::read_to_string(image.path("root/etc/systemd/system/doorward.service")).unwrap();
    assert!(unit.contains("\nExecStart=/usr/local/bin/doorward run"), "{unit}");
    for page in ["man/man1/doorward-install.1", "man/man7/doorward-setup.7", "zsh/site-functions/_doorward"] {
        assert!(image.path("root/usr/local/share").join(page).is_file(), "{page}");
    }
}

#[test]
fn dry_run_prints_the_steps_of_the_real_run_and_takes_none() {
    let image = Image::new();
    let before = image.contents();
    let dry = image.install(&["--dry-run"]).success();
    assert_eq!(image.contents(), before);
    let real = image.install(&[]).success();
    assert!(steps(&real).len() > 20, "{real}");
    assert_eq!(steps(&dry), steps(&real));
    let json = image.install(&["--uninstall", "--dry-run", "--format", "json"]).success();
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["done"], false);
    let listed: Vec<&str> = report["steps"].as_array().unwrap().iter().map(|step| step.as_str().unwrap()).collect();
    assert_eq!(listed, steps(&image.install(&["--uninstall"]).success()));
}

#[test]
fn second_run_changes_what_has_changed_and_nothing_else() {
    let image = Image::new();
    image.install(&[]).success();
    let installed = image.contents();
    let again = image.install(&[]).success();
    assert_eq!(steps(&again), [""; 0], "{again}");
    assert!(again.stderr.contains("Everything is installed already. Nothing was changed.\n"), "{again}");
    assert_eq!(image.contents(), installed);

    // Somebody's hand, and a renewed certificate.
    fs::set_permissions(image.installed("pki/server-key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    image.doorward(&["ca", "server", "--folder", "doorward/pki", "--config", "doorward/doorward.toml"]).success();
    let mended = image.install(&[]).success();
    let places = ["pki/inventory.toml", "pki/server-key.pem", "pki/server.pem"]
        .map(|file| image.installed(file).display().to_string());
    let changed = steps(&mended);
    assert_eq!(changed.len(), 3, "{mended}");
    for (step, place) in changed.iter().zip(&places) {
        assert!(step.starts_with(&format!("replace {place} ")), "{step}");
    }
    assert_eq!(image.attributes("pki/server-key.pem").2, 0o400);
    let certificate = |path: PathBuf| fs::read(path).unwrap();
    assert_eq!(certificate(image.installed("pki/server.pem")), certificate(image.path("home/doorward/pki/server.pem")));
}

#[test]
fn configuration_that_breaks_an_expectation_is_not_installed() {
    let image = Image::new();
    let file = image.path("home/doorward/doorward.toml");
    let right = fs::read_to_string(&file).unwrap();
    let expected = "\n[[expect]]\ndevice = \"alice-phone\"\nroute = \"nas\"\nallowed = false\n";
    fs::write(&file, format!("{right}{expected}")).unwrap();
    let refused = image.install(&[]).failure();
    assert_eq!(refused.status.code(), Some(3), "{refused}");
    assert!(refused.stderr.contains("must refuse alice-phone, and admits it: by \"any\" in its allow"), "{refused}");
    assert!(!image.installed("doorward.toml").exists());
    fs::write(&file, format!("{right}{}", expected.replace("false", "true"))).unwrap();
    image.install(&[]).success();
}

#[test]
fn changed_configuration_is_kept_unless_it_is_to_be_replaced() {
    let image = Image::new();
    image.install(&[]).success();
    let file = image.installed("doorward.toml");
    let init = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{init}\n# edited\n")).unwrap();
    let kept = image.install(&[]).success();
    assert!(kept.stderr.contains("stays as it is, and differs from"), "{kept}");
    assert!(fs::read_to_string(&file).unwrap().ends_with("# edited\n"));
    image.install(&["--replace-config"]).success();
    assert_eq!(fs::read_to_string(&file).unwrap(), init);

    // An installation without a known folder of the authorities stays one.
    fs::remove_file(image.installed("authority")).unwrap();
    fs::rename(image.path("home/doorward"), image.path("home/elsewhere")).unwrap();
    image.install(&[]).success();
    assert!(!image.installed("authority").exists());
    image.install(&["elsewhere"]).success();
    assert!(image.installed("authority").exists());
}

#[test]
fn older_revocation_list_is_refused() {
    let image = Image::new();
    let list = image.path("home/doorward/pki/clients.crl");
    let older = fs::read(&list).unwrap();
    image.doorward(&["ca", "revoke", "alice-phone", "--config", "doorward/doorward.toml"]).success();
    let newer = fs::read(&list).unwrap();
    image.install(&[]).success();
    fs::write(&list, older).unwrap();
    let refused = image.install(&[]).failure();
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    assert!(refused.stderr.contains("would admit revoked devices again"), "{refused}");
    assert_eq!(fs::read(image.installed("pki/clients.crl")).unwrap(), newer);
}

#[test]
fn authority_is_copied_only_if_told() {
    let image = Image::new();
    image.install(&["--with-authority"]).success();
    for (path, mode) in [
        ("pki/clients-key.pem", 0o600),
        ("pki/server-ca-key.pem", 0o600),
        ("pki/server-ca.pem", 0o644),
        ("devices", 0o700),
        ("devices/alice-phone-key.pem", 0o600),
    ] {
        assert_eq!(image.attributes(path), (OWNER, OWNER, mode), "{path}");
    }
    // The gate shows when the certificates of devices expire.
    assert_eq!(image.attributes("pki/inventory.toml").2, 0o640);
    assert_eq!(image.attributes("pki/server-key.pem").2, 0o400);
    assert_eq!(fs::read_to_string(image.installed("authority")).unwrap(), "/etc/doorward/pki\n");
    // The folder is a copy that gets older from now on.
    let refused = image.install(&["doorward"]).failure();
    assert!(refused.stderr.contains("is an older copy"), "{refused}");
    assert_eq!(steps(&image.install(&[]).success()), [""; 0]);
}

/// The owner is no more than a user: root must not read or give away what the owner could not.
/// As the gate's own key, and not as the keys of the authorities.
#[test]
fn key_for_session_tickets_is_copied_for_the_gate_only() {
    let image = Image::new();
    let folder = image.path("home/doorward");
    let key = folder.join("tickets/current.key");
    image.doorward(&["generate", "ticket-key", key.to_str().unwrap()]).success();
    let mut config = fs::read_to_string(folder.join("doorward.toml")).unwrap();
    config.push_str("\n[tickets]\nkeys = [\"tickets/current.key\"]\n");
    fs::write(folder.join("doorward.toml"), config).unwrap();
    image.give(&folder);
    image.install(&[]).success();
    let (user, group) = image.gate();
    assert_eq!(image.attributes("tickets/current.key"), (user, group, 0o400));
    let installed = image.installed("tickets/current.key");
    assert_eq!(fs::read(&installed).unwrap(), fs::read(&key).unwrap());
    // Replaced by its owner, and installed once more.
    image.doorward(&["generate", "ticket-key", "--rotate", key.to_str().unwrap()]).success();
    image.install(&[]).success();
    assert_eq!(image.attributes("tickets/current.key"), (user, group, 0o400));
    assert_eq!(fs::read(installed).unwrap(), fs::read(&key).unwrap());
}

#[test]
fn links_in_the_owners_folder_lead_root_nowhere() {
    let secret = tempfile::tempdir().unwrap();
    fs::set_permissions(secret.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let shadow = secret.path().join("shadow");
    let config = "doorward/doorward.toml";
    for file in ["pki/server.pem", "pki/clients.crl", "pki/server-key.pem", "doorward.toml"] {
        let image = Image::new();
        let path = image.path("home/doorward").join(file);
        // It would do as the file, if root read it.
        fs::write(&shadow, fs::read(&path).unwrap()).unwrap();
        fs::set_permissions(&shadow, fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(&path).unwrap();
        // A hard link is a file of root in the owner's folder, where the kernel permits that (fs.protected_hardlinks).
        for hard in [false, true] {
            if hard {
                fs::hard_link(&shadow, &path).unwrap();
            } else {
                symlink(&shadow, &path).unwrap();
                image.give(&path);
            }
            let before = image.contents();
            let refused = image.install(&[]).failure();
            assert_eq!(image.contents(), before, "{file}: {refused}");
            assert_eq!(fs::metadata(&shadow).unwrap().uid(), 0, "{file}");
            fs::remove_file(&path).unwrap();
        }
    }
    // A folder in the place of another one, and a FIFO that would be waited for.
    let image = Image::new();
    let pki = image.path("home/doorward/pki");
    fs::rename(&pki, image.path("home/moved")).unwrap();
    symlink(image.path("home/moved"), &pki).unwrap();
    image.give(&pki);
    image.install(&[]).failure();
    fs::remove_file(&pki).unwrap();
    fs::rename(image.path("home/moved"), &pki).unwrap();
    let list = pki.join("clients.crl");
    fs::remove_file(&list).unwrap();
    run(tool("mkfifo", "coreutils").arg(&list)).success();
    image.give(&list);
    image.install(&[]).failure();
    fs::remove_file(image.path("home").join(config)).unwrap();
    let none = image.install(&["doorward"]).failure();
    assert_eq!(none.status.code(), Some(2), "{none}");
    assert!(none.stderr.contains("doorward has no doorward.toml"), "{none}");
}

/// The owner may replace the files in `/etc/doorward/pki` by links, and root writes there again.
#[test]
fn links_in_the_installed_folder_are_replaced_and_not_followed() {
    let image = Image::new();
    image.install(&[]).success();
    let precious = image.path("precious");
    fs::write(&precious, "precious").unwrap();
    for file in ["pki/server-key.pem", "pki/clients.crl"] {
        fs::remove_file(image.installed(file)).unwrap();
        symlink(&precious, image.installed(file)).unwrap();
        run(tool("chown", "coreutils").arg("-h").arg(OWNER.to_string()).arg(image.installed(file))).success();
    }
    image.install(&[]).success();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
    assert!(fs::symlink_metadata(image.installed("pki/server-key.pem")).unwrap().is_file());

    // The whole folder: root would write the gate's files, and change the owner, elsewhere.
    let target = image.path("target");
    fs::create_dir(&target).unwrap();
    fs::rename(image.installed("pki"), image.path("old")).unwrap();
    symlink(&target, image.installed("pki")).unwrap();
    image.install(&[]).failure();
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    assert_eq!(fs::metadata(&target).unwrap().uid(), 0);
}

#[test]
fn user_without_root_is_told_what_to_do() {
    let image = Image::new();
    // The program of the build may be in a folder that only root may enter.
    let program = image.path("doorward-copy");
    // By another process: a child of a test beside this one could hold the open file, and the program would be "busy" (ETXTBSY).
    run(tool("cp", "coreutils").arg(env!("CARGO_BIN_EXE_doorward")).arg(&program)).success();
    let mut command = tool("setpriv", "util-linux");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(program)
        .args(["install", "--dry-run"]);
    let refused = run(&mut command).failure();
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    assert!(refused.stderr.contains("need root\n  sudo doorward install"), "{refused}");
}

#[test]
fn configuration_that_would_not_work_there_is_refused() {
    let image = Image::new();
    let file = image.path("home/doorward/doorward.toml");
    let text = fs::read_to_string(&file).unwrap();
    let absolute = image.path("home/doorward/pki/clients.crl").canonicalize().unwrap();
    fs::write(&file, text.replace("\"pki/clients.crl\"", &format!("{:?}", absolute.display().to_string()))).unwrap();
    let refused = image.install(&[]).failure();
    assert!(refused.stderr.contains("by the whole path: revocation_lists = ["), "{refused}");
    fs::write(&file, text.replace("mode = \"require_and_verify\"", "mode = \"maybe\"")).unwrap();
    let refused = image.install(&[]).failure();
    assert_eq!(refused.status.code(), Some(3), "{refused}");
    assert!(!image.installed("").exists());
}
