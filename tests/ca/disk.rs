//! File systems that refuse operations, and files that other users must still be able to read.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use crate::common::process::{Finished, run, tool};
use crate::home::{Home, mode};

/// `doorward ca` whose calls of `call` fail with `error`.
#[track_caller]
fn ca_failing(home: &Home, faults: &[&str], arguments: &[&str]) -> Finished {
    let mut strace = tool("strace", "strace");
    let doorward = home.doorward();
    strace.current_dir(doorward.get_current_dir().unwrap()).args(["-f", "-o", "/dev/null"]);
    for fault in faults {
        strace.args(["-e", &format!("inject={fault}")]);
    }
    run(strace.arg(doorward.get_program()).arg("ca").args(arguments))
}

/// Runs a script of bash in a mount namespace of its own; `$1` is doorward.
#[track_caller]
fn mounted(home: &Home, script: &str) -> Finished {
    let mut unshare = tool("unshare", "util-linux");
    unshare.current_dir(home.path("."));
    unshare.args(["--mount", "bash", "-uc", script, "bash", env!("CARGO_BIN_EXE_doorward")]);
    run(&mut unshare)
}

#[test]
fn row_49_refused_chmod_is_a_warning() {
    let home = Home::new();
    for command in [
        &["init", "--domain", "home.example", "--device", "alice"][..],
        &["device", "bob"],
        &["renew", "bob"],
        &["revoke", "alice"],
        &["server", "--new-key"],
    ] {
        let done = ca_failing(&home, &["fchmod:error=EPERM"], command);
        // There is no gate that could prove a revocation or a new certificate.
        let done = if matches!(command[0], "revoke" | "server") { done.not_proved() } else { done.success() };
        let warnings = done.stderr.matches("does not support permissions").count();
        // New files have mode 0600 without chmod, so only certificates have the wrong mode.
        assert_eq!(warnings, 1, "{done}");
    }
    assert_eq!(home.devices(), ["alice revoked", "bob renewed", "bob valid"]);
    assert_eq!(mode(&home.path("devices/bob-key.pem")), 0o600);
}

#[test]
fn row_49_key_that_others_can_read_is_a_warning() {
    let home = Home::new();
    let done = mounted(
        &home,
        "mkdir source stick && bindfs --chmod-deny -p 755 source stick || exit 9
         \"$1\" ca init --domain home.example --device alice --folder stick/pki && \"$1\" ca revoke alice --folder stick/pki
         code=$?; umount stick; exit $code",
    )
    .not_proved();
    for words in ["clients-key.pem holds a key that every user of this machine can read (mode 0755)", "umask=077"] {
        assert!(done.stderr.contains(words), "{words:?} is missing: {done}");
    }
    let list = home.ca(&["list", "--folder", "source/pki"]).success().text();
    assert!(list.contains("revoked"), "{list}");
}

#[test]
fn row_49_file_system_without_fsync_and_locks_is_used() {
    let home = Home::new();
    let faults = ["fsync:error=EINVAL", "flock:error=EOPNOTSUPP", "renameat2:error=EINVAL"];
    let done = ca_failing(&home, &faults, &["init", "--domain", "home.example", "--device", "alice"]).success();
    assert!(done.stderr.contains("does not support locks"), "{done}");
    ca_failing(&home, &faults, &["export", "alice", "--output", "copy"]).success();
    let again = ca_failing(&home, &faults, &["export", "alice", "--output", "copy"]).failure();
    assert!(again.stderr.contains("would overwrite"), "{again}");
}

#[test]
fn row_49_full_or_read_only_disk_changes_nothing() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice"]).success();
    let script = "
        mkdir small && mount -t tmpfs -o size=2m none small && cp -a pki devices small && cd small || exit 9
        state() { find . -type f ! -name .lock ! -name filler -print0 | sort -z | xargs -0 sha256sum; }
        before=$(state)
        dd if=/dev/zero of=filler bs=4k 2>/dev/null
        for command in 'device bob' 'revoke alice' 'renew alice' 'server --new-key'; do
            \"$1\" ca $command && exit 1
            [ \"$before\" = \"$(state)\" ] || exit 2
        done
        rm filler && mount -o remount,ro none . || exit 3
        \"$1\" ca revoke alice && exit 4
        [ \"$before\" = \"$(state)\" ] || exit 5
        mount -o remount,rw none . || exit 6
        \"$1\" ca revoke alice
        [ $? = 10 ] || exit 8
        [ \"$before\" = \"$(state)\" ] && exit 7
        exit 0";
    let done = mounted(&home, script).success();
    assert_eq!(done.stderr.matches("No space left on device (os error 28); nothing was changed").count(), 4, "{done}");
    assert!(done.stderr.contains("Read-only file system"), "{done}");
}

/// The user and group of the gate.
const GATE: u32 = 65_534;

#[test]
fn rewritten_files_keep_owner_group_mode_and_acl() {
    assert!(rustix::process::geteuid().is_root(), "this test gives files away: run it as root");
    let home = Home::with_authorities();
    home.ca(&["device", "alice"]).success();
    let files = [
        ("pki/server-key.pem", 0, GATE, 0o640),
        ("pki/server.pem", GATE, GATE, 0o400),
        ("pki/inventory.toml", 0, GATE, 0o660),
        ("pki/clients.crl", GATE, GATE, 0o600),
        ("devices/alice-key.pem", 12_345, GATE, 0o440),
        ("devices/alice.p12", 0, GATE, 0o640),
    ];
    for (name, user, group, bits) in files {
        chown(home.path(name), Some(user), Some(group)).unwrap();
        std::fs::set_permissions(home.path(name), std::fs::Permissions::from_mode(bits)).unwrap();
    }
    // One more user may read it: version 2 of the kernel's form, its own user, user 4321, group, mask, others (acl(5)).
    let acl: Vec<u8> = [2_u32.to_le_bytes().to_vec()]
        .into_iter()
        .chain(
            [(1_u16, 6_u16, u32::MAX), (2, 4, 4321), (4, 0, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
                .map(|(tag, bits, id)| [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat()),
        )
        .flatten()
        .collect();
    let (name, flags) = ("system.posix_acl_access", rustix::fs::XattrFlags::empty());
    rustix::fs::setxattr(home.path("pki/server-key.pem"), name, &acl, flags).unwrap();

    home.ca(&["server", "--new-key"]).not_proved();
    home.ca(&["renew", "alice", "--new-key", "--revoke-old"]).not_proved();
    for (name, user, group, bits) in files {
        let there = home.path(name).metadata().unwrap();
        assert_eq!((there.uid(), there.gid(), there.mode() & 0o7777), (user, group, bits), "{name}");
    }
    let mut kept = vec![0; 256];
    let length = rustix::fs::getxattr(home.path("pki/server-key.pem"), name, &mut kept).unwrap();
    assert_eq!(kept[..length], acl);
}

#[test]
fn rewritten_key_is_not_readable_by_every_user() {
    let home = Home::with_authorities();
    let key = home.path("pki/server-key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let done = home.ca(&["server", "--new-key"]).not_proved();
    assert_eq!(mode(&key), 0o640);
    assert!(done.stderr.contains("every user of this machine could read"), "{done}");
}
