//! Other programs that speak ssh, through `doorward connect`: PuTTY's plink, Ansible, sshfs.

use std::fs;
use std::process::Command;

use crate::common::process::{Daemon, run, run_with_input, tool, wait_until};
use crate::programs::{Ssh, assert_same, at_home};
use crate::scene::noise;

/// `doorward connect` for a host that the program puts in place of `host`.
fn proxy_command(ssh: &Ssh, host: &str) -> String {
    let file = ssh.scene.path("alice-laptop.doorward");
    format!("{} connect {host} --file {}", env!("CARGO_BIN_EXE_doorward"), file.display())
}

fn user() -> String {
    run(tool("id", "coreutils").arg("-un")).success().text().trim().to_owned()
}

/// PuTTY's dialog calls it a local proxy command, and has the same text in it.
#[test]
fn plink_runs_commands_through_a_local_proxy_command() {
    let ssh = Ssh::new();
    let mut puttygen = at_home("puttygen", "putty-tools", &ssh.home);
    run(puttygen.args(["id", "-O", "private", "-o", "id.ppk"])).success();
    let mut keygen = at_home("ssh-keygen", "openssh-client", &ssh.home);
    let printed = run(keygen.args(["-l", "-f", "hostkey.pub"])).success().text();
    let host_key = printed.split(' ').nth(1).unwrap().to_owned();
    let plink = |command: &str| {
        let mut plink = at_home("plink", "putty-tools", &ssh.home);
        plink.args(["-v", "-ssh", "-batch", "-noagent", "-i", "id.ppk", "-hostkey", &host_key, "-l", &user()]);
        plink.args(["-proxycmd", &proxy_command(&ssh, "%host"), "ssh.home.example", command]);
        plink
    };
    let typed = noise(2_000_000, 21);
    let cat = run_with_input(&mut plink("cat; echo bye"), &typed).success();
    assert!(cat.stdout == [&typed[..], b"bye\n"].concat(), "{} bytes", cat.stdout.len());
    assert_eq!(run(&mut plink("exit 7")).status.code(), Some(7));
    ssh.scene.gate.wait_closed("ssh", 2);
    ssh.scene.revoke();
    // It is in the event log, which -v shows, and PuTTY has in its menu.
    let refused = run(&mut plink("echo hello")).failure();
    assert!(refused.stderr.contains("this device (alice-laptop) was revoked at the gate of home.example"), "{refused}");
}

#[test]
fn psftp_transfers_files() {
    let ssh = Ssh::new();
    run(at_home("puttygen", "putty-tools", &ssh.home).args(["id", "-O", "private", "-o", "id.ppk"])).success();
    let mut keygen = at_home("ssh-keygen", "openssh-client", &ssh.home);
    let printed = run(keygen.args(["-l", "-f", "hostkey.pub"])).success().text();
    fs::write(ssh.path("sent"), noise(3_000_000, 22)).unwrap();
    fs::write(ssh.path("batch"), "put sent stored\nget stored back\n").unwrap();
    let mut psftp = at_home("psftp", "putty-tools", &ssh.home);
    psftp.args(["-batch", "-noagent", "-i", "id.ppk", "-hostkey", printed.split(' ').nth(1).unwrap(), "-l", &user()]);
    psftp.args(["-proxycmd", &proxy_command(&ssh, "%host"), "-b", "batch", "ssh.home.example"]);
    // It begins in the home folder of the user.
    let stored = ssh.path("stored").display().to_string();
    fs::write(ssh.path("batch"), format!("put sent {stored}\nget {stored} back\n")).unwrap();
    run(&mut psftp).success();
    assert_same(&ssh.path("sent"), &ssh.path("stored"));
    assert_same(&ssh.path("sent"), &ssh.path("back"));
}

#[test]
fn ansible_runs_modules_and_copies_files() {
    let ssh = Ssh::new();
    let ansible = |arguments: &[&str]| {
        let mut ansible = at_home("ansible", "ansible-core", &ssh.home);
        let home = ssh.home.display();
        fs::write(ssh.path("ansible.cfg"), "").unwrap();
        fs::write(
            ssh.path("inventory"),
            format!(
                "[nas]\nssh.home.example\n[nas:vars]\nansible_user={}\nansible_ssh_private_key_file={home}/id\n\
                 ansible_python_interpreter=/usr/bin/python3\nansible_remote_tmp={home}/remote\n\
                 ansible_ssh_common_args=-o ProxyCommand='{}' -o UserKnownHostsFile={home}/known_hosts\n",
                user(),
                proxy_command(&ssh, "%h"),
            ),
        )
        .unwrap();
        ansible
            .env("ANSIBLE_CONFIG", ssh.path("ansible.cfg"))
            .env("ANSIBLE_LOCAL_TEMP", ssh.path("local"))
            .env("ANSIBLE_NOCOLOR", "1");
        // Otherwise one connection of ssh would serve all, for a minute after the end.
        ansible.env("ANSIBLE_SSH_ARGS", "-o ControlMaster=no -o BatchMode=yes");
        run(ansible.args(["nas", "--inventory", "inventory"]).args(arguments)).success().text()
    };
    let pong = ansible(&["--module-name", "ping"]);
    assert!(pong.contains("ssh.home.example | SUCCESS") && pong.contains("\"pong\""), "{pong}");
    fs::write(ssh.path("sent"), noise(1_000_000, 23)).unwrap();
    let stored = ssh.path("stored");
    let copied = ansible(&["--module-name", "copy", "--args", &format!("src=sent dest={}", stored.display())]);
    assert!(copied.contains("ssh.home.example | CHANGED"), "{copied}");
    assert_same(&ssh.path("sent"), &stored);
}

/// A file system of the NAS, over sftp.
#[test]
fn sshfs_mounts_a_folder() {
    let ssh = Ssh::new();
    for folder in ["share", "mounted"] {
        fs::create_dir(ssh.path(folder)).unwrap();
    }
    let (share, mounted) = (ssh.path("share"), ssh.path("mounted"));
    let mut sshfs = at_home("sshfs", "sshfs", &ssh.home);
    let options = format!("ssh_command=ssh -F {}", ssh.path("config").display());
    sshfs.args(["-f", "-o", &options]).arg(format!("ssh.home.example:{}", share.display())).arg(&mounted);
    let is_mounted = || fs::read_to_string("/proc/self/mounts").unwrap().contains(&*mounted.display().to_string());
    let sshfs = Daemon::start_until(&mut sshfs, "it is mounted", is_mounted);
    fs::write(mounted.join("file"), noise(5_000_000, 24)).unwrap();
    fs::File::open(mounted.join("file")).unwrap().sync_all().unwrap();
    assert_same(&mounted.join("file"), &share.join("file"));
    run(Command::new("umount").arg(&mounted)).success();
    wait_until("it is gone", || (!is_mounted()).then_some(()));
    drop(sshfs);
    ssh.scene.gate.wait_closed("ssh", 1);
}
