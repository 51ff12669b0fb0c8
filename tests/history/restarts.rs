//! What is known after a stop and after a kill.

use rustix::process::Signal;

use super::*;

#[test]
fn restart_keeps_what_devices_did() {
    let (pki, backend, home) = (TestPki::new(), Backend::echo(), tempfile::tempdir().unwrap());
    let folder = home.path().join("history");
    let text = config(&pki, &backend, &folder);
    for round in 1..=3 {
        let gate = Gate::start(&text);
        visit(&gate, &pki, "alice-phone");
        visit(&gate, &pki, "bob-laptop");
        gate.settled();
        let visits = told(&gate);
        let alice: Vec<_> = visits.iter().filter(|visit| visit["device"] == "alice-phone").collect();
        let [alice] = alice[..] else { panic!("{visits:?}") };
        assert_eq!((&alice["route"], &alice["address"]), (&"nas".into(), &"127.0.0.1".into()), "{alice}");
        assert_eq!((alice["connections"].as_u64(), alice["open"].as_u64()), (Some(round), Some(0)), "{alice}");
        assert!(alice["bytes_to_client"].as_u64().unwrap() >= 4 * round, "{alice}");
        assert_eq!(visits.len(), 2, "{visits:?}");
        let status = gate.ask(&["status", "--format", "json"]).success().text();
        assert!(!status.contains("history_error"), "{status}");
    }
    // Without a gate, the files are read.
    let file = home.path().join("doorward.toml");
    std::fs::write(&file, &text).unwrap();
    let shown = without_gate(&file, &["--device", "ALICE-phone"]);
    assert!(shown.starts_with("device       route  from       since"), "{shown}");
    assert!(shown.contains("alice-phone  nas    127.0.0.1  ") && !shown.contains("bob-laptop"), "{shown}");
    assert!(shown.contains("Times are local (UTC)"), "{shown}");
    assert_eq!(without_gate(&file, &["--device", "nothing"]), "No device was admitted in this time.\n");
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for entry in std::fs::read_dir(&folder).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[test]
fn default_folder_is_beside_the_configuration() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let gate = Gate::start(&House::new(&pki).route("nas", backend.address()).config());
    visit(&gate, &pki, "alice-phone");
    wait_written(&gate.folder().join("history"), "alice-phone", 1);
}

#[test]
fn kill_at_any_moment_damages_nothing() {
    let (pki, backend, home) = (TestPki::new(), Backend::echo(), tempfile::tempdir().unwrap());
    let folder = home.path().join("history");
    let text = config(&pki, &backend, &folder);
    let mut gate = Gate::start(&text);
    visit(&gate, &pki, "alice-phone");
    wait_written(&folder, "alice-phone", 1);
    gate.signal(Signal::KILL);
    gate.wait_for_end();
    // While files are written anew at the start, and later.
    for connections in [0, 0, 1, 3] {
        let mut gate = Gate::start(&text);
        for _ in 0..connections {
            visit(&gate, &pki, "bob-laptop");
        }
        gate.signal(Signal::KILL);
        gate.wait_for_end();
    }
    let gate = Gate::start(&text);
    let visits = told(&gate);
    let alice = visits.iter().find(|visit| visit["device"] == "alice-phone").unwrap();
    assert_eq!(alice["connections"], 1, "{alice}");
    assert!(gate.lines().iter().all(|line| line["event"] != "history"), "{:?}", gate.lines());
    visit(&gate, &pki, "alice-phone");
    wait_written(&folder, "alice-phone", 2);
}

#[test]
fn kill_keeps_most_of_what_an_open_session_has_moved() {
    const SENT: usize = 3 << 20;
    let (pki, backend, home) = (TestPki::new(), Backend::echo(), tempfile::tempdir().unwrap());
    let folder = home.path().join("history");
    let mut gate = Gate::start(&config(&pki, &backend, &folder));
    let session = Client::admitted(gate.address(), &client(&pki, Some(&pki.client("alice-phone"))), NAS).unwrap();
    let moved = |visits: &[Value]| {
        let [visit] = visits else { panic!("{visits:?}") };
        ["bytes_to_backend", "bytes_to_client"].map(|key| visit[key].as_u64().unwrap())
    };
    let mut piece = vec![7; SENT / 48];
    for _ in 0..48 {
        session.send(&piece).unwrap();
        session.read_exact(&mut piece).unwrap();
    }
    let sent = session_bytes(&gate, "bytes_to_backend");
    let noted = || written(&folder).first().map_or(0, |visit| visit.to_backend);
    // A look in the middle leaves less than a megabyte each way for the next minute.
    let expected = (1 << 20)..=sent;
    wait_until("what it has moved is in the files", || expected.contains(&noted()).then_some(()));
    let told = told(&gate);
    assert!(expected.contains(&moved(&told)[0]) && told[0]["open"] == 1, "{told:?}");
    // What is noted of an open session counts once.
    let page = gate.get("/").1;
    let total = doorward::model::text::bytes(sent + session_bytes(&gate, "bytes_to_client"));
    assert_eq!(page.matches(&total).count(), 2, "{total} of the connection and of the day: {page}");
    // In one unit everywhere.
    let sessions = gate.ask(&["sessions"]).success().text();
    assert!(sessions.contains(&doorward::model::text::bytes(sent)), "{sessions}");
    let history = gate.ask(&["history"]).success().text();
    assert!(history.contains(" MiB") && !history.contains(" MB"), "{history}");
    gate.signal(Signal::KILL);
    gate.wait_for_end();
    assert!(expected.contains(&noted()), "{:?}", written(&folder));
    drop(session);
}

/// What the one open session has moved.
#[track_caller]
fn session_bytes(gate: &Gate, key: &str) -> u64 {
    let finished = gate.ask(&["sessions", "--format", "json"]).success();
    let answer: Value = serde_json::from_slice(&finished.stdout).unwrap();
    answer["sessions"][0][key].as_u64().unwrap()
}

#[test]
fn history_that_is_off_is_in_memory_only() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    // Only the signal reloads it: it is the reply to that which is looked at.
    let text = format!("watch = \"off\"\n{}", House::new(&pki).route("nas", backend.address()).config());
    let gate = Gate::start(&format!("{text}\n[control]\nsocket = \"control.sock\"\n[history]\nfolder = \"off\"\n"));
    visit(&gate, &pki, "alice-phone");
    gate.settled();
    assert_eq!(told(&gate).len(), 1);
    assert!(!gate.folder().join("history").exists());
    // Another folder takes effect with the next start, other days at once.
    let line = gate.reload(&format!(
        "{text}\n[control]\nsocket = \"control.sock\"\n[history]\nfolder = \"elsewhere\"\ndays = 7\n"
    ));
    assert_eq!(line["after_restart"], serde_json::json!(["history.folder"]), "{line}");
}
