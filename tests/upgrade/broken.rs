//! A new process that does not take over leaves the old one serving.

use tokio::time::Instant;

use crate::client::{Client, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::home::House;
use crate::scene::{NAS, ask, config, replace, upgrade, wait_for_earlier, with_own_program};

/// Has an upgrade fail, and checks that the command, the log and `doorward status` say why.
#[track_caller]
fn fails(gate: &Gate, words: &[&str]) {
    let failed = gate.ask(&["upgrade"]).failure();
    assert_eq!(failed.status.code(), Some(4), "{failed}");
    let line = gate.wait_for_line("the failed upgrade", |line| {
        line["event"] == "upgrade_failed" && words.iter().all(|words| line["error"].as_str().unwrap().contains(words))
    });
    let status = ask(gate, &["status"]);
    assert_eq!(status["upgrade_error"], line["error"]);
    assert_eq!(status["pid"], gate.pid());
    for words in words {
        assert!(failed.stderr.contains(words), "{words:?} is missing: {failed}");
    }
}

#[test]
fn broken_program_leaves_the_old_process_serving() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let device = client(&pki, Some(&pki.client("alice-phone")));
    let (gate, _folder, program) = with_own_program(&config(&House::new(&pki).route("nas", backend.address())));
    let session = Client::admitted(gate.address(), &device, NAS).unwrap();
    let serves = || {
        session.ping().unwrap();
        Client::admitted(gate.address(), &device, NAS).unwrap();
    };
    let good = program.with_extension("good");
    std::fs::rename(&program, &good).unwrap();
    fails(&gate, &["No such file or directory"]);
    serves();
    replace(&program, "echo noise >&2; echo 'error: no such library' >&2; exit 7");
    fails(&gate, &["exit status: 7", "error: no such library"]);
    serves();
    replace(&program, "kill -SEGV $$");
    fails(&gate, &["signal: 11"]);
    serves();
    // It closes the channel, and lives on.
    replace(&program, "exec </dev/null; echo 'error: lost' >&2; exec sleep 1000");
    fails(&gate, &["error: lost", "killed"]);
    serves();
    // Another program that answers nothing.
    replace(&program, "echo 'error: asleep' >&2; exec sleep 1000");
    let begun = Instant::now();
    fails(&gate, &["not ready within 30 seconds", "killed", "asleep"]);
    assert!(begun.elapsed().as_secs() < 45);
    serves();

    // A good one again.
    std::fs::rename(&good, &program).unwrap();
    upgrade(&gate);
    assert!(ask(&gate, &["status"])["upgrade_error"].is_null());
    serves();
    drop(session);
    wait_for_earlier(&gate, 0);
    gate.end_after_upgrades();
}

#[test]
fn broken_configuration_leaves_the_old_process_serving() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let device = client(&pki, Some(&pki.client("alice-phone")));
    let good = config(&House::new(&pki).route("nas", backend.address()));
    let gate = Gate::start(&good);
    let file = gate.folder().join("doorward.toml");
    std::fs::write(&file, format!("nonsense = 1\n{good}")).unwrap();
    fails(&gate, &["exit status: 3", "nonsense"]);
    Client::admitted(gate.address(), &device, NAS).unwrap();
    std::fs::write(&file, good).unwrap();
    upgrade(&gate);
    Client::admitted(gate.address(), &device, NAS).unwrap();
    gate.end_after_upgrades();
}
