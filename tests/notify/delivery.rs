//! What receivers are sent, in each format, and when they do not take it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustls::ClientConfig;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::client::{Client, End, Shown, VERSIONS, connect_from, showing};
use crate::common::backend::Backend;
use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::{Authority, Certified, TestPki};
use crate::common::process::wait_until;
use crate::folder::Home;
use crate::receiver::{Receiver, Request};
use crate::{NAS, Scene, status};

const NOTICES: &str = "doorward_notices_total";
const BACKENDS: &str = "events = [\"backend_down\", \"backend_up\"]";

#[track_caller]
fn keys(body: &Value) -> Vec<&str> {
    body.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn each_format_is_posted_as_its_receivers_take_it() {
    let (mut scene, receiver) = (Scene::new(), Receiver::start());
    let gate = Gate::start(scene.silent());
    let webhook = |path: &str, format: &str| {
        scene.config(&format!("webhook = \"http://{}{path}\"\nformat = \"{format}\"\n{BACKENDS}", receiver.address()))
    };
    let [json, ntfy, gotify, slack] = [
        webhook("/hook?key=secret", "json"),
        webhook("/secret-topic", "ntfy"),
        webhook("/message?token=secret", "gotify"),
        webhook("/services/secret", "slack"),
    ];
    // A receiver that comes with a reload takes effect without a restart.
    assert_eq!(gate.reload(&json)["event"], "reloaded");
    scene.down(&gate);
    let posted = receiver.wait(1);
    assert_eq!(posted.path, "/hook?key=secret");
    let body = &posted.body;
    for (field, value) in [
        ("event", json!("backend_down")),
        ("domain", json!("home.example")),
        ("subject", json!(scene.backend_address())),
        ("title", json!("nas is down")),
        ("priority", json!("high")),
        ("count", json!(1)),
        ("digest", json!(false)),
        ("test", json!(false)),
        ("route", json!("nas")),
        ("source", Value::Null),
    ] {
        assert_eq!(body[field], value, "{field}: {body}");
    }
    assert!(body["message"].as_str().unwrap().starts_with("127.0.0.1 answers, but refuses port "), "{body}");
    assert!(body["time"].as_str().unwrap().ends_with('Z') && body["tags"].is_array(), "{body}");
    assert_eq!(body.as_object().unwrap().len(), 14, "{body}");

    assert_eq!(gate.reload(&ntfy)["event"], "reloaded");
    scene.up(&gate);
    let posted = receiver.wait(2);
    assert_eq!(posted.path, "/");
    assert_eq!(keys(&posted.body), ["message", "priority", "tags", "title", "topic"]);
    assert_eq!(posted.body["topic"], "secret-topic");
    assert_eq!(posted.body["title"], "nas is up (home.example)");
    assert_eq!(posted.body["priority"], 2);

    assert_eq!(gate.reload(&gotify)["event"], "reloaded");
    scene.down(&gate);
    let posted = receiver.wait(3);
    assert_eq!(posted.path, "/message?token=secret");
    assert_eq!(keys(&posted.body), ["message", "priority", "title"]);
    assert_eq!(posted.body["priority"], 7);

    assert_eq!(gate.reload(&slack)["event"], "reloaded");
    scene.up(&gate);
    let posted = receiver.wait(4);
    assert_eq!(keys(&posted.body), ["text"]);
    assert!(posted.body["text"].as_str().unwrap().starts_with("*nas is up (home.example)*\n"), "{posted:?}");

    // The log and the status name the host and nothing else.
    gate.wait_metric(NOTICES, &[("event", "backend_up"), ("outcome", "sent")], 2.0);
    gate.wait_metric(NOTICES, &[("outcome", "sent")], 4.0);
    let shown = format!("{:?}{}{}", gate.lines(), gate.stderr(), status(&gate));
    assert!(shown.contains(&format!("http://{}", receiver.address())) && !shown.contains("secret"), "{shown}");
    // No [notify]: nothing is sent any more.
    assert_eq!(gate.reload(scene.silent())["event"], "reloaded");
    scene.down(&gate);
    wait_until("there are no receivers", || status(&gate)["notices"].is_null().then_some(()));
    assert_eq!(receiver.requests().len(), 4);
}

fn secret(pki: &TestPki, name: &str, text: &str) -> std::path::PathBuf {
    let path = pki.write(name, text);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    path
}

#[test]
fn secrets_in_files_reach_the_receiver_and_nothing_else() {
    let (mut scene, receiver) = (Scene::new(), Receiver::start());
    let url = secret(&scene.pki, "webhook.url", &format!("http://{}/secret-path\n", receiver.address()));
    let token = secret(&scene.pki, "webhook.token", "secret-token\n");
    let gate = Gate::start(&scene.config(&format!("webhook_file = {url:?}\ntoken_file = {token:?}\n{BACKENDS}")));
    scene.down(&gate);
    let posted = receiver.wait(1);
    assert_eq!((posted.path.as_str(), posted.header("authorization")), ("/secret-path", Some("Bearer secret-token")));
    let check = gate.ask(&["check"]).success();
    let shown = format!("{:?}{}{}{check}", gate.lines(), gate.stderr(), status(&gate));
    assert!(!shown.contains("secret-path") && !shown.contains("secret-token"), "{shown}");
    // Another token counts when the file is written.
    secret(&scene.pki, "webhook.token", "other-token\n");
    gate.hang_up();
    scene.up(&gate);
    assert_eq!(receiver.wait(2).header("authorization"), Some("Bearer other-token"));
}

#[test]
fn receiver_that_does_not_answer_delays_no_connection() {
    let (mut scene, receiver) = (Scene::new(), Receiver::start());
    receiver.hold(true);
    let gate = Gate::start(&scene.config(&format!("webhook = \"http://{}/\"\n{BACKENDS}", receiver.address())));
    scene.down(&gate);
    receiver.wait(1);
    // The message is under way; connections, reloads and requests are answered meanwhile.
    scene.up(&gate);
    for _ in 0..10 {
        scene.connect(&gate);
    }
    gate.hang_up();
    assert_eq!(status(&gate)["draining"], false);
    // However long that took: the first message may have been tried again, and the second one waits for it.
    let is_second = |request: &Request| request.body["event"] == "backend_up";
    assert!(!receiver.requests().iter().any(is_second), "{:?}", receiver.requests());
    receiver.hold(false);
    wait_until("the second message arrives", || receiver.requests().iter().any(is_second).then_some(()));
    gate.wait_metric(NOTICES, &[("outcome", "sent")], 2.0);
}

#[test]
fn dead_receiver_is_said_and_tried_again() {
    let mut scene = Scene::new();
    // A port that refuses, and that no other test is given.
    let reserved = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    reserved.set_reuse_address(true).unwrap();
    reserved.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = reserved.local_addr().unwrap().as_socket().unwrap();
    let gate = Gate::start(&scene.config(&format!("webhook = \"http://{address}/secret\"\n{BACKENDS}")));
    scene.down(&gate);
    let line = gate.wait_for_line("the receiver fails", |line| line["event"] == "notices_failing");
    assert_eq!(line["receiver"], format!("http://{address}"), "{line}");
    assert!(line["error"].as_str().unwrap().contains("Connection refused"), "{line}");
    let receiver = &status(&gate)["notices"][0];
    assert_eq!(receiver["receiver"], format!("http://{address}"), "{receiver}");
    assert!(receiver["failing_since"].is_string() && receiver["waiting"] == 1, "{receiver}");
    // It leads where nothing matters more, on each surface, and the URL is in none of them.
    let headline = format!("http://{address} has taken no message to you since today ");
    let said = gate.ask(&["status"]).success().text();
    let page = gate.get("/").1;
    let told: Value = serde_json::from_str(&gate.get("/status.json").1).unwrap();
    let of_receiver = |told: &Value| {
        let found = told["findings"].as_array().unwrap().iter().find(|one| one["kind"] == "receiver").cloned();
        found.unwrap_or_else(|| panic!("{told}"))
    };
    for finding in [of_receiver(&told), of_receiver(&status(&gate))] {
        assert!(finding["headline"].as_str().unwrap().starts_with(&headline), "{finding}");
        assert!(finding["sentence"].as_str().unwrap().ends_with("Connection refused (os error 111). 1 message waits."));
        assert_eq!(finding["command"], "doorward notify --test", "{finding}");
    }
    let places: Vec<usize> = ["nas: down since", &headline].iter().map(|part| said.find(part).unwrap()).collect();
    assert!(places.is_sorted() && said.starts_with("nas: down since"), "{said}");
    assert!(page.contains(&headline) && page.contains("Doorward cannot reach you there: "), "{page}");
    assert!(!format!("{said}{page}{told}").contains("secret"), "{said}");
    scene.connect(&gate);
    drop(reserved);
    let receiver = Receiver::at(address, None);
    assert_eq!(receiver.wait(1).body["event"], "backend_down");
    gate.wait_for_line("it takes messages again", |line| line["event"] == "notices_delivered");
    assert_eq!(status(&gate)["notices"][0]["error"], Value::Null);
    assert!(!gate.get("/status.json").1.contains("\"receiver\""), "it is over");
}

#[test]
fn message_that_is_refused_is_not_sent_again() {
    let (mut scene, receiver) = (Scene::new(), Receiver::start());
    receiver.answer("302 Found\r\nLocation: http://127.0.0.1:1/elsewhere");
    let gate = Gate::start(&scene.config(&format!("webhook = \"http://{}/\"\n{BACKENDS}", receiver.address())));
    scene.down(&gate);
    gate.wait_metric(NOTICES, &[("event", "backend_down"), ("outcome", "failed")], 1.0);
    let line = gate.wait_for_line("the receiver fails", |line| line["event"] == "notices_failing");
    assert!(line["error"].as_str().unwrap().contains("redirects are not followed"), "{line}");
    receiver.answer("200 OK");
    scene.up(&gate);
    assert_eq!(receiver.wait(2).body["event"], "backend_up");
}

/// A client that shows a certificate with this name, of an authority of its own.
fn forged(pki: &TestPki, name: &str) -> Arc<ClientConfig> {
    let forged = Authority::new("Doorward devices").issue(Certified::for_clients(name));
    showing(pki, Shown::certificate(&forged), &VERSIONS)
}

#[test]
fn flood_of_impostors_is_one_message_and_a_count() {
    const ADDRESSES: u32 = 1000;
    let (home, pki, backend, receiver) = (Home::with_authorities(), TestPki::new(), Backend::echo(), Receiver::start());
    home.ca(&["device", "alice-phone"]).success();
    let path = |file: &str| home.path(file).display().to_string();
    let local = LOCAL.replace("[metrics]\n", &format!("[metrics]\ninventory = {:?}\n", path("pki/inventory.toml")));
    let config = format!(
        "{local}\n[limits]\npenalties = \"off\"\n{}\n[[route]]\nname = \"nas\"\nserver_names = [\"{NAS}\"]\nbackends = \
         [\"{}\"]\nallow = [\"any\"]\n[notify]\nwebhook = \"http://{}/\"\nevents = [\"impostor\"]\n",
        pki.config(),
        backend.address(),
        receiver.address(),
    );
    let gate = Gate::start_with_control(&config);
    let forged = forged(&pki, "alice-phone");
    for n in 1..=ADDRESSES {
        let source = IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + n));
        let client = Client::on(connect_from(source, gate.address()), &forged, NAS);
        let end = client.handshake().and_then(|()| client.ping()).unwrap_err();
        assert!(matches!(end, End::Alert(_)), "{end:?}");
        if n == 1 {
            // It is recorded after its alert was sent: the next one could come before it.
            gate.settled();
        }
    }
    gate.settled();
    let posted = receiver.wait(1).body;
    assert_eq!((&posted["event"], &posted["subject"]), (&json!("impostor"), &json!("alice-phone")), "{posted}");
    assert_eq!((&posted["source"], &posted["route"]), (&json!("127.1.0.1"), &json!("nas")), "{posted}");
    let message = posted["message"].as_str().unwrap();
    assert!(message.starts_with("Somebody at 127.1.0.1 pretended to be alice-phone; you never issued"), "{message}");
    gate.wait_metric(NOTICES, &[("event", "impostor"), ("outcome", "digested")], f64::from(ADDRESSES - 1));
    gate.wait_metric(NOTICES, &[("event", "impostor"), ("outcome", "sent")], 1.0);
    // The rest is told when the gate ends, if that is before the hour.
    drop(gate);
    wait_until("the digest arrives", || (receiver.requests().len() == 2).then_some(()));
    let digest = &receiver.requests()[1].body;
    assert_eq!((&digest["digest"], &digest["count"]), (&json!(true), &json!(ADDRESSES - 1)), "{digest}");
}

