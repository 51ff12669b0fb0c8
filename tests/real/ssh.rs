//! OpenSSH, which has no TLS, through `openssl s_client`: a real sshd behind the gate, and ssh, sftp and rsync.

use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Command;

use crate::common::gate::Gate;
use crate::common::process::{Daemon, own_loopback, run, run_with_input};
use crate::walkthrough::{Walkthrough, route};

/// sshd at an address, with the keys `hostkey` and `id` of this folder.
pub(crate) fn sshd(files: &Walkthrough, address: SocketAddrV4) -> Daemon {
    for name in ["hostkey", "id"] {
        let mut keygen = files.tool("ssh-keygen", "openssh-client");
        run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", name])).success();
    }
    let config = format!(
        "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         Subsystem sftp internal-sftp\n",
        files.home("hostkey").display(),
        files.home("id.pub").display(),
    );
    std::fs::write(files.home("sshd_config"), config).unwrap();
    if rustix::process::geteuid().is_root() {
        // As RuntimeDirectory= of Debian's unit; sshd as root requires it.
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
    let mut sshd = files.tool("sshd", "openssh-server");
    Daemon::start(sshd.args(["-D", "-e", "-f"]).arg(files.home("sshd_config")), address)
}

struct Ssh {
    files: Walkthrough,
    _sshd: Daemon,
    gate: Gate,
}

impl Ssh {
    fn new() -> Self {
        let files = Walkthrough::new();
        let address = SocketAddrV4::new(own_loopback(), 2222);
        let sshd = sshd(&files, address);
        let host_key = std::fs::read_to_string(files.home("hostkey.pub")).unwrap();
        std::fs::write(files.home("known_hosts"), format!("ssh.example.local {host_key}")).unwrap();
        let gate = files.gate(&route("ssh", &["ssh.example.local"], address, &["any"]));
        let ssh = Self { files, _sshd: sshd, gate };

        // `-quiet`: no letter in the stream is a command. `-verify_return_error` and `-verify_hostname`: no other gate is
        // trusted. `-servername`: the connection goes to an address.
        let s_client = format!(
            "openssl s_client -quiet -verify_quiet -verify_return_error -verify_hostname %h -servername %h \
             -connect {} -CAfile {}",
            ssh.gate.address(),
            ssh.files.root().display(),
        );
        let me = ssh.files.me();
        ssh.write_config("with", &format!("{s_client} -cert {} -key {}", me.certificate.display(), me.key.display()));
        ssh.write_config("without", &s_client);
        ssh
    }

    fn write_config(&self, name: &str, proxy_command: &str) {
        let home = |file: &str| self.files.home(file).display().to_string();
        let config = format!(
            "Host ssh.example.local\n  ProxyCommand {proxy_command}\n  BatchMode yes\n  IdentityFile {}\n  \
             IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n  \
             StrictHostKeyChecking yes\n  UpdateHostKeys no\n",
            home("id"),
            home("known_hosts"),
        );
        std::fs::write(self.files.home(name), config).unwrap();
    }

    /// `ssh`, `sftp`: with the configuration `with` or `without` a client certificate.
    fn client(&self, program: &str, config: &str) -> Command {
        let mut client = self.files.tool(program, "openssh-client");
        client.arg("-F").arg(self.files.home(config));
        client
    }
}

/// So many bytes, of which no two blocks are the same.
pub(crate) fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..count.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(count).collect()
}

/// Compares two files without printing them.
#[track_caller]
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let [a, b] = [one, other].map(|path| std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    assert!(a == b, "{} and {} differ ({} and {} bytes)", one.display(), other.display(), a.len(), b.len());
}

#[test]
fn ssh_runs_a_command() {
    let ssh = Ssh::new();
    // Both directions, with lines that start with letters that are commands without `-quiet`.
    let typed = b"Q\nR\nk\nK\n".repeat(10_000);
    let cat = run_with_input(ssh.client("ssh", "with").args(["ssh.example.local", "cat; echo bye"]), &typed).success();
    assert!(cat.stdout == [&typed[..], b"bye\n"].concat(), "{} bytes", cat.stdout.len());
    let closed = ssh.gate.wait_closed("ssh", 1).remove(0);
    assert!(closed["certificate"].to_string().contains("Anye-MacBook-Air"), "{closed}");
}

#[test]
fn sftp_transfers_a_file() {
    let ssh = Ssh::new();
    let home = |file: &str| ssh.files.home(file);
    std::fs::write(home("sent"), noise(5_000_000)).unwrap();
    let batch = format!(
        "put {} {}\nget {} {}\n",
        home("sent").display(),
        home("stored").display(),
        home("stored").display(),
        home("back").display()
    );
    run_with_input(ssh.client("sftp", "with").args(["-b", "-", "ssh.example.local"]), batch.as_bytes()).success();
    assert_same(&home("sent"), &home("stored"));
    assert_same(&home("sent"), &home("back"));
    let closed = ssh.gate.wait_closed("ssh", 1).remove(0);
    for direction in ["bytes_to_backend", "bytes_to_client"] {
        assert!(closed[direction].as_u64() > Some(5_000_000), "{closed}");
    }
}

#[test]
fn rsync_syncs_a_folder_both_ways() {
    let ssh = Ssh::new();
    let home = |file: &str| ssh.files.home(file);
    std::fs::create_dir(home("photos")).unwrap();
    let photos = [("photos/one", 3_000_000), ("photos/two", 1), ("photos/three", 65_536)];
    for (name, size) in photos {
        std::fs::write(home(name), noise(size)).unwrap();
    }
    let there = format!("ssh.example.local:{}/", home("stored").display());
    for (from, to) in [("photos/", there.as_str()), (there.as_str(), "back/")] {
        let mut rsync = ssh.files.tool("rsync", "rsync");
        run(rsync.args(["--archive", "--rsh", "ssh -F with", from, to])).success();
    }
    for (name, _) in photos {
        assert_same(&home(name), &home(&name.replace("photos", "stored")));
        assert_same(&home(name), &home(&name.replace("photos", "back")));
    }
    ssh.gate.wait_closed("ssh", 2);
}

#[test]
fn ssh_without_a_certificate_is_rejected_with_reason() {
    let ssh = Ssh::new();
    let refused = run(ssh.client("ssh", "without").args(["ssh.example.local", "echo hello"])).failure();
    assert!(refused.stdout.is_empty(), "{refused}");
    assert!(refused.stderr.contains("alert certificate required"), "{refused}");
    let rejected = ssh.gate.wait_rejected("certificate", "required", 1).remove(0);
    assert_eq!(rejected["route"], "ssh", "{rejected}");
}
