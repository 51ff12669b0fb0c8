//! On this machine, with `/etc`, `/usr/local`, `/run` and `/home` of its own: a gate that runs as its own user, and an owner
//! without root who revokes.

use std::net::SocketAddrV4;
use std::process::Command;

use crate::common::backend::Backend;
use crate::common::process::{Daemon, Finished, own_loopback, run, tool, wait_until};

/// A machine: a mount namespace.
pub(super) struct Machine {
    _folder: tempfile::TempDir,
    _holder: Daemon,
    pid: u32,
    pub(super) address: SocketAddrV4,
}

/// Gives the namespace folders of its own, and an owner. The gate's user has a number that no other test's has: userdel looks at
/// the processes of all namespaces.
const PREPARE: &str = "\
cp -a /etc \"$0/etc\"
mount --bind \"$0/etc\" /etc
for folder in /usr/local /run /home; do mount -t tmpfs -o mode=755 tmpfs \"$folder\"; done
first=$((100000 + $$ % 100000 * 4))
sed -i '/^#*SYS_[UG]ID_M/d' /etc/login.defs
for kind in UID GID; do echo \"SYS_${kind}_MIN $first\"; echo \"SYS_${kind}_MAX $((first + 3))\"; done >> /etc/login.defs
useradd --create-home alice
cp \"$1\" /home/doorward
echo ready $$
exec sleep infinity
";

/// Another program than that of a package.
pub(super) const UNPACKED: &str = "/home/doorward";

impl Machine {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut holder = tool("unshare", "util-linux");
        holder.args(["--mount", "bash", "-euc", PREPARE]).arg(folder.path()).arg(env!("CARGO_BIN_EXE_doorward"));
        let holder = Daemon::start_until(&mut holder, "it starts", || true);
        let output = wait_until("the machine has its folders", || {
            Some(holder.output()).filter(|output| output.contains("ready ") && output.ends_with('\n'))
        });
        let pid = output.split_once("ready ").unwrap().1.trim().parse().unwrap();
        let address = SocketAddrV4::new(own_loopback(), 8443);
        Self { _folder: folder, _holder: holder, pid, address }
    }

    /// A command on the machine: as root, or as a user who has just logged in, in a folder.
    pub(super) fn command(&self, user: &str, folder: &str, arguments: &[&str]) -> Command {
        let mut command = tool("nsenter", "util-linux");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.pid));
        command.args(["bash", "-euc", "cd \"$0\"; exec \"$@\"", folder]);
        if user != "root" {
            command.args(["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--no-new-privs"]);
        }
        command.args(arguments).env_remove("RUNTIME_DIRECTORY");
        command
    }

    pub(super) fn run(&self, user: &str, folder: &str, arguments: &[&str]) -> Finished {
        run(&mut self.command(user, folder, arguments))
    }

    /// `doorward init` by alice, with a backend.
    fn init(&self, backend: &Backend) {
        self.init_with(&[("nas", backend)]);
    }

    /// The same with routes.
    pub(super) fn init_with(&self, routes: &[(&str, &Backend)]) {
        let listen = self.address.to_string();
        let routes: Vec<_> = routes.iter().map(|(name, backend)| format!("{name}={}", backend.address())).collect();
        let init = ["init", "--domain", "home.example", "--device", "alice-phone", "--device", "bob-laptop"];
        let mut arguments = [&[UNPACKED], &init[..], &["--listen", &listen]].concat();
        arguments.extend(routes.iter().flat_map(|route| ["--route", route]));
        self.run("alice", "/home/alice", &arguments).success();
        // The default metrics port is the same for all gates on this machine.
        let edit = ["sed", "-i", "s/127.0.0.1:9180/127.0.0.1:0/", "doorward/doorward.toml"];
        self.run("alice", "/home/alice", &edit).success();
    }

    /// The gate, as the advice for a machine without systemd has it.
    pub(super) fn gate(&self) -> Daemon {
        let runtime = ["install", "-d", "-o", "doorward", "-g", "doorward", "-m", "0750", "/run/doorward"];
        self.run("root", "/", &runtime).success();
        let run = ["/usr/local/bin/doorward", "run", "--config", "/etc/doorward/doorward.toml"];
        let mut command = self.command("doorward", "/", &run);
        command.env("RUNTIME_DIRECTORY", "/run/doorward");
        let gate = Daemon::start(&mut command, self.address);
        wait_until("it is ready", || gate.output().contains(" ready\n").then_some(()));
        gate
    }

    /// Whether a device gets the backend's page.
    pub(super) fn is_admitted(&self, device: &str) -> bool {
        let (address, port) = (self.address.ip().to_string(), self.address.port());
        let files = ["--cert", ".pem", "--key", "-key.pem"].chunks(2);
        let files: Vec<String> = files
            .flat_map(|pair| [pair[0].to_owned(), format!("/home/alice/doorward/devices/{device}{}", pair[1])])
            .collect();
        let mut command = self.command("alice", "/", &["curl", "--silent", "--show-error", "--max-time", "10"]);
        command.args(files).args(["--cacert", "/home/alice/doorward/pki/server-ca.pem"]);
        command.arg("--resolve").arg(format!("nas.home.example:{port}:{address}"));
        command.arg(format!("https://nas.home.example:{port}/"));
        let finished = run(&mut command);
        assert!(finished.status.success() == finished.text().contains("the page"), "{finished}");
        finished.status.success()
    }
}

