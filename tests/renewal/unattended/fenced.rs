//! What the gate and the process that renews can reach: each thing is tried by a process that has entered the very sandbox of the
//! one or the other, and by a process without a sandbox, where it must succeed.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use doorward::config;
use doorward::sandbox::Sandbox;
use rustix::io::Errno;
use rustix::thread::gettid;

use super::{Renewer, house};
use crate::common::process::run;
use crate::house::House;

/// The folder of the home, the configuration of its gate, whose sandbox it is, and a note: for a test that is to be the process.
const HOME: &str = "DOORWARD_TEST_HOME";
const CONFIG: &str = "DOORWARD_TEST_CONFIG";
const SANDBOX: &str = "DOORWARD_TEST_SANDBOX";
const NOTE: &str = "DOORWARD_TEST_NOTE";

const KEY: &str = "issuer/renewals-key.pem";

/// What a process finds that tries something.
struct Scene {
    home: PathBuf,
    note: String,
}

impl Scene {
    fn path(&self, file: &str) -> PathBuf {
        self.home.join(file)
    }
}

/// An attempt and its name.
type Attempt = (&'static str, fn(&Scene) -> io::Result<()>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed(Errno),
    Killed(i32),
}

const DENIED: Outcome = Outcome::Failed(Errno::ACCESS);
/// For what the filter of system calls does not know.
const UNKNOWN: Outcome = Outcome::Failed(Errno::NOSYS);

/// Where this is the process: enters the sandbox, tries the attempt that is wanted, and ends with the result.
fn in_process(attempts: &[(Attempt, Outcome)]) {
    let Some(home) = env::var_os(HOME) else { return };
    let value = |key: &str| env::var(key).unwrap();
    let scene = Scene { home: home.into(), note: value(NOTE) };
    let config = config::load(Path::new(&value(CONFIG))).unwrap();
    let (sandbox, name) = value(SANDBOX).split_once(' ').map(|(one, two)| (one.to_owned(), two.to_owned())).unwrap();
    match sandbox.as_str() {
        "gate" => drop(Sandbox::enter(&config, None).unwrap()),
        "renewer" => drop(Sandbox::enter_to_renew(&config, &scene.path("renewal")).unwrap()),
        _ => {}
    }
    let ((_, attempt), _) = attempts.iter().find(|((called, _), _)| *called == name).unwrap();
    exit(attempt(&scene).map_or_else(|error| error.raw_os_error().unwrap(), |()| 0));
}

/// What came of an attempt in this sandbox.
fn outcome(house: &House, test: &str, sandbox: &str, name: &str, note: &str) -> Outcome {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(HOME, house.home.path("")).env(NOTE, note);
    command.env(CONFIG, house.gate.folder().join("doorward.toml")).env(SANDBOX, format!("{sandbox} {name}"));
    let ended = run(&mut command);
    match (ended.status.code(), ended.status.signal()) {
        (Some(0), _) => Outcome::Done,
        // The code of a test that panics.
        (Some(101) | None, None) => panic!("{ended}"),
        (Some(code), _) => Outcome::Failed(Errno::from_raw_os_error(code)),
        (None, Some(signal)) => Outcome::Killed(signal),
    }
}

/// Asserts that each attempt succeeds without a sandbox, and has its outcome in this one.
fn assert_forbidden(house: &House, test: &str, sandbox: &str, note: &str, attempts: &[(Attempt, Outcome)]) {
    for ((name, _), expected) in attempts {
        assert_eq!(outcome(house, test, sandbox, name, note), *expected, "{name}, in the sandbox of the {sandbox}");
        assert_eq!(outcome(house, test, "none", name, note), Outcome::Done, "{name}, without a sandbox");
    }
}

/// The kernel of this machine has to restrict files: else there is nothing to test.
fn assert_landlock(house: &House) {
    let line = house.gate.wait_for_line("the sandbox", |line| line["event"] == "sandbox");
    let parts = line["in_force"].as_array().unwrap();
    assert!(parts.iter().any(|part| part == "files"), "the kernel restricts no files: {line}");
}

