//! Host names of backends: looked up without a client, kept over reloads, and told with the age of their answers.

use serde_json::Value;

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::{after_script, mounting, own_loopback, wait_until};
use crate::home::House;

const ADDRESSES: &str = "doorward_backend_resolved_addresses";

/// `host_names` as `status` has them.
fn host_names(gate: &Gate) -> Vec<Value> {
    let finished = gate.ask(&["status", "--format", "json"]).success();
    let status: Value = serde_json::from_slice(&finished.stdout).unwrap();
    status["host_names"].as_array().unwrap().clone()
}

#[test]
fn answers_and_their_age_are_told_and_outlive_a_reload() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let port = backend.address().port();
    let hosts = pki.write("hosts", "127.0.0.1 nas.lan\n127.0.0.2 nas.lan\n127.0.0.3 more.lan\n");
    // Nothing answers there, and the kernel says so at once.
    let server = pki.write("resolv.conf", format!("nameserver {}\n", own_loopback()));
    let script =
        format!("mount --bind '{}' /etc/hosts\nmount --bind '{}' /etc/resolv.conf", hosts.display(), server.display());
    let house = House::new(&pki)
        .route("nas", format!("nas.lan:{port}"))
        .route("gone", format!("gone.lan:{port}"))
        .route("plain", backend.address());
    let config =
        |house: &House<'_>| format!("watch = \"off\"\n{}\n[control]\nsocket = \"control.sock\"\n", house.config());
    let gate = Gate::start_with(&config(&house), |command| *command = after_script(mounting(), &script, command));
    let addresses = |route: &str, count| gate.wait_metric(ADDRESSES, &[("route", route)], count);
    // No client has connected.
    addresses("nas", 2.0);
    addresses("gone", 0.0);
    let (_, text) = gate.get("/metrics");
    let series = text.lines().filter(|line| line.starts_with(ADDRESSES)).count();
    assert_eq!(series, 2, "an address needs no look-up");
    let names = wait_until("the other look-up has failed", || {
        let names = host_names(&gate);
        names[0]["failed"].is_string().then_some(names)
    });
    assert_eq!((&names[0]["name"], names.len()), (&"gone.lan".into(), 2));
    let text = names[0]["text"].as_str().unwrap();
    assert!(text.starts_with("no address: the last look-up failed "), "{text}");
    assert_eq!(names[1]["addresses"], serde_json::json!(["127.0.0.1", "127.0.0.2"]));
    assert!(names[1]["seconds"].is_u64() && names[1]["failed"].is_null(), "{names:?}");
    let status = gate.ask(&["status"]).success().text();
    assert!(status.contains("  host name      nas.lan: 127.0.0.1, 127.0.0.2, answer of "), "{status}");
    let (_, page) = gate.get("/");
    assert!(page.contains("gone.lan: no address: the last look-up failed ") && !page.contains("nas.lan: "), "{page}");
    let (_, json) = gate.get("/status.json");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["host_names"][1]["answered"], names[1]["answered"]);

    // What is known of a name that stays is kept; a new one is looked up, and one that is gone is forgotten.
    let other = House::new(&pki)
        .route("nas", format!("nas.lan:{port}"))
        .route("again", format!("nas.lan:{port}"))
        .route("more", format!("more.lan:{port}"));
    assert_eq!(gate.reload(&config(&other))["event"], "reloaded");
    assert_eq!(gate.metrics().sum(ADDRESSES, &[("route", "again")]), 2.0, "known at once");
    addresses("more", 1.0);
    let after = host_names(&gate);
    let told: Vec<&Value> = after.iter().map(|name| &name["name"]).collect();
    assert_eq!(told, ["more.lan", "nas.lan"]);
    assert_eq!(after[1]["answered"], names[1]["answered"], "it was not looked up again");
    assert!(!gate.get("/metrics").1.contains("gone.lan"));
}
