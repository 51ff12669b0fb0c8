//! What the metrics, `status`, the page, the log and messages say about checks.

use std::process::Command;

use serde_json::Value;

use crate::client::{Client, client};
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::{run, wait_until};
use crate::home::House;
use crate::receiver::Receiver;
use crate::service::{Service, keys};
use crate::{ANY, HEALTHY, NAS};

const WRONG: &str = "answered \"HTTP/1.1 400 Bad Request\", expected \"well\"";

fn status(gate: &Gate) -> Value {
    serde_json::from_slice(&gate.ask(&["status", "--format", "json"]).success().stdout).unwrap()
}

fn route<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["routes"].as_array().unwrap().iter().find(|route| route["name"] == *name).unwrap()
}

#[test]
fn every_checked_backend_has_a_gauge_from_the_start_and_others_have_none() {
    let pki = TestPki::new();
    let service = Service::new(true);
    let never = format!("{ANY}\nhealth = {{ every = \"1h\" }}");
    let gate = House::new(&pki)
        .route_with("nas", &[&service.address(), "192.0.2.1:9"], &never)
        .route("other", service.address())
        .open();
    let metrics = gate.metrics();
    assert_eq!(metrics.label_values(HEALTHY, "route"), ["nas", "nas"]);
    assert_eq!(metrics.sum(HEALTHY, &[]), 2.0);
}