#[test]
fn device_revoked_by_the_owner_stays_out_after_a_restart() {
    let (machine, backend) = (Machine::new(), Backend::http("the page"));
    machine.init(&backend);
    let installed = machine.run("root", "/home/alice", &[UNPACKED, "install"]).success();
    assert!(installed.stderr.contains("next: systemd does not run here: to start the gate"), "{installed}");
    let gate = machine.gate();
    assert!(machine.is_admitted("alice-phone") && machine.is_admitted("bob-laptop"));

    // From any folder, without options, without root.
    let doorward =
        |arguments: &[&str]| machine.run("alice", "/tmp", &[&["/usr/local/bin/doorward"], arguments].concat());
    let status = doorward(&["status"]).success();
    assert!(status.text().contains("  configuration  /etc/doorward/doorward.toml, loaded at "), "{status}");
    let revoked = doorward(&["ca", "revoke", "bob-laptop"]).success();
    assert!(revoked.stderr.contains("/etc/doorward/pki/clients.crl is written as well, for the gate.\n"), "{revoked}");
    assert!(revoked.stderr.contains("The gate has applied the change. "), "{revoked}");
    assert!(!machine.is_admitted("bob-laptop") && machine.is_admitted("alice-phone"));
    let why = doorward(&["why"]).success();
    assert!(why.text().starts_with("bob-laptop's certificate was revoked"), "{why}");

    drop(gate);
    let gate = machine.gate();
    assert!(!machine.is_admitted("bob-laptop") && machine.is_admitted("alice-phone"));

    // Without a gate, the list counts at its next start.
    drop(gate);
    let revoked = doorward(&["ca", "revoke", "alice-phone"]).success();
    assert!(revoked.stderr.contains("A gate that you start will load the change"), "{revoked}");
    let _gate = machine.gate();
    assert!(!machine.is_admitted("alice-phone"));
    // In the folder itself the leftover configuration does not count.
    let folder = "/home/alice/doorward";
    let status = machine.run("root", folder, &["/usr/local/bin/doorward", "check"]).success();
    assert!(status.text().contains("/etc/doorward/doorward.toml has no errors"), "{status}");
    // The inventory, the devices: everything else that ca does.
    doorward(&["ca", "list"]).success();
    let device = doorward(&["ca", "device", "carol-phone"]).success();
    assert!(!device.stderr.contains("warning: "), "{device}");
    assert!(machine.is_admitted("carol-phone"));
    let renewed = doorward(&["ca", "server"]).success();
    assert!(renewed.stderr.contains("The gate has applied the change. "), "{renewed}");
    assert!(machine.is_admitted("carol-phone"));
    let shared = doorward(&["share", "bob-laptop", "--expires", "1s"]).failure();
    assert!(shared.stderr.contains("the certificate of bob-laptop is revoked"), "{shared}");
}

#[test]
fn revocation_that_the_next_start_would_not_find_is_no_success() {
    let (machine, backend) = (Machine::new(), Backend::http("the page"));
    machine.init(&backend);
    machine.run("root", "/home/alice", &[UNPACKED, "install"]).success();
    let _gate = machine.gate();
    machine.run("root", "/", &["chown", "root", "/etc/doorward/pki"]).success();
    let revoked = machine.run("alice", "/tmp", &["/usr/local/bin/doorward", "ca", "revoke", "bob-laptop"]).failure();
    assert_eq!(revoked.status.code(), Some(10), "{revoked}");
    assert!(
        revoked.stderr.contains("in force, but the next start of the gate would undo it: cannot write"),
        "{revoked}"
    );
    assert!(!machine.is_admitted("bob-laptop"));
    // Root can: in the folder of its owner, as that owner.
    machine.run("root", "/", &["/usr/local/bin/doorward", "ca", "revoke", "--lists"]).success();
    machine.run("root", "/", &["/usr/local/bin/doorward", "install"]).success();
    machine.run("alice", "/tmp", &["/usr/local/bin/doorward", "ca", "revoke", "--lists"]).success();
}

