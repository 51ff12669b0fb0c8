//! What the log says, and how much of it under a flood.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use doorward::model::close::CloseReason;
use doorward::model::rejection::{Alert, Reason};
use rustix::process::Signal;
use serde_json::Value;

use crate::client::{Client, client, connect, connect_from, plain_end};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::{Daemon, own_loopback, wait_until};
use crate::home::{House, Watch, assert_admitted, assert_refused};

const NAME: &str = "nas.home.example";
const REJECTED: &str = "doorward_connections_rejected_total";

/// A gate that writes its log as it does by default: not every line.
fn sampling(house: &House<'_>) -> Gate {
    let config = house.config();
    let sampled = config.replace("sampling = \"off\"\n", "");
    assert_ne!(sampled, config);
    Gate::start(&sampled)
}

/// Connects and speaks HTTP, as scanners do, so many times.
fn scan(gate: &Gate, source: Ipv4Addr, times: usize) {
    // A few at once, so that it is quick, and no more than the limits take.
    for at_once in (0..times).collect::<Vec<_>>().chunks(32) {
        let streams: Vec<TcpStream> = at_once
            .iter()
            .map(|_| {
                let mut stream = connect_from(IpAddr::V4(source), gate.address());
                stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
                stream
            })
            .collect();
        for stream in &streams {
            plain_end(stream);
        }
    }
}

#[test]
fn flood_of_refusals_fills_no_disk_and_is_counted() {
    const SCANS: usize = 3000;
    let pki = TestPki::new();
    let backend = Backend::echo();
    let house = House::new(&pki).limits("connection_rate_per_source = \"off\"").route("nas", backend.address());
    let mut gate = sampling(&house);
    let (scanner, another) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 9));
    scan(&gate, scanner, SCANS);
    scan(&gate, another, 3);
    let labels = [("stage", "client_hello"), ("reason", "not_tls")];
    gate.wait_metric(REJECTED, &labels, (SCANS + 3) as f64);
    // A line may be written after its connection is counted.
    let of_another = |line: &Value| line["source"].as_str().is_some_and(|from| from.starts_with("127.0.0.9:"));
    gate.wait_for_lines("the lines of the other source", 3, of_another);

    // An admitted client has its line, and so has one that is refused for another reason.
    let config = client(&pki, Some(&pki.client("alice-phone")));
    for _ in 0..20 {
        let watch = Watch::begin(&gate);
        let client = Client::admitted(gate.address(), &config, NAME).unwrap();
        client.close_notify();
        client.end();
        watch.closed(CloseReason::ClientClosed);
    }
    assert_refused(&gate, &backend, Reason::CertificateRequired, Alert::CERTIFICATE_REQUIRED, || {
        Client::admitted(gate.address(), &client(&pki, None), NAME)
    });

    gate.settled();
    gate.signal(Signal::TERM);
    assert!(gate.wait_for_end().success());
    let lines = gate.lines();
    let written = |source: Ipv4Addr| {
        let begin = format!("{source}:");
        let of_source = |line: &&Value| {
            line["reason"] == "not_tls" && line["source"].as_str().is_some_and(|source| source.starts_with(&begin))
        };
        lines.iter().filter(of_source).count()
    };
    // One more for each minute that it took.
    assert!((10..15).contains(&written(scanner)), "{} lines", written(scanner));
    assert_eq!(written(another), 3, "another source has its own");
    let told: Vec<&Value> = lines.iter().filter(|line| line["event"] == "left_out").collect();
    let mut left_out = 0;
    for line in told {
        assert_eq!(line["source"], scanner.to_string(), "{line}");
        let labels = [&line["cause"], &line["stage"], &line["reason"]].map(|label| label.as_str().unwrap());
        assert_eq!(labels, ["sampling", "client_hello", "not_tls"], "{line}");
        left_out += usize::try_from(line["lines"].as_u64().unwrap()).unwrap();
    }
    assert_eq!(left_out, SCANS - written(scanner));
    let bytes: usize = lines.iter().map(|line| line.to_string().len()).sum();
    assert!(bytes < 64 * 1024, "{bytes} bytes");
}

/// The steps of a line by their names, in the order of the alphabet. They must be the whole time.
#[track_caller]
fn steps(line: &Value) -> String {
    let durations = line["durations"].as_object().unwrap();
    let sum: f64 = durations.values().map(|seconds| seconds.as_f64().unwrap()).sum();
    assert!((sum - line["seconds"].as_f64().unwrap()).abs() < 0.000_01, "{line}");
    let steps: BTreeSet<&str> = durations.keys().map(String::as_str).collect();
    steps.into_iter().collect::<Vec<_>>().join(" ")
}

