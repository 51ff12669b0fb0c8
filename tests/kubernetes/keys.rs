//! `doorward generate ticket-key`, and the files that it writes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::TestPki;
use crate::common::process::{Finished, after_script, run, tool};

fn generate(folder: &Path, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(["generate", "ticket-key"]).args(arguments);
    // A umask that would let every user read and write.
    run(after_script(tool("bash", "bash"), "umask 0", &command).current_dir(folder))
}

fn contents(folder: &Path, names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| fs::read(folder.join(name)).unwrap()).collect()
}

#[test]
fn keys_are_random_and_private_and_are_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let names = ["a.key", "b.key", "keys/c.key"];
    let made = generate(folder, &names).success();
    assert_eq!((made.text(), made.stderr.as_str()), (String::new(), ""));
    let keys = contents(folder, &names);
    assert!(keys.iter().all(|key| key.len() == 80));
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), names.len());
    for name in names {
        assert_eq!(fs::metadata(folder.join(name)).unwrap().mode() & 0o7777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(folder.join("keys")).unwrap().mode() & 0o7777, 0o700);
    // Not even the one that is new.
    for arguments in [&["d.key", "a.key"][..], &["a.key", "d.key"], &["d.key", "d.key"], &[]] {
        let refused = generate(folder, arguments).failure();
        let code = if arguments.contains(&"a.key") { 7 } else { 2 };
        assert_eq!(refused.status.code(), Some(code), "{refused}");
        assert!(!folder.join("d.key").exists(), "{refused}");
    }
    assert_eq!(contents(folder, &names), keys);
}

#[test]
fn rotation_hands_each_key_on_and_keeps_owner_and_mode() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let names = ["next.key", "current.key", "previous.key"];
    // The last one is made by the first rotation.
    generate(folder, &names[..2]).success();
    fs::set_permissions(folder.join("current.key"), fs::Permissions::from_mode(0o400)).unwrap();
    let before = contents(folder, &names[..2]);
    generate(folder, &["--rotate", names[0], names[1], names[2]]).success();
    let after = contents(folder, &names);
    assert_eq!(after[1..], before);
    assert!(!before.contains(&after[0]));
    assert_eq!(fs::metadata(folder.join("current.key")).unwrap().mode() & 0o7777, 0o400);
    assert_eq!(fs::metadata(folder.join("previous.key")).unwrap().mode() & 0o7777, 0o600);
    generate(folder, &["--rotate", names[0], names[1], names[2]]).success();
    assert_eq!(contents(folder, &names)[1..], after[..2]);
    // One file alone gets a new key.
    let before = contents(folder, &names);
    generate(folder, &["--rotate", names[0]]).success();
    assert!(!before.contains(&contents(folder, &names[..1])[0]));

    // What is no key is neither handed on nor overwritten.
    fs::write(folder.join("clients.pem"), "-----BEGIN CERTIFICATE-----").unwrap();
    let before = contents(folder, &["next.key", "clients.pem"]);
    for arguments in [["clients.pem", "next.key"], ["next.key", "clients.pem"], ["none.key", "next.key"]] {
        let refused = generate(folder, &["--rotate", arguments[0], arguments[1]]).failure();
        assert_eq!(refused.status.code(), Some(2), "{refused}");
        assert_eq!(contents(folder, &["next.key", "clients.pem"]), before, "{refused}");
    }
}

/// Of the file that a link leads to, as in a mounted Secret.
#[test]
fn gate_does_not_start_with_a_key_that_others_may_read() {
    let pki = TestPki::new();
    let key = pki.path("ticket.key");
    generate(key.parent().unwrap(), &["ticket.key"]).success();
    let link = pki.path("link.key");
    symlink("ticket.key", &link).unwrap();
    let config = format!(
        "{LOCAL}{}\n[[route]]\nname = \"nas\"\nserver_names = [\"home.example\"]\nbackends = [\"127.0.0.1:1\"]\n\
         allow = [\"any\"]\n[tickets]\nkeys = [{link:?}]\n",
        pki.config()
    );
    for mode in [0o604, 0o602, 0o620, 0o777] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let refused = Gate::fails_to_start(&config);
        assert_eq!(refused.status.code(), Some(3), "{mode:o}: {refused}");
        assert!(refused.stderr.contains("tickets.keys") && refused.stderr.contains("chmod 600"), "{mode:o}: {refused}");
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    drop(Gate::start(&config));
}