#[test]
fn gate_user_can_write_neither_lists_nor_trust() {
    let (machine, backend) = (Machine::new(), Backend::http("the page"));
    machine.init(&backend);
    machine.run("root", "/home/alice", &[UNPACKED, "install"]).success();
    let gate = machine.gate();
    for file in ["doorward.toml", "authority", "pki/clients.crl", "pki/clients.pem", "pki/server.pem"] {
        let path = format!("/etc/doorward/{file}");
        for attempt in
            [["bash", "-c", "echo >> \"$0\"", &path], ["rm", "-f", "--", &path], ["mv", &path, "/tmp/x", "-T"]]
        {
            machine.run("doorward", "/", &attempt).failure();
        }
        machine.run("doorward", "/", &["test", "-r", &path]).success();
    }
    for command in [["touch", "/etc/doorward/new"], ["touch", "/etc/doorward/pki/new"]] {
        machine.run("doorward", "/", &command).failure();
    }
    // Only the gate reads its key: the group may use the control socket, which is less.
    machine.run("doorward", "/", &["cat", "/etc/doorward/pki/server-key.pem"]).success();
    machine.run("alice", "/", &["cat", "/etc/doorward/pki/server-key.pem"]).failure();
    let status = machine.run("65534", "/", &["/usr/local/bin/doorward", "status"]);
    assert_eq!(status.status.code(), Some(8), "{status}");

    // The end. The gate's user cannot be removed while it runs, and nothing is until then.
    let installed = "/usr/local/bin/doorward";
    for purge in [&["--purge"][..], &[]] {
        let used = machine.run("root", "/", &[&[installed, "install", "--uninstall"], purge].concat()).failure();
        assert_eq!(used.status.code(), Some(2), "{used}");
        assert!(used.stderr.contains("a gate runs with /etc/doorward/doorward.toml"), "{used}");
    }
    machine.run("root", "/", &["test", "-e", installed]).success();
    drop(gate);
    machine.run("root", "/", &[installed, "install", "--uninstall"]).success();
    machine.run("root", "/", &["test", "-e", installed]).failure();
    machine.run("root", "/", &[UNPACKED, "install", "--uninstall", "--purge"]).success();
    machine.run("root", "/", &["id", "doorward"]).failure();
    machine.run("root", "/", &["test", "-e", "/etc/doorward"]).failure();
}

#[test]
fn installed_authority_is_used_from_any_folder() {
    let (machine, backend) = (Machine::new(), Backend::http("the page"));
    machine.init(&backend);
    machine.run("root", "/home/alice", &[UNPACKED, "install", "--with-authority"]).success();
    // The copy is all there is now, but for what this test's client needs.
    machine.run("root", "/home/alice", &["mv", "doorward/pki/clients-key.pem", "/run"]).success();
    let _gate = machine.gate();
    assert!(machine.is_admitted("alice-phone"));
    let doorward =
        |arguments: &[&str]| machine.run("alice", "/tmp", &[&["/usr/local/bin/doorward"], arguments].concat());
    let revoked = doorward(&["ca", "revoke", "alice-phone"]).success();
    assert!(revoked.stderr.contains("The gate has applied the change. "), "{revoked}");
    assert!(!machine.is_admitted("alice-phone"));
    let device = doorward(&["ca", "device", "carol-phone"]).success();
    assert!(device.stderr.contains("/etc/doorward/devices/carol-phone.html"), "{device}");
    machine.run("doorward", "/", &["cat", "/etc/doorward/pki/clients-key.pem"]).failure();
    machine.run("doorward", "/", &["ls", "/etc/doorward/devices"]).failure();
}

/// Only the gate and root may read its key. The owner has a copy; another member of the group has none, and is told what to do.
#[test]
fn owner_checks_and_explains_the_installed_configuration() {
    let (machine, backend) = (Machine::new(), Backend::http("the page"));
    machine.init(&backend);
    machine.run("root", "/home/alice", &[UNPACKED, "install"]).success();
    let doorward =
        |user, arguments: &[&str]| machine.run(user, "/tmp", &[&["/usr/local/bin/doorward"], arguments].concat());
    let checked = doorward("alice", &["check"]).success();
    assert!(checked.text().contains("/etc/doorward/doorward.toml has no errors"), "{checked}");
    let copy = "only the gate and root may read /etc/doorward/pki/server-key.pem, so its copy /home/alice/doorward/pki/server-key.pem";
    assert!(checked.stderr.contains(copy), "{checked}");
    let certificate = "/home/alice/doorward/devices/bob-laptop.pem";
    let explain = ["explain", "--server-name", "nas.home.example", "--cert", certificate];
    doorward("alice", &explain).success();
    doorward("alice", &["ca", "revoke", "bob-laptop"]).success();
    let refused = doorward("alice", &explain).failure();
    assert_eq!(refused.status.code(), Some(6), "{refused}");

    machine.run("root", "/", &["useradd", "--user-group", "--groups", "doorward", "carol"]).success();
    machine.run("root", "/", &["chmod", "700", "/home/alice"]).success();
    let refused = doorward("carol", &["check"]).failure();
    assert!(refused.stderr.contains("run this command as root: sudo doorward check"), "{refused}");
}
