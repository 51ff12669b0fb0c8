//! `doorward join` and `doorward renew` on Windows.

use std::fs;

use serde_json::Value;

use crate::common::process::{run, run_with_input};
use crate::home::Home;
use crate::house::{House, RENEW, config};
use crate::wine::Windows;

#[test]
fn device_joins_connects_renews_and_leaves() {
    let home = Home::with_authorities();
    let nas = crate::common::backend::Backend::echo();
    fs::write(home.path("doorward.toml"), config(&home, &nas, "")).unwrap();
    let made = home.ca(&["device", "alice-laptop", "--format", "json"]).success();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let house = House::at(home, "");
    let windows = Windows::new();
    let given = house.home.path("devices/alice-laptop.doorward");
    let given = given.to_str().unwrap();

    let wrong = run_with_input(&mut windows.doorward(&["join", given, "--as", "home"]), b"wrong\n");
    assert_eq!(wrong.status.code(), Some(2), "{wrong}");
    assert!(wrong.stderr.contains("wrong password; nothing was written"), "{wrong}");
    let password = format!("{}\r\n", made["password"].as_str().unwrap());
    let joined = run_with_input(&mut windows.doorward(&["join", given, "--as", "home"]), password.as_bytes()).success();
    assert!(joined.stderr.contains("The key is in C:\\users\\"), "{joined}");
    let text = fs::read_to_string(windows.home("home")).unwrap();
    assert!(text.contains("BEGIN PRIVATE KEY") && text.contains(&format!("renewal = \"{RENEW}\"")), "{text}");
    let listed = run(&mut windows.doorward(&["join", "--list"])).success();
    assert!(listed.text().starts_with("home  alice-laptop"), "{listed}");

    // The gate of a test has no name and no port that devices know.
    let port = text.lines().find(|line| line.starts_with("port = ")).unwrap();
    let address = house.gate.address();
    let here = format!("address = \"{}\"\nport = {}", address.ip(), address.port());
    fs::write(windows.home("home"), text.replace(port, &here)).unwrap();
    let connect = || run_with_input(&mut windows.doorward(&["connect", "nas"]), b"hello").success().text();
    assert_eq!(connect(), "hello");

    let renew = |arguments: &[&str]| run(windows.doorward(&["renew"]).args(arguments));
    let waits = renew(&["--new-key"]);
    assert_eq!(waits.status.code(), Some(14), "{waits}");
    assert!(waits.stderr.contains("doorward ca approve alice-laptop"), "{waits}");
    let next = windows.home("home").with_file_name("home.next-key");
    assert!(next.exists());
    house.approve_key("alice-laptop");
    let renewed = renew(&[]).success();
    assert!(renewed.stderr.contains("The certificate of alice-laptop for home is renewed"), "{renewed}");
    let after = fs::read_to_string(windows.home("home")).unwrap();
    assert!(after.contains(&here) && after != text && !next.exists(), "{after}");
    assert_eq!(connect(), "hello");

    run(&mut windows.doorward(&["join", "--undo", "home"])).success();
    assert_eq!(fs::read_dir(windows.home("home").parent().unwrap()).unwrap().count(), 0);
}

#[test]
fn ssh_is_told_a_line_that_cmd_and_a_shell_of_unix_take() {
    let scene = crate::scene::Scene::with("ssh", "127.0.0.1:22".parse().unwrap());
    let windows = Windows::new();
    let file = scene.file();
    run(&mut windows.doorward(&["join", file.to_str().unwrap(), "--ssh"])).success();
    let written = fs::read_to_string(windows.profile(".ssh/doorward_config")).unwrap();
    let line = written.lines().find_map(|line| line.trim().strip_prefix("ProxyCommand ")).unwrap();
    let program = line.strip_suffix(" connect %h").unwrap().trim_matches('"');
    assert!(program.ends_with("/doorward.exe") && !program.contains('\\'), "{line}");
    assert_eq!(fs::read_to_string(windows.profile(".ssh/config")).unwrap(), "Include ~/.ssh/doorward_config\n");
    run(&mut windows.doorward(&["join", "--no-ssh"])).success();
    assert!(!windows.profile(".ssh/config").exists());
}
