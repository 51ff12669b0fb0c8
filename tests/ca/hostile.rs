//! Root runs `doorward ca` in the folder of a user who tries to redirect its writes.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use crate::common::process::{Finished, run, tool};

/// An unprivileged user.
const USER: u32 = 65_534;

/// A folder of the user, and one that only root can use.
struct Scene(TempDir);

impl Scene {
    /// With authorities and a device that root has created in the user's folder.
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test plays root and another user: run it as root");
        let scene = Self(tempfile::tempdir().unwrap());
        set_mode(scene.0.path(), 0o755);
        for (folder, owner, mode) in [("user", USER, 0o755), ("root", 0, 0o700)] {
            std::fs::create_dir(scene.path(folder)).unwrap();
            chown(scene.path(folder), Some(owner), Some(owner)).unwrap();
            set_mode(&scene.path(folder), mode);
        }
        std::fs::write(scene.path("root/secret"), "secret\n").unwrap();
        set_mode(&scene.path("root/secret"), 0o600);
        let init = ["init", "--domain", "home.example", "--route", "nas=127.0.0.1:9", "--device", "alice"];
        scene.doorward(&[&init[..], &["--folder", scene.text("user/doorward").as_str()]].concat()).success();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A path in the folder that `init` wrote.
    fn at(&self, name: &str) -> PathBuf {
        self.path("user/doorward").join(name)
    }

    /// `doorward`, as root.
    #[track_caller]
    fn doorward(&self, arguments: &[&str]) -> Finished {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
        run(command.current_dir(self.0.path()).args(arguments))
    }

    /// `doorward ca` in the user's folder, as root.
    #[track_caller]
    fn ca(&self, arguments: &[&str]) -> Finished {
        let pki = self.at("pki").display().to_string();
        self.doorward(&[&["ca"], arguments, &["--folder", &pki]].concat())
    }

    /// Python, as the user.
    fn python(&self, script: &str) -> std::process::Command {
        let mut command = tool("setpriv", "util-linux");
        command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups"]);
        command.arg(tool("python3", "python3").get_program()).args(["-u", "-c", script]);
        command.current_dir(self.at("pki"));
        command
    }

    /// Forges an interrupted change, as the user.
    #[track_caller]
    fn lay_changes(&self, mode: &str, list: &str) {
        const LAY: &str = "
import os, sys
os.umask(0)
os.mkdir('.changes', 0o700)
open('.changes/0', 'w').write('#!/bin/sh\\n')
os.chmod('.changes/0', int(sys.argv[1], 8))
open('.changes/list.json', 'w').write(sys.argv[2])";
        run(self.python(LAY).args([mode, list])).success();
    }

    /// Checks that root wrote nothing outside of the user's folder, and nothing in it that the user could not.
    #[track_caller]
    fn check_unharmed(&self) {
        let names = |path: &str| {
            let entries = std::fs::read_dir(self.path(path)).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names("."), ["root", "user"]);
        assert_eq!(names("root"), ["secret"]);
        assert_eq!(names("user"), ["doorward"]);
        let secret = self.path("root/secret");
        let there = secret.metadata().unwrap();
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret\n");
        assert_eq!((there.uid(), there.gid(), there.mode() & 0o7777), (0, 0, 0o600));
        let mut seen = 0;
        check_tree(&self.path("user"), &mut seen);
        assert!(seen > 10, "{seen}");
    }
}

