//! A disk that does not take the history.

use std::fs;
use std::io::Write as _;

use super::*;
use crate::common::process::tool;

/// Waits for a line about the history that has an error, or none.
#[track_caller]
fn wait_told(gate: &Gate, error: Option<&str>) {
    gate.wait_for_line("the state of the history", |line| {
        let told = line["error"].as_str();
        line["event"] == "history"
            && error.map_or_else(|| told.is_none(), |error| told.is_some_and(|told| told.contains(error)))
    });
}

#[test]
fn full_disk_is_told_once_and_costs_no_connection() {
    let (pki, backend, home) = (TestPki::new(), Backend::echo(), tempfile::tempdir().unwrap());
    let folder = home.path().join("history");
    fs::create_dir(&folder).unwrap();
    let gate = Gate::start_with(&config(&pki, &backend, &folder), |command| {
        let mut unshare = tool("unshare", "util-linux");
        let script = "mount --make-rprivate /; mount -t tmpfs -o size=64k,mode=700 none \"$1\"; shift; exec \"$@\"";
        unshare.args(["--mount", "sh", "-euc", script, "sh"]).arg(&folder);
        unshare.arg(command.get_program()).args(command.get_args());
        *command = unshare;
    });
    // As the gate sees it.
    let inside = Path::new(&format!("/proc/{}/root", gate.pid())).join(folder.strip_prefix("/").unwrap());
    visit(&gate, &pki, "alice-phone");
    wait_written(&inside, "alice-phone", 1);
    let filler = inside.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
    drop(file);
    // More than what is left in the last block of the file.
    for n in 0..40 {
        visit(&gate, &pki, &format!("a-device-with-a-long-name-{n}"));
    }
    wait_told(&gate, Some("No space left on device"));
    let status = gate.ask(&["status"]).success().text();
    assert!(status.contains("The history has not been written since"), "{status}");
    visit(&gate, &pki, "bob-laptop");
    gate.settled();
    fs::remove_file(&filler).unwrap();
    wait_told(&gate, None);
    // All of it is known, and in the files.
    wait_written(&inside, "bob-laptop", 1);
    assert_eq!(written(&inside).len(), 42);
    let told = gate.lines().iter().filter(|line| line["event"] == "history").count();
    assert_eq!(told, 2, "{:?}", gate.lines());
    assert!(!gate.ask(&["status"]).success().text().contains("history"), "it is over");
}

#[test]
fn folder_that_cannot_be_made_is_told_and_the_gate_serves() {
    let (pki, backend, home) = (TestPki::new(), Backend::echo(), tempfile::tempdir().unwrap());
    let gate = Gate::start(&config(&pki, &backend, &home.path().join("missing/history")));
    wait_told(&gate, Some("cannot make the folder"));
    visit(&gate, &pki, "alice-phone");
    gate.settled();
    assert_eq!(told(&gate).len(), 1);
}

#[test]
fn read_only_file_system_is_told_once_with_its_remedy() {
    let (pki, backend, home) = (TestPki::new(), Backend::echo(), tempfile::tempdir().unwrap());
    let house = House::new(&pki).route("nas", backend.address()).config();
    // As in a container without a folder for it.
    let gate = Gate::start_with(&format!("{house}\n[control]\nsocket = \"control.sock\"\n"), |command| {
        let mut unshare = tool("unshare", "util-linux");
        let script = "mount --make-rprivate /; mount -t tmpfs -o ro none \"$1\"; shift; exec \"$@\"";
        unshare.args(["--mount", "sh", "-euc", script, "sh"]).arg(home.path()).env("STATE_DIRECTORY", home.path());
        unshare.arg(command.get_program()).args(command.get_args());
        *command = unshare;
    });
    let folder = home.path().join("history").display().to_string();
    wait_told(&gate, Some(&format!("cannot make the folder {folder} for the history: Read-only file system")));
    visit(&gate, &pki, "alice-phone");
    gate.settled();
    assert_eq!(told(&gate).len(), 1);
    let status = gate.ask(&["status"]).success().text();
    let remedy = "in a container, mount a folder of the gate's user there";
    assert!(status.starts_with("The history has not been written since today ") && status.contains(remedy), "{status}");
    let lines: Vec<_> = gate.lines().into_iter().filter(|line| line["event"] == "history").collect();
    assert!(lines.len() == 1 && lines[0]["error"].as_str().unwrap().contains(remedy), "{lines:?}");
}

#[test]
fn second_gate_with_the_same_folder_leaves_it_alone() {
    let (pki, backend, home) = (TestPki::new(), Backend::echo(), tempfile::tempdir().unwrap());
    let folder = home.path().join("history");
    let text = config(&pki, &backend, &folder);
    let first = Gate::start(&text);
    let second = Gate::start(&text);
    wait_told(&second, Some("another gate writes its history to"));
    visit(&second, &pki, "bob-laptop");
    visit(&first, &pki, "alice-phone");
    wait_written(&folder, "alice-phone", 1);
    assert_eq!(written(&folder).len(), 1);
    // When the first one has ended, the second one has the folder.
    drop(first);
    wait_told(&second, None);
    wait_written(&folder, "bob-laptop", 1);
}
