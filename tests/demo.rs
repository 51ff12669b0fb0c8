//! `doorward demo` after a first build: its output, the commands to try, and Ctrl-C.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "common/mod.rs"]
mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use common::DEADLINE;
use common::process::{Finished, run, tool, wait_until};

/// The running demo, with a folder for temporary files of its own.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    temporary: tempfile::TempDir,
}

impl Demo {
    fn start() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_doorward"))
            .arg("demo")
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines, temporary }
    }

    /// What it says up to and including the first line that ends the story.
    #[track_caller]
    fn story(&self, is_end: impl Fn(&str) -> bool) -> Vec<String> {
        let mut story: Vec<String> = Vec::new();
        while !story.last().is_some_and(|line| is_end(line)) {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => story.push(line),
                Err(error) => panic!("{error} after\n{}", story.join("\n")),
            }
        }
        story
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Only a test that has failed leaves it running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command line exactly as the demo prints it.
#[track_caller]
fn try_line(line: &str) -> Finished {
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("curl"), "{line}");
    run(tool("curl", "curl").args(words))
}

#[test]
fn demo_admits_refuses_can_be_tried_and_leaves_no_files() {
    let mut demo = Demo::start();
    let story = demo.story(|line| line.trim_start().starts_with("doorward init "));
    let text = story.join("\n");

    // An admitted client and three refused ones, each with its log line.
    let after = |heading: &str| {
        let from =
            story.iter().position(|line| line.starts_with(heading)).unwrap_or_else(|| panic!("{heading}\n{text}"));
        let section: Vec<&str> = story[from..].iter().map(String::as_str).take_while(|line| !line.is_empty()).collect();
        section.join("\n")
    };
    let admitted = after("3. ");
    assert!(admitted.contains("It got the page: Hello from the NAS."), "{text}");
    assert!(admitted.contains(" closed 127.0.0.1:") && admitted.contains("certificate=\"alice-phone\""), "{text}");
    for (heading, verdict) in
        [("4. ", "certificate/required"), ("5. ", "certificate/unknown_ca"), ("6. ", "client_hello/not_tls")]
    {
        let refused = after(heading);
        assert!(refused.contains("gate | ") && refused.contains(verdict), "{verdict} under {heading}\n{text}");
        assert!(refused.contains("   Refused: "), "{heading}\n{text}");
    }
    // The metrics agree.
    let counters = after("7. ");
    for counter in [
        r#"doorward_connections_accepted_total{listener="public"} 4"#,
        r#"doorward_connections_closed_total{route="nas",reason="backend_closed"} 1"#,
        r#"doorward_connections_rejected_total{listener="public",route="nas",stage="certificate",reason="required"} 1"#,
        r#"doorward_connections_rejected_total{listener="public",route="none",stage="client_hello",reason="not_tls"} 1"#,
    ] {
        assert!(counters.contains(counter), "{counter}\n{text}");
    }

    // The two commands to try: with the certificate and without.
    let curls: Vec<&str> = story.iter().map(|line| line.trim()).filter(|line| line.starts_with("curl ")).collect();
    let [with, without] = curls[..] else { panic!("{text}") };
    assert_eq!(try_line(with).success().text(), "Hello from the NAS.\n");
    let refused = try_line(without).failure();
    assert_eq!(refused.text(), "", "{refused}");
    assert!(refused.stderr.contains("alert certificate required"), "{refused}");

    // The metrics at the printed URL count both.
    let url = text.split_whitespace().find(|word| word.ends_with("/metrics") && counters.contains(word)).unwrap();
    wait_until("both are counted", || {
        let metrics = try_line(&format!("curl --silent --show-error {url}")).success().text();
        let accepted = metrics.contains("doorward_connections_accepted_total{listener=\"public\"} 6\n");
        (accepted && metrics.contains("stage=\"certificate\",reason=\"required\"} 2\n")).then_some(())
    });

    // The page at the printed URL.
    let page = after("8. ");
    let url = page.split_whitespace().find(|word| word.starts_with("http://127.0.0.1:")).unwrap();
    let shown = try_line(&format!("curl --silent --show-error {url}")).success().text();
    assert!(shown.contains("id=\"verdict\""), "{shown}");

    // Ctrl-C.
    assert_eq!(std::fs::read_dir(demo.temporary.path()).unwrap().count(), 1, "the demo's folder");
    kill_process(Pid::from_child(&demo.child), Signal::INT).unwrap();
    let status = wait_until("the demo has ended", || demo.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{status}");
    demo.story(|line| line == "Stopped. The files of the demo were removed.");
    assert_eq!(std::fs::read_dir(demo.temporary.path()).unwrap().count(), 0, "files were left behind");
    let mut stderr = String::new();
    demo.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "");
}