fn check_tree(path: &Path, seen: &mut usize) {
    let there = path.symlink_metadata().unwrap();
    *seen += 1;
    let linked = there.is_file() && there.nlink() > 1;
    assert!(there.uid() == USER || linked, "{} belongs to {}", path.display(), there.uid());
    // A setuid file of the user is harmless, but none may appear where ca writes files.
    let staged = path.components().any(|part| part.as_os_str().to_string_lossy().starts_with('.'));
    assert!(staged || there.mode() & 0o6000 == 0, "{} has mode {:o}", path.display(), there.mode());
    if there.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            check_tree(&entry.unwrap().path(), seen);
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn says(finished: &Finished, words: &str) {
    assert!(finished.stderr.contains(words), "{words:?} is missing: {finished}");
}

#[test]
fn row_48_files_made_by_root_belong_to_the_folder_owner() {
    let scene = Scene::new();
    scene.ca(&["device", "bob"]).success();
    scene.ca(&["renew", "bob"]).success();
    scene.ca(&["revoke", "alice"]).success();
    scene.ca(&["server", "--new-key"]).success();
    scene.check_unharmed();
    assert_eq!(scene.at("devices/bob-key.pem").metadata().unwrap().uid(), USER);
    // A folder that root named is written to as its owner as well.
    scene.ca(&["device", "carol", "--output", &scene.text("root/handout")]).success();
    let key = scene.path("root/handout/carol-key.pem").metadata().unwrap();
    assert_eq!((key.uid(), key.mode() & 0o7777), (0, 0o600));
    std::fs::remove_dir_all(scene.path("root/handout")).unwrap();
    scene.check_unharmed();
}

#[test]
fn row_48_files_swapped_by_the_owner_do_not_redirect_root() {
    const RACER: &str = "
import json, os, sys
n = 0
def lay():
    os.makedirs('.mine', exist_ok=True)
    open('.mine/0', 'w').write('#!/bin/sh\\n')
    os.chmod('.mine/0', 0o4755)
    to = [sys.argv[1], '../../x', '../devices/x', 'x'][n % 4]
    json.dump([{'from': '0', 'to': to}], open('.mine/list.json', 'w'))
lay()
print('ready')
while True:
    try:
        os.rename('.changes', '.theirs%d' % n)
        os.rename('.mine', '.changes')
        n += 1
        print('swapped')
        lay()
    except OSError:
        pass
    try:
        # So that the next command finds its way clear.
        if os.path.exists('.changes/list.json') and not os.path.exists('.changes/1'):
            os.rename('.changes', '.done%d' % n)
    except OSError:
        pass
";
    let scene = Scene::new();
    let mut racer = scene.python(RACER);
    let mut racer = racer.arg(scene.text("root/written")).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(racer.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "ready");
    let swapped = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&swapped);
    let reader = std::thread::spawn(move || {
        for _ in said.map_while(Result::ok).filter(|line| line == "swapped") {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    for count in 0..200 {
        // Whether it fails is the user's choice.
        scene.ca(&["device", &format!("new-{count}")]);
        if count > 10 && swapped.load(Ordering::Relaxed) >= 3 {
            break;
        }
    }
    racer.kill().unwrap();
    racer.wait().unwrap();
    reader.join().unwrap();
    let swapped = swapped.load(Ordering::Relaxed);
    assert!(swapped > 0, "the racer was never quick enough, so this has shown nothing");
    scene.check_unharmed();
}

#[test]
fn row_48_prepared_change_moves_no_file_out_of_the_folder() {
    let scene = Scene::new();
    let outside = scene.text("root/written");
    for to in [&outside, "../../written", "../written", "../devices/../../written", "..", ".lock", "x/../../../written"]
    {
        scene.lay_changes("4755", &format!("[{{\"from\": \"0\", \"to\": {to:?}}}]"));
        let refused = scene.ca(&["list"]).failure();
        says(&refused, "another program made this list");
        scene.check_unharmed();
        std::fs::remove_dir_all(scene.at("pki/.changes")).unwrap();
    }
    // Files of a change are named by number, not by path.
    for from in [scene.text("root/secret").as_str(), "../inventory.toml", ""] {
        scene.lay_changes("600", &format!("[{{\"from\": {from:?}, \"to\": \"x\"}}]"));
        says(&scene.ca(&["list"]).failure(), "another program made this list");
        std::fs::remove_dir_all(scene.at("pki/.changes")).unwrap();
    }
    scene.check_unharmed();
}

#[test]
fn row_48_prepared_change_makes_nothing_setuid() {
    let scene = Scene::new();
    scene.lay_changes("6777", "[{\"from\": \"0\", \"to\": \"../devices/tool\"}]");
    scene.ca(&["list"]).success();
    let tool = scene.at("devices/tool").metadata().unwrap();
    assert_eq!((tool.uid(), tool.mode() & 0o7777), (USER, 0o666));
    scene.check_unharmed();
}

#[test]
fn row_48_change_of_a_third_user_is_not_completed() {
    let scene = Scene::new();
    scene.lay_changes("600", "[{\"from\": \"0\", \"to\": \"x\"}]");
    chown(scene.at("pki/.changes"), Some(12_345), Some(12_345)).unwrap();
    says(&scene.ca(&["list"]).failure(), "another user has started this change");
    chown(scene.at("pki/.changes"), Some(USER), Some(USER)).unwrap();
    set_mode(&scene.at("pki/.changes"), 0o777);
    says(&scene.ca(&["list"]).failure(), "another user has started this change");
    assert!(!scene.at("pki/x").exists());
}

#[test]
fn row_48_links_of_the_owner_are_not_followed() {
    let scene = Scene::new();
    let lay = |target: &str, name: &str| {
        let place = scene.at(name);
        let kept = place.exists().then(|| std::fs::rename(&place, scene.at("kept")).unwrap());
        symlink(scene.path(target), &place).unwrap();
        std::os::unix::fs::lchown(&place, Some(USER), Some(USER)).unwrap();
        (place, kept.is_some())
    };
    for (name, target, command) in [
        ("devices", "root", &["device", "bob"][..]),
        ("pki/issued", "root", &["device", "bob"]),
        ("pki/clients-key.pem", "root/secret", &["device", "bob"]),
        ("pki/clients.crl", "root/secret", &["revoke", "alice"]),
        ("pki/.lock", "root/lock", &["list"]),
        ("pki/.changes", "root", &["list"]),
        ("pki/inventory.toml", "root/secret", &["list"]),
        ("pki/server-key.pem", "root/secret", &["server"]),
        ("devices/alice-key.pem", "root/secret", &["renew", "alice"]),
    ] {
        let (place, kept) = lay(target, name);
        let refused = scene.ca(command).failure();
        assert!(!refused.stderr.contains("secret\n"), "{name}: {refused}");
        std::fs::remove_file(&place).unwrap();
        if kept {
            std::fs::rename(scene.at("kept"), &place).unwrap();
        }
        scene.check_unharmed();
    }
    // The folder itself.
    let (place, _) = lay("root", "pki");
    scene.ca(&["init", "--domain", "home.example"]).failure();
    std::fs::remove_file(place).unwrap();
    std::fs::rename(scene.at("kept"), scene.at("pki")).unwrap();
    scene.check_unharmed();
    scene.ca(&["device", "bob"]).success();
}

#[test]
fn row_48_inventory_with_paths_of_root_reads_no_such_file() {
    let scene = Scene::new();
    let inventory = scene.at("pki/inventory.toml");
    let right = std::fs::read_to_string(&inventory).unwrap();
    for (from, to) in [
        ("revocation_list = \"clients.crl\"", format!("revocation_list = {:?}", scene.text("root/secret"))),
        ("revocation_list = \"clients.crl\"", format!("revocation_list = {:?}", scene.text("root/new.crl"))),
        ("revocation_list = \"clients.crl\"", "revocation_list = \"../../../root/new.crl\"".to_owned()),
        ("key = \"clients-key.pem\"", format!("key = {:?}", scene.text("root/secret"))),
    ] {
        assert!(right.contains(from), "{right}");
        std::fs::write(&inventory, right.replace(from, &to)).unwrap();
        let refused = scene.ca(&["revoke", "alice"]).failure();
        assert!(refused.stderr.contains("ermission denied"), "{to}: {refused}");
        std::fs::write(&inventory, &right).unwrap();
        scene.check_unharmed();
    }
}

#[test]
fn row_48_hard_link_to_a_file_of_root_keeps_its_owner_and_mode() {
    let scene = Scene::new();
    let list = scene.at("pki/clients.crl");
    std::fs::remove_file(&list).unwrap();
    std::fs::hard_link(scene.path("root/secret"), &list).unwrap();
    // It cannot be read as the owner of the folder.
    says(&scene.ca(&["revoke", "alice"]).failure(), "ermission denied");
    std::fs::remove_file(&list).unwrap();
    // A world-readable file is replaced, and its owner gains nothing.
    let shown = scene.path("root/secret");
    set_mode(&shown, 0o644);
    std::fs::hard_link(&shown, scene.at("devices/bob-key.pem")).unwrap();
    scene.ca(&["device", "bob", "--force"]).success();
    let key = scene.at("devices/bob-key.pem").metadata().unwrap();
    assert_eq!((key.uid(), key.mode() & 0o7777), (USER, 0o600));
    set_mode(&shown, 0o600);
    scene.check_unharmed();
}

#[test]
fn row_48_fifo_instead_of_a_file_does_not_block() {
    let scene = Scene::new();
    for name in [
        "pki/inventory.toml",
        "pki/.lock",
        "pki/clients.crl",
        "pki/clients-key.pem",
        "pki/clients.pem",
        "devices/alice-key.pem",
    ] {
        let (place, kept) = (scene.at(name), scene.at("kept"));
        std::fs::rename(&place, &kept).unwrap();
        run(tool("mkfifo", "coreutils").arg(&place)).success();
        chown(&place, Some(USER), Some(USER)).unwrap();
        says(&scene.ca(&["renew", "alice", "--revoke-old"]).failure(), "not a regular file");
        std::fs::rename(&kept, &place).unwrap();
    }
    scene.check_unharmed();
}
