//! Real programs through `doorward connect` and `doorward forward`, to real servers behind the gate.

use std::fs;
use std::net::SocketAddrV4;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::process::{Daemon, own_loopback, run, run_with_input, tool};
use crate::scene::{Running, Scene, doorward, noise, route};

/// A folder for the files of programs.
pub(crate) fn home(scene: &Scene, name: &str) -> PathBuf {
    let folder = scene.path(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A program without the settings of this machine's user.
pub(crate) fn at_home(program: &str, package: &str, home: &Path) -> Command {
    let mut command = tool(program, package);
    command.current_dir(home).env("HOME", home).env_remove("XDG_CONFIG_HOME").env_remove("SSH_AUTH_SOCK");
    command
}

pub(crate) fn sshd(home: &Path, address: SocketAddrV4) -> Daemon {
    for name in ["hostkey", "id"] {
        let mut keygen = at_home("ssh-keygen", "openssh-client", home);
        run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", name])).success();
    }
    let path = |name: &str| home.join(name).display().to_string();
    let config = format!(
        "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         Subsystem sftp internal-sftp\n",
        path("hostkey"),
        path("id.pub"),
    );
    fs::write(home.join("sshd_config"), config).unwrap();
    if rustix::process::geteuid().is_root() {
        // As RuntimeDirectory= of Debian's unit; sshd as root requires it.
        fs::create_dir_all("/run/sshd").unwrap();
    }
    let mut sshd = at_home("sshd", "openssh-server", home);
    Daemon::start(sshd.args(["-D", "-e", "-f"]).arg(home.join("sshd_config")), address)
}

pub(crate) struct Ssh {
    pub(crate) scene: Scene,
    pub(crate) home: PathBuf,
    _sshd: Daemon,
}

impl Ssh {
    /// A real sshd, and a configuration of ssh with `doorward connect` as ProxyCommand.
    pub(crate) fn new() -> Self {
        let address = SocketAddrV4::new(own_loopback(), 2222);
        let scene = Scene::with("ssh", address.into());
        let home = home(&scene, "home");
        let sshd = sshd(&home, address);
        let file = scene.file();
        let path = |name: &str| home.join(name).display().to_string();
        let host_key = fs::read_to_string(home.join("hostkey.pub")).unwrap();
        fs::write(home.join("known_hosts"), format!("ssh.home.example {host_key}")).unwrap();
        let config = format!(
            "Host ssh.home.example\n  ProxyCommand {} connect %h --file {}\n  BatchMode yes\n  IdentityFile {}\n  \
             IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n  \
             StrictHostKeyChecking yes\n  UpdateHostKeys no\n",
            env!("CARGO_BIN_EXE_doorward"),
            file.display(),
            path("id"),
            path("known_hosts"),
        );
        fs::write(home.join("config"), config).unwrap();
        Self { scene, home, _sshd: sshd }
    }

    fn client(&self, program: &str) -> Command {
        let mut client = at_home(program, "openssh-client", &self.home);
        client.args(["-F", "config"]);
        client
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }
}

#[track_caller]
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let [a, b] = [one, other].map(|path| fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    assert!(a == b, "{} and {} differ ({} and {} bytes)", one.display(), other.display(), a.len(), b.len());
}

#[test]
fn ssh_runs_commands_and_ends_with_their_status() {
    let ssh = Ssh::new();
    let typed = noise(8_000_000, 1);
    let cat = run_with_input(ssh.client("ssh").args(["ssh.home.example", "cat; echo bye"]), &typed).success();
    assert!(cat.stdout == [&typed[..], b"bye\n"].concat(), "{} bytes", cat.stdout.len());
    assert_eq!(run(ssh.client("ssh").args(["ssh.home.example", "exit 7"])).status.code(), Some(7));
    let closed = ssh.scene.gate.wait_closed("ssh", 2);
    assert!(closed.iter().all(|line| line["certificate"].to_string().contains("alice-laptop")), "{closed:?}");
}

#[test]
fn sftp_and_scp_transfer_files() {
    let ssh = Ssh::new();
    fs::write(ssh.path("sent"), noise(5_000_000, 2)).unwrap();
    let path = |name: &str| ssh.path(name).display().to_string();
    let batch = format!("put {} {}\nget {} {}\n", path("sent"), path("stored"), path("stored"), path("back"));
    run_with_input(ssh.client("sftp").args(["-b", "-", "ssh.home.example"]), batch.as_bytes()).success();
    assert_same(&ssh.path("sent"), &ssh.path("stored"));
    assert_same(&ssh.path("sent"), &ssh.path("back"));
    let there = |name: &str| format!("ssh.home.example:{}", path(name));
    run(ssh.client("scp").args(["-q", "sent", &there("copied")])).success();
    run(ssh.client("scp").args(["-q", &there("copied"), "again"])).success();
    assert_same(&ssh.path("sent"), &ssh.path("copied"));
    assert_same(&ssh.path("sent"), &ssh.path("again"));
}

#[test]
fn rsync_and_git_work_both_ways() {
    let ssh = Ssh::new();
    fs::create_dir(ssh.path("photos")).unwrap();
    for (name, size) in [("one", 3_000_000), ("two", 1), ("three", 65_536)] {
        fs::write(ssh.path("photos").join(name), noise(size, 3)).unwrap();
    }
    let there = format!("ssh.home.example:{}/", ssh.path("stored").display());
    for (from, to) in [("photos/", there.as_str()), (there.as_str(), "back/")] {
        let mut rsync = at_home("rsync", "rsync", &ssh.home);
        run(rsync.args(["--archive", "--rsh", "ssh -F config", from, to])).success();
    }
    for name in ["one", "two", "three"] {
        assert_same(&ssh.path("photos").join(name), &ssh.path("back").join(name));
    }

    let git = |arguments: &[&str]| {
        let mut git = at_home("git", "git", &ssh.home);
        git.env("GIT_SSH_COMMAND", format!("ssh -F {}", ssh.path("config").display())).env("GIT_CONFIG_NOSYSTEM", "1");
        run(git.args(["-c", "user.name=Alice", "-c", "user.email=alice@home.example"]).args(arguments)).success()
    };
    let bare = format!("ssh.home.example:{}", ssh.path("album.git").display());
    git(&["init", "-q", "--bare", "-b", "main", "album.git"]);
    git(&["init", "-q", "-b", "main", "album"]);
    fs::write(ssh.path("album/picture"), noise(2_000_000, 4)).unwrap();
    git(&["-C", "album", "add", "picture"]);
    git(&["-C", "album", "commit", "-q", "-m", "one"]);
    git(&["-C", "album", "push", "-q", &bare, "main"]);
    git(&["clone", "-q", &bare, "clone"]);
    assert_same(&ssh.path("album/picture"), &ssh.path("clone/picture"));
}

#[test]
fn ssh_shows_why_the_gate_refuses() {
    let ssh = Ssh::new();
    ssh.scene.revoke();
    let refused = run(ssh.client("ssh").args(["ssh.home.example", "echo hello"])).failure();
    assert!(refused.stdout.is_empty(), "{refused}");
    assert!(refused.stderr.contains("this device (alice-laptop) was revoked at the gate of home.example"), "{refused}");
}

/// `doorward forward` for a route, and where it listens.
fn forward(scene: &Scene, rule: &str) -> (Running, SocketAddrV4) {
    let file = scene.file();
    let mut running = Running::start(&mut doorward(&["forward", rule], &file));
    running.wait_for(" on ");
    let errors = running.errors();
    let local = errors.lines().find_map(|line| line.split_once(" on ")?.1.parse().ok()).unwrap();
    (running, local)
}

#[test]
fn smbclient_transfers_files_through_a_local_port() {
    let address = SocketAddrV4::new(own_loopback(), 4450);
    let scene = Scene::with("smb", address.into());
    let home = home(&scene, "home");
    let state = home.join("samba");
    fs::create_dir_all(home.join("share")).unwrap();
    fs::create_dir_all(&state).unwrap();
    let user = run(tool("id", "coreutils").arg("-un")).success().text();
    let config = format!(
        "[global]\nserver role = standalone server\ninterfaces = {ip}/8\nbind interfaces only = yes\nsmb ports = {port}\n\
         disable netbios = yes\ndisable spoolss = yes\nload printers = no\nprintcap name = /dev/null\n\
         map to guest = bad user\nguest account = {user}\nstate directory = {state}\ncache directory = {state}\n\
         lock directory = {state}\nprivate dir = {state}\npid directory = {state}\nncalrpc dir = {state}\n\
         [nas]\npath = {share}\nguest ok = yes\nread only = no\n",
        ip = address.ip(),
        port = address.port(),
        user = user.trim(),
        state = state.display(),
        share = home.join("share").display(),
    );
    fs::write(home.join("smb.conf"), config).unwrap();
    let mut smbd = at_home("smbd", "samba", &home);
    let arguments = ["--foreground", "--no-process-group", "--debug-stdout", "--configfile=smb.conf"];
    let _smbd = Daemon::start(smbd.args(arguments), address);
    let (mut running, local) = forward(&scene, "smb=0");
    running.wait_for(&format!("sudo mount -t cifs //127.0.0.1/SHARE /mnt -o port={},username=USER", local.port()));
    for (name, size) in [("one", 7_000_000), ("two", 1), ("three", 0)] {
        fs::write(home.join(name), noise(size, 5)).unwrap();
        let mut smbclient = at_home("smbclient", "smbclient", &home);
        smbclient.args(["--no-pass", "--configfile=smb.conf", "--port", &local.port().to_string()]);
        smbclient.arg(format!("//{}/nas", local.ip()));
        run(smbclient.args(["--command", &format!("put {name} {name}; get {name} {name}.back")])).success();
        assert_same(&home.join(name), &home.join("share").join(name));
        assert_same(&home.join(name), &home.join(format!("{name}.back")));
    }
    scene.gate.wait_closed("smb", 3);
}

#[test]
fn psql_queries_through_a_local_port() {
    const NOBODY: u32 = 65_534;
    let address = SocketAddrV4::new(own_loopback(), 5432);
    let scene = Scene::new(&route("db", address.into()));
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    fs::create_dir(&data).unwrap();
    // PostgreSQL does not run as root.
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let _ = tool("pg_lsclusters", "postgresql");
    let versions = fs::read_dir("/usr/lib/postgresql").expect("apt-get install postgresql");
    let newest = versions.map(|version| version.unwrap().path().join("bin")).max().unwrap();
    let program = |name: &str| {
        let mut command = Command::new(newest.join(name));
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.env("LC_ALL", "C.UTF-8").current_dir(folder.path()).arg("-D").arg(&data);
        command
    };
    let arguments = ["--auth=trust", "--username=alice", "--no-locale", "--encoding=UTF8", "--no-sync"];
    run(program("initdb").args(arguments)).success();
    let mut postgres = program("postgres");
    postgres.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-k", "", "-F"]);
    let _server = Daemon::start(&mut postgres, address);
    let (_running, local) = forward(&scene, "db=0");
    let query = |query: &str| {
        let mut psql = at_home("psql", "postgresql-client", folder.path());
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", query]);
        run(psql.arg(format!("host={} port={} user=alice dbname=postgres", local.ip(), local.port()))).success().text()
    };
    assert_eq!(query("select 6 * 7"), "42\n");
    let text = query("select repeat('z', 5000000)");
    assert!(text.len() == 5_000_001 && text.trim_end().bytes().all(|byte| byte == b'z'));
    scene.gate.wait_closed("db", 2);
}