/// As many characters as a fingerprint has, of those that it has.
#[track_caller]
fn fingerprint(line: &Value) -> String {
    let ja4 = line["ja4"].as_str().unwrap_or_else(|| panic!("no fingerprint: {line}"));
    assert!(ja4.len() == 36 && ja4.starts_with("t13d"), "{ja4}");
    ja4.to_owned()
}

#[test]
fn line_has_durations_and_ja4() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).route("nas", backend.address()).open();
    let config = client(&pki, Some(&pki.client("alice-phone")));

    let line = assert_admitted(&gate, || Client::admitted(gate.address(), &config, NAME));
    assert_eq!(steps(&line), "admission dial handshake hello relay", "{line}");
    let first = fingerprint(&line);
    let line =
        assert_admitted(&gate, || Client::admitted(gate.address(), &client(&pki, Some(&pki.client("bob"))), NAME));
    assert_eq!(fingerprint(&line), first, "the same program");

    let line = assert_refused(&gate, &backend, Reason::CertificateRequired, Alert::CERTIFICATE_REQUIRED, || {
        Client::admitted(gate.address(), &client(&pki, None), NAME)
    });
    assert_eq!(steps(&line), "admission handshake hello", "{line}");
    assert_eq!(fingerprint(&line), first, "the same program, refused");

    let line = assert_refused(&gate, &backend, Reason::ServerNameUnknown, Alert::UNRECOGNIZED_NAME, || {
        Client::admitted(gate.address(), &config, "unknown.home.example")
    });
    assert_eq!(steps(&line), "admission hello", "{line}");
    assert_eq!(fingerprint(&line), first, "it is not the name that makes the difference");

    let watch = Watch::begin(&gate);
    let stream = connect(gate.address());
    (&stream).write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
    plain_end(&stream);
    let line = watch.rejected_at("client_hello");
    assert_eq!(steps(&line), "admission hello", "{line}");
    assert!(line["ja4"].is_null(), "{line}");
}

#[test]
fn file_takes_the_lines_and_is_followed_when_it_is_renamed() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let address = SocketAddrV4::new(own_loopback(), 24_444);
    let house = House::new(&pki).limits("connection_rate_per_source = \"off\"").route("nas", backend.address());
    let config = house
        .config()
        .replace("address = \"127.0.0.1:0\"\n\n\n[metrics]", &format!("address = \"{address}\"\n\n[metrics]"))
        .replace("format = \"json\"", "format = \"json\"\noutput = \"./log/doorward.log\"");
    assert!(config.contains(&address.to_string()) && config.contains("doorward.log"), "{config}");
    let file = pki.write("doorward.toml", config);
    // In a folder of its own, so that the sandbox lets it be made anew.
    let log = file.with_file_name("log/doorward.log");
    std::fs::create_dir(log.parent().unwrap()).unwrap();
    let gate =
        Daemon::start(Command::new(env!("CARGO_BIN_EXE_doorward")).args(["run", "--config"]).arg(&file), address);
    let refused = || {
        let mut stream = connect(address.into());
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        plain_end(&stream);
    };
    let lines = |log: &Path| -> Vec<Value> {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        // A line that has not come whole is for the next look.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let rejected = |log: &Path| lines(log).iter().filter(|line| line["event"] == "rejected").count();

    refused();
    wait_until("the refusal is in the file", || (rejected(&log) == 1).then_some(()));
    // A connection may wait for the gate, and is then refused while it starts.
    wait_until("the gate is ready", || lines(&log).iter().any(|line| line["event"] == "ready").then_some(()));
    let mode = std::fs::metadata(&log).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);

    // As logrotate does it; those that come within the next second may still be in the old one.
    let old = log.with_extension("log.1");
    std::fs::rename(&log, &old).unwrap();
    let mut refusals = 1;
    wait_until("there is a new file with lines", || {
        refused();
        refusals += 1;
        (rejected(&log) > 0).then_some(())
    });
    wait_until("every refusal is in one of the two", || (rejected(&old) + rejected(&log) == refusals).then_some(()));
    let told = gate.output();
    assert!(!told.contains("rejected") && !told.contains("event"), "stdout has nothing of it: {told}");
}

#[test]
fn log_that_cannot_be_opened_fails_the_start() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    // In a folder that not even root can write to.
    let config = House::new(&pki).route("nas", backend.address()).config();
    let config = config.replace("sampling = \"off\"", "output = \"/proc/self/doorward.log\"");
    let failed = Gate::fails_to_start(&config).to_string();
    assert!(failed.contains("cannot write the log to /proc/self/doorward.log: "), "{failed}");
}
