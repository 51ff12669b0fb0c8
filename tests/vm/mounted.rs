//! A share of a real Samba behind the gate, mounted by the kernel through `doorward forward`: with the very line that it prints.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::time::Instant;

use crate::common::bundle::bundle;
use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::TestPki;
use crate::common::process::{Daemon, own_loopback, run, run_with_input, tool};

const LENGTH: usize = 64 << 20;

/// Samba with a share called nas, for root with the password "changeit".
fn samba(home: &Path, address: SocketAddrV4) -> Daemon {
    let state = home.join("state");
    for folder in [&state, &home.join("share")] {
        fs::create_dir_all(folder).unwrap();
    }
    let config = format!(
        "[global]\nserver role = standalone server\ninterfaces = {ip}/8\nbind interfaces only = yes\nsmb ports = {port}\n\
         disable netbios = yes\ndisable spoolss = yes\nload printers = no\nprintcap name = /dev/null\n\
         passdb backend = tdbsam:{state}/passdb.tdb\nstate directory = {state}\ncache directory = {state}\n\
         lock directory = {state}\nprivate dir = {state}\npid directory = {state}\nncalrpc dir = {state}\n\
         [nas]\npath = {share}\nread only = no\n",
        ip = address.ip(),
        port = address.port(),
        state = state.display(),
        share = home.join("share").display(),
    );
    let file = home.join("smb.conf");
    fs::write(&file, config).unwrap();
    let file = format!("--configfile={}", file.display());
    let mut pdbedit = tool("pdbedit", "samba");
    run_with_input(pdbedit.args(["--create", "--password-from-stdin", "--user=root", &file]), b"changeit\nchangeit\n")
        .success();
    let mut smbd = tool("smbd", "samba");
    Daemon::start(smbd.args(["--foreground", "--no-process-group", "--debug-stdout", &file]), address)
}

/// `doorward forward`, and what it tells the user to type.
fn forward(file: &Path) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(["forward", "smb=0", "--file"]).arg(file).env_remove("XDG_RUNTIME_DIR").stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let said = BufReader::new(child.stderr.take().unwrap()).lines();
    let hint = said.map_while(Result::ok).find_map(|line| Some(line.trim().strip_prefix("sudo ")?.to_owned()));
    (child, hint.expect("a line to mount it"))
}

/// No two blocks are the same.
fn noise() -> Vec<u8> {
    (0..LENGTH as u64 / 8)
        .flat_map(|index| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (index << 7)).to_le_bytes())
        .collect()
}

#[test]
#[ignore = "needs a kernel with cifs.ko: \"tests/all cifs\" runs it in virtual machines"]
fn share_is_mounted_with_the_line_of_forward() {
    let folder = tempfile::tempdir().unwrap();
    let address = SocketAddrV4::new(own_loopback(), 4450);
    let _smbd = samba(folder.path(), address);
    let pki = TestPki::new();
    let gate = Gate::start(&format!(
        "{LOCAL}\n{}[[route]]\nname = \"smb\"\nserver_names = [\"smb.home.example\"]\nbackends = [\"{address}\"]\nallow = [\"any\"]\n",
        pki.config()
    ));
    let device = pki.client("alice-laptop");
    let bundle = bundle(&pki, &device, gate.address(), &["smb"]);
    let file = folder.path().join("alice-laptop.doorward");
    fs::write(&file, bundle.to_text()).unwrap();
    let (mut forward, hint) = forward(&file);
    let forward = scopeguard::guard(&mut forward, |forward| {
        let _ = forward.kill();
        let _ = forward.wait();
    });
    fs::create_dir_all("/mnt").unwrap();
    let typed = hint.replace("/SHARE ", "/nas ").replace("username=USER", "username=root");
    let mut words = typed.split(' ');
    assert_eq!(words.next(), Some("mount"), "{hint}");
    // Not that of busybox, which knows no helpers.
    let mut mount = Command::new("/usr/bin/mount");
    run(mount.args(words).env("PASSWD", "changeit")).success();
    let begun = Instant::now();
    let sent = noise();
    fs::write("/mnt/file", &sent).unwrap();
    // Read from the server again, and not from memory.
    run(Command::new("/usr/bin/umount").arg("/mnt")).success();
    assert!(fs::read(folder.path().join("share/file")).unwrap() == sent);
    run(Command::new("/usr/bin/mount").args(typed.split(' ').skip(1)).env("PASSWD", "changeit")).success();
    assert!(fs::read("/mnt/file").unwrap() == sent);
    fs::rename("/mnt/file", "/mnt/renamed").unwrap();
    let names: Vec<_> = fs::read_dir("/mnt").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["renamed"]);
    run(Command::new("/usr/bin/umount").arg("/mnt")).success();
    eprintln!("64 MiB there and back: {:?}", begun.elapsed());
    drop(forward);
    let closed = gate.wait_closed("smb", 2);
    assert!(closed.iter().all(|line| line["certificate"]["name"] == "alice-laptop"), "{closed:?}");
}