#[test]
fn gate_that_was_taken_over_cannot_read_the_issuers_key() {
    const OPEN: Attempt = ("open", |scene| File::open(scene.path(KEY)).map(drop));
    const LIST: Attempt = ("list", |scene| fs::read_dir(scene.path("issuer")).map(drop));
    // By names that lead there from where the gate reads.
    const LINK: Attempt = ("link", |scene| File::open(scene.path("renewal/link")).map(drop));
    const UPWARDS: Attempt =
        ("upwards", |scene| File::open(scene.path("renewal/../pki/../issuer/renewals-key.pem")).map(drop));
    // By what the process itself has open.
    const ROOT: Attempt = ("root", |scene| {
        let key = scene.path(KEY);
        File::open(Path::new(&format!("/proc/{}/root", scene.note)).join(key.strip_prefix("/").unwrap())).map(drop)
    });
    const MEMORY: Attempt = ("memory", |scene| File::open(format!("/proc/{}/mem", scene.note)).map(drop));
    // Into the folder of requests, which the gate may write to and read, or the other way round.
    const MOVE: Attempt = ("move", |scene| fs::rename(scene.path("issuer/copy"), scene.path("renewal/copy")));
    const HARD_LINK: Attempt = ("hard link", |scene| {
        let _ = fs::remove_file(scene.path("renewal/hard"));
        fs::hard_link(scene.path(KEY), scene.path("renewal/hard"))
    });
    const REPLACE: Attempt = ("replace", |scene| OpenOptions::new().append(true).open(scene.path(KEY)).map(drop));
    const TRACE: Attempt = ("trace", |scene| {
        let process: rustix::process::RawPid = scene.note.parse().unwrap();
        attach(process)
    });
    let attempts = [
        (OPEN, DENIED),
        (LIST, DENIED),
        (LINK, DENIED),
        (UPWARDS, DENIED),
        (ROOT, DENIED),
        (MEMORY, DENIED),
        (MOVE, DENIED),
        (HARD_LINK, UNKNOWN),
        (REPLACE, DENIED),
        (TRACE, Outcome::Killed(libc::SIGSYS)),
    ];
    in_process(&attempts);
    let house = house(&["alice-laptop"]);
    assert_landlock(&house);
    let renewer = Renewer::start(&house);
    symlink(house.home.path(KEY), house.home.path("renewal/link")).unwrap();
    // To be moved.
    fs::copy(house.home.path(KEY), house.home.path("issuer/copy")).unwrap();
    let test = "unattended::fenced::gate_that_was_taken_over_cannot_read_the_issuers_key";
    assert_forbidden(&house, test, "gate", &renewer.pid().to_string(), &attempts);
    // Nor has the gate, or the launcher beside it, the file open.
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", house.gate.pid())).unwrap();
    for pid in children.split_whitespace().map(str::to_owned).chain([house.gate.pid().to_string()]) {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let open: Vec<PathBuf> = open.filter_map(|one| fs::read_link(one.unwrap().path()).ok()).collect();
        assert!(!open.is_empty() && open.iter().all(|path| !path.starts_with(house.home.path("issuer"))), "{open:?}");
    }
}

/// What a debugger does: attaches to the process, and leaves it.
#[expect(unsafe_code, reason = "what an attacker would do")]
fn attach(process: i32) -> io::Result<()> {
    // SAFETY: these requests take numbers.
    let attached = unsafe { libc::ptrace(libc::PTRACE_SEIZE, process, 0, 0) };
    if attached < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn process_that_renews_makes_no_socket_and_reads_no_other_files() {
    const TCP: Attempt = ("connect", |scene| TcpStream::connect(scene.note.parse::<SocketAddr>().unwrap()).map(drop));
    const LISTEN: Attempt = ("listen", |_| TcpListener::bind("127.0.0.1:0").map(drop));
    const UDP: Attempt = ("datagram", |_| UdpSocket::bind("127.0.0.1:0").map(drop));
    const UNIX: Attempt = ("unix", |_| UnixDatagram::unbound().map(drop));
    // Beside the folder of the inventory.
    const DEVICE: Attempt = ("device", |scene| File::open(scene.path("devices/alice-laptop-key.pem")).map(drop));
    const DEVICES: Attempt = ("devices", |scene| fs::read_dir(scene.path("devices")).map(drop));
    const HOME_ITSELF: Attempt = ("home", |scene| fs::read_dir(scene.path("")).map(drop));
    // It has read it at its start, and is never asked to again.
    const KEY_AGAIN: Attempt = ("key", |scene| File::open(scene.path(KEY)).map(drop));
    const PASSWORDS: Attempt = ("passwords", |_| File::open("/etc/passwd").map(drop));
    const ITSELF: Attempt = ("itself", |_| File::open(format!("/proc/self/task/{}/maps", gettid())).map(drop));
    // What it is told by is not its to change.
    const INVENTORY: Attempt =
        ("inventory", |scene| OpenOptions::new().append(true).open(scene.path("pki/inventory.toml"))?.write_all(b"\n"));
    const LIST: Attempt =
        ("list", |scene| OpenOptions::new().append(true).open(scene.path("pki/clients.crl"))?.write_all(b"\n"));
    const BESIDE: Attempt = ("beside", |scene| File::create(scene.path("pki/new")).map(drop));
    const PROGRAM: Attempt = ("program", |_| Command::new("/bin/true").status().map(drop));
    let attempts = [
        (TCP, UNKNOWN),
        (LISTEN, UNKNOWN),
        (UDP, UNKNOWN),
        (UNIX, UNKNOWN),
        (DEVICE, DENIED),
        (DEVICES, DENIED),
        (HOME_ITSELF, DENIED),
        (KEY_AGAIN, DENIED),
        (PASSWORDS, DENIED),
        (ITSELF, DENIED),
        (INVENTORY, DENIED),
        (LIST, DENIED),
        (BESIDE, DENIED),
        (PROGRAM, UNKNOWN),
    ];
    in_process(&attempts);
    let house = house(&["alice-laptop"]);
    assert_landlock(&house);
    let test = "unattended::fenced::process_that_renews_makes_no_socket_and_reads_no_other_files";
    assert_forbidden(&house, test, "renewer", &house.nas.address().to_string(), &attempts);
}