#[test]
fn unhealthy_backend_is_told_everywhere_with_the_reason() {
    let pki = TestPki::new();
    let (service, other) = (Service::new(true), Service::new(true));
    let house = House::new(&pki)
        .route_with("nas", &[&service.address()], &keys(1, 1))
        .route_with("ssh", &[&other.address(), &service.address()], &keys(1, 1))
        .route("plain", other.address());
    let gate = Gate::start_with_control(&house.config());
    let address = service.address();
    service.wait_checks(2);
    other.wait_checks(2);
    let healthy = status(&gate);
    for backend in route(&healthy, "ssh")["health"].as_array().unwrap() {
        assert_eq!(backend["health"], "healthy", "{healthy}");
        assert!(backend["since"].is_string() && backend["failure"].is_null(), "{healthy}");
    }
    assert!(route(&healthy, "plain")["health"].is_null(), "{healthy}");
    let finding = |status: &Value| {
        let findings = status["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["kind"] == "service_down").cloned()
    };
    assert_eq!(finding(&healthy), None);
    let text = || gate.ask(&["status"]).success().text();
    assert!(text().contains(&format!("{address} healthy since ")), "{}", text());
    // No device has connected, and it is up all the same.
    assert!(gate.get("/").1.contains("2 up, 1 unused"), "{}", gate.get("/").1);

    service.pass(false);
    let line = gate.wait_for_line("it is unhealthy", |line| line["event"] == "backend_unhealthy");
    assert_eq!((&line["backend"], &line["routes"]), (&address.as_str().into(), &serde_json::json!(["nas", "ssh"])));
    assert_eq!(line["detail"], WRONG);
    let down = status(&gate);
    let found = finding(&down).unwrap();
    assert_eq!((&found["subject"], &found["tone"]), (&"nas".into(), &"bad".into()), "{down}");
    assert!(found["headline"].as_str().unwrap().starts_with("nas: down since "), "{down}");
    let sentence = found["sentence"].as_str().unwrap();
    assert!(sentence.starts_with(&format!("{address} {WRONG}. Checked last ")), "{sentence}");
    assert!(!sentence.contains("failed"), "{sentence}");
    assert!(found["advice"].as_str().unwrap().contains("correct expect in health"), "{down}");
    let told = &route(&down, "ssh")["health"][1];
    assert_eq!((&told["health"], &told["failure"]), (&"unhealthy".into(), &WRONG.into()), "{down}");
    assert!(told["checked"].is_string(), "{down}");
    assert!(text().contains(&format!(": {WRONG}\n")), "{}", text());
    // The route with another backend is up, and the page says what is wrong with this one.
    let page = gate.get("/").1;
    let escaped = WRONG.replace('"', "&quot;");
    assert_eq!(page.matches(&format!("{address} {escaped}.")).count(), 3, "{page}");

    // Before it is configured, `check` does the same check.
    let checked = gate.ask(&["check", "--connect"]).success();
    let warning = format!("warning: route \"nas\": the health check of {address} fails: it {WRONG}\n");
    assert!(checked.stderr.contains(&warning), "{}", checked.stderr);
    let rows = String::from_utf8(checked.stdout).unwrap();
    assert!(
        rows.contains(&format!("; its health check fails: {WRONG}\n")) && rows.contains("; its health check passes\n"),
        "{rows}"
    );

    // A client that is refused is counted with it.
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    Client::admitted(gate.address(), &alice, NAS).map(|_| ()).unwrap_err();
    gate.wait_rejected("backend", "unhealthy", 1);
    wait_until("the refusal is told", || {
        let found = finding(&status(&gate))?;
        found["sentence"].as_str()?.ends_with(" 1 connection has failed since.").then_some(())
    });
    let why = gate.ask(&["why"]).success().text();
    assert!(why.contains("fails its health checks") && why.contains("correct"), "{why}");

    service.pass(true);
    gate.wait_for_line("it is healthy again", |line| line["event"] == "backend_healthy");
    assert_eq!(finding(&status(&gate)), None);
}

#[test]
fn check_warns_once_of_a_backend_that_is_dialled_in_vain() {
    let pki = TestPki::new();
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing_address = refusing.local_addr().unwrap().to_string();
    drop(refusing);
    let plain = Service::new(true);
    let tls = format!("{}\nbackend_tls = {{ trust = \"system\", server_name = \"nas.home.example\" }}", keys(1, 1));
    let house = House::new(&pki)
        .route_with("closed", &[&refusing_address], &keys(1, 1))
        .route_with("unresolved", &["no-such-host.invalid:80"], &keys(1, 1))
        .route_with("without-tls", &[&plain.address()], &tls);
    let file = pki.write("doorward.toml", house.config());
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    let checked = run(command.args(["check", "--connect", "--config"]).arg(file)).success();
    for route in ["closed", "unresolved", "without-tls"] {
        let warnings = checked.stderr.lines().filter(|line| line.contains(&format!("warning: route {route:?}")));
        assert_eq!(warnings.count(), 1, "{route}: {}", checked.stderr);
    }
    let rows = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(rows.matches("; its health check fails: ").count(), 3, "{rows}");
}

#[test]
fn owner_is_sent_one_message_for_each_change() {
    let pki = TestPki::new();
    let (service, receiver) = (Service::new(true), Receiver::start());
    let house = House::new(&pki).route_with("nas", &[&service.address()], &keys(1, 1));
    let config = format!(
        "{}\n[notify]\nwebhook = \"http://{}/\"\nevents = [\"backend_down\", \"backend_up\"]\n",
        house.config(),
        receiver.address()
    );
    let gate = Gate::start(&config);
    service.wait_checks(2);
    service.pass(false);
    let down = receiver.wait(1).body;
    assert_eq!((&down["event"], &down["title"]), (&"backend_down".into(), &"nas is down".into()), "{down}");
    assert!(down["message"].as_str().unwrap().starts_with(&format!("{} {WRONG}. ", service.address())), "{down}");
    // Neither further checks that fail nor a reload tell it again.
    service.wait_checks(5);
    let reloaded = gate.reload(&config.replace("[timeouts]\n", "[timeouts]\nidle = \"1h\"\n"));
    assert_eq!(reloaded["event"], "reloaded");
    service.wait_checks(5);
    service.pass(true);
    let up = receiver.wait(2).body;
    assert_eq!((&up["event"], &up["title"]), (&"backend_up".into(), &"nas is up".into()), "{up}");
    service.wait_checks(5);
    assert_eq!(receiver.requests().len(), 2);
}

#[test]
fn history_has_what_devices_did_and_no_check() {
    let pki = TestPki::new();
    let service = Service::new(true);
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let house = House::new(&pki).route_with("nas", &[&service.address()], &keys(1, 1));
    let gate = Gate::start_with_control(&house.config());
    service.wait_checks(5);
    drop(Client::admitted(gate.address(), &alice, NAS).unwrap());
    gate.wait_closed("nas", 1);
    service.wait_checks(5);
    let finished = gate.ask(&["history", "--format", "json"]).success();
    let history: Value = serde_json::from_slice(&finished.stdout).unwrap();
    assert_eq!(history["visits"].as_array().unwrap().len(), 1, "{history}");
    assert_eq!(gate.metrics().sum("doorward_backend_dial_duration_seconds_count", &[]), 1.0);
}