#[test]
fn refused_configuration_and_expiring_certificate_are_told() {
    let (scene, receiver) = (Scene::new(), Receiver::start());
    let notify = format!(
        "webhook = \"http://{}/\"\nevents = [\"reload_failed\", \"expiring\", \"revocation_not_in_force\"]",
        receiver.address()
    );
    // Its authority ends in a week, by a certificate that is trusted beside the others.
    let mut params = Authority::for_authorities("Ends soon");
    params.not_after = crate::common::pki::days_from_now(7);
    let ending = scene.pki.write("ending.pem", Authority::custom(params).pem());
    let config = scene.config(&notify).replacen("trust = [", &format!("trust = [{ending:?}, "), 1);
    let gate = Gate::start(&config);
    let posted = receiver.wait(1).body;
    assert_eq!((&posted["event"], &posted["subject"]), (&json!("expiring"), &json!(ending.display().to_string())));
    assert!(posted["message"].as_str().unwrap().starts_with("It ends on "), "{posted}");
    assert_eq!(gate.reload(&config.replace("[[route]]", "[[route]]\nnonsense = 1"))["event"], "reload_failed");
    let posted = receiver.wait(2).body;
    assert_eq!(posted["event"], "reload_failed", "{posted}");
    assert!(posted["message"].as_str().unwrap().contains("nonsense"), "{posted}");
    // A list that cannot be read, in a configuration that is refused.
    let list = scene.pki.write("broken.crl", "no list");
    let broken = config.replacen("trust = [", &format!("revocation_lists = [{list:?}]\ntrust = ["), 1);
    assert_eq!(gate.reload(&broken)["event"], "reload_failed");
    let posted = receiver.wait(3).body;
    assert_eq!(posted["event"], "revocation_not_in_force", "{posted}");
    assert!(posted["message"].as_str().unwrap().contains("broken.crl"), "{posted}");
}

#[test]
fn first_connection_of_a_device_is_told_once() {
    let (scene, receiver) = (Scene::new(), Receiver::start());
    let gate =
        Gate::start(&scene.config(&format!(
            "webhook = \"http://{}/\"\nevents = [\"new_device\", \"backend_down\"]",
            receiver.address()
        )));
    scene.connect(&gate);
    let posted = receiver.wait(1).body;
    for (field, value) in [
        ("event", "new_device"),
        ("subject", "alice-phone"),
        ("title", "alice-phone has connected for the first time"),
        ("source", "127.0.0.1"),
        ("route", "nas"),
    ] {
        assert_eq!(posted[field], value, "{field}: {posted}");
    }
    // Another message, which would come behind it.
    scene.connect(&gate);
    let mut scene = scene;
    scene.down(&gate);
    assert_eq!(receiver.wait(2).body["event"], "backend_down");
    gate.wait_metric(NOTICES, &[("event", "new_device")], 1.0);
}
