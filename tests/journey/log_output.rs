//! A log that cannot be written, or not where it belongs: the service goes on, and the loss is told (attacks.md row 49).

use std::fs::{self, Permissions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::client::{Client, client, connect, plain_end};
use crate::common::backend::Backend;
use crate::common::metrics::Metrics;
use crate::common::pki::TestPki;
use crate::common::process::{Daemon, Finished, run, tool, wait_until};
use crate::home::House;

const NAME: &str = "nas.home.example";

/// Debian's nobody and nogroup.
const NOBODY: u32 = 65_534;

/// A gate that writes its log to a file. It runs as a user of its own, as the service does.
struct Logged {
    pki: TestPki,
    gate: Daemon,
    backend: Backend,
    /// The folder of the log.
    logs: PathBuf,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Logged {
    fn start() -> Self {
        let (pki, backend) = (TestPki::new(), Backend::echo());
        let house = House::new(&pki).limits("connection_rate_per_source = \"off\"").route("nas", backend.address());
        let logs = pki.path("logs");
        fs::create_dir(&logs).unwrap();
        let log = logs.join("doorward.log");
        let config = house.config().replace("format = \"json\"", &format!("format = \"json\"\noutput = {log:?}"));
        let file = pki.write("doorward.toml", format!("{config}\n[control]\nsocket = \"control.sock\"\n"));
        let folder = file.parent().unwrap();
        for entry in fs::read_dir(folder).unwrap() {
            chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(pki.path("server-key.pem"), Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&logs, Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.args(["run", "--config"]).arg(&file).uid(NOBODY).gid(NOBODY);
        let ready = || lines(&log).iter().any(|line| line["event"] == "ready");
        let gate = Daemon::start_until(&mut command, "its log says ready", ready);
        let address = |event: &str| {
            let lines = lines(&log);
            let line = lines.iter().find(|line| line["event"] == event).unwrap();
            line["address"].as_str().unwrap().parse().unwrap()
        };
        let (metrics, address) = (address("metrics"), address("listening"));
        Self { gate, backend, logs, address, metrics, pki }
    }

    fn log(&self) -> PathBuf {
        self.logs.join("doorward.log")
    }

    /// So many connections that are refused: each has a line.
    fn refuse(&self, count: usize) {
        for _ in 0..count {
            let mut stream = connect(self.address);
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            plain_end(&stream);
        }
    }

    /// A device comes in and is served.
    fn serves(&self) {
        let before = self.backend.accepted();
        let client = Client::admitted(self.address, &client(&self.pki, Some(&self.pki.client("alice-phone"))), NAME);
        let client = client.unwrap();
        client.ping().unwrap();
        client.close_notify();
        client.end();
        assert_eq!(self.backend.accepted(), before + 1);
    }

    fn metric(&self, name: &str) -> f64 {
        let mut stream = connect(self.metrics);
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n", self.metrics).unwrap();
        let mut response = String::new();
        std::io::Read::read_to_string(&mut stream, &mut response).unwrap();
        Metrics::parse(response.split_once("\r\n\r\n").unwrap().1).sum(name, &[])
    }

    fn status(&self, more: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        run(command.arg("status").arg("--config").arg(self.pki.path("doorward.toml")).args(more)).success().text()
    }

    /// Waits until every place where the owner looks says this about the log.
    #[track_caller]
    fn wait_failed(&self, words: &[&str]) {
        wait_until("the log is known to fail", || (self.metric("doorward_log_writable") == 0.0).then_some(()));
        let (status, stderr) = (self.status(&[]), self.gate.output());
        assert!(status.contains("The log has not been written since "), "{status}");
        for word in words {
            assert!(status.contains(word), "{word}: {status}");
            assert!(stderr.contains(word), "{word}: {stderr}");
        }
        let json: Value = serde_json::from_str(&self.status(&["--format", "json"])).unwrap();
        assert!(json["log_error"]["error"].as_str().unwrap().contains(words[0]), "{json}");
    }

    #[track_caller]
    fn wait_works(&self) {
        wait_until("the log is written again", || (self.metric("doorward_log_writable") == 1.0).then_some(()));
        assert!(!self.status(&[]).contains("The log has not been written"), "it is all right again");
        wait_until("stderr says so", || self.gate.output().contains("the log is written again").then_some(()));
    }

    /// How many refusals are in these files together, and how many lines are told to be missing.
    fn counted(&self, files: &[PathBuf]) -> (usize, u64) {
        let lines: Vec<Value> = files.iter().flat_map(|file| lines(file)).collect();
        let told = lines.iter().filter(|line| line["event"] == "left_out").map(|line| line["lines"].as_u64().unwrap());
        (lines.iter().filter(|line| line["event"] == "rejected").count(), told.sum())
    }
}

/// The whole lines of a log.
fn lines(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs logrotate with these directives, whether or not it is time.
fn logrotate(gate: &Logged, directives: &str) -> Finished {
    let config = gate.pki.write("logrotate.conf", directives);
    fs::set_permissions(&config, Permissions::from_mode(0o644)).unwrap();
    chown(&config, Some(0), Some(0)).unwrap();
    let state = gate.pki.path("logrotate.state");
    run(tool("logrotate", "logrotate").arg("--force").arg("--state").arg(state).arg(config)).success()
}

#[test]
fn row_49_logrotate_create_for_another_user_is_told() {
    let gate = Logged::start();
    gate.refuse(2);
    wait_until("both are in the log", || (gate.counted(&[gate.log()]).0 == 2).then_some(()));
    let path = gate.log().display().to_string();
    let rotated = logrotate(&gate, &format!("{path} {{\n su root root\n rotate 1\n create 0640 root root\n}}\n"));
    assert!(gate.log().exists(), "{rotated}");
    // Noticed without a line to write.
    gate.wait_failed(&[&format!("cannot open {path}: Permission denied"), "has another name now", "copytruncate"]);
    gate.refuse(3);
    gate.serves();
    let old = gate.logs.join("doorward.log.1");
    wait_until("they are in the old file", || (gate.counted(std::slice::from_ref(&old)).0 == 5).then_some(()));
    let on_stderr = || gate.gate.output().lines().filter(|line| line.contains("\"event\":\"rejected\"")).count();
    wait_until("and on stderr", || (on_stderr() == 3).then_some(()));

    // logrotate's compress deletes the file.
    fs::remove_file(&old).unwrap();
    wait_until("that is told", || gate.status(&[]).contains("was deleted").then_some(()));
    gate.refuse(4);
    wait_until("they are on stderr", || (on_stderr() == 7).then_some(()));
    wait_until("they count as lost", || (gate.metric("doorward_log_lines_lost_total") == 4.0).then_some(()));
    assert_eq!(gate.counted(&[gate.log()]), (0, 0));

    chown(gate.log(), Some(NOBODY), None).unwrap();
    gate.wait_works();
    // Without another line to be written.
    wait_until("the loss is told", || (gate.counted(&[gate.log()]) == (0, 4)).then_some(()));
    gate.refuse(1);
    wait_until("the log goes on", || (gate.counted(&[gate.log()]) == (1, 4)).then_some(()));
    assert_eq!(on_stderr(), 7, "what is in the log is not on stderr");
}

/// The manual's directives, below a logrotate.conf that says `create` as Debian's does.
#[test]
fn row_49_logrotate_as_the_manual_has_it_loses_nothing() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual/log.md")).unwrap();
    let (_, printed) = page.split_once("`/var/log/doorward/doorward.log {").expect("directives for logrotate");
    let directives: Vec<&str> = printed.split_once('}').unwrap().0.split(';').collect();
    let directives = directives.join("\n").replace(' ', "\n");
    let directives = directives.replace("rotate\n", "rotate ").replace("create\n", "create ");
    assert!(directives.contains("rotate 8"), "{directives}");
    let gate = Logged::start();
    let path = gate.log().display().to_string();
    let config = format!("weekly\nrotate 4\ncreate\n{path} {{\n{directives}\n}}\n");
    let mut refused = 0;
    for turn in 1..=3 {
        gate.refuse(5);
        refused += 5;
        logrotate(&gate, &config);
        // Those of the next second may still be in the old file.
        wait_until("lines come into the new file", || {
            gate.refuse(1);
            refused += 1;
            (gate.counted(&[gate.log()]).0 > 0).then_some(())
        });
        assert!(gate.logs.join("doorward.log.1").exists(), "turn {turn}");
    }
    for packed in ["doorward.log.2.gz", "doorward.log.3.gz"] {
        run(tool("gzip", "gzip").arg("-d").arg(gate.logs.join(packed))).success();
    }
    let files = ["doorward.log", "doorward.log.1", "doorward.log.2", "doorward.log.3"].map(|name| gate.logs.join(name));
    wait_until("every refusal is in one of them", || (gate.counted(&files) == (refused, 0)).then_some(()));
    assert_eq!(gate.metric("doorward_log_writable"), 1.0);
    assert_eq!(gate.gate.output(), "");
}

#[test]
fn row_49_a_full_disk_costs_lines_and_not_the_service() {
    let gate = Logged::start();
    gate.refuse(1);
    wait_until("it is in the log", || (gate.counted(&[gate.log()]).0 == 1).then_some(()));
    let kept = gate.logs.join("kept.log");
    fs::rename(gate.log(), &kept).unwrap();
    // Every write to it fails as on a full disk. This is /dev/full, where the gate's sandbox lets it open files.
    let full = gate.logs.join("full");
    let device = rustix::fs::makedev(1, 7);
    rustix::fs::mknodat(rustix::fs::CWD, &full, rustix::fs::FileType::CharacterDevice, 0o666.into(), device).unwrap();
    fs::set_permissions(&full, Permissions::from_mode(0o666)).unwrap();
    symlink("full", gate.log()).unwrap();
    let on_stderr = || gate.gate.output().lines().filter(|line| line.contains("\"event\":\"rejected\"")).count();
    wait_until("a line is not written", || {
        gate.refuse(1);
        (gate.metric("doorward_log_lines_lost_total") > 0.0).then_some(())
    });
    gate.wait_failed(&["cannot write the log to ", "No space left on device", "free some space"]);
    gate.serves();
    gate.refuse(2);
    let lost = gate.metric("doorward_log_lines_lost_total");
    wait_until("the last ones are on stderr", || (on_stderr() >= 3).then_some(()));

    fs::remove_file(gate.log()).unwrap();
    gate.wait_works();
    wait_until("the loss is told, once", || (gate.counted(&[gate.log()]).1 > 0).then_some(()));
    let (written, told) = gate.counted(&[gate.log()]);
    assert_eq!(written, 0);
    assert!(told as f64 >= lost, "{told} of {lost}");
    assert_eq!(gate.metric("doorward_log_lines_lost_total"), told as f64);
}

/// Linux refuses none of these to root, so the gate is another user.
#[test]
fn row_49_a_log_replaced_by_something_else_hangs_nothing() {
    type Replace = fn(&Path);
    let cases: [(&str, Replace, &str); 4] = [
        ("a folder", |log| fs::create_dir(log).unwrap(), "Is a directory"),
        (
            "a FIFO without a reader",
            |log| {
                run(tool("mkfifo", "coreutils").arg("-m").arg("666").arg(log)).success();
            },
            "No such device or address",
        ),
        ("a link that leads nowhere", |log| symlink("/nowhere/log", log).unwrap(), "No such file or directory"),
        (
            "nothing in a folder that cannot be written",
            |log| {
                let folder = log.parent().unwrap();
                chown(folder, Some(0), Some(0)).unwrap();
            },
            "Permission denied",
        ),
    ];
    for (what, replace, told) in cases {
        let gate = Logged::start();
        fs::remove_file(gate.log()).unwrap();
        // The gate may have made a new file already.
        let _ = chown(&gate.logs, Some(0), Some(0));
        let _ = fs::remove_file(gate.log());
        replace(&gate.log());
        gate.wait_failed(&[told]);
        gate.serves();
        gate.refuse(2);
        wait_until("the loss is counted", || (gate.metric("doorward_log_lines_lost_total") >= 2.0).then_some(()));
        chown(&gate.logs, Some(NOBODY), Some(NOBODY)).unwrap();
        if gate.log().is_dir() {
            fs::remove_dir(gate.log()).unwrap();
        } else {
            let _ = fs::remove_file(gate.log());
        }
        gate.wait_works();
        let lost = || gate.metric("doorward_log_lines_lost_total") as u64;
        wait_until(what, || (gate.counted(&[gate.log()]).1 == lost()).then_some(()));
    }
}
