//! `doorward notify --test`.

use std::path::Path;
use std::process::Command;

use crate::Scene;
use crate::common::pki::{Authority, Certified};
use crate::common::process::{Finished, run};
use crate::receiver::Receiver;

fn notify(file: &Path, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    run(command.arg("notify").args(arguments).arg("--config").arg(file))
}

#[test]
fn receiver_is_tried_and_its_answer_shown() {
    let (scene, receiver) = (Scene::new(), Receiver::start());
    let config = scene.config(&format!(
        "webhook = \"http://{}/secret\"\nevents = [\"impostor\", \"expiring\"]\nformat = \"json\"",
        receiver.address()
    ));
    let file = scene.pki.write("doorward.toml", config);
    let said = notify(&file, &["--test"]).success();
    assert!(said.text().starts_with(&format!("http://{}: impostor delivered in ", receiver.address())), "{said}");
    assert!(said.text().trim_end().ends_with("ms: 200 OK: ok"), "{said}");
    let posted = receiver.wait(1).body;
    assert!(posted["test"] == true && posted["title"].as_str().unwrap().starts_with("Test: "), "{posted}");
    assert_eq!(notify(&file, &["--test", "--event", "all"]).success().text().lines().count(), 2);
    receiver.answer("403 Forbidden");
    let said = notify(&file, &["--test", "--event", "backend_down"]).failure();
    assert_eq!(said.status.code(), Some(11), "{said}");
    assert!(said.stderr.contains("backend_down not delivered: it answers 403 Forbidden"), "{said}");
    assert!(!format!("{said}").contains("secret"), "{said}");
    // Without a receiver, and without --test.
    let silent = scene.pki.write("silent.toml", scene.silent());
    let said = notify(&silent, &["--test"]).failure();
    assert!(said.status.code() == Some(3) && said.stderr.contains("has no [notify]"), "{said}");
    assert_eq!(notify(&file, &[]).failure().status.code(), Some(2));
}

#[test]
fn certificate_of_the_receiver_is_verified() {
    let scene = Scene::new();
    let authority = Authority::new("Receivers");
    let mut params = Certified::for_servers(&["receiver.home.example"]);
    params.subject_alt_names = vec![rcgen::SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into())];
    let receiver = Receiver::start_tls(&authority.issue(params));
    let trust = scene.pki.write("receivers.pem", authority.pem());
    let webhook = format!("webhook = \"https://{}/\"\nevents = [\"impostor\"]", receiver.address());
    let known = scene.pki.write("known.toml", scene.config(&format!("{webhook}\ntrust = {trust:?}")));
    notify(&known, &["--test"]).success();
    receiver.wait(1);
    // Another authority is not asked whether it is public.
    let other = scene.pki.write("other.pem", Authority::new("Others").pem());
    let unknown = scene.pki.write("unknown.toml", scene.config(&format!("{webhook}\ntrust = {other:?}")));
    let said = notify(&unknown, &["--test"]).failure();
    assert!(said.stderr.contains("invalid peer certificate") && said.stderr.contains("trust = "), "{said}");
    // Its name counts.
    let elsewhere = webhook.replace("127.0.0.1", "localhost");
    let wrong = scene.pki.write("wrong.toml", scene.config(&format!("{elsewhere}\ntrust = {trust:?}")));
    let said = notify(&wrong, &["--test"]).failure();
    assert!(said.stderr.contains("no TLS with localhost: invalid peer certificate"), "{said}");
    assert_eq!(receiver.requests().len(), 1);
}
