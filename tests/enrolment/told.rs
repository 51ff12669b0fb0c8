//! What people are told when there is nothing to hand over, or nobody came: each word of advice is followed.

use std::path::Path;
use std::process::Command;

use crate::common::process::run;
use crate::home::Home;
use crate::shared::share;

fn doorward(at: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.current_dir(at).args(words);
    command
}

#[test]
fn of_two_devices_neither_takes_a_file_of_the_other() {
    let home = Home::new();
    let pki = home.folder().join("pki");
    let device = |name: &str, more: &[&str]| {
        let mut device = doorward(&home.path(""), &["ca", "device", name, "--folder"]);
        device.arg(&pki).args(more);
        run(&mut device)
    };
    for (first, second) in [("a-key", "a"), ("b", "b-key"), ("c-compat", "c"), ("d", "D-Compat")] {
        device(first, &[]).success();
        let shown = device(second, &["--force"]).failure();
        assert_eq!(shown.status.code(), Some(2), "{shown}");
        assert!(shown.stderr.contains(&format!("files of {first}")), "{shown}");
    }
    assert!(std::fs::read_to_string(home.folder().join("devices/a-key.pem")).unwrap().contains("BEGIN CERTIFICATE"));
}

#[test]
fn who_reads_along_may_leave() {
    let home = Home::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = share(&home);
    command.args(["--address", "127.0.0.1", "--expires", "1s", "--format", "json"]);
    let status = command.stdout(std::process::Stdio::null()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(9));
}
